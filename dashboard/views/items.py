"""Items: pass rates by kind of item and by question, worst first, with the way to the dialogues that fail them.

Reads store.figures; every filter stands in the address.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.boundary import counted, run_page
from dashboard.estimates import rate_points
from dashboard.forest import rate_rows
from dashboard.format import plural
from dashboard.links import ITEMS, REVIEW, TRAJECTORIES, address, parameters
from dashboard.overview_tables import coverage_note, coverage_notes, unjudged_note
from dashboard.text import show, show_empty, soft, visible_cells
from store.coverage import Coverage, item_coverage, scenario_coverage
from store.database import Log
from store.figures import Slice, sum_counts, verdict_cube
from store.item_figures import ItemFigures, item_figures
from store.settings import Settings
from store.vocabulary import Outcome

ALL = "all"
SHOWN = 200  # items in the table; the worst ones come first


def show_items(log: Log, settings: Settings) -> None:
    cells = counted(log, verdict_cube)
    if not cells:
        show_empty("Nothing is judged yet", "Play the demo once: every dialogue in it is judged.", "make demo")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        origin = _pick("Origin", "i_origin", {cell.origin for cell in cells}, 130)
        version = _pick("Version", "i_version", {cell.version for cell in cells}, 120)
        domain = _pick("Domain", "i_domain", {cell.domain for cell in cells}, 160)
        batch = _pick("Batch", "i_batch", {cell.batch for cell in cells if cell.batch}, 220)
        kind = _pick("Kind", "i_kind", {cell.kind for cell in cells}, 190)
    chosen = {"origin": origin, "version": version, "domain": domain, "batch": batch}
    kept = [cell for cell in cells if all(value in (None, getattr(cell, name)) for name, value in chosen.items())]
    if not kept:
        show_empty("No verdicts match", "Widen the filters above.")
        return
    st.subheader("By kind", anchor=False, help="PASS ÷ (PASS + FAIL), with 95 % Wilson intervals, worst first.")
    by_kind = sum_counts(kept, "kind")
    covered = counted(log, item_coverage, **chosen)[Slice.KIND]
    show(rate_rows(rate_points(by_kind, coverage_notes(covered, by_kind), worst_first=True)))
    if note := unjudged_note(covered, by_kind):
        show(soft(note))
    found = counted(log, item_figures, **chosen, kind=kind, limit=SHOWN)
    items = found.items
    st.subheader("By question", anchor=False)
    if not items:
        show_empty("No item matches", "Widen the filters above.")
        return
    of_scenarios = counted(
        log,
        scenario_coverage,
        scenarios=tuple(item.scenario_hash for item in items),
        origin=origin,
        version=version,
        batch=batch,
    )
    more = plural(found.total, "item") if len(items) == found.total else f"The {SHOWN} worst of {found.total:,} items"
    st.caption(f"{more}, by pass rate. Click a row to see the dialogues that fail it.")
    picked = st.dataframe(
        visible_cells(_frame(items, of_scenarios)),
        column_config=_columns(),
        hide_index=True,
        height="content" if len(items) <= 20 else 740,
        on_select="rerun",
        selection_mode="single-cell",
        key="items",
    )
    if picked.selection.cells:
        item = items[int(picked.selection.cells[0][0])]
        st.switch_page(
            TRAJECTORIES.target,
            query_params=parameters(**chosen, item=item.item_id, outcome=Outcome.FAIL.value),
        )


def _pick(label: str, key: str, values: set[str], width: int) -> str | None:
    value = st.selectbox(label, [ALL, *sorted(values)], key=key, bind="query-params", width=width)
    return None if value == ALL else value


def _frame(items: Sequence[ItemFigures], covered: Mapping[str, Coverage]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rate": [item.counts.rate for item in items],
            "passed": [item.counts.passed for item in items],
            "failed": [item.counts.failed for item in items],
            "unscored": [item.counts.unscored for item in items],
            "unscored_share": [1 - (item.counts.coverage or 0.0) for item in items],
            "dialogues": [coverage_note(covered.get(item.scenario_hash, Coverage())) for item in items],
            "question": [item.question for item in items],
            "kind": [item.kind for item in items],
            "scenario": [f"{item.scenario}, turn {item.turn_index + 1}" for item in items],
            "domain": [item.domain for item in items],
            "strict": [item.strict for item in items],
            "weight": [item.weight for item in items],
            "review": [address(REVIEW, item=item.item_id, verdict=Outcome.FAIL.value) for item in items],
        }
    )


def _columns() -> dict[str, Any]:
    column = st.column_config
    return {
        "rate": column.ProgressColumn("Pass rate", min_value=0.0, max_value=1.0, format="percent", width=120),
        "passed": column.NumberColumn("✓ Pass", width=62),
        "failed": column.NumberColumn("✗ Fail", width=62),
        "unscored": column.NumberColumn("? Unscored", width=90),
        "unscored_share": column.NumberColumn("UNSCORED", format="percent", width=85, help="Of all its verdicts."),
        "dialogues": column.TextColumn("Dialogues judged", width=165, help="Of its scenario: judged of eligible."),
        "question": column.TextColumn("Question", width=380),
        "kind": column.TextColumn("Kind", width=135),
        "scenario": column.TextColumn("Scenario", width=190),
        "domain": column.TextColumn("Domain", width=90),
        "strict": column.CheckboxColumn("Strict", width=60, help="The dialogue ends where it fails."),
        "weight": column.NumberColumn("Weight", format="%.2f", width=65),
        "review": column.LinkColumn("", display_text="review", width=65, help="What fails it, to correct the judge."),
    }


run_page(ITEMS.title, show_items)
