"""A person's word counts from the moment it is said: rewards follow, what was said before stays, and it can be taken
back. On both databases."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from reward import people
from reward.people import call_bad, restore, say
from reward.scoring import score_trajectories
from store.checklists import current_checklists
from store.database import Log, LogError
from store.records import Scenario
from store.scenarios import item_ids
from store.trajectories import ToolAnswer, end_trajectory, record_step, record_tool_answers
from store.verdicts import Verdict, add_verdicts, rewards_of, verdicts_of
from store.vocabulary import Outcome, StopReason, ToolSource, VerdictSource
from tests.store_examples import a_call, a_scenario, a_step, start

ADA: dict[str, Any] = {"person": "Ada", "reason": "I read it"}


def play(log: Log, scenario: Scenario, name: str, umbrella: Outcome = Outcome.FAIL, turns: int = 2) -> None:
    """Turn 0: the weather is asked for (step 0), then a reply (step 1). Turn 1: a reply. Judged by an LLM, scored.

    asks-weather weighs 0.75 and PASSes, umbrella 0.25, answers-thanks, alone in turn 1, PASSes.
    """
    start(log, name, scenario=scenario)
    call = {"content": "", "reasoning": "Oslo it is", "tool_calls": [a_call("c0")]}
    first = record_step(log, a_step(name, message=call, finish_reason="tool_calls"))
    record_tool_answers(log, name, [ToolAnswer("c0", json.dumps({"sky": "grey"}), False, ToolSource.WORLD)])
    reply = {"content": "Grey  skies,\ntake one.", "reasoning": None, "tool_calls": []}
    last = record_step(log, a_step(name, index=1, parent_id=first, message=reply, context_tokens=8))
    if turns == 2:
        record_step(log, a_step(name, turn_index=1, parent_id=last, context_tokens=13, user="Thanks"))
    end_trajectory(log, name, StopReason.COMPLETED)
    ids = item_ids(log, scenario.hash)
    said = {(0, "asks-weather"): Outcome.PASS, (0, "umbrella"): umbrella, (1, "answers-thanks"): Outcome.PASS}
    step = {"asks-weather": 0, "umbrella": 1, "answers-thanks": 0}
    add_verdicts(
        log,
        [
            Verdict(
                name, turn, ids[turn, key], key, outcome, step[key] if outcome is Outcome.PASS else None,
                VerdictSource.LLM, "big-judge", "a" * 64, "so it is", "",
            )
            for (turn, key), outcome in said.items()
            if turn < turns
        ],
    )  # fmt: skip
    score_trajectories(log, [name])


@pytest.fixture
def scenario(log: Log) -> Scenario:
    made = a_scenario()
    play(log, made, "t1")
    return made


def value(log: Log, name: str = "t1") -> float | None:
    return rewards_of(log, [name])[name].value


def test_a_pass_is_paid_at_once(log: Log, scenario: Scenario) -> None:
    """(0.75 + 1)/2 before, (0.75 + 0.25 + 1)/2 after. The judge's FAIL stays in the log."""
    told = say(log, "t1", 0, "umbrella", "PASS", step=1, quote="Grey skies, take one.", **ADA)
    assert told.before is not None and (told.before.value, told.after.value) == (0.875, 1.0)
    assert value(log) == 1.0
    rows = verdicts_of(log, ["t1"], all_rows=True)["t1"]
    of_item = [(row.source, row.judge, row.outcome) for row in rows if row.item_key == "umbrella"]
    assert of_item == [(VerdictSource.LLM, "big-judge", "FAIL"), (VerdictSource.HUMAN, "Ada", "PASS")]
    (mine,) = [row for row in verdicts_of(log, ["t1"])["t1"] if row.source is VerdictSource.HUMAN]
    assert (mine.step_index, mine.quote, mine.reason) == (1, "Grey skies, take one.", "I read it")


