"""The overview's part on evaluations: the last one against the first, all of them, two of them paired.

Reads dashboard.estimates and store.figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard.boundary import counted
from dashboard.choice import choose
from dashboard.counting import once_a_request
from dashboard.estimates import BatchFigures, Comparison, compare_batches, default_pair, estimate_batches
from dashboard.forest import reward_rows
from dashboard.format import interval, percent, plural, points
from dashboard.links import TRAJECTORIES, address
from dashboard.text import escape, escape_markdown, link, show, soft, table
from dashboard.theme import change_of_metric
from reward.intervals import PairedInterval
from store.database import Log
from store.figures import Counts, Slice, log_counts, rates_by, sum_counts, verdict_cube
from store.vocabulary import Origin

Shares = tuple[tuple[str, float | None], ...]
"""By batch."""


def show_headline(log: Log) -> None:
    batches = counted(log, estimate_batches)
    counts = counted(log, log_counts)
    total = sum(counted(log, rates_by, by=Slice.ORIGIN).values(), start=Counts())
    pair = default_pair(batches)
    comparison = counted(log, compare_batches, before=pair[0], after=pair[1]) if pair else None
    with st.grid(columns=4, min_column_width=210, gap="small", key="headline"):
        if comparison:
            since = f"since {escape_markdown(comparison.before_version)}"
            st.metric(
                "Held-out checklist reward",
                f"{comparison.reward.mean:.3f}",
                points_of(comparison.difference),
                delta_description=since,
                help=(
                    f"Mean trajectory reward (equation 4) of {escape_markdown(comparison.after_batch)}, over the "
                    f"{comparison.pairs} scenarios that were also judged in "
                    f"{escape_markdown(comparison.before_batch)}, and the paired difference with its 95 % bootstrap "
                    "interval."
                ),
                border=True,
                **change_of_metric(comparison.difference.low, comparison.difference.high),
            )
            st.metric(
                "Fully passed dialogues",
                percent(comparison.passed.mean),
                points_of(comparison.passed_difference),
                delta_description=since,
                help="Share of these dialogues in which every item of every turn passed.",
                border=True,
                **change_of_metric(comparison.passed_difference.low, comparison.passed_difference.high),
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

    if comparison:
        show(soft(standing_note(comparison, unscored_shares(log))))


def points_of(difference: PairedInterval) -> str:
    return points(difference.mean_difference, difference.low, difference.high)


def unscored_shares(log: Log) -> Mapping[str, float | None]:
    """Of the verdicts on each evaluation batch; summed once in a request."""

    def shares() -> Shares:
        cells = [cell for cell in counted(log, verdict_cube) if cell.origin == Origin.EVALUATION]
        return tuple(
            (batch, None if counts.coverage is None else 1 - counts.coverage)
            for batch, counts in sum_counts(cells, "batch").items()
        )

    return dict(once_a_request(("unscored shares", log.url), shares))


def standing_note(comparison: Comparison, unscored: Mapping[str, float | None]) -> str:
    """What the last evaluation's figures stand on: their intervals, the pairs that were judged, the UNSCORED share."""
    before, after, both = comparison.before_batch, comparison.after_batch, comparison.pairs + comparison.unjudged
    figures = f"reward {interval(comparison.reward)}, fully passed {interval(comparison.passed, as_percent=True)}"
    judged = f"{comparison.pairs:,} of the {plural(both, 'scenario')} that it and {before} played"
    left = f"{comparison.unjudged:,} left out as not judged"
    shares = f"{percent(unscored.get(before), 1)} → {percent(unscored.get(after), 1)}"
    return (
        f"{after}: {figures}, over {judged} ({percent(comparison.pairs / both)}), {left} · UNSCORED verdicts: {shares}"
    )


def show_last_batch(batches: Sequence[BatchFigures]) -> None:
    """The same two figures where there is nothing to compare with yet."""
    judged = [batch for batch in batches if batch.judged]
    last = judged[-1] if judged else None
    of = "no evaluation is judged yet"
    if last:
        of = f"{escape_markdown(last.batch)}, {last.judged:,} of {plural(last.dialogues, 'dialogue')} judged"
    grey: dict[str, Any] = {"delta_color": "off", "delta_arrow": "off", "border": True}
    st.metric("Held-out checklist reward", interval(last.reward if last else None), of, **grey)
    st.metric("Fully passed dialogues", interval(last.passed if last else None, as_percent=True), of, **grey)


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
    unscored = unscored_shares(log)
    rows = [
        (
            link(batch.batch, address(TRAJECTORIES, batch=batch.batch)),
            escape(batch.version),
            str(batch.dialogues),
            interval(batch.reward),
            interval(batch.passed, as_percent=True),
            percent(batch.judged / batch.dialogues),
            percent(unscored.get(batch.batch), 1),
        )
        for batch in batches
    ]
    columns = ("batch", "version", "dialogues", "mean reward", "fully passed", "judged", "UNSCORED")
    left, right = st.columns([5, 4], gap="large")
    with left:
        show(table(columns, rows, numeric=(2, 3, 4, 5, 6)))
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
    left = f" · {plural(comparison.unjudged, 'pair')} left out as not judged" if comparison.unjudged else ""
    text = f"{points_of(difference)} over {plural(comparison.pairs, 'scenario')}"
    show(f"<b>{escape(text)}</b> {soft(f'paired, 95 % bootstrap{left}')}")
    show(reward_rows(comparison.by_domain, before))
