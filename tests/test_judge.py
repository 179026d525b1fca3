"""The judge on a real log: what it writes, what it refuses to believe, and that trouble is never a FAIL."""

import asyncio
import hashlib
import time
from typing import Any

import httpx2
import pytest

from agent.role_errors import LimitReached
from reward.code_judge import judge_by_code
from reward.judge import Judge
from reward.judge_cache import cache_keys, shown_hash
from reward.judging_plan import NO_JUDGE, JudgingOptions
from reward.llm_judge import TOKENS_BESIDE, TOKENS_PER_ITEM, Dialogue
from reward.panel import Panel
from store.database import Log, LogError
from store.endpoint_settings import Price
from store.model_calls import call_totals
from store.records import Called, NotCalled, ReplyMentions, ResponseReceived, ScenarioTurn, canonical_json
from store.scenarios import item_ids
from store.trajectories import (
    NewTrajectory,
    create_trajectories,
)
from store.turns import get_turns
from store.verdicts import Verdict, add_verdicts, rewards_of, verdicts_of
from store.vocabulary import Combination, FocusOn, JudgeMode, Origin, Outcome, StopReason, VerdictSource
from tests.judged_log import (
    CODE_ITEMS,
    LLM_ITEMS,
    PLAYED,
    all_pass,
    alone,
    asked_ids,
    endpoint_judge,
    item,
    polite_turn,
    record,
    say,
    scenario,
    verdicts_json,
)
from tests.turn_records import call, turn


def test_code_items_are_judged_and_written_with_evidence(log: Log) -> None:
    played = scenario(CODE_ITEMS)
    name = record(log, played, [PLAYED], stop=None)
    judgement = asyncio.run(Judge(log).judge_turn(played, get_turns(log, name)[0]))
    assert judgement.strict_ok is True
    written = verdicts_of(log, [name])[name]
    assert [(v.item_key, v.outcome, v.step_index, v.source) for v in written] == [
        ("call", Outcome.PASS, 0, VerdictSource.CODE),
        ("reply", Outcome.PASS, 1, VerdictSource.CODE),
    ]
    assert [v.quote for v in written] == ['{"arguments":{"city":"Paris"},"name":"find"}', "1200"]
    assert written[0].item_id == item_ids(log, played.hash)[0, "call"]


def test_a_failed_strict_item_stops_the_dialogue(sqlite_log: Log) -> None:
    played = scenario(CODE_ITEMS)
    name = record(sqlite_log, played, [turn("It is 1200.")], stop=None)
    judgement = asyncio.run(Judge(sqlite_log).judge_turn(played, get_turns(sqlite_log, name)[0]))
    assert judgement.strict_ok is False
    assert [v.outcome for v in judgement.verdicts] == [Outcome.FAIL, Outcome.PASS]


def test_without_an_llm_items_without_a_check_are_unscored(sqlite_log: Log) -> None:
    played = scenario(LLM_ITEMS)
    name = record(sqlite_log, played, [PLAYED])
    judgement = asyncio.run(Judge(sqlite_log).judge_turn(played, PLAYED))
    assert judgement.strict_ok is None
    assert {(v.outcome, v.reason) for v in judgement.verdicts} == {(Outcome.UNSCORED, NO_JUDGE)}
    reward = asyncio.run(Judge(sqlite_log).judge_trajectories([name]))[name]
    assert (reward.value, reward.unscored) == (None, 2)
    assert NO_JUDGE in str(reward.excluded_reason)


def test_an_unsound_check_is_unscored_not_failed(sqlite_log: Log) -> None:
    played = scenario((item("odd", FocusOn.REPLY, 1.0, ReplyMentions(all_of=(("**",),))),))
    record(sqlite_log, played, [PLAYED])
    verdict = asyncio.run(Judge(sqlite_log).judge_turn(played, PLAYED)).verdicts[0]
    assert verdict.outcome is Outcome.UNSCORED and "'**'" in verdict.reason


def test_judging_against_the_wrong_scenario_is_refused(sqlite_log: Log) -> None:
    played = scenario(CODE_ITEMS)
    with pytest.raises(ValueError, match="has a turn 3, but scenario 'trip' has only 1 turns"):
        asyncio.run(Judge(sqlite_log).judge_turn(played, turn("Hi", index=3)))
    with pytest.raises(ValueError, match="add the scenario first"):
        asyncio.run(Judge(sqlite_log).judge_turn(played, PLAYED))