def test_a_fail_takes_what_depends_on_it_along(log: Log) -> None:
    """umbrella depends on asks-weather: with both paid 1; without asks-weather nothing of turn 0 is: (0 + 1)/2."""
    play(log, a_scenario(), "t1", umbrella=Outcome.PASS)
    assert value(log) == 1.0
    assert say(log, "t1", 0, "asks-weather", Outcome.FAIL, **ADA).after.value == 0.5


def test_a_pass_without_a_step_holds_as_soon_as_it_can(log: Log, scenario: Scenario) -> None:
    assert say(log, "t1", 0, "umbrella", "PASS", **ADA).after.value == 1.0


def test_a_later_word_takes_an_earlier_one_back_and_judges_do_not(log: Log, scenario: Scenario) -> None:
    say(log, "t1", 0, "umbrella", "PASS", **ADA)
    again = say(log, "t1", 0, "umbrella", "FAIL", person="Bob", reason="It only says take one.")
    assert again.after.value == value(log) == 0.875
    spoken = Verdict(
        "t1", 0, item_ids(log, scenario.hash)[0, "umbrella"], "umbrella", Outcome.PASS, 1,
        VerdictSource.LLM, "big-judge", None, "", "",
    )  # fmt: skip
    add_verdicts(log, [spoken])
    assert score_trajectories(log, ["t1"])["t1"].value == 0.875


