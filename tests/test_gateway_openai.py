"""The gateway as OpenAI's own client, ChatOpenAI and curl see it, on the real vLLM with the real model."""

import json
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from jsonschema import validate
from langchain_openai import ChatOpenAI

from agent.addresses import trajectory_id
from agent.rendering import Renderer
from store.tokens import token_sequences
from store.trajectories import get_trajectory
from store.turns import get_turns
from tests.serving import Serving

ASK: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "add"}}


def client(serving: Serving, path: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=serving.url + path, api_key="none", max_retries=0)


def rows(serving: Serving, trajectory: str, columns: str) -> list[tuple[Any, ...]]:
    with serving.log.lookup() as connection:
        query = f"SELECT {columns} FROM step WHERE trajectory_id = '{trajectory}' ORDER BY id"
        return [tuple(row) for row in connection.exec_driver_sql(query)]


@pytest.mark.parametrize(
    ("choice", "parallel", "names", "count", "stream"),
    [
        ("required", True, {"get_weather", "add"}, 8, True),
        ("required", False, {"get_weather", "add"}, 1, False),
        (NAMED, True, {"add"}, 1, True),
        (NAMED, True, {"add"}, 1, False),
    ],
)
def test_a_forced_tool_is_called_by_its_schema(
    serving: Serving, renderer: Renderer, choice: Any, parallel: bool, names: set[str], count: int, stream: bool
) -> None:
    """Whatever a model of 135M parameters would rather say: the grammar makes it one call, or several where it may (as
    many as it may, since it is kept from ending its turn), and the log says how they came about."""
    session = f"forced-{stream}-{'named' if choice == NAMED else f'{choice}-{parallel}'}"
    api = client(serving, f"/sessions/{session}/v1")
    asked: dict[str, Any] = {"model": "policy", "messages": ASK, "tools": [WEATHER, ADD], "tool_choice": choice}
    asked |= {"parallel_tool_calls": parallel, "logit_bias": {str(i): -100 for i in renderer.stop_ids}}
    if stream:
        deltas = [c.choices[0] for c in api.chat.completions.create(**asked, max_tokens=600, stream=True) if c.choices]
        calls = [call for d in deltas for call in d.delta.tool_calls or ()]
        assert [call.index for call in calls] == list(range(len(calls)))
        assert deltas[-1].finish_reason == "tool_calls"
    else:
        answered = api.chat.completions.create(**asked, max_tokens=600).choices[0]
        assert answered.finish_reason == "tool_calls"
        calls = list(answered.message.tool_calls or ())
    assert len(calls) == count
    made = []
    for call in calls:
        name, arguments = call.function.name, call.function.arguments
        assert name in names
        validate(json.loads(arguments), (WEATHER if name == "get_weather" else ADD)["function"]["parameters"])
        made.append({"id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}})
    follow_up = [
        *ASK,
        {"role": "assistant", "tool_calls": made},
        *({"role": "tool", "tool_call_id": call["id"], "content": '{"ok": true}'} for call in made),
    ]
    api.chat.completions.create(model="policy", messages=follow_up, tools=[WEATHER, ADD], max_tokens=8)  # type: ignore[arg-type,list-item]
    steps = rows(serving, session, 'turn_index, "index", untrainable_reason, forked, parent_id')
    assert [step[:4] for step in steps] == [(0, 0, "sampled under a grammar", 0), (0, 1, steps[1][2], 0)]
    assert steps[1][4] is not None, "the second step extends the ids of the first"
    (turn,) = get_turns(serving.log, session)
    assert [call.response for call in turn.steps[0].calls] == ['{"ok": true}'] * count


def test_n_answers_are_n_steps_and_the_chosen_one_is_continued(serving: Serving) -> None:
    api = client(serving, "/sessions/several/v1")
    answer = api.chat.completions.create(model="policy", messages=ASK, n=3, max_tokens=6, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None and answer.usage.completion_tokens <= 18
    chosen = answer.choices[1].message.content or ""
    more = [*ASK, {"role": "assistant", "content": chosen}, {"role": "user", "content": "And Rome?"}]
    api.chat.completions.create(model="policy", messages=more, max_tokens=4)
    steps = rows(serving, "several", "id, parent_id, forked")
    assert len(steps) == 4
    assert steps[3][1] in [step[0] for step in steps[:3]]
    assert not any(step[2] for step in steps), "three samples of one prompt are no rewriting of history"


def test_streams_of_several_choices_and_logprobs(serving: Serving, renderer: Renderer) -> None:
    api = client(serving, "/sessions/wide/v1")
    texts, tokens = ["", ""], [[], []]  # type: ignore[var-annotated]
    for chunk in api.chat.completions.create(
        model="policy", messages=ASK, n=2, max_tokens=6, stream=True, logprobs=True, top_logprobs=2
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.logprobs and choice.logprobs.content:
                tokens[choice.index] += choice.logprobs.content
                assert all(len(token.top_logprobs) >= 2 for token in choice.logprobs.content)
    logged = rows(serving, "wide", "sampled_tokens")
    assert [len(of_choice) for of_choice in tokens] == [count for (count,) in logged]
    for text, of_choice in zip(texts, tokens, strict=True):
        assert (
            "".join(token.token for token in of_choice).replace(renderer.decode(renderer.stop_ids), "").strip()
            == text.strip()
        )


def test_structured_output_by_chat_openai(serving: Serving) -> None:
    """LangChain's own way to ask for JSON, unchanged; both of its methods."""
    schema = {
        "title": "City",
        "description": "A city",
        "type": "object",
        "properties": {"name": {"enum": ["Oslo", "Rome"]}, "rainy": {"type": "boolean"}},
        "required": ["name", "rainy"],
        "additionalProperties": False,
    }
    for method in ("json_schema", "function_calling"):
        model = ChatOpenAI(
            model="policy", base_url=f"{serving.url}/sessions/{method}/v1", api_key="none", max_completion_tokens=64
        )  # type: ignore[call-arg,arg-type]
        found = model.with_structured_output(schema, method=method).invoke("Name a city.")  # type: ignore[arg-type]
        validate(found, schema)
        assert rows(serving, method, "trainable, untrainable_reason") == [(0, "sampled under a grammar")]


def test_curl_gets_an_answer_and_events(serving: Serving) -> None:
    body = json.dumps({"model": "policy", "messages": ASK, "max_tokens": 4, "stream": True})
    url = f"{serving.url}/v1/chat/completions"
    said = subprocess.run(["curl", "-sN", url, "-d", body], capture_output=True, text=True, timeout=300).stdout
    events = [line.removeprefix("data: ") for line in said.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[0])["object"] == "chat.completion.chunk"
    models = subprocess.run(["curl", "-s", f"{serving.url}/v1/models"], capture_output=True, text=True, timeout=300)
    assert json.loads(models.stdout)["data"][0]["id"] == "policy"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"temperature": 0.7}, "sampled at another temperature than 1"),
        ({"top_p": 0.9}, "sampled from a changed distribution"),
        ({"presence_penalty": 0.5}, "sampled from a changed distribution"),
        ({"logit_bias": {"100": 5}}, "sampled from a changed distribution"),
        ({"max_tokens": 2}, "truncated"),
        ({"stop": ["e", "a", "o", "i"]}, "truncated"),
    ],
)
def test_whether_a_step_may_be_trained_on_is_decided_when_it_is_logged(
    serving: Serving, changed: dict[str, Any], reason: str | None
) -> None:
    """The one without a change ends by itself or at 400 tokens: only the former is trainable."""
    session = f"reason-{abs(hash(str(changed)))}"
    api = client(serving, f"/sessions/{session}/v1")
    room = {"max_tokens": 16 if changed else 400}
    asked = {"model": "policy", "messages": [{"role": "user", "content": "Say yes."}]} | room | changed
    answer = api.chat.completions.create(**asked)
    ((trainable, found),) = rows(serving, session, "trainable, untrainable_reason")
    if answer.choices[0].finish_reason == "length":
        reason = reason or "truncated"
    assert (bool(trainable), found) == (reason is None, reason)


