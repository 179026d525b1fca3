"""Overview: what is live, what to look at, how the checklist pass rates moved, what goes wrong, what ran last night.

Reads store.figures and what reward/ makes of the log; `checkloop overview` prints the same. Every filter stands in the
address. Each section is counted by itself, so that none waits for another.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import streamlit as st

from dashboard.boundary import counted, counted_every, guard, run_page
from dashboard.choice import choose_segment
from dashboard.format import ago, interval, moment, percent
from dashboard.links import ITEMS, REVIEW, TRAJECTORIES, address
from dashboard.overview_evaluations import show_batches, show_headline
from dashboard.overview_evidence import evidence_rows
from dashboard.overview_night import show_night
from dashboard.overview_patterns import show_patterns
from dashboard.overview_rates import show_rates
from dashboard.overview_tables import ALL, alert_rows, coverage_note
from dashboard.text import escape, link, show, show_empty, soft, state_badge, table
from reward.intervals import wilson
from reward.newest_evidence import newest_evidence
from reward.rate_alerts import Alert, find_alerts
from store.coverage import Coverage, scenario_coverage
from store.database import Log
from store.figures import (
    Counts,
    Slice,
    VersionFigures,
    facets,
    is_empty,
    rates_by,
    version_figures,
)
from store.item_figures import ItemFigures, item_figures
from store.objections import ids_called_bad
from store.settings import Settings
from store.vocabulary import VersionState

WORST_ITEMS = 8
CHECKED_EVERY = timedelta(minutes=5)
"""Alerts that come with time alone are looked for so often."""


def show_overview(log: Log, settings: Settings) -> None:
    versions = version_figures(log)
    if not versions and is_empty(log):
        show_empty("The log is empty", "Play the demo once: it fills the log from start to end.", "make demo")
        return
    show_live(versions)
    guard("Newest evidence", lambda: show_evidence(log))
    guard("Alerts", lambda: show_alerts(log, settings))
    guard("Last evaluation", lambda: show_headline(log))
    rates = counted(log, rates_by, by=Slice.ORIGIN)
    if not rates:
        show_empty("Nothing is judged yet", "Verdicts appear here as soon as a batch of dialogues is judged.")
    else:
        chosen = show_filters(log, rates)
        guard("Checklist pass rate", lambda: show_rates(log, chosen))
        guard("What goes wrong", lambda: show_patterns(log, chosen))
        guard("Evaluations", lambda: show_batches(log))
        guard("Items that fail most", lambda: show_worst_items(log))
    guard("What ran last night", lambda: show_night(log))


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


def show_evidence(log: Log) -> None:
    found = counted(log, newest_evidence)
    if found:
        show(evidence_rows(found, datetime.now(UTC)))


def show_alerts(log: Log, settings: Settings) -> None:
    alerts = counted_every(log, CHECKED_EVERY, alerts_now, missed_after_s=settings.worker.missed_after_s)
    if alerts:
        show(alert_rows(alerts))
    else:
        show(soft("✓ Nothing to look at: no rate fell, no judge, job or schedule failed in the last 24 hours."))


def alerts_now(log: Log, *, missed_after_s: float) -> list[Alert]:
    return find_alerts(log, datetime.now(UTC), missed_after_s=missed_after_s)


def show_filters(log: Log, rates: Mapping[str, Counts]) -> dict[str, str | None]:
    st.subheader("Checklist pass rate", anchor=False, help="PASS ÷ (PASS + FAIL), with 95 % Wilson intervals.")
    known = counted(log, facets)
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        origins = [ALL, *rates]
        origin = choose_segment("Origin", origins, "evaluation" if "evaluation" in origins else ALL, key="o_origin")
        batch = st.selectbox("Batch", [ALL, *known.batches], key="o_batch", bind="query-params", width=230)
        domain = st.selectbox("Domain", [ALL, *known.domains], key="o_domain", bind="query-params", width=190)
        version = st.selectbox("Version", [ALL, *known.versions], key="o_version", bind="query-params", width=130)
    chosen = {"origin": origin, "batch": batch, "domain": domain, "version": version}
    return {name: None if value in (ALL, None) else str(value) for name, value in chosen.items()}


def worst_items(log: Log) -> list[ItemFigures]:
    """Without those that people threw out: there is nothing left to do about them."""
    bad = ids_called_bad(log)
    items = item_figures(log, limit=WORST_ITEMS + len(bad)).items
    return [item for item in items if item.item_id not in bad][:WORST_ITEMS]


def rate_with_interval(counts: Counts) -> str:
    return interval(wilson(counts.passed, counts.judged), as_percent=True)


def show_worst_items(log: Log) -> None:
    items = counted(log, worst_items)
    covered = counted(log, scenario_coverage, scenarios=tuple(item.scenario_hash for item in items))
    note = "Of all verdicts on an item; dialogues are those of its scenario, judged of eligible."
    st.subheader("Items that fail most", anchor=False, help=note)
    rows = [
        (
            escape(item.question),
            escape(item.domain),
            escape(item.kind),
            rate_with_interval(item.counts),
            f"{item.counts.judged:,}",
            percent(1 - (item.counts.coverage or 0.0), 1),
            coverage_note(covered.get(item.scenario_hash, Coverage())),
            link("failing dialogues", address(TRAJECTORIES, item=item.item_id, outcome="FAIL"))
            + " · "
            + link("review", address(REVIEW, item=item.item_id, verdict="FAIL")),
        )
        for item in items
    ]
    columns = ("question", "domain", "kind", "pass rate", "judged verdicts", "UNSCORED", "dialogues judged", "")
    show(table(columns, rows, numeric=(3, 4, 5, 6)))
    st.page_link(ITEMS.target, label="All items", icon=":material/arrow_forward:")


run_page("Overview", show_overview)
