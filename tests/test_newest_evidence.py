"""Whether the newest versions are better: which evidence is the newest, in which words, and where the pages show it."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.comparing import default_versions
from dashboard.links import COMPARE, OVERVIEW, TRAINING
from reward.newest_evidence import Finding, evidence_of_gate, evidence_on, newest_evidence
from reward.overview_commands import overview
from store.database import Log
from store.scenarios import load_scenarios
from store.trajectories import end_trajectory
from store.verdicts import Reward, add_rewards
from store.versions import (
    GateDecision,
    add_gate_decision,
    add_version,
    list_gate_decisions,
    predecessors_of,
    set_version_state,
)
from store.vocabulary import Origin, StopReason, VersionState
from tests.pages import html, open_page
from tests.store_examples import a_scenario, start

AT = datetime(2026, 11, 22, tzinfo=UTC)


def decided(low: float, high: float, **figures: object) -> GateDecision:
    known = {"pairs": 96, "difference": (low + high) / 2, "low": low, "high": high}
    return GateDecision(7, "v2", "v1", True, known | figures, "better", AT)


def test_an_interval_says_better_worse_or_neither() -> None:
    assert evidence_of_gate(decided(0.01, 0.2)).finding is Finding.BETTER
    assert evidence_of_gate(decided(-0.2, -0.01)).finding is Finding.WORSE
    assert evidence_of_gate(decided(-0.1, 0.1)).finding is Finding.UNCLEAR
    unseen = evidence_of_gate(GateDecision(8, "v2", "v1", False, {"damaged": ["a"]}, "its files are damaged", AT))
    assert unseen.finding is Finding.TOO_FEW and unseen.figures == "no difference was measured, at the gate"
    assert evidence_of_gate(decided(0.05, 0.25)).figures == "+15.0 points [+5.0, +25.0] over 96 scenarios, at the gate"
    canary = evidence_of_gate(decided(0.0, 0.2, canary=True, chats_candidate=40))
    assert (canary.n, canary.unit) == (40, "chat")


def test_the_live_version_stands_beside_the_one_before_it_and_a_refused_one_beside_the_live(log: Log) -> None:
    for name, parent in (("v0001", None), ("v0002", "v0001"), ("v0003", "v0002"), ("v0004", "v0003")):
        add_version(log, name, parent=parent, path=name, files={})
    assert newest_evidence(log) == []
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    (waiting,) = newest_evidence(log)
    assert (waiting.before, waiting.after, waiting.evidence) == ("v0001", "v0004", None)
    assert waiting.words == "v0004 has not been held against v0001"
    add_gate_decision(log, "v0003", "v0001", True, {"pairs": 9, "difference": 0.1, "low": 0.05, "high": 0.2}, "better")
    set_version_state(log, "v0003", VersionState.LIVE, "the gate")
    add_gate_decision(log, "v0004", "v0003", False, {"pairs": 9, "difference": -0.1}, "not better: -10 points")
    set_version_state(log, "v0004", VersionState.REFUSED, "not better")
    live, refused = newest_evidence(log)
    assert (live.before, live.after, live.words) == ("v0001", "v0003", "v0003 is better than v0001")
    assert refused.words == "v0004 was refused against v0003: not better: -10 points"


def test_what_a_version_took_over_from_goes_before_its_parent(log: Log) -> None:
    for name, parent in (("v0001", None), ("v0002", "v0001"), ("v0003", "v0002")):
        add_version(log, name, parent=parent, path=name, files={})
    assert predecessors_of(log, "v0003") == ["v0002", "v0001"]
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    set_version_state(log, "v0003", VersionState.LIVE, "the gate")
    assert predecessors_of(log, "v0003") == ["v0001", "v0002"]
    set_version_state(log, "v0001", VersionState.LIVE, "rolled back")
    assert predecessors_of(log, "v0001") == ["v0003"]
    assert predecessors_of(log, "v0009") == []


def test_evaluations_after_the_gate_are_the_newer_evidence_and_those_before_are_not(log: Log) -> None:
    scenarios = [a_scenario(f"rain-{n}", seed=n) for n in range(12)]
    for version, value in (("v0001", 0.2), ("v0002", 0.9)):
        for n, scenario in enumerate(scenarios):
            start(log, f"{version}-{n}", scenario=scenario, version=version, origin=Origin.EVALUATION, seed=n)
            end_trajectory(log, f"{version}-{n}", StopReason.COMPLETED)
            add_rewards(log, [Reward(f"{version}-{n}", value + n / 100, (), False, 0)])
    now = datetime.now(UTC)
    gate = {"pairs": 4, "difference": -0.5, "low": -0.6, "high": -0.4}
    earlier = GateDecision(1, "v0002", "v0001", False, gate, "worse", now - timedelta(days=1))
    found = evidence_on(log, [earlier], "v0001", "v0002")
    assert found is not None and found.decision is None and found.finding is Finding.BETTER
    assert found.n == 12 and found.difference == pytest.approx(0.7)
    later = GateDecision(2, "v0002", "v0001", False, gate, "worse", now + timedelta(days=1))
    found = evidence_on(log, [earlier, later], "v0001", "v0002")
    assert found is not None and found.decision == 2


def test_compare_begins_with_the_newest_against_the_live_one_and_never_with_the_oldest() -> None:
    played = ["v1", "v2", "v3", "v4"]
    assert default_versions(played, "v2", ["v3"]) == ("v2", "v4")
    assert default_versions(played, "v4", ["v2", "v3"]) == ("v2", "v4")
    assert default_versions(played, "v4", ["v9", "v3"]) == ("v3", "v4")
    assert default_versions(played, None, []) == ("v3", "v4")
    assert default_versions(["v1"], "v1", []) is None


def test_the_overview_says_it_first_and_leads_to_compare_and_the_gate(
    sample: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    add_version(sample, "v0004", parent="v0003", path="v0004", files={})
    refusal = {"pairs": 24, "difference": -0.02, "low": -0.09, "high": 0.05}
    add_gate_decision(sample, "v0004", "v0003", False, refusal, "not better than the live version <b>")
    set_version_state(sample, "v0004", VersionState.REFUSED, "not better")
    decision = list_gate_decisions(sample)[-1]
    said = html(open_page(OVERVIEW))
    assert said.index("v0003 is better than v0002") < said.index("Nothing to look at")
    assert "+14.0 points [+6.0, +22.0] over 24 scenarios, at the gate" in said
    assert "v0004 was refused against v0003: not better than the live version &lt;b&gt;" in said
    assert "compare?c_origin=evaluation&amp;c_before=v0003&amp;c_after=v0004" in said
    assert f"training?gate={decision.id}#gate-decisions" in said
    assert "▶ <b>v0004</b>" in html(open_page(TRAINING, gate=str(decision.id)))
    overview(origin=Origin.EVALUATION, domain=None, version=None, limit=300, config=None)
    assert "v0003 is better than v0002 (+14.0 points" in capsys.readouterr().out


def test_compare_opens_on_the_predecessor_of_the_live_version(sample: Log) -> None:
    scenario = load_scenarios(sample, split="test")[0]
    start(sample, "of-v0002", scenario=scenario, version="v0002", origin=Origin.EVALUATION)
    app = open_page(COMPARE)
    assert (app.selectbox(key="c_before").value, app.selectbox(key="c_after").value) == ("v0002", "v0003")
