"""The overview's part on what goes wrong: patterns over the last versions, and the turns behind one (`?pattern=`).

Reads reward.failure_patterns, under the filters of the page.
"""

import streamlit as st

from dashboard.boundary import counted
from dashboard.format import plural
from dashboard.links import OVERVIEW, address
from dashboard.overview_tables import ALL, PATTERNS, SHOWN_TURNS, pattern_rows, turns_behind
from dashboard.paging import page_offset
from dashboard.text import link, show, soft
from reward.failure_patterns import LOOKED_AT, TREND, FailurePattern, find_patterns
from reward.rate_alerts import well_judged
from store.database import Log
from store.figures import Slice, rates_by


def show_patterns(log: Log, chosen: dict[str, str | None]) -> None:
    """Under the filters of the page; of a chosen version, beside those before it."""
    note = "Failed items by what the turn shows went wrong; shares are of the dialogues looked at."
    st.subheader("What goes wrong", anchor=PATTERNS, help=note)
    wanted = {name: chosen[name] for name in ("origin", "batch", "domain")}
    rates = counted(log, rates_by, by=Slice.VERSION, **wanted)
    judged = well_judged(rates) or [name for name in rates if name != "unknown"]
    if chosen["version"] is not None:
        judged = [*(name for name in judged if name < chosen["version"]), chosen["version"]]
    if not judged or judged[-1] not in rates:
        show(soft("Nothing that these filters leave is judged."))
        return
    newest = judged[-1]
    asked = st.query_params.get("pattern_of")  # so that a link to a pattern shows the same turns tomorrow
    if chosen["version"] is None and asked in judged:
        judged = judged[: judged.index(asked) + 1]
    *earlier, version = judged[-TREND:]
    found = counted(log, find_patterns, version=version, earlier=tuple(earlier), **wanted)
    if not found.figures:
        show(soft(f"Nothing failed in the newest {plural(found.dialogues, 'judged dialogue')} of {version}."))
        return
    versions = (*found.earlier, version)
    numbers = (*found.dialogues_earlier, found.dialogues)
    looked = ", ".join(f"{n:,} of {name}" for name, n in zip(versions, numbers, strict=True))
    show(soft(f"Looked at: the newest judged dialogues, at most {LOOKED_AT} a version ({looked}). An item has one."))
    filters = {f"o_{name}": value for name, value in chosen.items() if value is not None}
    filters |= {"o_origin": chosen["origin"] or ALL}
    if over := st.query_params.get("o_over"):
        filters["o_over"] = over
    if version != newest:
        said = f"As of {version}, which the link says: "
        show(soft(said), link(f"of {newest}, the newest", f"{address(OVERVIEW, **filters)}#{PATTERNS}"))
    show(pattern_rows(found, filters | {"pattern_of": version}))
    wanted_pattern = st.query_params.get("pattern")
    one = next((one for one in found.figures if one.pattern == wanted_pattern), None)
    if one is not None:
        first = page_offset(len(one.behind), SHOWN_TURNS, "pattern_page")
        show(turns_behind(FailurePattern(one.pattern), one.behind, first, version))
