"""The overview's part on evaluations: the last one against the first, all of them, two of them paired.

Reads dashboard.estimates and store.figures.
"""

from collections.abc import Sequence

import streamlit as st

from dashboard.boundary import counted
from dashboard.choice import choose
from dashboard.estimates import BatchFigures, compare_batches, default_pair, estimate_batches
from dashboard.forest import reward_rows
from dashboard.format import interval, percent, plural
from dashboard.links import TRAJECTORIES, address
from dashboard.text import escape, escape_markdown, link, show, soft, table
from store.database import Log
from store.figures import Counts, Slice, log_counts, rates_by


def show_headline(log: Log) -> None:
    batches = counted(log, estimate_batches)
    counts = counted(log, log_counts)
    total = sum(counted(log, rates_by, by=Slice.ORIGIN).values(), start=Counts())
    pair = default_pair(batches)
    comparison = counted(log, compare_batches, before=pair[0], after=pair[1]) if pair else None
    with st.grid(columns=4, min_column_width=210, gap="small", key="headline"):
        if comparison:
            difference = comparison.difference
            st.metric(
                "Held-out checklist reward",
                f"{comparison.after_mean:.3f}",
                f"{100 * difference.mean_difference:+.1f} points since {escape_markdown(comparison.before_version)}",
                help=(
                    f"Mean trajectory reward (equation 4) of {escape_markdown(comparison.after_batch)}, over the "
                    f"{comparison.pairs} scenarios that were also judged in "
                    f"{escape_markdown(comparison.before_batch)}. 95 % bootstrap interval of the "
                    f"paired difference: {100 * difference.low:+.1f} to {100 * difference.high:+.1f} points."
                ),
                border=True,
            )
            st.metric(
                "Fully passed dialogues",
                percent(comparison.passed_after),
                f"{100 * (comparison.passed_after - comparison.passed_before):+.1f} points",
                help="Share of these dialogues in which every item of every turn passed.",
                border=True,
            )
        else:
            show_last_batch(batches)
        st.metric(
            "Verdicts",
            f"{total.total:,}",
            f"{percent(total.coverage, 1)} judged" if total.total else None,
            delta_color="off",
            delta_arrow="off",
            help="Every verdict that counts; the rest is UNSCORED: nobody could decide it.",
            border=True,
        )
        st.metric(
            "Dialogues",
            f"{counts.trajectories:,}",
            f"{plural(counts.turns, 'turn')} · {percent(counts.forked / max(counts.steps, 1), 1)} forks",
            delta_color="off",
            delta_arrow="off",
            help="Forks: the share of steps before which a client rewrote history, so that they start a branch.",
            border=True,
        )


def show_last_batch(batches: Sequence[BatchFigures]) -> None:
    """The same two figures where there is nothing to compare with yet."""
    judged = [batch for batch in batches if batch.judged]
    last = judged[-1] if judged else None
    reward = f"{last.reward.mean:.3f}" if last and last.reward else "–"
    of = f"{escape_markdown(last.batch)}, {plural(last.judged, 'dialogue')}" if last else "no evaluation is judged yet"
    st.metric("Held-out checklist reward", reward, of, delta_color="off", delta_arrow="off", border=True)
    passed = percent(last.passed.mean) if last and last.passed else "–"
    st.metric("Fully passed dialogues", passed, of, delta_color="off", delta_arrow="off", border=True)


def show_batches(log: Log) -> None:
    batches = counted(log, estimate_batches)
    if not batches:
        return
    pair = default_pair(batches)
    st.subheader(
        "Evaluations",
        anchor=False,
        help="Mean checklist reward (equation 4) and share of fully passed dialogues, 95 % bootstrap intervals. "
        "Dialogues that could not be judged are excluded, never counted as zero.",
    )
    rows = [
        (
            link(batch.batch, address(TRAJECTORIES, batch=batch.batch)),
            escape(batch.version),
            str(batch.dialogues),
            interval(batch.reward),
            interval(batch.passed, as_percent=True),
            percent(batch.judged / batch.dialogues),
        )
        for batch in batches
    ]
    columns = ("batch", "version", "dialogues", "mean reward", "fully passed", "judged")
    left, right = st.columns([5, 4], gap="large")
    with left:
        show(table(columns, rows, numeric=(2, 3, 4, 5)))
    with right:
        show_comparison(log, batches, pair)


def show_comparison(log: Log, batches: Sequence[BatchFigures], pair: tuple[str, str] | None) -> None:
    names = [batch.batch for batch in batches if batch.judged]
    if pair is None:
        show(soft("Two judged batches over the same scenarios are compared here."))
        return
    with st.container(horizontal=True):
        before = choose("Compare", names, pair[0], key="before", width=170)
        after = choose("with", names, pair[1], key="after", width=170)
    comparison = counted(log, compare_batches, before=before, after=after)
    if comparison is None:
        show(soft("These two batches share no judged scenario."))
        return
    difference = comparison.difference
    low, high = 100 * difference.low, 100 * difference.high
    text = f"{100 * difference.mean_difference:+.1f} points [{low:+.1f}, {high:+.1f}] over {comparison.pairs} scenarios"
    show(f"<b>{escape(text)}</b> {soft('paired, 95 % bootstrap')}")
    show(reward_rows(comparison.by_domain, before))
