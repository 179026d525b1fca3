"""A canary: a share of the chats after the gate, then live or refused by what those chats came to."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import train.evaluation
import train.job_learning
from reward.intervals import bootstrap_difference
from store.database import Log
from store.played import judged_chats, thumbs_of
from store.ratings import rate_turn
from store.records import Scenario
from store.scenarios import add_scenarios
from store.schema import now
from store.settings import Settings, load_settings
from store.traffic import set_traffic_split, traffic_split
from store.trajectories import record_step
from store.verdicts import Reward, add_rewards
from store.versions import get_version, list_gate_decisions
from store.vocabulary import Origin, Split, VersionState
from tests.job_stand_ins import StandInGateway, again, done, pipeline, versions, work
from tests.store_examples import a_scenario, a_step, start
from train.canary import CanaryRules, Chats, decide_canary
from train.errors import JobRefused
from train.evaluation import Outcome
from train.job_kinds import run_job

RULES = CanaryRules(min_chats=10, max_loss=0.1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", server={"staging": True})


@pytest.fixture
def gateway(sqlite_log: Log) -> StandInGateway:
    return StandInGateway(sqlite_log)


def test_two_independent_means_differ_by_more_than_their_parts() -> None:
    """Four of eight against six of eight passed: +0.25; the spread of both counts, so the interval is wider than that
    of one sample alone: sqrt(2 · 0.25 / 8 …) ≈ 0.23 at one standard error, 0.46 at 1.96 of them."""
    found = bootstrap_difference([1, 0] * 4, [1, 1, 1, 0] * 2, seed=3)
    assert found.mean_difference == pytest.approx(0.25)
    assert found.low == pytest.approx(0.25 - 0.46, abs=0.08) and found.high == pytest.approx(0.25 + 0.46, abs=0.08)
    with pytest.raises(ValueError, match="there are no values"):
        bootstrap_difference([], [1.0], seed=3)


@pytest.mark.parametrize(
    ("live", "candidate", "passed"),
    [
        ([0.5] * 9, [0.9] * 40, None),  # too few of the live version
        ([0.5] * 20, [0.9] * 9, None),  # too few of the candidate
        ([0.5] * 20, [0.9] * 10, True),
        ([0.9] * 20, [0.5] * 10, False),  # surely worse
        ([0.0, 1.0] * 10, [0.0, 1.0] * 6, None),  # may lose more than 0.1
        ([0.0, 1.0] * 10, [0.0, 1.0] * 20, False),  # and after four times as many chats still does
    ],
)
def test_it_passes_where_it_surely_loses_little(live: list[float], candidate: list[float], passed: bool | None) -> None:
    decision = decide_canary(Chats(live), Chats(candidate, 3, 1), RULES, seed=1)
    assert (decision.passed if decision is not None else None) is passed
    if decision is not None:
        assert decision.figures["thumbs_candidate"] == [3, 1] and decision.figures["canary"]


def chats(log: Log, version: str, rewards: list[float], prefix: str = "chat", origin: Origin = Origin.CHAT) -> None:
    for number, reward in enumerate(rewards):
        name = f"{prefix}-{version}-{number}"
        start(log, name, scenario=a_scenario(), version=version, origin=origin)
        record_step(log, a_step(name, version=version))
        add_rewards(log, [Reward(name, reward, (reward,), None, 0)])


def test_what_counts_are_judged_chats_since_the_split_that_one_version_answered(
    sqlite_log: Log,
    settings: Settings,
) -> None:
    versions(sqlite_log, settings.home / "versions", "LC")
    chats(sqlite_log, "v0002", [0.1], "before")
    since = now()
    chats(sqlite_log, "v0002", [0.5, 0.75])
    chats(sqlite_log, "v0002", [0.2], "rollout", Origin.ROLLOUT)
    chats(sqlite_log, "v0001", [0.3])
    start(sqlite_log, "mixed", version="v0002", origin=Origin.CHAT)
    record_step(sqlite_log, a_step("mixed", version="v0001"))
    add_rewards(sqlite_log, [Reward("mixed", 1.0, (1.0,), None, 0)])
    rate_turn(sqlite_log, "chat-v0002-0", 0, 1, person="anna")
    rate_turn(sqlite_log, "chat-v0002-0", 0, -1, person="anna")
    rate_turn(sqlite_log, "chat-v0002-1", 0, 1, person="anna")
    assert judged_chats(sqlite_log, "v0002", since) == [0.5, 0.75]
    assert thumbs_of(sqlite_log, "v0002", since) == (1, 1)
    assert judged_chats(sqlite_log, "v0002", since + timedelta(hours=1)) == []


@pytest.mark.parametrize("better", [True, False])
def test_after_its_gate_it_takes_a_share_and_its_chats_decide(
    sqlite_log: Log,
    settings: Settings,
    gateway: StandInGateway,
    monkeypatch: pytest.MonkeyPatch,
    better: bool,
) -> None:
    versions(sqlite_log, settings.home / "versions", "LC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(4)])

    def play_batch(_: Log, scenarios: Sequence[Scenario], *, version: str, **__: Any) -> dict[str, list[Outcome]]:
        return {scenario.hash: [Outcome(0.9 if version == "v0002" else 0.1, False)] for scenario in scenarios}

    monkeypatch.setattr(train.evaluation, "play_batch", play_batch)
    pipeline(sqlite_log, ("gate", {"version": "v0002", "canary": 0.1}))
    result = done(sqlite_log, work(sqlite_log, settings, gateway))
    assert (result["passed"], result["canary"], "swap" in result) == (True, 0.1, False)
    assert gateway.told == ["stage v0002", "bring back live", "split v0002 0.1"]
    assert get_version(sqlite_log, "v0002").state is VersionState.CANDIDATE

    chats(sqlite_log, "v0001", [0.4, 0.6] * 5)
    chats(sqlite_log, "v0002", [0.5] * 9)
    pipeline(sqlite_log, ("release", {"min_chats": 10, "max_loss": 0.1}))
    waits = done(sqlite_log, work(sqlite_log, settings, gateway))
    assert waits["reason"] == "not decided yet: 9 judged chats of v0002, 10 of v0001" and len(gateway.told) == 3

    chats(sqlite_log, "v0002", [0.9 if better else 0.0] * 10, "more")
    pipeline(sqlite_log, ("release", {"min_chats": 10, "max_loss": 0.1}))
    one = work(sqlite_log, settings, gateway)
    decided = run_job(one)
    assert decided["passed"] is better and "on 19 judged chats against 10" in decided["reason"]
    assert gateway.told[3:] == (["promote v0002"] if better else ["split None 0"])
    assert get_version(sqlite_log, "v0002").state is (VersionState.LIVE if better else VersionState.REFUSED)
    set_traffic_split(sqlite_log, None, 0.0, "as the gateway does after a promotion")
    assert run_job(again(sqlite_log, one))["reason"] == "no candidate has a share of the sessions"
    assert [decision.passed for decision in list_gate_decisions(sqlite_log)] == [True, better]
    assert traffic_split(sqlite_log) is None


def test_a_refusal_that_a_kill_cut_in_two_is_finished_by_the_next_look(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its share has ended, its state is not written yet."""
    versions(sqlite_log, settings.home / "versions", "LC")
    set_traffic_split(sqlite_log, "v0002", 0.1, "canary")
    chats(sqlite_log, "v0001", [0.9] * 10)
    chats(sqlite_log, "v0002", [0.1] * 10)
    pipeline(sqlite_log, ("release", {"min_chats": 10}))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    one = work(sqlite_log, settings, gateway)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train.job_learning, "set_version_state", killed)
        run_job(one)
    assert get_version(sqlite_log, "v0002").state is VersionState.CANDIDATE and traffic_split(sqlite_log) is None
    finished = run_job(again(sqlite_log, one))
    assert (finished["candidate"], finished["passed"]) == ("v0002", False) and "surely worse" in finished["reason"]
    assert get_version(sqlite_log, "v0002").state is VersionState.REFUSED
    assert run_job(again(sqlite_log, one))["reason"] == "no candidate has a share of the sessions"
    assert len(list_gate_decisions(sqlite_log)) == 1


def test_where_nobody_could_chat_with_it_it_is_refused_at_once(
    sqlite_log: Log,
    settings: Settings,
    gateway: StandInGateway,
) -> None:
    versions(sqlite_log, settings.home / "versions", "LC")
    pipeline(sqlite_log, ("gate", {"version": "v0002", "canary": 0.1}))
    one = work(sqlite_log, load_settings(home=settings.home), gateway)
    with pytest.raises(JobRefused, match=r"set server\.staging = true"):
        run_job(one)
    gateway.shared = False
    with pytest.raises(JobRefused, match="start `checkloop up`"):
        run_job(one)
    assert gateway.told == []
