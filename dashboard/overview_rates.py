"""The overview's pass rates over versions or days and by every slice, with what each stands on beside it.

Reads store.figures and store.coverage, under the filters of the page.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeAlias

import streamlit as st

from dashboard import charts
from dashboard.boundary import counted
from dashboard.estimates import rate_points
from dashboard.forest import rate_rows
from dashboard.format import percent, plural
from dashboard.overview_tables import coverage_note, coverage_notes, unjudged_note
from dashboard.paging import captioned_offset
from dashboard.text import show, show_empty, soft
from store.coverage import OF_DIALOGUES, Coverage, coverage_by, coverage_cells, item_coverage
from store.database import Log
from store.figures import Counts, Slice, rates_by, unseen_domains

SHOWN_TOOLS = 12
SHOWN_ROWS = 12
"""Of versions or days, on a page."""
Kept: TypeAlias = Mapping[Slice, Mapping[str, Counts]]
Covered: TypeAlias = Mapping[Slice, Mapping[str, Coverage]]


def show_rates(log: Log, chosen: dict[str, str | None]) -> None:
    kept: dict[Slice, dict[str, Counts]] = {
        by: counted(log, rates_by, by=by, **chosen) for by in Slice if by is not Slice.ORIGIN
    }
    if not kept[Slice.VERSION]:
        show_empty("No verdicts match", "Widen the filters above.")
        return
    any_origin = chosen | {"origin": None}
    kept[Slice.ORIGIN] = counted(log, rates_by, by=Slice.ORIGIN, **any_origin)
    cells = counted(log, coverage_cells)
    covered = {by: coverage_by(cells, by, **(any_origin if by is Slice.ORIGIN else chosen)) for by in OF_DIALOGUES}
    covered |= counted(log, item_coverage, **chosen)
    left, right = st.columns([1, 1], gap="large")
    with left:
        show_over(kept, covered)
        st.markdown("**By origin**")
        show_slice(Slice.ORIGIN, kept, covered)
        st.markdown("**By channel**")
        show_slice(Slice.CHANNEL, kept, covered)
    with right:
        st.markdown("**By domain**")
        show_slice(Slice.DOMAIN, kept, covered, counted(log, unseen_domains))
        st.markdown("**By kind of item**")
        show_slice(Slice.KIND, kept, covered, worst_first=True)
        st.markdown("**By tool, the worst first**")
        show_slice(Slice.TOOL, kept, covered, worst_first=True)


def show_over(kept: Kept, covered: Covered) -> None:
    """The chart over versions or days, and what the filters leave as a whole."""
    over = st.segmented_control(
        "Over", ["versions", "time"], default="versions", required=True, key="o_over", bind="query-params"
    )
    by, draw = (Slice.DAY, charts.rates_over_days) if over == "time" else (Slice.VERSION, charts.rates_over_versions)
    points = rate_points(kept[by], coverage_notes(covered[by], kept[by]))
    charts.show_chart(draw(tuple(points)))
    newest = points[::-1]
    noun = "day" if by is Slice.DAY else "version"
    first = captioned_offset(f"{plural(len(newest), noun)}, the newest first", len(newest), SHOWN_ROWS, "o_rows_page")
    show(rate_rows(newest[first : first + SHOWN_ROWS]))
    whole = sum(kept[Slice.VERSION].values(), start=Counts())
    dialogues = sum(covered[Slice.VERSION].values(), start=Coverage())
    unscored = percent(1 - (whole.coverage or 0), 1)
    show(soft(f"{whole.judged:,} verdicts · {unscored} UNSCORED · judged: {coverage_note(dialogues)}"))
    if note := unjudged_note(covered[by], kept[by]):
        show(soft(note))


def show_slice(
    by: Slice, kept: Kept, covered: Covered, unseen: Collection[str] = (), *, worst_first: bool = False
) -> None:
    """Rates by one thing, each with the UNSCORED share and how many eligible dialogues are judged beside it."""
    notes = coverage_notes(covered[by], kept[by])
    points = rate_points(kept[by], notes, worst_first=worst_first)
    marked = [replace(one, label=f"{one.label} (unseen)") if one.label in unseen else one for one in points]
    if by is Slice.TOOL and len(marked) > SHOWN_TOOLS:
        first = captioned_offset(plural(len(marked), "tool"), len(marked), SHOWN_TOOLS, "o_tools_page")
        marked = marked[first : first + SHOWN_TOOLS]
    show(rate_rows(marked))
    if note := unjudged_note(covered[by], kept[by]):
        show(soft(note))
