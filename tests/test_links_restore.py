"""A link shows what its sender saw: each page's address is opened elsewhere, later, and each of its choices is made by
the address alone."""

from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from agent.ports import free_port
from dashboard.links import (
    CHAT,
    COMPARE,
    ITEMS,
    JOBS,
    JUDGES,
    OVERVIEW,
    REVIEW,
    SCENARIOS,
    TRAINING,
    TRAJECTORIES,
    PageSpec,
)
from store.agreement import JudgeId
from store.database import Log
from store.runs import finish_run, start_run
from store.versions import add_version
from store.vocabulary import RunKind
from tests.pages import ids, open_page
from tests.test_judges_page import speak

KINDS = ("selectbox", "multiselect", "button_group", "toggle", "checkbox", "text_input", "number_input", "date_input")
"""Widgets that choose what is shown."""
DRAFTS = {"reason"}
"""What is being written, not what is looked at; kept in the log."""
VIEWS: tuple[tuple[PageSpec, dict[str, str]], ...] = (
    (OVERVIEW, {}),
    (REVIEW, {}),
    (TRAJECTORIES, {}),
    (TRAJECTORIES, {"trajectory": "ID"}),
    (COMPARE, {}),
    (SCENARIOS, {}),
    (SCENARIOS, {"look": "Filters"}),
    (ITEMS, {}),
    (JUDGES, {}),
    (TRAINING, {}),
    (JOBS, {}),
    (JOBS, {"form": "schedule"}),
    (JOBS, {"form": "jobs"}),
    (CHAT, {}),
)


@pytest.mark.parametrize(
    ("page", "query"), VIEWS, ids=lambda value: value.path if isinstance(value, PageSpec) else "-".join(value)
)
def test_a_link_shows_elsewhere_and_later_what_its_sender_saw(
    page: PageSpec, query: dict[str, str], sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))
    speak(sample, JudgeId("big-judge", None), 0.1)
    zone(monkeypatch, "Europe/Berlin")
    asked = {name: ids(sample, batch="demo/after")[0] if value == "ID" else value for name, value in query.items()}
    sent = open_page(page, **asked)
    unbound = {key for key, one in widgets(sent).items() if not one.proto.query_param_key} - DRAFTS
    assert not unbound, "they choose what is shown, and no link says how"
    link = address(sent)
    for one in widgets(sent).values():
        if one.key not in DRAFTS and (other := another(one)) is not None:
            changed = open_page(page, **(link | {one.proto.query_param_key: other}))
            assert one.key in widgets(changed), one.key
            assert values(changed)[one.key] != one.value, f"{one.key} is not restored from the address"

    zone(monkeypatch, "Asia/Tokyo")
    add_version(sample, "v0099", parent="v0003", path="v0099", files={}, reason="came later")
    finish_run(sample, start_run(sample, "later", RunKind.GRPO, "v0003", 7, {}), "done")
    speak(sample, JudgeId("busy-judge", None), 0.9)
    before, after = values(sent), values(open_page(page, **link))
    gone = before.keys() - after.keys()
    assert gone <= {"other-model"}, "where two judges have spoken, nobody is asked for another one"
    assert {key: after[key] for key in before.keys() - gone} == {key: before[key] for key in before.keys() - gone}


def zone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where the one who looks is."""
    monkeypatch.setattr(type(st.context), "timezone", property(lambda _: name))


def address(app: AppTest) -> dict[str, Any]:
    return {name: value if len(value) > 1 else value[0] for name, value in app.query_params.items()}


def widgets(app: AppTest) -> dict[str, Any]:
    return {one.key: one for kind in KINDS for one in app.get(kind) if one.key}


def values(app: AppTest) -> dict[str, Any]:
    return {key: one.value for key, one in widgets(app).items()}


def another(one: Any) -> str | None:
    """Another value of a widget, as it stands in an address; None where there is none."""
    kind = type(one).__name__
    if kind in {"Selectbox", "ButtonGroup"}:
        chosen = [one.index] if kind == "Selectbox" else list(one.indices)
        return next((text for place, text in enumerate(one.options) if place not in chosen), None)
    if kind == "Multiselect":
        return next((text for text in one.options if [text] != list(one.value)), None)
    if kind in {"Toggle", "Checkbox"}:
        return str(not one.value).lower()
    if kind == "NumberInput":
        return str(int(one.value) + 1)
    if kind == "DateInput":
        return "2026-01-02"
    return "prune"
