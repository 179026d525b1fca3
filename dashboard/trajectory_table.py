"""The filters of the list of trajectories, kept in the address, and the list as a dataframe."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.text import visible_cells
from dashboard.theme import MARKS
from store.browsing import TrajectoryListing
from store.figures import Facets
from store.trajectory_filters import LONGEST_TEXT, RUNNING, SEARCHED, TrajectoryFilter, TrajectoryOrder
from store.vocabulary import Outcome

ALL = "all"
PAGE_SIZE = 25
EVERYWHERE = "everywhere"
"""Key of the box that has text looked for in the whole log."""


def show_filters(known: Facets) -> None:
    """Two rows of filters; each is bound to the query parameter of its key."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="search"):
        text = st.text_input(
            "Text",
            key="text",
            bind="query-params",
            max_chars=LONGEST_TEXT,
            width=260,
            placeholder="said by anybody",
            icon=":material/search:",
            help=f"In what users, the agent and tools said; looked for in the newest {SEARCHED:,} dialogues "
            "that meet the other filters, or in all of them.",
        )
        if text:
            st.checkbox("in all", key=EVERYWHERE, bind="query-params", help="Takes seconds on a large log.")
        st.text_input("Tool", key="tool", bind="query-params", max_chars=128, width=150, placeholder="called")
        st.text_input(
            "Scenario", key="scenario", bind="query-params", max_chars=128, width=170, placeholder="name or hash"
        )
        st.date_input("From", None, key="since", bind="query-params", width=130, help="day in UTC")
        st.date_input("To", None, key="until", bind="query-params", width=130, help="day in UTC, that day included")
        st.selectbox("Order", [order.value for order in TrajectoryOrder], key="order", bind="query-params", width=160)
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        _select("Origin", "origin", known.origins, 120)
        _select("Version", "version", known.versions, 105)
        _select("Domain", "domain", known.domains, 145)
        _select("Batch", "batch", known.batches, 200)
        _select("Ended", "ended", (*known.stop_reasons, RUNNING), 140)
        st.slider("Reward", 0.0, 1.0, (0.0, 1.0), 0.05, key="reward", bind="query-params", width=190)


def _select(label: str, key: str, values: Sequence[str], width: int) -> None:
    st.selectbox(label, [ALL, *values], key=key, bind="query-params", width=width)


def chosen_filter() -> TrajectoryFilter:
    """What the filters and the rest of the address (item, kind, outcome, run) ask for."""

    def chosen(key: str) -> str | None:
        value = st.session_state.get(key, ALL)
        return None if value == ALL else str(value)

    def written(key: str) -> str | None:
        return str(st.session_state.get(key) or "").strip() or None

    low, high = st.session_state.get("reward", (0.0, 1.0))
    outcome = st.query_params.get("outcome")
    return TrajectoryFilter(
        origin=chosen("origin"),
        version=chosen("version"),
        domain=chosen("domain"),
        batch=chosen("batch"),
        stop_reason=chosen("ended"),
        low=low if low > 0 else None,
        high=high if high < 1 else None,
        item_id=_number("item"),
        kind=st.query_params.get("kind"),
        outcome=outcome if outcome in set(Outcome) else None,
        run_id=_number("run"),
        scenario=written("scenario"),
        tool=written("tool"),
        text=written("text"),
        since=_midnight(st.session_state.get("since")),
        until=_midnight(st.session_state.get("until"), days=1),
        searched=None if st.session_state.get(EVERYWHERE) else SEARCHED,
    )


def chosen_order() -> TrajectoryOrder:
    value = st.session_state.get("order")
    return TrajectoryOrder(value) if value in set(TrajectoryOrder) else TrajectoryOrder.NEWEST


def _midnight(day: date | None, days: int = 0) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC) + timedelta(days=days)


def _number(name: str) -> int | None:
    """A query parameter as an integer; anything else is no filter, as for the other ones."""
    value = st.query_params.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None


def describe_filter(wanted: TrajectoryFilter) -> str:
    """In words, what the address asks for beyond the filters on the page; empty if nothing."""
    parts = []
    if wanted.item_id is not None:
        parts.append(f"item {wanted.item_id}")
    if wanted.kind is not None:
        parts.append(f"an item of kind {wanted.kind}")
    if parts and wanted.outcome:
        parts.append(f"with verdict {wanted.outcome}")
    if wanted.run_id is not None:
        parts.append(f"trained on by run {wanted.run_id}")
    return "Only dialogues with " + ", ".join(parts) if parts else ""


def listing_frame(rows: Sequence[TrajectoryListing]) -> dict[str, Any]:
    """Data and column settings for `st.dataframe`. Cells are text; a dataframe renders no Markdown and no HTML."""
    frame = pd.DataFrame(
        {
            "started": [row.created_at for row in rows],
            "scenario": [row.scenario or "–" for row in rows],
            "domain": [(row.domain or "–") + (" · unseen" if row.seen is False else "") for row in rows],
            "opening": [row.opening for row in rows],
            "origin": [row.origin for row in rows],
            "version": [row.version or "–" for row in rows],
            "reward": [row.reward for row in rows],
            "items": [_verdict_note(row) for row in rows],
            "turns": [row.turns for row in rows],
            "tokens": [row.sampled_tokens for row in rows],
            "ended": [row.stop_reason for row in rows],
            "batch": [row.batch or "–" for row in rows],
        }
    )
    column = st.column_config
    return {
        "data": visible_cells(frame),
        "column_config": {
            "started": column.DatetimeColumn("Started", format="MMM D, HH:mm:ss", width=112),
            "scenario": column.TextColumn("Scenario", width=160),
            "domain": column.TextColumn("Domain", width=120),
            "opening": column.TextColumn("First message", width=170),
            "origin": column.TextColumn("Origin", width=80),
            "version": column.TextColumn("Version", width=65),
            "reward": column.ProgressColumn("Reward", min_value=0.0, max_value=1.0, format="%.2f", width=105),
            "items": column.TextColumn("Items", width=95, help="passed, failed and unscored items"),
            "turns": column.NumberColumn("Turns", width=55),
            "tokens": column.NumberColumn("Tokens", width=65, help="sampled tokens"),
            "ended": column.TextColumn("Ended", width=95),
            "batch": column.TextColumn("Batch", width=160),
        },
    }


def _verdict_note(row: TrajectoryListing) -> str:
    counts = row.verdicts
    parts = ((counts.passed, Outcome.PASS), (counts.failed, Outcome.FAIL), (counts.unscored, Outcome.UNSCORED))
    return "  ".join(f"{MARKS[outcome].symbol} {count}" for count, outcome in parts if count) or "–"