def test_agents_of_one_session_are_dialogues_of_their_own(serving: Serving) -> None:
    by_url = client(serving, "/sessions/team/agents/worker/v1")
    by_header = openai.OpenAI(
        base_url=f"{serving.url}/v1",
        api_key="none",
        default_headers={"X-Checkloop-Session": "team", "X-Checkloop-Agent": "critic"},
    )
    for api in (client(serving, "/sessions/team/v1"), by_url, by_header):
        api.chat.completions.create(model="policy", messages=ASK, max_tokens=3)
    for name in ("team", "team.worker", "team.critic"):
        assert [turn.user for turn in get_turns(serving.log, name)] == [ASK[0]["content"]]
    with serving.log.lookup() as connection:
        query = "SELECT id, agent FROM trajectory WHERE session = 'team' ORDER BY id"
        assert [tuple(r) for r in connection.exec_driver_sql(query)] == [
            ("team.critic", "critic"),
            ("team.worker", "worker"),
        ]
    assert len(trajectory_id("s" * 60, "worker")) <= 64
    assert trajectory_id("s" * 60, "worker") != trajectory_id("s" * 60, "writer")


def test_a_dialogue_without_a_session_goes_on_where_it_ended(serving: Serving) -> None:
    api = client(serving)
    first = api.chat.completions.with_raw_response.create(model="policy", messages=ASK, max_tokens=5)
    session = first.headers["x-checkloop-session"]
    said = first.parse().choices[0].message.content or ""
    more = [*ASK, {"role": "assistant", "content": said}, {"role": "user", "content": "Sure?"}]
    second = api.chat.completions.with_raw_response.create(model="policy", messages=more, max_tokens=5)
    again = api.chat.completions.with_raw_response.create(model="policy", messages=more, max_tokens=5)
    assert second.headers["x-checkloop-session"] == session
    assert again.headers["x-checkloop-session"] != session, "equal prompts are two samples, in two dialogues"
    assert len(token_sequences(serving.log, [session])[session].steps) == 2


