"""A turn's checklist in widgets, with the self-test of what stands in them, and the button that stores a revision.

Stores through `reward.checklist_edits.store_edit`, as `checkloop checklist edit` does. Widgets are named after the
revision that they were filled from: when a new one comes, they are filled anew.
"""

import hashlib
import json
from typing import Any

import streamlit as st

from dashboard.dialogue import FOCUS
from dashboard.format import plural
from dashboard.job_actions import action
from dashboard.review_actions import reviewer
from dashboard.text import badge, chip, escape, show, soft, table
from reward.checklist_edits import TriedEdit, items_of_documents, store_edit, try_edit
from store.checklists import Checklist
from store.database import Log
from store.records import Item, Scenario
from store.settings import Settings
from store.vocabulary import FocusOn

ADDED = "items-added"


def show_editor(scenario: Scenario, checklist: Checklist) -> None:
    """Below each other: the items, what is wrong with them, the self-test, who stores them and why."""
    base = f"edit-{scenario.hash[:12]}-{checklist.turn_index}-{checklist.variant}-{checklist.revision}"
    known = [item.id for item in checklist.items]
    added = [f"new_{number}" for number in range(1, st.session_state.get(f"{base}-{ADDED}", 0) + 1)]
    documents: list[Any] = []
    problems: list[str] = []
    for number, item in enumerate([*checklist.items, *(None for _ in added)]):
        key = f"{base}-{number}"
        document, problem = _item_fields(key, item, added[number - len(known)] if item is None else "", known + added)
        problems += problem
        if document is not None:
            documents.append(document)
    st.button("Add an item", icon=":material/add:", key=f"{base}-add", on_click=_add, args=(base,))
    items, unread = items_of_documents(documents)
    problems += unread
    content = hashlib.sha256("\n".join(item.model_dump_json() for item in items).encode()).hexdigest()
    tried = tried_edit(scenario.hash, checklist.turn_index, content, scenario, items)
    show_tried(tried, problems)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        reason = st.text_input("Reason", key=f"{base}-reason", placeholder="why, in a sentence", width=420)
        same = items == checklist.items
        st.button(
            f"Store as revision {checklist.revision + 1}",
            type="primary",
            key=f"{base}-store",
            icon=":material/save:",
            disabled=bool(problems or tried.refusals) or same or not reason.strip(),
            help="Nothing is changed yet." if same else None,
            on_click=store,
            args=(checklist, items, f"{base}-reason"),
        )


@st.cache_resource(show_spinner=False, max_entries=100)
def tried_edit(digest: str, turn_index: int, content: str, _scenario: Scenario, _items: tuple[Item, ...]) -> TriedEdit:
    """Once for each content: every key that is pressed on the page draws the editor anew."""
    return try_edit(_scenario, turn_index, _items)


def _item_fields(key: str, item: Item | None, name: str, others: list[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """The widgets of one item; the item that they say (None: left out), and what cannot be read."""
    was = item.model_dump(mode="json") if item is not None else {"id": name, "focus_on": FocusOn.REPLY.value}
    focus = [one.value for one in FocusOn]
    check = json.dumps(was["check"], ensure_ascii=False) if was.get("check") else ""
    with st.container(border=True, gap="xsmall"):
        show(f'<div class="cl-row"><b>{escape(was["id"])}</b>{chip("new") if item is None else ""}</div>')
        question = st.text_area("Question", was.get("question", ""), key=f"{key}-question", height=68)
        condition = st.text_input("Pass condition", was.get("pass_condition", ""), key=f"{key}-condition")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            weight = st.number_input("Weight", 0.0, None, float(was.get("weight", 0.1)), key=f"{key}-weight", width=130)
            looks = st.selectbox(
                "Looks at",
                focus,
                focus.index(was["focus_on"]),
                key=f"{key}-focus",
                format_func=lambda value: FOCUS[FocusOn(value)],
                width=160,
            )
            strict = st.checkbox("Strict", bool(was.get("required_for_next_turn")), key=f"{key}-strict")
            must_not = st.checkbox(
                "Must not",
                bool(was.get("must_not")),
                key=f"{key}-must-not",
                help="It says that something does not happen: decided at the end of the turn, without a quote.",
            )
            out = st.checkbox("Leave out", False, key=f"{key}-out")
        # Keys are whatever a file or a model called them: options of a multiselect are shown as text.
        depends = st.multiselect(
            "After", [one for one in others if one != was["id"]], was.get("depends_on", []), key=f"{key}-depends"
        )
        said = st.text_input("Check (JSON; empty: the judge decides)", check, key=f"{key}-check")
    if out:
        return None, []
    try:
        parsed = json.loads(said) if said.strip() else None
    except ValueError as error:
        return None, [f"the check of {was['id']!r} is no JSON: {error}"]
    changed = {
        "question": question,
        "pass_condition": condition,
        "weight": weight,
        "focus_on": looks,
        "required_for_next_turn": strict,
        "must_not": must_not,
        "depends_on": list(depends),
        "check": parsed,
    }
    return was | changed, []


def show_tried(tried: TriedEdit, problems: list[str]) -> None:
    """The self-test's table, what keeps the checklist from being stored, and what to look at."""
    if tried.tests:
        rows = [
            [
                escape(test.key),
                badge(test.on_reference) if test.on_reference else chip("not decided"),
                f"{len(test.decided) - len(test.passed_damages)} of {len(test.decided)}" if test.decided else "–",
                escape(", ".join(dict.fromkeys(test.passed_damages))),
            ]
            for test in tried.tests
        ]
        show(table(("Item", "On the reference", "Damages noticed", "Not noticed"), rows))
    else:
        show(soft("No self-test: the turn has no reference, or no item can be read."))
    for refusal in [*problems, *tried.refusals]:
        show(f'<div class="cl-refused">{escape(refusal)}</div>')
    if tried.remarks:
        with st.expander(plural(len(tried.remarks), "remark")):
            show("".join(f"<div>{escape(remark)}</div>" for remark in tried.remarks))


def _add(base: str) -> None:
    key = f"{base}-{ADDED}"
    st.session_state[key] = st.session_state.get(key, 0) + 1


@action
def store(log: Log, settings: Settings, checklist: Checklist, items: tuple[Item, ...], reason: str) -> str:
    stored = store_edit(
        log,
        checklist.scenario_hash,
        checklist.turn_index,
        items,
        person=reviewer(),
        reason=str(st.session_state.get(reason) or ""),
        variant=checklist.variant,
        made_of=checklist.revision,
    )
    return f"Revision {stored.revision} counts from now on"