def test_rewards_of_trajectories_by_hand(log: Log) -> None:
    """Two turns. good: 1 and 1: R = 1. half: turn 0 without the call: its reply's 0.5 is blocked by the dependency: 0,
    turn 1 never reached: R = 0. late: turn 0 call alone 0.5, turn 1 whole 1: R = (0.5 + 1) / 2 = 0.75."""
    played = scenario(CODE_ITEMS, CODE_ITEMS)
    whole = ([call("find")], "It is 1200.")
    good = record(log, played, [turn(*whole, trajectory_id="good"), turn(*whole, index=1, trajectory_id="good")])
    half = record(log, played, [turn("It is 1200.", trajectory_id="half")], StopReason.STRICT_ITEM)
    late = [
        turn([call("find")], "Found it.", trajectory_id="late"),
        turn([call("find")], "1200", index=1, trajectory_id="late"),
    ]
    record(log, played, late)
    failed = record(log, played, [turn("Hm", trajectory_id="failed")], StopReason.FAILED)
    running = record(log, played, [turn("Hm", trajectory_id="running")], None)
    create_trajectories(log, [NewTrajectory(id="chat", origin=Origin.CHAT)])

    rewards = asyncio.run(Judge(log).judge_trajectories([good, half, "late", failed, running, "chat", good]))
    assert {name: reward.value for name, reward in rewards.items()} == {
        "good": 1.0, "half": 0.0, "late": 0.75, "failed": None, "running": None, "chat": None,
    }  # fmt: skip
    assert rewards["late"].turn_values == (0.5, 1.0)
    assert (rewards["good"].fully_passed, rewards["late"].fully_passed) == (True, False)
    assert rewards["failed"].excluded_reason == "the server died"
    assert rewards_of(log, rewards) == rewards
    assert "failed" not in verdicts_of(log, ["failed"])
    with pytest.raises(LogError, match="nobody"):
        asyncio.run(Judge(log).judge_trajectories(["nobody"]))


def test_judging_again_appends_nothing_and_a_persons_verdict_changes_the_reward(sqlite_log: Log) -> None:
    played = scenario(CODE_ITEMS)
    name = record(sqlite_log, played, [turn("It is 1200.")])
    judged = Judge(sqlite_log)
    assert asyncio.run(judged.judge_trajectories([name]))[name].value == 0.0
    before = verdicts_of(sqlite_log, [name], all_rows=True)
    assert asyncio.run(judged.judge_trajectories([name]))[name].value == 0.0
    assert verdicts_of(sqlite_log, [name], all_rows=True) == before
    call_item = item_ids(sqlite_log, played.hash)[0, "call"]
    human = Verdict(name, 0, call_item, "call", Outcome.PASS, None, VerdictSource.HUMAN, "ada", None, "by phone", "")
    add_verdicts(sqlite_log, [human])
    reward = asyncio.run(judged.judge_trajectories([name]))[name]
    assert reward.value == 0.5, "the reply holds at step 0 too, so its dependency does not hold before it"


def test_only_items_that_are_unscored_are_retried(sqlite_log: Log) -> None:
    played = scenario((CODE_ITEMS[0].model_copy(update={"weight": 0.5}), item("polite", FocusOn.REPLY, 0.5)))
    name = record(sqlite_log, played, [PLAYED])
    down = Judge(sqlite_log, alone(lambda _: httpx2.Response(503, text="overloaded")))
    assert asyncio.run(down.judge_trajectories([name]))[name].value is None
    up = Judge(sqlite_log, alone(lambda _: verdicts_json(("polite", "my pleasure", 1, "PASS"))))
    assert asyncio.run(up.judge_trajectories([name]))[name].value is None, "nothing is asked twice unless told to"
    assert asyncio.run(up.judge_trajectories([name], retry_unscored=True))[name].value == 1.0
    rows = verdicts_of(sqlite_log, [name], all_rows=True)[name]
    assert [(v.item_key, v.outcome) for v in rows] == [
        ("call", Outcome.PASS), ("polite", Outcome.UNSCORED), ("polite", Outcome.PASS),
    ]  # fmt: skip


