"""A scenario file looked at and self-tested before it is imported; what `checkloop data` would leave out of the log.

Reads through store.scenarios and train.sft_set; imports through `add_scenarios`, as `checkloop import` does.
"""

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from dashboard.format import plural
from dashboard.job_actions import action
from dashboard.text import escape, show, show_empty, soft, table
from reward.scenario_self_test import FileTest, self_test_scenarios
from store.database import Log, LogError
from store.records import Scenario
from store.scenarios import add_scenarios, preview_scenarios
from store.settings import Settings
from train.sft_set import Filtered, filter_scenarios

FILE = "scenario-file"
LARGEST_MB = 50
SHOWN = 50
FILTERED = "filtered"
TESTED = "scenario-file-tested"


def show_import(log: Log) -> None:
    """Every bad line is named; the button is there when none is."""
    uploaded = st.file_uploader(
        "Scenario file (JSON Lines)", type=["jsonl", "json"], key=FILE, max_upload_size=LARGEST_MB
    )
    if uploaded is None:
        show(soft("Nothing is written before you have seen what the file holds. The format is in docs/scenarios.md."))
        return
    found = preview_scenarios(log, uploaded.getvalue(), "the file")
    tested = _self_test(found.scenarios)
    problems = (*found.problems, *tested.problems)
    show(
        f"<p><b>{plural(len(found.scenarios), 'sound scenario')}</b> · {found.new:,} of them new · "
        f"{plural(len(found.problems), 'bad line')} · {plural(len(tested.problems), 'bad check')}</p>"
    )
    for problem in problems[:SHOWN]:
        show(f'<div class="cl-refused">{escape(problem)}</div>')
    if len(problems) > SHOWN:
        show(soft(f"and {len(problems) - SHOWN:,} more"))
    for line in tested.lines[:SHOWN] if tested.items else ():
        show(soft(line))
    st.button(
        "Import",
        type="primary",
        icon=":material/upload:",
        key="import",
        disabled=bool(problems) or not found.new,
        on_click=import_file,
    )
    rows = [
        [
            escape(one.name),
            escape(one.domain),
            escape(one.source),
            escape(one.split),
            str(len(one.turns)),
            str(sum(len(turn.checklist) for turn in one.turns)),
            escape(one.turns[0].user[:100]),
        ]
        for one in found.scenarios[:SHOWN]
    ]
    if rows:
        show(table(("Name", "Domain", "Source", "Split", "Turns", "Items", "First message"), rows, numeric=(4, 5)))


def _self_test(scenarios: Sequence[Scenario]) -> FileTest:
    """Once a file: the page runs anew with everything that is clicked."""
    key = tuple(one.hash for one in scenarios)
    known: tuple[tuple[str, ...], FileTest] | None = st.session_state.get(TESTED)
    if known is None or known[0] != key:
        with st.spinner("Trying every checklist on its reference …"):
            known = key, self_test_scenarios(scenarios)
        st.session_state[TESTED] = known
    return known[1]


@action
def import_file(log: Log, settings: Settings) -> str:
    uploaded = st.session_state.get(FILE)
    if uploaded is None:
        raise LogError("the file is gone: choose it again")
    found = preview_scenarios(log, uploaded.getvalue(), "the file")
    if problems := (*found.problems, *_self_test(found.scenarios).problems):
        raise LogError(f"nothing was imported: {problems[0]}")
    return f"{plural(add_scenarios(log, found.scenarios), 'new scenario')} imported"


def show_filter_statistics(log: Log, settings: Settings) -> None:
    """What `[data]` leaves out, counted when asked for: it reads every scenario."""
    show(soft("What checkloop data would take with the settings of today, and why it leaves the rest."))
    if st.button("Count", icon=":material/filter_alt:", key="count-filters"):
        with st.spinner("Reading every scenario of splits train and validation …"):
            st.session_state[FILTERED] = _counts(filter_scenarios(log, settings.data))
    counted: tuple[int, int, Counter[str]] | None = st.session_state.get(FILTERED)
    if counted is None:
        return
    kept, looked_at, left_out = counted
    if not looked_at:
        show_empty("No scenario of split train or validation", "Import some first.", "checkloop import FILE")
        return
    st.metric("Taken", f"{kept:,} of {looked_at:,}", border=True, width=220)
    rows = [[f"{count:,}", f"{100 * count / looked_at:.1f} %", escape(why)] for why, count in left_out.most_common()]
    if rows:
        show(table(("Left out", "Share", "Why"), rows, numeric=(0, 1), fill=True))


def _counts(filtered: Filtered) -> tuple[int, int, Counter[str]]:
    return len(filtered.kept), filtered.looked_at, filtered.left_out