def test_a_person_settles_what_no_judge_could(log: Log) -> None:
    play(log, a_scenario(), "t1", umbrella=Outcome.UNSCORED)
    assert value(log) is None
    told = say(log, "t1", 0, "umbrella", "FAIL", **ADA)
    assert told.before is not None and "UNSCORED" in str(told.before.excluded_reason)
    assert told.after.value == 0.875


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("nobody", 0, "umbrella", "PASS"), {}, "no trajectory 'nobody'"),
        (("t1", 2, "umbrella", "PASS"), {}, "did not reach a turn 2, only 0, 1"),
        (("t1", 1, "umbrella", "PASS"), {}, "turn 1 of scenario 'rain' has no item 'umbrella', only answers-thanks"),
        (("t1", 0, "umbrella", "UNSCORED"), {}, "says PASS or FAIL, not 'UNSCORED'"),
        (("t1", 0, "umbrella", "PASS"), {"step": 2}, "turn 0 of trajectory 't1' has no step 2, only 0, 1"),
        (("t1", 0, "umbrella", "FAIL"), {"step": 1}, "a FAIL holds at no step"),
        (("t1", 0, "umbrella", "PASS"), {"quote": "sunny"}, "'sunny' does not occur in turn 0"),
        (("t1", 0, "umbrella", "PASS"), {"step": 0, "quote": "take one"}, "does not occur in step 0 of turn 0"),
        (("t1", 0, "umbrella", "PASS"), {"person": " "}, "say who the person is"),
        (("t1", 0, "umbrella", "PASS"), {"person": "x" * 129}, "at most 128 characters, not 129"),
        (("t1", 0, "umbrella", "PASS"), {"reason": ""}, "needs a reason"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused(
    sqlite_log: Log, arguments: tuple[Any, ...], changes: dict[str, Any], message: str
) -> None:
    play(sqlite_log, a_scenario(), "t1")
    with pytest.raises(LogError, match=message):
        say(sqlite_log, *arguments, **ADA | changes)
    assert all(row.source is VerdictSource.LLM for row in verdicts_of(sqlite_log, ["t1"], all_rows=True)["t1"])


@pytest.mark.parametrize(
    ("step", "quote"), [(0, "Oslo"), (0, "grey"), (0, "Oslo it is"), (1, "skies, take"), (None, "grey")]
)
def test_a_quote_may_stand_in_any_channel_of_the_step(sqlite_log: Log, step: int | None, quote: str) -> None:
    play(sqlite_log, a_scenario(), "t1")
    assert say(sqlite_log, "t1", 0, "umbrella", "PASS", step=step, quote=quote, **ADA).verdict.quote == quote


def test_a_chat_without_a_scenario_has_nothing_to_judge(log: Log) -> None:
    start(log, "chat-1", origin="chat")
    record_step(log, a_step("chat-1"))
    with pytest.raises(LogError, match="checkloop annotate --chat chat-1"):
        say(log, "chat-1", 0, "umbrella", "PASS", **ADA)


def test_a_bad_item_leaves_all_rewards_of_its_scenario(
    log: Log, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without umbrella asks-weather weighs 1: (1 + 1)/2 = 1 in t1 and t3; t2, which had all, keeps its 1. t4 never got
    to turn 1: (0.75 + 0)/2 = 0.375 before, 0.5 after. elsewhere is another scenario's."""
    monkeypatch.setattr(people, "_CHUNK", 2)
    play(log, scenario, "t2", umbrella=Outcome.PASS)
    play(log, scenario, "t3")
    play(log, scenario, "t4", turns=1)
    play(log, a_scenario("snow"), "elsewhere")
    assert value(log, "t4") == 0.375
    revised = call_bad(log, "t1", 0, "umbrella", person="Ada", reason="nobody asked")
    assert (revised.rescored, revised.changed) == (4, 3)
    assert [value(log, name) for name in ("t1", "t2", "t3", "t4", "elsewhere")] == [1.0, 1.0, 1.0, 0.5, 0.875]
    assert len(verdicts_of(log, ["t1"])["t1"]) == 3
    back = restore(log, "t1", 0, "umbrella", person="Ada", reason="it was asked after all")
    assert (back.rescored, back.changed) == (4, 3)
    assert [value(log, name) for name in ("t1", "t2", "t3", "t4")] == [0.875, 1.0, 0.875, 0.375]


def test_many_rewards_follow_later_but_that_of_the_turn_at_hand_at_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the umbrella, which failed, the call weighs everything: 1 instead of 0.875."""
    for name in ("t1", "t2", "t3"):
        play(log, a_scenario(), name)
    monkeypatch.setattr(people, "_CHUNK", 1)
    waiting: list[Callable[[], object]] = []
    revised = call_bad(log, "t2", 0, "umbrella", later=waiting.append, **ADA)
    assert (revised.rescored, revised.changed, revised.waiting, len(waiting)) == (1, 1, 2, 1)
    assert [value(log, name) for name in ("t1", "t2", "t3")] == [0.875, 1.0, 0.875]
    waiting.pop()()
    assert [value(log, name) for name in ("t1", "t2", "t3")] == [1.0, 1.0, 1.0]
    back = restore(log, "t2", 0, "umbrella", later=waiting.append, **ADA)
    assert back.waiting == 2 and value(log, "t2") == 0.875
    waiting.pop()()
    assert value(log, "t1") == 0.875


def test_nobody_judges_an_item_that_is_out(log: Log, scenario: Scenario) -> None:
    call_bad(log, "t1", 0, "umbrella", person="Ada", reason="asks for style")
    with pytest.raises(LogError, match=r"left the checklist on .* Ada called it bad \(asks for style\)"):
        say(log, "t1", 0, "umbrella", "PASS", person="Bob", reason="it holds")
    with pytest.raises(LogError, match="Ada called it bad"):
        call_bad(log, "t1", 0, "umbrella", person="Bob", reason="I think so too")
    restore(log, "t1", 0, "umbrella", person="Bob", reason="no")
    assert say(log, "t1", 0, "umbrella", "PASS", person="Bob", reason="it holds").after.value == 1.0


def test_an_objection_needs_a_name_and_a_reason(log: Log, scenario: Scenario) -> None:
    for speak in (call_bad, restore):
        with pytest.raises(LogError, match="say who the person is"):
            speak(log, "t1", 0, "umbrella", person="", reason="x")
        with pytest.raises(LogError, match="needs a reason"):
            speak(log, "t1", 0, "umbrella", person="Ada", reason="  ")
    with pytest.raises(LogError, match="nothing to restore"):
        restore(log, "t1", 0, "umbrella", person="Ada", reason="x")
    assert [c.revision for c in current_checklists(log, [scenario])[scenario.hash][0]] == [0]