def test_llm_verdicts_are_written_with_quote_model_and_prompt_hash(sqlite_log: Log) -> None:
    played = scenario(LLM_ITEMS)
    name = record(sqlite_log, played, [PLAYED])
    said = verdicts_json(("right_city", '{"city": "Paris"}', 0, "PASS"), ("polite", "My  pleasure", 1, "PASS"))
    llm = alone(lambda _: said)
    assert asyncio.run(Judge(sqlite_log, llm).judge_turn(played, PLAYED)).strict_ok is True
    polite, city = verdicts_of(sqlite_log, [name])[name]
    assert (polite.outcome, polite.step_index, polite.quote, polite.judge) == (
        Outcome.PASS,
        1,
        "my pleasure",
        "big-judge",
    )
    assert (city.outcome, city.step_index, city.source) == (Outcome.PASS, 0, VerdictSource.LLM)
    assert polite.prompt_hash == llm.judges[0].prompt_hash and len(str(polite.prompt_hash)) == 64


def test_items_that_need_no_model_are_not_sent(sqlite_log: Log) -> None:
    """No reply, no thinking, failed calls only, a dependency that fails, and what depends on that one in turn."""
    played = scenario(
        (
            item("call", FocusOn.TOOL_CALLS, 0.5, Called(tool="find")),
            item("late", FocusOn.TOOL_RESPONSE, 0.5, depends_on=("blocked",)),
            item("blocked", FocusOn.TOOL_CALLS, depends_on=("call",)),
            item("polite", FocusOn.REPLY),
            item("thoughtful", FocusOn.THINKING),
            item("tool", FocusOn.TOOL_CALLS),
        )
    )
    happened = turn([call("find", error=True)])
    record(sqlite_log, played, [happened])

    verdicts = asyncio.run(Judge(sqlite_log, alone(refuse)).judge_turn(played, happened)).verdicts
    assert {v.item_key: v.reason for v in verdicts if v.judge == "rules"} == {
        "blocked": "it depends on 'call', which fails",
        "late": "it depends on 'blocked', which fails",
        "polite": "the turn ended without a reply",
        "thoughtful": "there is no thinking in the turn",
        "tool": "every tool call of the turn failed",
    }
    assert {v.outcome for v in verdicts} == {Outcome.FAIL}
    assert {v.source for v in verdicts} == {VerdictSource.CODE}


def test_code_judges_thousands_of_turns_a_second() -> None:
    checklist = ScenarioTurn(
        user="Hi",
        checklist=(
            item("call", FocusOn.TOOL_CALLS, 0.4, Called(tool="find", arguments={"city": "Paris"})),
            item("response", FocusOn.TOOL_RESPONSE, 0.2, ResponseReceived(tool="find", values=("1200",))),
            item("reply", FocusOn.REPLY, 0.2, ReplyMentions(all_of=(("1200",),)), depends_on=("response",)),
            item("none", FocusOn.TOOL_CALLS, 0.2, NotCalled(tools=("pay",))),
        ),
    )
    ids = {(0, entry.id): n for n, entry in enumerate(checklist.checklist)}
    turns = [
        turn([call("find", {"city": "Paris"}, {"price": n})], f"It is {n} euro, my pleasure. " * 5) for n in range(2000)
    ]
    started = time.process_time()
    for happened in turns:
        judge_by_code(checklist.checklist, happened, ids)
    assert len(turns) / (time.process_time() - started) > 2000


def refuse(_: dict[str, Any]) -> str:
    raise AssertionError("the judge was asked")


def test_the_same_question_is_not_paid_for_twice(log: Log) -> None:
    """Two dialogues of a group that say the same, judged at the same time, and a third one later: one call."""
    played = scenario(LLM_ITEMS)
    names = [record(log, played, [polite_turn(name)]) for name in ("a", "b")]
    requests = []

    def answer(request: dict[str, Any]) -> str:
        requests.append(request)
        return all_pass(request)

    judged = Judge(log, alone(answer, log=log))
    rewards = asyncio.run(judged.judge_trajectories(names))
    assert [reward.value for reward in rewards.values()] == [1.0, 1.0]
    late = record(log, played, [polite_turn("c")])
    assert asyncio.run(Judge(log, alone(refuse)).judge_trajectories([late]))[late].value == 1.0
    assert len(requests) == 1
    (total,) = call_totals(log)
    assert (total.calls, total.items) == (1, 2)
    rows = verdicts_of(log, ["a", "c"], all_rows=True)
    assert [(v.item_key, v.judge, v.quote) for v in rows["c"]] == [(v.item_key, v.judge, v.quote) for v in rows["a"]]
    assert {v.cache_key for v in rows["c"]} == {v.cache_key for v in rows["a"]} != {None}


