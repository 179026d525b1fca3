"""Playing scenarios: when a dialogue goes on, why it ends, and what is left to play after a kill."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agent.role_errors import LimitReached
from env_sim import rollouts
from env_sim.rollouts import Played, RolloutPlan, make_plans, play
from store.database import Log, open_log
from store.records import (
    Item,
    RecordedCall,
    ReferenceStep,
    Scenario,
    ScenarioTurn,
    ToolSpec,
    TurnRecord,
)
from store.scenarios import add_scenarios
from store.training_settings import RolloutSettings
from store.trajectories import get_trajectory, list_trajectories
from store.turns import get_turns
from store.vocabulary import FocusOn, Origin, Split, StopReason, ToolSource
from tests.scripted_gateway import Policy, Refuses, Says, ScriptedGateway, call

FIND = ToolSpec(
    name="find",
    description="Finds a thing",
    parameters={
        "type": "object",
        "properties": {"what": {"type": "string"}},
        "required": ["what"],
        "additionalProperties": False,
    },
)
SETTINGS = RolloutSettings(group_size=2, concurrency=4, seeded=True, max_steps_per_turn=3, max_tokens_per_step=64)


def make_scenario(name: str = "s", turns: int = 2) -> Scenario:
    item = Item(id="found", focus_on=FocusOn.REPLY, question="Found?", weight=1, required_for_next_turn=True)
    reference = (
        ReferenceStep(calls=(RecordedCall(name="find", arguments={"what": "key"}, response='{"at":"desk"}'),)),
        ReferenceStep(reply="On the desk."),
    )
    return Scenario(
        name=name,
        domain="house",
        source="test",
        split=Split.TRAIN,
        seed=1,
        system="You find things.",
        tools=(FIND,),
        turns=tuple(ScenarioTurn(user=f"question {n}", reference=reference, checklist=(item,)) for n in range(turns)),
    )


@dataclass(frozen=True)
class Judgement:
    strict_ok: bool | None


@dataclass
class ScriptedJudge:
    """Says the same of every turn; remembers the turns that it saw."""

    strict_ok: bool | None = True
    fails: bool = False
    seen: list[TurnRecord] = field(default_factory=list)

    async def __call__(self, scenario: Scenario, turn: TurnRecord) -> Judgement:
        self.seen.append(turn)
        if self.fails:
            raise RuntimeError("judge is down")
        return Judgement(self.strict_ok)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "RETRY_POLICY", rollouts.RETRY_POLICY._replace(initial_interval=0.01))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_log(f"sqlite:///{tmp_path}/log.db")
    yield opened
    opened.close()


def finds_then_replies(body: dict[str, Any]) -> Says:
    return Says("On the desk.") if body["messages"][-1]["role"] == "tool" else call("find", what="key")


def plan_for(log: Log, *scenarios: Scenario, size: int = 1, **options: Any) -> list[RolloutPlan]:
    add_scenarios(log, scenarios)
    given = {"batch": "b", "seed": 5, "origin": Origin.ROLLOUT, "version": "v0001", **options}
    return make_plans(scenarios, group_size=size, log=log, **given)


def play_all(
    log: Log,
    plans: list[RolloutPlan],
    policy: Policy = finds_then_replies,
    judge: ScriptedJudge | None = None,
    **options: Any,
) -> list[Played]:
    gateway = options.pop("gateway", None) or ScriptedGateway(log, policy)

    async def run() -> list[Played]:
        connections = gateway.client()
        try:
            return await play(
                log,
                plans,
                gateway_url="http://gateway",
                judge_turn=judge or ScriptedJudge(),
                settings=options.pop("settings", SETTINGS),
                http_client=connections,
                **options,
            )
        finally:
            await connections.aclose()

    return asyncio.run(run())


def play_one(log: Log, policy: Policy, judge: ScriptedJudge | None = None, turns: int = 2, **options: Any) -> Played:
    [played] = play_all(log, plan_for(log, make_scenario(turns=turns)), policy, judge, **options)
    row = get_trajectory(log, played.trajectory_id)
    assert (row.stop_reason, row.error) == (played.stop_reason, played.error)
    return played


def test_a_dialogue_is_played_to_its_last_turn_and_logged_with_its_tool_answers(log: Log) -> None:
    judge = ScriptedJudge()
    gateway = ScriptedGateway(log, finds_then_replies)
    [plan] = plan_for(log, make_scenario())
    [played] = play_all(log, [plan], judge=judge, gateway=gateway, temperature=0.0)
    assert played == Played(plan.trajectory_id, StopReason.COMPLETED, None)
    turns = get_turns(log, played.trajectory_id)
    assert [turn.user for turn in turns] == ["question 0", "question 1"]
    assert all(turn.complete for turn in turns)
    answered = turns[0].steps[0].calls[0]
    assert (answered.response, answered.source, answered.is_error) == ('{"at":"desk"}', ToolSource.RECORDED, False)
    assert judge.seen == turns
    row = get_trajectory(log, played.trajectory_id)
    assert (row.origin, row.version, row.seed, row.group_id) == (Origin.ROLLOUT, "v0001", plan.seed, plan.group_id)
    first, last = gateway.requests[0], gateway.requests[-1]
    assert (first["model"], first["temperature"], first["max_completion_tokens"]) == ("policy", 0.0, 64)
    assert first["tools"] == [FIND.as_openai()]
    roles = [message["role"] for message in last["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert len({request["seed"] for request in gateway.requests}) == 4


def test_the_next_turn_is_issued_only_if_the_strict_items_hold(log: Log) -> None:
    played = play_one(log, finds_then_replies, ScriptedJudge(strict_ok=False))
    assert played.stop_reason == StopReason.STRICT_ITEM
    assert len(get_turns(log, played.trajectory_id)) == 1


@pytest.mark.parametrize("judge", [ScriptedJudge(strict_ok=None), ScriptedJudge(fails=True)], ids=["unscored", "down"])
def test_a_turn_that_could_not_be_judged_fails_the_trajectory(log: Log, judge: ScriptedJudge) -> None:
    played = play_one(log, finds_then_replies, judge)
    assert played.stop_reason == StopReason.FAILED
    assert played.error is not None and played.error.startswith("judge: ")


def test_the_last_turn_completes_the_dialogue_whatever_the_judge_says(log: Log) -> None:
    assert play_one(log, finds_then_replies, ScriptedJudge(strict_ok=False), turns=1).stop_reason == "completed"


def test_a_policy_that_never_replies_stops_at_the_step_limit_and_is_judged(log: Log) -> None:
    judge = ScriptedJudge()
    assert play_one(log, lambda _: call("find", what="key"), judge).stop_reason == StopReason.MAX_STEPS
    [turn] = judge.seen
    assert len(turn.steps) == 3 and not turn.complete
    assert all(step.calls[0].response for step in turn.steps)


def test_a_reply_cut_at_the_token_limit_stops_the_dialogue_and_is_judged(log: Log) -> None:
    judge = ScriptedJudge()
    assert play_one(log, lambda _: Says("On the", finish_reason="length"), judge).stop_reason == StopReason.MAX_TOKENS
    assert [turn.complete for turn in judge.seen] == [False]


@pytest.mark.parametrize(("full_at", "steps_of_last_turn"), [(1, 1), (2, 0)])
def test_a_full_context_stops_the_dialogue_and_the_turn_is_judged(
    log: Log, full_at: int, steps_of_last_turn: int
) -> None:
    def policy(body: dict[str, Any]) -> Says | Refuses:
        asked = sum(message["role"] == "assistant" for message in body["messages"])
        return Refuses(400, "context_length_exceeded") if asked == full_at else finds_then_replies(body)

    judge = ScriptedJudge()
    assert play_one(log, policy, judge).stop_reason == StopReason.CONTEXT_FULL
    last = judge.seen[-1]
    assert (last.index, len(last.steps), last.complete) == (full_at - 1, steps_of_last_turn, False)


def test_a_malformed_call_and_an_unknown_tool_are_answered_and_recorded_as_errors(log: Log) -> None:
    def policy(body: dict[str, Any]) -> Says:
        answers = sum(message["role"] == "tool" for message in body["messages"])
        if answers == 0:
            return Says(calls=(("fnid", "{}"), ("malformed_tool_call", '{"what": "key"')))
        return Says("I give up." if answers == 2 else "?")

    played = play_one(log, policy, turns=1)
    assert played.stop_reason == StopReason.COMPLETED
    unknown, malformed = get_turns(log, played.trajectory_id)[0].steps[0].calls
    assert (unknown.is_error, unknown.source) == (True, ToolSource.VALIDATION)
    assert unknown.response == "error: there is no tool 'fnid'; known tools: find"
    assert (malformed.arguments, malformed.is_error, malformed.source) == (None, True, ToolSource.VALIDATION)
    assert malformed.response == 'error: arguments are not valid JSON: {"what": "key"'


@pytest.mark.parametrize("text", ["[1]", "5", '"key"', '{"what": NaN}', '{"what": "\\ud83d"}', "[" * 2000], ids=repr)
def test_arguments_that_are_json_but_no_object_do_not_stop_the_stage(log: Log, text: str) -> None:
    policy: Policy = lambda body: (  # noqa: E731
        Says("ok") if body["messages"][-1]["role"] == "tool" else Says(calls=(("find", text),))
    )
    played = play_one(log, policy, turns=1)
    assert played.stop_reason == StopReason.COMPLETED
    answered = get_turns(log, played.trajectory_id)[0].steps[0].calls[0]
    assert (answered.is_error, answered.source) == (True, ToolSource.VALIDATION)


def test_arguments_against_the_schema_go_back_to_the_policy(log: Log) -> None:
    policy: Policy = lambda body: Says("ok") if body["messages"][-1]["role"] == "tool" else call("find", where="x")  # noqa: E731
    played = play_one(log, policy, turns=1)
    answered = get_turns(log, played.trajectory_id)[0].steps[0].calls[0]
    assert (answered.is_error, answered.source) == (True, ToolSource.VALIDATION)
    assert "'what' is a required property" in json.loads(answered.response or "")["error"]


def test_a_simulator_that_cannot_answer_is_a_failure_and_not_the_policy_s(log: Log) -> None:
    played = play_one(log, lambda _: call("find", what="lost thing"))
    assert played.stop_reason == StopReason.FAILED
    assert played.error is not None and played.error.startswith("SimulatorError: no recording of scenario s")


def test_a_busy_server_is_asked_again_and_the_step_is_logged_once(log: Log) -> None:
    refusals = iter([Refuses(503), Refuses(429)])
    played = play_one(log, lambda body: next(refusals, None) or finds_then_replies(body), turns=1)
    assert played.stop_reason == StopReason.COMPLETED
    assert len(get_turns(log, played.trajectory_id)[0].steps) == 2


@pytest.mark.parametrize(("status", "asked"), [(500, 1), (503, 3)])
def test_a_server_in_trouble_is_a_failure_and_asked_again_only_if_that_is_safe(
    log: Log, status: int, asked: int
) -> None:
    gateway = ScriptedGateway(log, lambda _: Refuses(status))
    played = play_one(log, finds_then_replies, gateway=gateway)
    assert played.stop_reason == StopReason.FAILED
    assert played.error is not None and str(status) in played.error
    assert len(gateway.requests) == asked


def test_a_gateway_that_is_not_there_is_a_failure_that_says_so(log: Log) -> None:
    async def run() -> list[Played]:
        return await play(
            log,
            plan_for(log, make_scenario()),
            gateway_url="http://127.0.0.1:9",
            judge_turn=ScriptedJudge(),
            settings=SETTINGS,
        )

    [played] = asyncio.run(run())
    assert played.stop_reason == StopReason.FAILED
    assert played.error is not None and "Connection error" in played.error


def test_a_spending_limit_of_the_judge_ends_the_batch_and_fails_no_dialogue(log: Log) -> None:
    async def spent(scenario: Scenario, turn: TurnRecord) -> Judgement:
        raise LimitReached("2.00 of at most 2 USD are spent")

    plans = plan_for(log, make_scenario())
    with pytest.raises(LimitReached, match="USD are spent"):
        play_all(log, plans, judge=spent)  # type: ignore[arg-type]
    assert get_trajectory(log, plans[0].trajectory_id).stop_reason is None, "it is played again when more may be spent"


def test_groups_share_a_world_but_not_a_seed(log: Log) -> None:
    plans = plan_for(log, make_scenario("a"), make_scenario("b"), size=3)
    assert [plan.member for plan in plans] == [0, 1, 2, 0, 1, 2]
    assert len({plan.seed for plan in plans}) == len({plan.trajectory_id for plan in plans}) == 6
    assert len({plan.group_id for plan in plans[:3]}) == len({plan.world_seed for plan in plans[:3]}) == 1
    assert plans[0].group_id != plans[3].group_id
    assert plans[0].world_seed != plans[3].world_seed


def test_evaluations_have_no_groups(log: Log) -> None:
    assert [plan.group_id for plan in plan_for(log, make_scenario(), origin=Origin.EVALUATION)] == [None]


def test_dialogues_are_played_at_once_up_to_the_limit_and_reported_as_they_end(log: Log) -> None:
    gateway = ScriptedGateway(log, finds_then_replies, delay_s=0.02)
    plans = plan_for(log, make_scenario(turns=1), size=9)
    done: list[Played] = []
    played = play_all(log, plans, gateway=gateway, on_done=done.append)
    assert gateway.most_in_flight == SETTINGS.concurrency
    assert [one.trajectory_id for one in played] == [plan.trajectory_id for plan in plans]
    assert {one.trajectory_id for one in done} == {one.trajectory_id for one in played}


def test_a_killed_stage_plays_only_what_is_missing(log: Log) -> None:
    scenarios = [make_scenario("a"), make_scenario("b")]
    plans = plan_for(log, *scenarios, size=2)
    play_all(log, plans[:1])

    class Killed(BaseException):
        """As sudden as a SIGKILL: nothing of the rollout cleans up."""

    class KilledJudge(ScriptedJudge):
        async def __call__(self, scenario: Scenario, turn: TurnRecord) -> Judgement:
            raise Killed

    with pytest.raises(Killed):
        play_all(log, plans[1:], judge=KilledJudge(), settings=SETTINGS.model_copy(update={"concurrency": 1}))
    unfinished = [one.id for one in list_trajectories(log, batch="b") if one.stop_reason is None]
    assert plans[1].trajectory_id in unfinished
    assert get_turns(log, plans[1].trajectory_id) != []

    again = plan_for(log, *scenarios, size=2)
    assert [plan.trajectory_id for plan in again] == [plan.trajectory_id for plan in plans[1:]]
    assert [plan.seed for plan in again] == [plan.seed for plan in plans[1:]]
    assert again[0].group_id == plans[0].group_id
    assert get_turns(log, plans[1].trajectory_id) == []
    assert {one.stop_reason for one in play_all(log, again)} == {StopReason.COMPLETED}
    assert plan_for(log, *scenarios, size=2) == []


def test_failed_dialogues_are_played_again_only_on_request_and_stay_in_the_log(log: Log) -> None:
    plans = plan_for(log, make_scenario(), size=2)
    play_all(log, plans[:1], lambda _: Refuses(500))
    play_all(log, plans[1:])
    assert plan_for(log, make_scenario(), size=2) == []
    [again] = plan_for(log, make_scenario(), size=2, replay_failed=True)
    assert (again.member, again.group_id, again.seed) == (0, plans[0].group_id, plans[0].seed)
    assert again.trajectory_id != plans[0].trajectory_id
    play_all(log, [again])
    assert plan_for(log, make_scenario(), size=2, replay_failed=True) == []
    assert len(list_trajectories(log, batch="b")) == 3


def test_a_batch_is_one_version_and_one_seed(log: Log) -> None:
    play_all(log, plan_for(log, make_scenario()))
    for other in ({"version": "v0002"}, {"seed": 6}):
        with pytest.raises(ValueError, match="use another batch name"):
            plan_for(log, make_scenario(), **other)


def test_a_scenario_given_twice_is_refused(log: Log) -> None:
    with pytest.raises(ValueError, match="twice"):
        plan_for(log, make_scenario(), make_scenario())


def test_an_answer_of_the_simulating_llm_is_shared_by_the_group(log: Log) -> None:
    seeds: list[int] = []

    class Llm:
        provenance: ClassVar[dict[str, str]] = {"model": "m", "prompt_hash": "h"}

        async def answer(self, scenario: Scenario, seed: int, spec: ToolSpec, *_: Any) -> str:
            seeds.append(seed)
            return '{"at":"roof"}'

    plans = [replace(plan, world_seed=77) for plan in plan_for(log, make_scenario(turns=1), size=2)]
    policy: Policy = lambda body: Says("ok") if body["messages"][-1]["role"] == "tool" else call("find", what="cat")  # noqa: E731
    play_all(log, plans, policy, simulator_llm=Llm())
    assert seeds == [77, 77]
