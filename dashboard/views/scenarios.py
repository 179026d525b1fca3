"""Checklists and scenarios: browse, one opened (`?opened=HASH`), a checklist edited, files imported, filters counted.

Reads store.scenario_browsing and store.checklists; what is changed goes through the functions that the commands
`checkloop checklist edit` and `checkloop import` call (docs/scenarios.md).
"""

import pandas as pd
import streamlit as st

from dashboard.boundary import may, run_page
from dashboard.checklist_editor import show_editor
from dashboard.checklist_graph import dependency_graph
from dashboard.dialogue import call_html, checklist_html, user_html
from dashboard.format import plural
from dashboard.job_actions import say_outcome
from dashboard.job_offers import offer_job
from dashboard.links import SCENARIOS, TRAJECTORIES, address
from dashboard.paging import captioned_offset
from dashboard.scenario_import import show_filter_statistics, show_import
from dashboard.text import chip, escape, link, prose, show, show_empty, soft, table, visible_cells
from env_sim.recordings import played_reference
from store.checklists import Checklist, checklist_history, current_checklists
from store.database import Log, LogError
from store.records import Scenario
from store.scenario_browsing import (
    ScenarioFilter,
    ScenarioListing,
    count_scenarios,
    page_of_scenarios,
    scenario_facets,
)
from store.scenarios import get_scenario
from store.settings import Settings
from store.vocabulary import AccessRole, JobKind

ALL = "all"
PAGE_SIZE = 25
BROWSE, IMPORT, FILTERS = "Browse", "Import", "Filters"


def show_scenarios(log: Log, settings: Settings) -> None:
    say_outcome()
    opened = st.query_params.get("opened")
    if opened:
        show_scenario(log, opened)
        return
    look = st.segmented_control(
        "Show",
        [BROWSE, IMPORT, FILTERS] if may(AccessRole.OPERATOR) else [BROWSE, FILTERS],
        default=BROWSE,
        required=True,
        key="look",
        bind="query-params",
        label_visibility="collapsed",
    )
    if look == IMPORT:
        show_import(log)
    elif look == FILTERS:
        show_filter_statistics(log, settings)
    else:
        show_list(log)


def show_list(log: Log) -> None:
    if not count_scenarios(log, ScenarioFilter()):
        show_empty("No scenario is in the log yet", "Play the demo once, or import a file (above).", "make demo")
        return
    known = scenario_facets(log)
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        named = st.text_input("Name or hash", key="named", bind="query-params", max_chars=128, width=220)
        domain = _pick("Domain", "s_domain", known.domains)
        source = _pick("Source", "s_source", known.sources)
        split = _pick("Split", "s_split", known.splits)
    wanted = ScenarioFilter(named.strip() or None, domain, source, split)
    total = count_scenarios(log, wanted)
    if not total:
        show_empty("No scenario matches", "Widen the filters above.")
        return
    offset = captioned_offset(f"{total:,} found, by name. Click a row to open it.", total, PAGE_SIZE, "s_page")
    rows = page_of_scenarios(log, wanted, limit=PAGE_SIZE, offset=offset)
    count = st.session_state.get("scenarios-opened", 0)
    picked = st.dataframe(
        visible_cells(_frame(rows)),
        hide_index=True,
        height="content",
        on_select="rerun",
        selection_mode="single-cell",
        key=f"scenarios-{count}",
        column_config={"hash": st.column_config.TextColumn(width=110), "name": st.column_config.TextColumn(width=300)},
    )
    if picked.selection.cells:
        # A fresh key next time: the row must not still be selected when the list comes back.
        st.session_state["scenarios-opened"] = count + 1
        st.query_params["opened"] = rows[int(picked.selection.cells[0][0])].hash
        st.rerun()


def _pick(label: str, key: str, values: tuple[str, ...]) -> str | None:
    value = st.selectbox(label, [ALL, *values], key=key, bind="query-params", width=150)
    return None if value == ALL else value