def test_what_was_said_at_temperature_0_stays_known() -> None:
    """Its keys are what they were before temperatures were part of them."""
    happened = Dialogue(turn([call("find", {"city": "Paris"})], "It is 1200.", user="Question 0"))
    judge = endpoint_judge(refuse)
    question = [judge.name, "turn", judge.prompt_hash, shown_hash(judge, happened)]
    words = {"focus_on": "user_visible_reply", "question": "Does polite hold?", "pass_condition": ""}
    words |= {"failure_examples": []}
    expected = hashlib.sha256(canonical_json([*question, words, 0]).encode()).hexdigest()
    assert cache_keys(judge, happened, LLM_ITEMS[:1], 0) == {"polite": expected}


@pytest.mark.parametrize("change", ["text", "words", "prompt", "mode", "judge", "name", "temperature", "earlier turn"])
def test_another_question_is_asked(sqlite_log: Log, tmp_path: Any, change: str) -> None:
    """Anything that the judge is shown or told makes it another question."""
    played = scenario(LLM_ITEMS)
    name = record(sqlite_log, played, [polite_turn("a")])
    asyncio.run(Judge(sqlite_log, alone(all_pass)).judge_trajectories([name]))
    happened, other, mode = polite_turn("b"), played, JudgeMode.TURN
    settings: dict[str, Any] = {}
    if change == "text":
        happened = polite_turn("b", user="Please?")
    elif change == "words":
        reworded = tuple(i.model_copy(update={"question": i.question + "!"}) for i in LLM_ITEMS)
        other = scenario(reworded, name="other")
    elif change == "mode":
        mode = JudgeMode.ITEM
    elif change == "judge":
        settings = {"model": "bigger-judge"}
    elif change == "name":
        settings = {"name": "the other one"}
    elif change == "temperature":
        settings = {"temperature": 0.7}
    asked: list[Any] = []

    def answer(request: dict[str, Any]) -> str:
        asked.append(request)
        return all_pass(request)

    judge = endpoint_judge(answer, mode, **settings)
    if change == "prompt":
        file = tmp_path / "prompt.md"
        file.write_text("Be kind.")
        judge = type(judge)(judge.endpoint, mode, file)
    turns = [happened]
    if change == "earlier turn":
        other = scenario((), LLM_ITEMS, name="other")
        turns = [turn("Hello.", trajectory_id="b"), happened.model_copy(update={"index": 1})]
    name = record(sqlite_log, other, turns)
    asyncio.run(Judge(sqlite_log, Panel((judge,))).judge_trajectories([name]))
    assert asked


def test_a_panel_s_votes_stand_beside_the_verdict_that_counts(log: Log) -> None:
    played = scenario(LLM_ITEMS)
    name = record(log, played, [polite_turn()])
    yes, no = endpoint_judge(all_pass, model="yes"), endpoint_judge(lambda r: say(r), model="no")
    panel = Panel((yes, no), combination=Combination.MEAN)
    asyncio.run(Judge(log, panel).judge_trajectories([name]))
    rows = verdicts_of(log, [name], all_rows=True)[name]
    votes = [(v.item_key, v.judge, v.outcome) for v in rows if not v.counts]
    assert sorted(votes) == [
        ("polite", "no", Outcome.FAIL), ("polite", "yes", Outcome.PASS),
        ("right_city", "no", Outcome.FAIL), ("right_city", "yes", Outcome.PASS),
    ]  # fmt: skip
    polite, _ = verdicts_of(log, [name])[name]
    assert (polite.judge, polite.outcome, polite.share, polite.step_index) == ("mean of yes, no", Outcome.PASS, 0.5, 1)
    assert polite.votes is not None and [vote.outcome for vote in polite.votes] == [Outcome.PASS, Outcome.FAIL]


