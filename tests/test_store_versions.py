"""Versions change state only as the table of transitions allows, and never more than one is live."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.database import Log, LogError
from store.runs import start_run
from store.versions import (
    PolicyVersion,
    add_figures,
    add_gate_decision,
    add_version,
    get_version,
    list_gate_decisions,
    list_versions,
    live_version,
    next_version_name,
    set_version_state,
)
from store.vocabulary import VERSION_TRANSITIONS, VersionState

WAYS = {
    VersionState.CANDIDATE: [],
    VersionState.LIVE: [VersionState.LIVE],
    VersionState.RETIRED: [VersionState.LIVE, VersionState.RETIRED],
    VersionState.REFUSED: [VersionState.REFUSED],
}
"""How a new version comes to each state."""


def _add(log: Log, name: str, parent: str | None = None) -> PolicyVersion:
    return add_version(log, name, parent=parent, path=f"versions/{name}", files={"model.safetensors": "ab" * 32})


def test_names_count_up(log: Log) -> None:
    assert next_version_name(log) == "v0001"
    _add(log, "v0001")
    _add(log, "v0009")
    _add(log, "baseline")
    assert next_version_name(log) == "v0010"
    _add(log, "v10000")
    assert next_version_name(log) == "v10001"


def test_a_version_comes_back_as_a_candidate(log: Log) -> None:
    run = start_run(log, "sft-1", "sft", None, 1, {})
    _add(log, "v0001")
    added = add_version(
        log,
        "v0002",
        parent="v0001",
        path="versions/v0002",
        files={"model.safetensors": "cd" * 32},
        run_id=run,
        figures={"loss": 0.5},
    )
    assert added == get_version(log, "v0002")
    assert (added.parent, added.run_id, added.path) == ("v0001", run, "versions/v0002")
    assert (added.files, added.figures) == ({"model.safetensors": "cd" * 32}, {"loss": 0.5})
    assert added.state is VersionState.CANDIDATE
    assert [version.name for version in list_versions(log)] == ["v0001", "v0002"]


def test_weights_are_never_replaced(log: Log) -> None:
    _add(log, "v0001")
    with pytest.raises(LogError, match="already a version 'v0001'"):
        _add(log, "v0001")
    with pytest.raises(LogError, match="parent 'v0404' of version 'v0002' is not in the log"):
        _add(log, "v0002", parent="v0404")
    with pytest.raises(LogError, match="no version 'v0002'"):
        get_version(log, "v0002")


def test_a_version_that_goes_live_retires_the_live_one(log: Log) -> None:
    assert live_version(log) is None
    for name in ("v0001", "v0002"):
        _add(log, name)
    set_version_state(log, "v0001", VersionState.LIVE, "cold start")
    live = live_version(log)
    assert live is not None
    assert live.name == "v0001"
    set_version_state(log, "v0002", "live", "gate passed")
    assert {v.name: v.state.value for v in list_versions(log)} == {"v0001": "retired", "v0002": "live"}
    set_version_state(log, "v0001", VersionState.LIVE, "rolled back")
    assert {v.name: v.state.value for v in list_versions(log)} == {"v0001": "live", "v0002": "retired"}


@pytest.mark.parametrize("before", list(VersionState))
@pytest.mark.parametrize("after", list(VersionState))
def test_only_legal_changes_of_state_are_made(log: Log, before: VersionState, after: VersionState) -> None:
    _add(log, "v0001")
    for state in WAYS[before]:
        set_version_state(log, "v0001", state, "on the way")
    if after in VERSION_TRANSITIONS[before]:
        set_version_state(log, "v0001", after, "allowed")
        assert get_version(log, "v0001").state is after
    else:
        with pytest.raises(LogError, match=f"'v0001' cannot go from {before.value} to {after.value}"):
            set_version_state(log, "v0001", after, "not allowed")
        assert get_version(log, "v0001").state is before


def test_an_unknown_version_has_no_state(log: Log) -> None:
    with pytest.raises(LogError, match="no version 'v0001'"):
        set_version_state(log, "v0001", VersionState.LIVE, "")
    with pytest.raises(LogError, match="no version 'v0001'"):
        add_figures(log, "v0001", {})


def test_versions_that_race_to_go_live_leave_one_live(log: Log) -> None:
    names = [f"v{i:04d}" for i in range(1, 9)]
    for name in names:
        _add(log, name)
    barrier = threading.Barrier(len(names))

    def go_live(name: str) -> None:
        barrier.wait()
        set_version_state(log, name, VersionState.LIVE, "raced")

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(go_live, names))
    states = [version.state for version in list_versions(log)]
    assert states.count(VersionState.LIVE) == 1
    assert states.count(VersionState.RETIRED) == len(names) - 1


def test_figures_are_added_to(log: Log) -> None:
    _add(log, "v0001")
    add_figures(log, "v0001", {"reward": 0.25, "passed": 3})
    add_figures(log, "v0001", {"reward": 0.5})
    assert get_version(log, "v0001").figures == {"reward": 0.5, "passed": 3}


def test_gate_decisions_are_kept_in_order(log: Log) -> None:
    for name in ("v0001", "v0002", "v0003"):
        _add(log, name)
    made = [
        add_gate_decision(log, "v0002", "v0001", False, {"low": -0.1}, "not better"),
        add_gate_decision(log, "v0003", "v0001", True, {"low": 0.1}, "better"),
        add_gate_decision(log, "v0003", "v0001", None, {"excluded": 9}, "nobody judged"),
    ]
    assert list_gate_decisions(log) == made
    assert [(d.candidate, d.live, d.passed, d.reason) for d in made] == [
        ("v0002", "v0001", False, "not better"),
        ("v0003", "v0001", True, "better"),
        ("v0003", "v0001", None, "nobody judged"),
    ]
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        add_gate_decision(log, "v0404", "v0001", True, {}, "")
