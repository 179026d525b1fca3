"""Logged dialogues and scripted judges: builders for tests of what judges them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import openai

from agent.role_endpoint import RoleEndpoint
from reward.llm_judge import LlmJudge
from reward.panel import Panel
from store.database import Log
from store.endpoint_settings import Endpoint, Price
from store.records import Called, CallRecord, Item, ReplyMentions, Scenario, ScenarioTurn, TurnRecord
from store.scenarios import add_scenarios
from store.trajectories import (
    NewTrajectory,
    StepToRecord,
    ToolAnswer,
    create_trajectories,
    end_trajectory,
    record_step,
    record_tool_answers,
)
from store.vocabulary import FocusOn, JudgeMode, ModelRole, Origin, Split, StopReason, ToolSource
from tests.turn_records import call, turn

Answer = Callable[[dict[str, Any]], Any]
"""What an endpoint says to a request's JSON: a text, a whole response, a coroutine of one; or it raises."""


def item(key: str, focus_on: FocusOn, weight: float = 0.0, check: Any = None, **more: Any) -> Item:
    return Item(id=key, focus_on=focus_on, question=f"Does {key} hold?", weight=weight, check=check, **more)


CODE_ITEMS = (
    item("call", FocusOn.TOOL_CALLS, 0.5, Called(tool="find"), required_for_next_turn=True),
    item("reply", FocusOn.REPLY, 0.5, ReplyMentions(all_of=(("1200",),)), depends_on=("call",)),
)
LLM_ITEMS = (
    item("polite", FocusOn.REPLY, 0.5),
    item("right_city", FocusOn.TOOL_CALLS, 0.5, required_for_next_turn=True),
)


def scenario(*checklists: tuple[Item, ...], name: str = "trip") -> Scenario:
    turns = tuple(ScenarioTurn(user=f"Question {n}", checklist=items) for n, items in enumerate(checklists))
    return Scenario(
        name=name, domain="travel", source="test", split=Split.TRAIN, seed=1, system="", tools=(), turns=turns
    )


def record(
    log: Log,
    played: Scenario,
    turns: Sequence[TurnRecord],
    stop: StopReason | None = StopReason.COMPLETED,
    batch: str | None = None,
) -> str:
    """Writes the turns as a trajectory of the scenario and returns its id, the turns'."""
    add_scenarios(log, [played])
    name = turns[0].trajectory_id
    create_trajectories(log, [NewTrajectory(name, Origin.ROLLOUT, played.hash, batch=batch)])
    parent, tokens = None, 0
    for happened in turns:
        for step in happened.steps:
            calls = [
                {"id": c.call_id, "name": c.name, "arguments": json.dumps(dict(c.arguments or {}))} for c in step.calls
            ]
            parent = record_step(
                log,
                StepToRecord(
                    trajectory_id=name,
                    turn_index=happened.index,
                    index=step.index,
                    parent_id=parent,
                    user=happened.user,
                    version="v0001",
                    new_messages=[],
                    tools_hash=None,
                    message={"content": step.content, "reasoning": step.thinking, "tool_calls": calls},
                    delta_ids=[1],
                    sampled_ids=[2],
                    logprobs=[0.0],
                    context_tokens=tokens + 1,
                    finish_reason=step.finish_reason,
                    latency_ms=1.0,
                    sampling={},
                ),
            )
            tokens += 2
            record_tool_answers(log, name, [_answer(c) for c in step.calls if c.response is not None])
    if stop is not None:
        end_trajectory(log, name, stop, "the server died" if stop is StopReason.FAILED else None)
    return name


def _answer(asked: CallRecord) -> ToolAnswer:
    return ToolAnswer(asked.call_id, asked.response or "", asked.is_error, ToolSource.WORLD)


def scripted(answer: Answer, *, log: Log | None = None, price: Price | None = None, **settings: Any) -> RoleEndpoint:
    """The judge's endpoint, at which `answer` speaks."""

    async def handle(request: httpx2.Request) -> httpx2.Response:
        said = answer(json.loads(request.content))
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, httpx2.Response):
            return said
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "big", "choices": [choice]}
        return httpx2.Response(200, json=body | {"usage": usage})

    chosen = {"base_url": "http://judge.test/v1", "model": "big-judge", "timeout_s": 5.0, "retries": 0} | settings
    endpoint = Endpoint(**chosen)
    client = openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key="none",
        max_retries=endpoint.retries,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(handle)),
    )
    return RoleEndpoint(ModelRole.JUDGE, endpoint, log=log, price=price, client=client)


def endpoint_judge(answer: Answer, mode: JudgeMode = JudgeMode.TURN, **settings: Any) -> LlmJudge:
    return LlmJudge(scripted(answer, **settings), mode)


def alone(answer: Answer, mode: JudgeMode = JudgeMode.TURN, **settings: Any) -> Panel:
    """One judge that is asked once."""
    return Panel((endpoint_judge(answer, mode, **settings),))


def verdicts_json(*entries: tuple[str, str, int, str]) -> str:
    """(id, quote, step, verdict) of each item."""
    fields = ("quote", "step", "verdict")
    said = [(key, {"reason": "because", **dict(zip(fields, rest, strict=True))}) for key, *rest in entries]
    # Not by way of a dict: a scripted judge may say the same twice.
    return f'{{"verdicts": {{{", ".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in said)}}}}}'


def asked_ids(request: dict[str, Any]) -> list[str]:
    """The items that a question is about; not of `paper`, which names none."""
    properties = request["response_format"]["json_schema"]["schema"]["properties"]
    return list(properties["verdicts"]["properties"])


def say(request: dict[str, Any], **passes: tuple[str, int]) -> str:
    """An answer that passes the items named with (quote, step), and fails the others that are asked about."""
    return verdicts_json(
        *(
            (key, passes[key][0], passes[key][1], "PASS") if key in passes else (key, "", -1, "FAIL")
            for key in asked_ids(request)
        )
    )


PLAYED = turn([call("find", {"city": "Paris"}, {"price": 1200})], "It is 1200 euro, my pleasure.", user="Question 0")


def all_pass(request: dict[str, Any]) -> str:
    proofs = {"polite": ("my pleasure", 1), "right_city": ("Paris", 0)}
    return say(request, **{key: proofs[key] for key in asked_ids(request)})


def polite_turn(name: str = "t1", user: str = "Question 0") -> Any:
    return turn([call("find", {"city": "Paris"})], "It is 1200, my pleasure.", trajectory_id=name, user=user)