def test_draws_of_one_judge_have_seeds_and_are_votes(sqlite_log: Log) -> None:
    played = scenario((LLM_ITEMS[0].model_copy(update={"weight": 1.0}),))
    name = record(sqlite_log, played, [polite_turn()])
    seeds = []

    def answer(request: dict[str, Any]) -> str:
        seeds.append(request["seed"])
        return all_pass(request) if request["seed"] else say(request)

    panel = Panel((endpoint_judge(answer, temperature=0.7),), draws=3)
    asyncio.run(Judge(sqlite_log, panel).judge_trajectories([name]))
    rows = verdicts_of(sqlite_log, [name], all_rows=True)[name]
    assert sorted(seeds) == [0, 1, 2]
    assert [(v.draw, v.outcome) for v in rows if not v.counts] == [
        (0, Outcome.FAIL), (1, Outcome.PASS), (2, Outcome.PASS),
    ]  # fmt: skip
    assert [(v.judge, v.outcome) for v in rows if v.counts] == [("majority of big-judge x 3", Outcome.PASS)]


def test_a_spending_limit_keeps_what_was_said_and_leaves_the_rest_unjudged(sqlite_log: Log) -> None:
    """Not UNSCORED: nobody tried. Once more may be spent the same call goes on; nothing is asked twice."""
    played = scenario(LLM_ITEMS)
    names = [record(sqlite_log, played, [polite_turn(f"t{n}", f"Question {n}")]) for n in range(6)]
    price = Price(prompt=0.0, completion=10_000.0)
    put_aside = 0.01 * (2 * TOKENS_PER_ITEM + TOKENS_BESIDE)  # USD; an answer of 10 tokens costs 0.1
    limited = alone(all_pass, price=price, max_usd=put_aside + 0.25, max_concurrency=1)
    report = asyncio.run(Judge(sqlite_log, limited).judge_log(names))
    assert report.stopped is not None and "max_usd" in report.stopped
    said = verdicts_of(sqlite_log, names, all_rows=True)
    assert len(said) == 3
    assert {v.outcome for verdicts in said.values() for v in verdicts} == {Outcome.PASS}
    with pytest.raises(LimitReached, match="max_usd"):
        asyncio.run(Judge(sqlite_log, limited).judge_trajectories(names))
    left = next(name for name in names if name not in said)
    with pytest.raises(LimitReached, match="max_usd"):
        asyncio.run(Judge(sqlite_log, limited).judge_turn(played, get_turns(sqlite_log, left)[0]))
    requests = []

    def answer(request: dict[str, Any]) -> str:
        requests.append(request)
        return all_pass(request)

    rewards = asyncio.run(Judge(sqlite_log, alone(answer)).judge_trajectories(names))
    assert [reward.value for reward in rewards.values()] == [1.0] * 6
    assert len(requests) == 3


def test_votes_said_before_a_limit_are_kept_and_not_asked_for_again(sqlite_log: Log) -> None:
    played = scenario(LLM_ITEMS)
    name = record(sqlite_log, played, [polite_turn()])
    poor = endpoint_judge(refuse, model="poor", price=Price(prompt=1.0, completion=1.0), max_usd=1e-9)
    panel = Panel((endpoint_judge(all_pass, model="rich"), poor))
    assert asyncio.run(Judge(sqlite_log, panel).judge_log([name])).stopped
    assert [(v.judge, v.counts) for v in verdicts_of(sqlite_log, [name], all_rows=True)[name]] == [("rich", False)] * 2
    again = Panel((endpoint_judge(refuse, model="rich"), endpoint_judge(all_pass, model="poor")))
    assert asyncio.run(Judge(sqlite_log, again).judge_trajectories([name]))[name].value == 1.0
    rows = verdicts_of(sqlite_log, [name], all_rows=True)[name]
    assert sorted((v.judge, v.counts) for v in rows) == sorted(
        [("rich", False), ("poor", False), ("majority of rich, poor", True)] * 2
    )


