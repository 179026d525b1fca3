"""What failed by rule is nobody's judgement: it waits for one as soon as what it follows from is said otherwise. And
what waits for a judge is found again."""

import asyncio
from typing import Any

import httpx2
import pytest

from reward.judge import Judge
from reward.judge_cache import cache_keys
from reward.llm_judge import Dialogue
from reward.panel import Panel
from reward.payments import payslip
from reward.people import say as person_says
from reward.scoring import NO_LONGER, score_trajectories, states_of
from store.backlog import unjudged
from store.database import Log
from store.records import Item
from store.scenarios import item_ids
from store.verdicts import Verdict, add_verdicts, rewards_of, verdicts_of
from store.vocabulary import FocusOn, JudgeMode, Outcome, StopReason, VerdictSource
from tests.judged_log import CODE_ITEMS, LLM_ITEMS, alone, endpoint_judge, item, polite_turn, record, say, scenario
from tests.turn_records import call, turn

RIGHT, POLITE = (
    item("right_city", FocusOn.TOOL_CALLS, 0.5),
    item("polite", FocusOn.REPLY, 0.5, depends_on=("right_city",)),
)
PERSON: dict[str, Any] = {"person": "Ada", "reason": "Paris is what was asked for"}


def refusing(request: dict[str, Any]) -> str:
    return say(request)


def polite(request: dict[str, Any]) -> str:
    return say(request, polite=("my pleasure", 1))


@pytest.mark.parametrize("draws", [1, 2])
def test_what_step_mode_never_asked_failed_by_rule_and_waits_once_a_person_says_otherwise(log: Log, draws: int) -> None:
    """The judge fails right_city, so polite is never asked: 0. A person passes right_city: polite may be worth 0.5."""
    name = record(log, scenario((RIGHT, POLITE)), [polite_turn()])
    judged = Judge(log, Panel((endpoint_judge(refusing, JudgeMode.STEP),), draws))
    assert asyncio.run(judged.judge_trajectories([name]))[name].value == 0.0
    said = {verdict.item_key: verdict for verdict in verdicts_of(log, [name])[name]}
    assert (said["polite"].judge, said["polite"].source) == ("rules", VerdictSource.CODE)
    assert said["polite"].reason == "it depends on 'right_city', which fails"
    assert unjudged(log, batches=None, limit=9) == []

    after = person_says(log, name, 0, "right_city", "PASS", **PERSON).after
    assert (after.value, after.unscored) == (None, 1) and NO_LONGER in str(after.excluded_reason)
    assert payslip(log, name).turns[0].payments[1].note == NO_LONGER
    ((states,),) = states_of(log, [name])[name]
    assert [state.scored for state in states.items] == [True, False]
    assert unjudged(log, batches=None, limit=9) == [name], "the judge's job takes it up"

    again = Judge(log, Panel((endpoint_judge(polite, JudgeMode.STEP),), draws))
    assert asyncio.run(again.judge_trajectories([name]))[name].value == 1.0
    assert unjudged(log, batches=None, limit=9) == []


def test_what_follows_from_what_followed_is_judged_at_once(sqlite_log: Log) -> None:
    """No call, so neither is asked; a person says that there was one: both are, in one question."""
    items = (
        CODE_ITEMS[0],
        item("polite", FocusOn.REPLY, 0.3, depends_on=("call",)),
        item("kind", FocusOn.REPLY, 0.2, depends_on=("polite",)),
    )
    name = record(sqlite_log, scenario(items), [turn("It is 1200, my pleasure.")])
    judged = Judge(sqlite_log, alone(polite))
    asyncio.run(judged.judge_trajectories([name]))
    after = person_says(sqlite_log, name, 0, "call", "PASS", **PERSON).after
    assert after.unscored == 2
    asyncio.run(judged.judge_trajectories([name]))
    assert [v.judge for v in verdicts_of(sqlite_log, [name])[name]] == ["Ada", "big-judge", "big-judge"]


def test_what_lacks_its_channel_stays_failed_whatever_else_holds(sqlite_log: Log) -> None:
    """The call passes, and the turn has no reply: 0.5, and nothing waits."""
    items = (CODE_ITEMS[0], item("polite", FocusOn.REPLY, 0.5, depends_on=("call",)))
    name = record(sqlite_log, scenario(items), [turn([call("find")], trajectory_id="t1")], StopReason.MAX_STEPS)
    assert asyncio.run(Judge(sqlite_log, alone(polite)).judge_trajectories([name]))[name].value == 0.5
    reward = score_trajectories(sqlite_log, [name])[name]
    assert (reward.value, reward.unscored) == (0.5, 0) and unjudged(sqlite_log, batches=None, limit=9) == []


def unscored(log: Log, name: str, made: Item, digest: str) -> None:
    number = item_ids(log, digest)[0, made.id]
    add_verdicts(
        log,
        [Verdict(name, 0, number, made.id, Outcome.UNSCORED, None, VerdictSource.LLM, "big-judge", None, "down", "")],
    )


def test_what_nobody_could_judge_waits_no_longer_though_the_reward_says_the_same(log: Log) -> None:
    """One item is UNSCORED and one has no verdict; then both are UNSCORED: the reward differs in nothing but that."""
    played = scenario(LLM_ITEMS)
    name = record(log, played, [polite_turn()])
    unscored(log, name, LLM_ITEMS[0], played.hash)
    before = score_trajectories(log, [name])[name]
    assert unjudged(log, batches=None, limit=9) == [name]
    down = Judge(log, alone(lambda request: httpx2.Response(503, text="busy")))
    asyncio.run(down.judge_log([name]))
    assert rewards_of(log, [name])[name] == before and before.value is None
    assert unjudged(log, batches=None, limit=9) == []
    assert unjudged(log, batches=None, limit=9, retry_unscored=True) == [name]


def test_a_dialogue_with_more_turns_than_its_scenario_does_not_end_the_judging_of_others(sqlite_log: Log) -> None:
    played = scenario(CODE_ITEMS)
    odd = record(sqlite_log, played, [polite_turn("odd"), turn("And more.", index=1, trajectory_id="odd")])
    good = record(sqlite_log, played, [polite_turn("good")])
    report = asyncio.run(Judge(sqlite_log).judge_log([odd, good]))
    assert report.trajectories == 2
    rewards = rewards_of(sqlite_log, [odd, good])
    assert rewards[good].value == 1.0 and rewards[odd].value is None
    assert "it was not played from this scenario" in str(rewards[odd].excluded_reason)


def test_step_by_step_it_is_another_question_once_what_it_depends_on_holds_from_elsewhere() -> None:
    happened = Dialogue(polite_turn())
    keys = {
        (mode, since): cache_keys(endpoint_judge(polite, mode), happened, [POLITE], 0, held)["polite"]
        for mode in (JudgeMode.STEP, JudgeMode.TURN)
        for since, held in (("unknown", {}), ("first", {"right_city": 0}), ("late", {"right_city": 1}))
    }
    assert len({key for (mode, _), key in keys.items() if mode is JudgeMode.STEP}) == 3
    assert len({key for (mode, _), key in keys.items() if mode is JudgeMode.TURN}) == 1
    step = endpoint_judge(polite, JudgeMode.STEP)
    assert cache_keys(step, happened, [RIGHT], 0) == cache_keys(step, happened, [RIGHT], 0, {"polite": 1})