def test_forks_are_marked_and_nothing_else_is(serving: Serving) -> None:
    api = client(serving, "/sessions/forks/v1")

    def say(messages: Sequence[Any]) -> str:
        answer = api.chat.completions.create(model="policy", messages=messages, max_tokens=5)  # type: ignore[arg-type]
        return answer.choices[0].message.content or ""

    first = say(ASK)
    on = [*ASK, {"role": "assistant", "content": first}, {"role": "user", "content": "And then?"}]
    second = say(on)
    say(on)  # asked again: a branch beside the first
    say([*ASK, {"role": "assistant", "content": first + " Not."}, {"role": "user", "content": "Why?"}])  # invented
    say([*on, {"role": "assistant", "content": second}, {"role": "user", "content": "Go on."}])
    assert [bool(forked) for (forked,) in rows(serving, "forks", "forked")] == [False, False, True, True, False]


def test_the_response_names_session_version_and_usage(serving: Serving) -> None:
    answer = httpx.post(
        f"{serving.url}/v1/chat/completions",
        json={"model": "policy@v0001", "messages": ASK, "max_tokens": 3},
        timeout=30,
    )
    value = answer.json()
    assert value["model"] == "policy@v0001"
    assert value["usage"]["total_tokens"] == value["usage"]["prompt_tokens"] + value["usage"]["completion_tokens"]
    assert get_trajectory(serving.log, answer.headers["x-checkloop-session"])


def test_a_client_that_goes_away_ends_its_generation(serving: Serving) -> None:
    """In the middle of a stream: what was sampled is a step that is not trained on. Before an answer: an incident."""
    body = {"model": "policy", "messages": ASK, "max_tokens": 900, "temperature": 1, "logit_bias": {"2": -100}}
    with httpx.stream("POST", f"{serving.url}/sessions/gone/v1/chat/completions", json=body | {"stream": True}) as got:
        for n, _ in enumerate(got.iter_lines()):
            if n > 12:
                break
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{serving.url}/sessions/gone-early/v1/chat/completions", json=body, timeout=1.0)

    def settled() -> bool:
        return bool(rows(serving, "gone", "id")) and bool(incidents())

    def incidents() -> list[Any]:
        with serving.log.lookup() as connection:
            query = "SELECT kind FROM incident WHERE trajectory_id = 'gone-early'"
            return list(connection.exec_driver_sql(query).scalars())

    deadline = time.monotonic() + 10
    while not settled() and time.monotonic() < deadline:
        time.sleep(0.1)
    ((finish, reason, count),) = rows(serving, "gone", "finish_reason, untrainable_reason, sampled_tokens")
    assert (finish, reason) == ("cancelled", "cancelled")
    assert 1 <= count < 200, "the server stopped sampling soon after"
    assert incidents() == ["cancelled"]
    idle = httpx.get(f"{serving.url}/admin/versions", timeout=10).json()
    assert (idle["in_flight"], idle["waiting"]) == (0, 0)


def test_concurrent_sessions_are_all_recorded(serving: Serving) -> None:
    def talk(n: int) -> str:
        answer = client(serving, f"/sessions/many-{n}/v1").chat.completions.create(
            model="policy",
            messages=[{"role": "user", "content": f"Number {n}?"}],
            max_tokens=4,
        )
        return answer.choices[0].message.content or ""

    with ThreadPoolExecutor(32) as pool:
        said = list(pool.map(talk, range(32)))
    for n, text in enumerate(said):
        ((message,),) = rows(serving, f"many-{n}", "message")
        assert json.loads(message)["content"] == text
