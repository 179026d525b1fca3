"""An annotator whose endpoint says what a test tells it to, and answers in its form made from items."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import openai

from agent.role_endpoint import RoleEndpoint
from store.database import Log
from store.endpoint_settings import Endpoint, Price
from store.records import Called, Item, Scenario
from store.vocabulary import ModelRole

Answer = Callable[[dict[str, Any]], Any]
"""From a request's body to the text to say, or to a whole response."""
PRICE = Price(prompt=2.0, cached=0.5, completion=8.0)
TOKENS = (1000, 400, 200)
"""Prompt, cached of them, generated: what every answer is said to have cost."""
USD = (600 * 2.0 + 400 * 0.5 + 200 * 8.0) / 1e6


def endpoint(answer: Answer, log: Log | None = None, *, price: Price | None = PRICE, **settings: Any) -> RoleEndpoint:
    async def handle(request: httpx2.Request) -> httpx2.Response:
        said = answer(json.loads(request.content))
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, httpx2.Response):
            return said
        return httpx2.Response(200, json=completion(said))

    chosen = {"base_url": "http://annotator.test/v1", "model": "big", "timeout_s": 5.0, "retries": 0} | settings
    named = Endpoint(**chosen)
    client = openai.AsyncOpenAI(
        base_url=named.base_url,
        api_key="none",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(handle)),
    )
    return RoleEndpoint(ModelRole.ANNOTATOR, named, log=log, price=price, client=client)


def completion(said: str, finish_reason: str = "stop") -> dict[str, Any]:
    prompt, cached, generated = TOKENS
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "big",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": said}},
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def in_turn(*answers: Any) -> Answer:
    """The answers one after another; a request beyond the last one fails the test."""
    left = iter(answers)
    return lambda body: next(left)


def asked_turns(body: dict[str, Any]) -> list[int]:
    """The turns that a request asks for, out of its guided JSON."""
    turns = body["response_format"]["json_schema"]["schema"]["properties"]["turns"]
    return list(map(int, turns["properties"]))


def as_answer(items: Sequence[Item], turn: int = 0, *, checks: bool = True, **changes: Any) -> dict[str, Any]:
    """One turn of an answer that holds these items; `changes` are fields of the first one."""
    written = []
    for item in items:
        fields = item.model_dump(mode="json") | {"must_not": item.must_not}
        if isinstance(item.check, Called):
            given = [
                {"name": n, "value": v if isinstance(v, str) else json.dumps(v)}
                for n, v in item.check.arguments.items()
            ]
            fields["check"] = {
                "kind": "called",
                "tool": item.check.tool,
                "arguments": given,
                "tolerance": 0,
                "at_most": item.check.at_most,
            }
        if not checks:
            fields["check"] = None
        written.append(fields)
    if changes:
        written[0] |= changes
    return {"turn": turn, "items": written}


def as_text(*turns: dict[str, Any]) -> str:
    return json.dumps({"turns": {turn["turn"]: {k: v for k, v in turn.items() if k != "turn"} for turn in turns}})


def bare(scenario: Scenario) -> Scenario:
    """The scenario without its checklists."""
    turns = tuple(turn.model_copy(update={"checklist": ()}) for turn in scenario.turns)
    return scenario.model_copy(update={"turns": turns})


def perfect(scenarios: Sequence[Scenario], *, checks: bool = True) -> Answer:
    """An annotator that knows the scenarios' own checklists; told apart by their users' first words."""
    by_opening = {scenario.turns[0].user: scenario for scenario in scenarios}

    def answer(body: dict[str, Any]) -> str:
        shown = body["messages"][1]["content"]
        scenario = next(found for opening, found in by_opening.items() if f"\n{opening}\n" in shown)
        return as_text(*(as_answer(scenario.turns[turn].checklist, turn, checks=checks) for turn in asked_turns(body)))

    return answer