def test_another_judge_speaks_beside_without_counting(sqlite_log: Log) -> None:
    played = scenario(LLM_ITEMS)
    name = record(sqlite_log, played, [polite_turn()])
    asyncio.run(Judge(sqlite_log, alone(all_pass)).judge_trajectories([name]))
    rewards = rewards_of(sqlite_log, [name])
    beside = JudgingOptions(beside=True)
    other = alone(lambda r: say(r), model="other")
    asyncio.run(Judge(sqlite_log, other).judge_log([name], beside))
    rows = verdicts_of(sqlite_log, [name], all_rows=True)[name]
    assert [(v.judge, v.outcome) for v in rows if not v.counts] == [("other", Outcome.FAIL)] * 2
    assert [v.judge for v in verdicts_of(sqlite_log, [name])[name]] == ["big-judge"] * 2
    assert rewards_of(sqlite_log, [name]) == rewards
    asyncio.run(Judge(sqlite_log, alone(refuse, model="other")).judge_log([name], beside))
    assert verdicts_of(sqlite_log, [name], all_rows=True)[name] == rows, "said already, so nothing is said again"
    fresh = JudgingOptions(beside=True, fresh=True)
    asyncio.run(Judge(sqlite_log, alone(all_pass, model="other")).judge_log([name], fresh))
    assert len(verdicts_of(sqlite_log, [name], all_rows=True)[name]) == len(rows) + 2


def test_calibration_asks_about_items_with_checks_beside_the_checks(sqlite_log: Log) -> None:
    played = scenario((*CODE_ITEMS, item("thoughtful", FocusOn.THINKING, 0.0, NotCalled())))
    name = record(sqlite_log, played, [polite_turn()])
    asyncio.run(Judge(sqlite_log).judge_trajectories([name]))
    asked: list[str] = []

    def answer(request: dict[str, Any]) -> str:
        asked.extend(asked_ids(request))
        return say(request, reply=("1200", 1))

    asyncio.run(Judge(sqlite_log, alone(answer)).judge_log([name], JudgingOptions(calibrate=True)))
    assert asked == ["call", "reply"], "of the thinking there is nothing to look at"
    rows = verdicts_of(sqlite_log, [name], all_rows=True)[name]
    assert [(v.item_key, v.outcome) for v in rows if v.source is VerdictSource.LLM] == [
        ("call", Outcome.FAIL), ("reply", Outcome.PASS),
    ]  # fmt: skip
    assert {v.source for v in verdicts_of(sqlite_log, [name])[name]} == {VerdictSource.CODE}


def test_what_failed_by_rule_is_judged_once_a_person_says_that_its_dependency_holds(sqlite_log: Log) -> None:
    items = (CODE_ITEMS[0], item("polite", FocusOn.REPLY, 0.5, depends_on=("call",)))
    played = scenario(items)
    name = record(sqlite_log, played, [turn("It is 1200, my pleasure.")])
    judged = Judge(sqlite_log, alone(lambda r: say(r, polite=("my pleasure", 0))))
    assert asyncio.run(judged.judge_trajectories([name]))[name].unscored == 0
    assert {v.judge for v in verdicts_of(sqlite_log, [name])[name]} == {"checks", "rules"}
    call_item = item_ids(sqlite_log, played.hash)[0, "call"]
    human = Verdict(name, 0, call_item, "call", Outcome.PASS, None, VerdictSource.HUMAN, "ada", None, "by phone", "")
    add_verdicts(sqlite_log, [human])
    asyncio.run(judged.judge_trajectories([name]))
    assert [(v.judge, v.outcome) for v in verdicts_of(sqlite_log, [name])[name]] == [
        ("ada", Outcome.PASS), ("big-judge", Outcome.PASS),
    ]  # fmt: skip


def test_paper_mode_asks_about_what_no_model_needs_to_look_at(sqlite_log: Log) -> None:
    """CM2's reference procedure: the calls are counted there."""
    played = scenario((CODE_ITEMS[0], item("thoughtful", FocusOn.THINKING, 0.5, depends_on=("call",))))
    name = record(sqlite_log, played, [turn([call("look")], "Done.")])
    calls = []

    def answer(request: dict[str, Any]) -> str:
        calls.append(request)
        return "no JSON"

    asyncio.run(Judge(sqlite_log, alone(answer, JudgeMode.PAPER)).judge_trajectories([name]))
    assert len(calls) == 2


def test_a_log_that_refuses_is_an_error_of_its_own(sqlite_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    played = scenario(LLM_ITEMS)
    name = record(sqlite_log, played, [polite_turn()])

    def full(*_: Any) -> None:
        raise LogError("the disk is full")

    def answer(request: dict[str, Any]) -> str:
        monkeypatch.setattr("reward.judge.add_verdicts", full)
        return all_pass(request)

    with pytest.raises(LogError, match="the disk is full"):
        asyncio.run(Judge(sqlite_log, alone(answer)).judge_trajectories([name]))
