"""A scenario file looked at and self-tested before it is imported; what `checkloop data` would leave out of the log.

Reads through store.scenarios and train.sft_set; imports through `add_scenarios`, as `checkloop import` does.
"""

import hashlib
from collections import Counter
from typing import Any

import streamlit as st

from dashboard.beside import follow_newest
from dashboard.boundary import counted
from dashboard.counting import Counts
from dashboard.format import plural
from dashboard.imports import imports
from dashboard.job_actions import action
from dashboard.job_offers import offer_job
from dashboard.links import SCENARIOS
from dashboard.text import escape, show, show_empty, soft, table
from reward.scenario_self_test import FileTest, self_test_scenarios
from store.database import Log, LogError
from store.records import Scenario
from store.scenarios import ReadScenarios, count_new, read_scenarios
from store.settings import DataSettings, Settings
from store.vocabulary import JobKind
from train.scenario_filters import filter_scenarios

FILE = "scenario-file"
LARGEST_MB = 50
SHOWN = 50
FILTERED = "filtered"
DIGEST = "scenario-file-digest"
FILES = Counts(longest=2)
"""What uploaded files hold, read beside the requests and once for each content: a rerun does not read 50 MB again."""


def show_import(log: Log) -> None:
    """Every bad line is named; the button is there when none is."""
    follow_newest(SCENARIOS.title, imports())
    uploaded = st.file_uploader(
        "Scenario file (JSON Lines)", type=["jsonl", "json"], key=FILE, max_upload_size=LARGEST_MB
    )
    if uploaded is None:
        show(soft("Nothing is written before you have seen what the file holds. The format is in docs/scenarios.md."))
        return
    found, tested = FILES.get(key := _key(uploaded), key, lambda: _read(uploaded.getvalue()))
    new = count_new(log, found.by_hash)
    problems = (*found.problems, *tested.problems)
    show(
        f"<p><b>{plural(len(found.scenarios), 'sound scenario')}</b> · {new:,} of them new · "
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
        disabled=bool(problems) or not new,
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


def _read(content: bytes) -> tuple[ReadScenarios, FileTest]:
    """What the file holds, and its checklists tried on their references."""
    found = read_scenarios(content, "the file")
    return found, self_test_scenarios(found.scenarios)


@action
def import_file(log: Log, settings: Settings) -> str:
    """Beside the requests: a large file takes a while."""
    uploaded = st.session_state.get(FILE)
    if uploaded is None:
        raise LogError("the file is gone: choose it again")
    key, content = _key(uploaded), uploaded.getvalue()

    def read() -> list[Scenario]:
        found, tested = FILES.kept(key) or _read(content)
        if problems := (*found.problems, *tested.problems):
            raise LogError(f"nothing was imported: {problems[0]}")
        return list(found.scenarios)

    return f"{imports().start(log, uploaded.name, read).name} …"


def _key(uploaded: Any) -> str:
    """The SHA-256 of an uploaded file, computed once for each upload."""
    before: tuple[str, str] | None = st.session_state.get(DIGEST)
    if before is None or before[0] != uploaded.file_id:
        before = st.session_state[DIGEST] = (uploaded.file_id, hashlib.sha256(uploaded.getbuffer()).hexdigest())
    return before[1]


def show_filter_statistics(log: Log, settings: Settings) -> None:
    """What `[data]` leaves out, counted when asked for, beside the request: it reads every scenario."""
    show(soft("What checkloop data would take with the settings of today, and why it leaves the rest."))
    with st.container(horizontal=True):
        offer_job(log, "Have missing checklists written", JobKind.ANNOTATE, {}, "offer-annotate")
        offer_job(log, "Make an SFT set", JobKind.DATA, {}, "offer-data")
    if not st.toggle("Count", key=FILTERED, bind="query-params"):
        return
    kept, looked_at, left_out = counted(log, filter_counts, wanted=settings.data)
    if not looked_at:
        show_empty("No scenario of split train or validation", "Import some first.", "checkloop import FILE")
        return
    st.metric("Taken", f"{kept:,} of {looked_at:,}", border=True, width=220)
    rows = [[f"{count:,}", f"{100 * count / looked_at:.1f} %", escape(why)] for why, count in left_out.most_common()]
    if rows:
        show(table(("Left out", "Share", "Why"), rows, numeric=(0, 1), fill=True))


def filter_counts(log: Log, *, wanted: DataSettings) -> tuple[int, int, Counter[str]]:
    """Kept, looked at, left out and why. Reads every scenario of the splits train and validation."""
    filtered = filter_scenarios(log, wanted)
    return len(filtered.kept), filtered.looked_at, filtered.left_out
