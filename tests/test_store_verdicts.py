"""Verdicts are appended; a person's wins, else the newest. Rewards: the newest counts, and trouble is never a zero."""

from typing import Any

import pytest

from store.database import Log, LogError
from store.scenarios import item_ids
from store.verdicts import Reward, Verdict, add_rewards, add_verdicts, passes_by_kind, rewards_of, verdicts_of
from store.vocabulary import Outcome, VerdictSource
from tests.store_examples import a_scenario, start


@pytest.fixture
def items(log: Log) -> dict[tuple[int, str], int]:
    scenario = a_scenario()
    start(log, "t1", "t2", scenario=scenario)
    return item_ids(log, scenario.hash)


def _verdict(items: dict[tuple[int, str], int], key: str = "umbrella", turn: int = 0, **changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "trajectory_id": "t1",
        "turn_index": turn,
        "item_id": items[turn, key],
        "item_key": key,
        "outcome": Outcome.FAIL,
        "step_index": None,
        "source": VerdictSource.LLM,
        "judge": "judge-8b",
        "prompt_hash": "a" * 64,
        "reason": "no umbrella is mentioned",
        "quote": "Yes ☂",
    }
    return Verdict(**fields | changes)


def test_a_verdict_comes_back_as_it_was_said(log: Log, items: dict[tuple[int, str], int]) -> None:
    said = _verdict(items, outcome=Outcome.PASS, step_index=2)
    add_verdicts(log, [said])
    (found,) = verdicts_of(log, ["t1", "t2"])["t1"]
    assert found.created_at is not None
    assert found == Verdict(**{**vars(said), "created_at": found.created_at})


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (["code PASS"], "code PASS"),
        (["code PASS", "llm FAIL"], "llm FAIL"),
        (["llm FAIL", "llm UNSCORED"], "llm UNSCORED"),
        (["human FAIL", "llm PASS", "code PASS"], "human FAIL"),
        (["llm PASS", "human FAIL", "human PASS", "llm FAIL"], "human PASS"),
    ],
)
def test_a_person_wins_else_the_newest(
    log: Log, items: dict[tuple[int, str], int], said: list[str], counts: str
) -> None:
    for words in said:
        source, outcome = words.split()
        add_verdicts(log, [_verdict(items, source=VerdictSource(source), outcome=Outcome(outcome))])
    (found,) = verdicts_of(log, ["t1"])["t1"]
    assert f"{found.source} {found.outcome}" == counts
    every = verdicts_of(log, ["t1"], all_rows=True)["t1"]
    assert [f"{v.source} {v.outcome}" for v in every] == said


def test_passes_are_counted_by_kind_of_item_and_what_was_not_scored_is_not(
    log: Log, items: dict[tuple[int, str], int]
) -> None:
    passed = {"outcome": Outcome.PASS, "step_index": 0}
    add_verdicts(
        log,
        [
            _verdict(items, "asks-weather", **passed),
            _verdict(items, "umbrella"),
            _verdict(items, "umbrella", source=VerdictSource.HUMAN, **passed),
            _verdict(items, "answers-thanks", 1),
            _verdict(items, "answers-thanks", 1, trajectory_id="t2", outcome=Outcome.UNSCORED),
        ],
    )
    assert passes_by_kind(log, ["t1", "t2", "nobody"]) == {"t1": {"called": (1, 1), "llm": (1, 2)}}


def test_each_trajectory_turn_and_item_has_its_own_verdict(log: Log, items: dict[tuple[int, str], int]) -> None:
    add_verdicts(
        log,
        [
            _verdict(items, "answers-thanks", turn=1),
            _verdict(items, "umbrella"),
            _verdict(items, "asks-weather"),
            _verdict(items, "umbrella", trajectory_id="t2"),
        ],
    )
    found = verdicts_of(log, ["t1", "t2"])
    assert [(v.turn_index, v.item_key) for v in found["t1"]] == [
        (0, "asks-weather"),
        (0, "umbrella"),
        (1, "answers-thanks"),
    ]
    assert [v.item_key for v in found["t2"]] == ["umbrella"]
    assert verdicts_of(log, ["nobody"]) == {}


def test_a_verdict_that_contradicts_itself_is_refused_with_all_others(
    log: Log, items: dict[tuple[int, str], int]
) -> None:
    with pytest.raises(LogError, match="'umbrella' of trajectory 't1' is FAIL, yet held first at step 1"):
        add_verdicts(log, [_verdict(items), _verdict(items, step_index=1)])
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        add_verdicts(log, [_verdict(items), _verdict(items, item_id=10_000)])
    assert verdicts_of(log, ["t1"]) == {}


def test_the_newest_reward_counts(log: Log, items: dict[tuple[int, str], int]) -> None:
    add_rewards(log, [Reward("t1", None, (0.5, None), None, 1, "the judge was away"), Reward("t2", 0.0, (), False, 0)])
    assert rewards_of(log, ["t1"])["t1"] == Reward("t1", None, (0.5, None), None, 1, "the judge was away")
    add_rewards(log, [Reward("t1", 0.625, (0.25, 1.0), False, 0)])
    found = rewards_of(log, ["t1", "t2", "nobody"])
    assert found == {"t1": Reward("t1", 0.625, (0.25, 1.0), False, 0), "t2": Reward("t2", 0.0, (), False, 0)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused(log: Log, items: dict[tuple[int, str], int], value: float) -> None:
    with pytest.raises(LogError, match="'t1' is no finite number"):
        add_rewards(log, [Reward("t2", 1.0, (1.0,), True, 0), Reward("t1", value, (), None, 0)])
    assert rewards_of(log, ["t1", "t2"]) == {}
