"""Who answers a simulated tool call, and with what."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st

from agent.role_endpoint import RoleEndpoint
from env_sim.llm_simulator import LlmSimulator
from env_sim.simulator import Simulator, SimulatorError, canonical_arguments
from env_sim.worlds import build_world
from store.endpoint_settings import Endpoint
from store.records import (
    Item,
    RecordedCall,
    ReferenceStep,
    Scenario,
    ScenarioTurn,
    ToolSpec,
    WorldRef,
    canonical_json,
)
from store.trajectories import ToolAnswer
from store.vocabulary import FocusOn, ModelRole, Split, ToolSource

WEATHER = ToolSpec(
    name="get_weather",
    description="Weather of a city",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 1, "maximum": 10},
            "date": {"type": "string", "format": "date"},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)


def scenario(
    *recorded: RecordedCall, tools: tuple[ToolSpec, ...] = (WEATHER,), world: WorldRef | None = None
) -> Scenario:
    steps = [ReferenceStep(calls=(call,)) for call in recorded]
    item = Item(id="replied", focus_on=FocusOn.REPLY, question="Is there a reply?", weight=1)
    turn = ScenarioTurn(user="hello", reference=(*steps, ReferenceStep(reply="done")), checklist=(item,))
    return Scenario(
        name="s",
        domain="d",
        source="test",
        split=Split.TRAIN,
        seed=1,
        system="",
        tools=tools,
        turns=(turn,),
        world=world,
    )


def weather(response: str, **arguments: Any) -> RecordedCall:
    return RecordedCall(name="get_weather", arguments=arguments, response=response)


def ask(simulator: Simulator, name: str = "get_weather", **arguments: Any) -> ToolAnswer:
    return asyncio.run(simulator.answer(name, arguments, "c1"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "'city' is a required property"),
        ({"city": 7}, "city: 7 is not of type 'string'"),
        ({"city": "Oslo", "days": 11}, "days: 11 is greater than the maximum of 10"),
        ({"city": "Oslo", "date": "tomorrow"}, "date: 'tomorrow' is not a 'date'"),
        ({"city": "Oslo", "town": "x"}, "Additional properties are not allowed ('town' was unexpected)"),
    ],
)
def test_arguments_against_the_schema_are_answered_as_the_tool_would(arguments: dict[str, Any], complaint: str) -> None:
    answer = ask(Simulator(scenario(weather('{"sky":"clear"}', city="Oslo")), seed=0), **arguments)
    assert (answer.is_error, answer.source, answer.call_id) == (True, ToolSource.VALIDATION, "c1")
    assert json.loads(answer.response) == {"error": f"invalid arguments for get_weather: {complaint}"}


def test_a_long_value_is_not_repeated_to_the_policy_in_full() -> None:
    answer = ask(Simulator(scenario(), seed=0), city=["x" * 5000])
    assert len(answer.response) < 300


@pytest.mark.parametrize(
    "arguments", [{"days": 1, "city": "Oslo"}, {"city": "Oslo"}, {"city": "Oslo", "days": 1.0}], ids=str
)
def test_equal_arguments_get_the_recorded_response(arguments: dict[str, Any]) -> None:
    answer = ask(Simulator(scenario(weather('{"sky":"clear"}', city="Oslo", days=1)), seed=0), **arguments)
    assert (answer.response, answer.is_error, answer.source) == ('{"sky":"clear"}', False, ToolSource.RECORDED)


def test_a_call_that_was_recorded_twice_is_answered_in_the_reference_s_order() -> None:
    simulator = Simulator(scenario(weather('{"n":1}', city="Oslo"), weather('{"n":2}', city="Oslo")), seed=0)
    assert [ask(simulator, city="Oslo").response for _ in range(3)] == ['{"n":1}', '{"n":2}', '{"n":2}']


def test_a_call_that_nobody_can_answer_fails_the_trajectory() -> None:
    with pytest.raises(SimulatorError, match=r'get_weather\(\{"city":"Rome","days":1\}\)'):
        ask(Simulator(scenario(weather("{}", city="Oslo")), seed=0), city="Rome")


def test_a_schema_that_is_none_is_refused_with_the_tool_s_name() -> None:
    broken = ToolSpec(name="broken", description="", parameters={"type": "objekt"})
    with pytest.raises(SimulatorError, match="'broken'"):
        Simulator(scenario(tools=(broken,)), seed=0)


def shop_scenario(*recorded: RecordedCall) -> tuple[Scenario, str]:
    """A scenario in the bundled shop, and the id of a product of it."""
    from env_sim.worlds.shop import Shop

    ref = WorldRef(name="shop", seed=4)
    return scenario(*recorded, tools=Shop.tools, world=ref), Shop(4).free[0]


def test_the_world_wins_over_a_recording_once_the_rollout_has_gone_its_own_way() -> None:
    plain, product = shop_scenario()
    assert plain.world is not None
    before = build_world(plain.world, ["get_product"]).call("get_product", {"id": product})
    recorded = RecordedCall(name="get_product", arguments={"id": product}, response=before.text)
    simulator = Simulator(shop_scenario(recorded)[0], seed=0)
    on_path = ask(simulator, "get_product", id=product)
    assert (on_path.response, on_path.source) == (before.text, ToolSource.RECORDED)
    ask(simulator, "return_product", id=product)
    after = ask(simulator, "get_product", id=product)
    assert after.source == ToolSource.WORLD
    assert json.loads(after.response) == {"error": f"{product} is gone already"}


def test_an_invalid_call_does_not_reach_the_world() -> None:
    plain, product = shop_scenario()
    simulator = Simulator(plain, seed=0)
    assert ask(simulator, "return_product", id=product, force=True).source == ToolSource.VALIDATION
    assert "stock" in json.loads(ask(simulator, "get_product", id=product).response)


def test_an_unknown_world_is_refused() -> None:
    with pytest.raises(SimulatorError, match="moon_base"):
        Simulator(scenario(world=WorldRef(name="moon_base", seed=0)), seed=0)


class Endpoints:
    """A scripted chat-completions endpoint: says one text after the other, remembers the requests."""

    def __init__(self, *says: str, status: int = 200, delay_s: float = 0.0) -> None:
        self.says = list(says)
        self.status = status
        self.delay_s = delay_s
        self.requests: list[dict[str, Any]] = []

    def simulator(self, timeout_s: float = 5.0) -> LlmSimulator:
        app = FastAPI()
        app.post("/v1/chat/completions")(self.complete)
        http = openai.DefaultAsyncHttpxClient(transport=httpx2.ASGITransport(app=app))
        client = openai.AsyncOpenAI(base_url="http://llm/v1", api_key="none", http_client=http, max_retries=0)
        endpoint = Endpoint(base_url="http://llm/v1", model="m", timeout_s=timeout_s, retries=0)
        return LlmSimulator(RoleEndpoint(ModelRole.SIMULATOR, endpoint, client=client))

    async def complete(self, request: Request) -> JSONResponse:
        self.requests.append(await request.json())
        await asyncio.sleep(self.delay_s)
        if self.status != 200:
            return JSONResponse({"error": {"message": "down"}}, status_code=self.status)
        text = self.says[min(len(self.requests), len(self.says)) - 1]
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return JSONResponse(completion)


def test_the_llm_sees_schema_recordings_and_this_rollout_and_its_answer_is_json() -> None:
    endpoint = Endpoints('{ "sky": "rain" }')
    simulator = Simulator(scenario(weather('{"sky":"clear"}', city="Oslo")), 0, endpoint.simulator())

    async def two_calls() -> ToolAnswer:
        await simulator.answer("get_weather", {"city": "Oslo"}, "c1")
        return await simulator.answer("get_weather", {"city": "Rome"}, "c2")

    answer = asyncio.run(two_calls())
    assert (answer.response, answer.is_error, answer.source) == ('{"sky":"rain"}', False, ToolSource.LLM)
    request = endpoint.requests[0]
    assert request["response_format"] == {"type": "json_object"}
    shown = request["messages"][1]["content"]
    history = shown.split("## present dialogue\n")[1].split("\n\n")[0]
    assert json.loads(history) == {"name": "get_weather", "arguments": {"city": "Oslo"}, "response": '{"sky":"clear"}'}
    assert canonical_json(WEATHER.as_openai()["function"]) in shown
    assert shown.endswith('{"arguments":{"city":"Rome","days":1},"name":"get_weather"}')


def test_a_group_lives_in_one_world_and_another_seed_in_another() -> None:
    endpoint = Endpoints('{"sky":"rain"}', '{"sky":"snow"}', delay_s=0.01)
    llm = endpoint.simulator()

    async def ask_all() -> list[ToolAnswer]:
        simulators = [Simulator(scenario(), seed, llm) for seed in (7, 7, 7, 8)]
        first = await asyncio.gather(*(s.answer("get_weather", {"city": "Rome"}, "c") for s in simulators[:3]))
        return [*first, await simulators[3].answer("get_weather", {"city": "Rome", "days": 1}, "c")]

    answers = asyncio.run(ask_all())
    assert [answer.response for answer in answers] == ['{"sky":"rain"}'] * 3 + ['{"sky":"snow"}']
    assert len(endpoint.requests) == 2


def test_a_declared_response_schema_guides_the_llm() -> None:
    schema = {"type": "object", "properties": {"sky": {"type": "string"}}}
    endpoint = Endpoints('{"sky":"rain"}')
    declared = WEATHER.model_copy(update={"response_schema": schema})
    ask(Simulator(scenario(tools=(declared,)), 0, endpoint.simulator()), city="Rome")
    assert endpoint.requests[0]["response_format"]["json_schema"]["schema"] == schema


def test_an_error_that_the_llm_simulates_counts_as_an_error() -> None:
    answer = ask(Simulator(scenario(), 0, Endpoints('{"error":"no such city"}').simulator()), city="Qqq")
    assert (answer.is_error, answer.source) == (True, ToolSource.LLM)


def test_text_that_is_no_json_object_is_drawn_again() -> None:
    endpoint = Endpoints("It rains", "[1]", '{"sky":"rain"}')
    assert ask(Simulator(scenario(), 0, endpoint.simulator()), city="Rome").response == '{"sky":"rain"}'


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Endpoints("It rains").simulator(), "gave no JSON object for get_weather in 3 draws"),
        (
            lambda: Endpoints(status=500).simulator(),
            "get_weather could not be answered by http://llm/v1: .* InternalServerError",
        ),
        (
            lambda: Endpoints("{}", delay_s=2).simulator(timeout_s=0.05),
            "get_weather could not be answered by .* no answer within 0.05 s",
        ),
    ],
    ids=["no json", "500", "deadline"],
)
def test_trouble_with_the_llm_is_an_outage_and_not_an_answer(make: Callable[[], LlmSimulator], message: str) -> None:
    with pytest.raises(SimulatorError, match=message):
        ask(Simulator(scenario(), 0, make()), city="Rome")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4))
def test_canonical_arguments_are_stable_and_blind_to_order_and_number_form(arguments: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"d": {"default": 1.0}}}
    canonical = canonical_arguments(schema, arguments)
    assert canonical_arguments(schema, canonical) == canonical
    reordered = dict(reversed(arguments.items()))
    as_floats = {k: float(v) if type(v) is int else v for k, v in reordered.items()}
    assert canonical_json(canonical_arguments(schema, as_floats)) == canonical_json(canonical)