def _frame(rows: list[ScenarioListing]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": [row.name for row in rows],
            "domain": [row.domain + ("" if row.seen else " · unseen") for row in rows],
            "source": [row.source for row in rows],
            "split": [row.split for row in rows],
            "turns": [row.turns for row in rows],
            "items": [row.items for row in rows],
            "revisions": [row.revisions for row in rows],
            "played": [row.played for row in rows],
            "hash": [row.hash[:12] for row in rows],
        }
    )


def close_scenario() -> None:
    st.query_params.pop("opened", None)


def show_scenario(log: Log, digest: str) -> None:
    st.button("List", icon=":material/arrow_back:", on_click=close_scenario, key="scenario-list")
    try:
        scenario = get_scenario(log, digest)
    except LogError:
        show_empty("There is no such scenario", f"The log holds none with the hash {digest}.")
        return
    tags = [scenario.domain, scenario.source, scenario.split.value, *scenario.tags]
    show(
        f'<div class="cl-title">{escape(scenario.name)}</div>'
        f'<div class="cl-row">{"".join(map(chip, tags))}{soft(scenario.hash[:12])}'
        f"{link('its dialogues', address(TRAJECTORIES, scenario=scenario.hash))}</div>"
    )
    if not all(current_checklists(log, [scenario])[scenario.hash]):
        wanted = {"scenario": scenario.hash}
        offer_job(log, "Have the missing checklists written", JobKind.ANNOTATE, wanted, "offer-annotate")
    numbers = [str(number) for number in range(1, len(scenario.turns) + 1)]
    if len(numbers) > 1:
        chosen = st.segmented_control("Turn", numbers, default="1", required=True, key="turn", bind="query-params")
        turn = numbers.index(chosen) if chosen in numbers else 0
    else:
        turn = 0
    show_turn(log, scenario, turn)
    with st.expander(f"System prompt and {plural(len(scenario.tools), 'tool')}"):
        show(prose(scenario.system))
        show(table(("Tool", "What it does"), [[escape(t.name), escape(t.description)] for t in scenario.tools]))


def show_turn(log: Log, scenario: Scenario, index: int) -> None:
    left, right = st.columns([3, 2], gap="medium")
    reference = played_reference(scenario.turns[index], index)
    with left:
        show(user_html(reference.user))
        for step in reference.steps:
            body = "".join(map(call_html, step.calls)) + (prose(step.content) if step.content else "")
            show(f'<div class="cl-step"><header><b>Step {step.index + 1}</b></header><section>{body}</section></div>')
        if not reference.steps:
            show(soft("No reference: what is right stands in the checklist alone."))
    variants = current_checklists(log, [scenario])[scenario.hash][index] or [Checklist(scenario.hash, index, ())]
    with right:
        names = [str(one.variant) for one in variants]
        chosen = (
            st.segmented_control("Variant", names, default=names[0], required=True, key="variant", bind="query-params")
            if (len(names) > 1)
            else names[0]
        )
        current = variants[names.index(chosen)] if chosen in names else variants[0]
        note = f"revision {current.revision} by {current.author}" if current.items else "no checklist yet"
        show(f'<div class="cl-label">Checklist · {escape(note)}</div>', checklist_html(current.items, {}, {}))
        if any(item.depends_on for item in current.items):
            st.graphviz_chart(dependency_graph(current.items))
    history = checklist_history(log, scenario, index)
    with st.expander(f"{plural(len(history), 'revision')}"):
        rows = [
            [
                str(one.variant),
                str(one.revision),
                str(len(one.items)),
                escape(one.author),
                escape(one.reason),
            ]
            for one in reversed(history)
        ]
        show(table(("Variant", "Revision", "Items", "Author", "Reason"), rows, numeric=(0, 1, 2), fill=True))
    if may(AccessRole.OPERATOR) and st.toggle("Edit", key="edit", bind="query-params"):
        show_editor(scenario, current)


run_page(SCENARIOS.title, show_scenarios)
