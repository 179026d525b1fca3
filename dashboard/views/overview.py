"""Overview: what is live, how the checklist pass rates and rewards moved by version, and which items fail most.

Reads store.figures; every filter stands in the address.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import streamlit as st

from dashboard import charts
from dashboard.boundary import counted, run_page
from dashboard.estimates import BatchFigures, Comparison, compare_batches, default_pair, estimate_batches, rate_points
from dashboard.forest import rate_rows, reward_rows
from dashboard.format import ago, interval, moment, percent, plural
from dashboard.links import ITEMS, TRAJECTORIES, address
from dashboard.text import escape, link, show, show_empty, soft, state_badge, table
from store.database import Log
from store.figures import (
    Counts,
    LogCounts,
    VerdictCell,
    VersionFigures,
    facets,
    item_figures,
    log_counts,
    sum_counts,
    verdict_cube,
    version_figures,
)
from store.settings import Settings
from store.vocabulary import VersionState

ALL = "all"


def show_overview(log: Log, settings: Settings) -> None:
    counts = counted(log, log_counts)
    versions = version_figures(log)
    if not counts.trajectories and not versions:
        show_empty("The log is empty", "Play the demo once: it fills the log from start to end.", "make demo")
        return
    show_live(versions)
    batches = counted(log, estimate_batches)
    pair = default_pair(batches)
    comparison = counted(log, compare_batches, before=pair[0], after=pair[1]) if pair else None
    cells = counted(log, verdict_cube)
    show_headline(comparison, batches, counts, cells)
    if not cells:
        show_empty("Nothing is judged yet", "Verdicts appear here as soon as a batch of dialogues is judged.")
        return
    show_rates(log, cells)
    if batches:
        show_batches(log, batches, pair)
    show_worst_items(log)


def show_live(versions: Sequence[VersionFigures]) -> None:
    live = [version for version in versions if version.state == VersionState.LIVE]
    if not live:
        show(soft("No version is live yet: the cold start makes the first one."))
        return
    version = live[0]
    parent = f"from {version.parent}" if version.parent else "cold start"
    since = f"since {moment(version.since)} UTC ({ago(version.since, datetime.now(UTC))})"
    show(
        f'<div class="cl-row">{state_badge(version.state)}<b>{escape(version.name)}</b>'
        f"{soft(since)}{soft('· ' + parent)}{soft('· ' + version.reason) if version.reason else ''}</div>"
    )


def show_headline(
    comparison: Comparison | None,
    batches: Sequence[BatchFigures],
    counts: LogCounts,
    cells: Sequence[VerdictCell],
) -> None:
    total = sum((cell.counts for cell in cells), start=Counts())
    with st.grid(columns=4, min_column_width=210, gap="small", key="headline"):
        if comparison:
            difference = comparison.difference
            st.metric(
                "Held-out checklist reward",
                f"{comparison.after_mean:.3f}",
                f"{100 * difference.mean_difference:+.1f} points since {comparison.before_version}",
                help=(
                    f"Mean trajectory reward (equation 4) of {comparison.after_batch}, over the {comparison.pairs} "
                    f"scenarios that were also judged in {comparison.before_batch}. 95 % bootstrap interval of the "
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
    of = f"{last.batch}, {plural(last.judged, 'dialogue')}" if last else "no evaluation is judged yet"
    st.metric("Held-out checklist reward", reward, of, delta_color="off", delta_arrow="off", border=True)
    passed = percent(last.passed.mean) if last and last.passed else "–"
    st.metric("Fully passed dialogues", passed, of, delta_color="off", delta_arrow="off", border=True)


def show_rates(log: Log, cells: Sequence[VerdictCell]) -> None:
    st.subheader("Checklist pass rate", anchor=False, help="PASS ÷ (PASS + FAIL), with 95 % Wilson intervals.")
    known = counted(log, facets)
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        origins = [ALL, *sorted({cell.origin for cell in cells})]
        start = "evaluation" if "evaluation" in origins else ALL
        origin = st.segmented_control(
            "Origin", origins, default=start, required=True, key="o_origin", bind="query-params"
        )
        present = {cell.batch for cell in cells}
        batches = [ALL, *(batch for batch in known.batches if batch in present)]
        batch = st.selectbox("Batch", batches, key="o_batch", bind="query-params", width=230)
        domains = [ALL, *sorted({cell.domain for cell in cells})]
        domain = st.selectbox("Domain", domains, key="o_domain", bind="query-params", width=190)
    kept = [
        cell
        for cell in cells
        if origin in (ALL, cell.origin) and batch in (ALL, cell.batch) and domain in (ALL, cell.domain)
    ]
    if not kept:
        show_empty("No verdicts match", "Widen the filters above.")
        return
    any_origin = [cell for cell in cells if batch in (ALL, cell.batch) and domain in (ALL, cell.domain)]
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.markdown("**By version**")
        st.altair_chart(charts.rates_over_versions(rate_points(sum_counts(kept, "version"))))
    with right:
        names = {cell.domain: cell.domain if cell.seen else f"{cell.domain} (unseen)" for cell in kept}
        by_domain = {names[name]: counts for name, counts in sum_counts(kept, "domain").items()}
        st.markdown("**By domain**")
        show(rate_rows(rate_points(by_domain)))
        st.markdown("**By kind of item**")
        show(rate_rows(rate_points(sum_counts(kept, "kind"), worst_first=True)))
        st.markdown("**By origin**")
        show(rate_rows(rate_points(sum_counts(any_origin, "origin"))))


def show_batches(log: Log, batches: Sequence[BatchFigures], pair: tuple[str, str] | None) -> None:
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
        before = st.selectbox("Compare", names, names.index(pair[0]), key="before", bind="query-params", width=170)
        after = st.selectbox("with", names, names.index(pair[1]), key="after", bind="query-params", width=170)
    comparison = counted(log, compare_batches, before=before, after=after)
    if comparison is None:
        show(soft("These two batches share no judged scenario."))
        return
    difference = comparison.difference
    low, high = 100 * difference.low, 100 * difference.high
    text = f"{100 * difference.mean_difference:+.1f} points [{low:+.1f}, {high:+.1f}] over {comparison.pairs} scenarios"
    show(f"<b>{escape(text)}</b> {soft('paired, 95 % bootstrap')}")
    show(reward_rows(comparison.by_domain, before))


def show_worst_items(log: Log) -> None:
    items = counted(log, item_figures, limit=8)
    st.subheader("Items that fail most", anchor=False)
    rows = [
        (
            escape(item.question),
            escape(item.domain),
            escape(item.kind),
            percent(item.counts.rate),
            f"{item.counts.judged:,}",
            percent(item.counts.coverage),
            link("failing dialogues", address(TRAJECTORIES, item=item.item_id, outcome="FAIL")),
        )
        for item in items
    ]
    columns = ("question", "domain", "kind", "pass rate", "verdicts", "judged", "")
    show(table(columns, rows, numeric=(3, 4, 5)))
    st.page_link(ITEMS.target, label="All items", icon=":material/arrow_forward:")


run_page("Overview", show_overview)
