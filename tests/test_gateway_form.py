"""What the gateway takes and gives, where nothing is wrong with vLLM, which is a stand-in here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gateway import Gateway
from agent.rendering import Renderer, fewest_tokens
from store.database import Log
from tests.faulty_vllm import FaultyVllm, one_stand_in

ASK = [{"role": "user", "content": "Is it?"}]
BODY: dict[str, Any] = {"model": "policy", "messages": ASK, "max_tokens": 8}
Served = tuple[str, Gateway, Log, FaultyVllm]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with one_stand_in(tmp_path, request_timeout_s=2) as running:
        yield running


def ask(address: str, path: str = "/sessions/s", headers: Any = None, **changes: Any) -> httpx.Response:
    return httpx.post(f"{address}{path}/v1/chat/completions", json=BODY | changes, headers=headers, timeout=30)


def steps(log: Log, columns: str) -> list[tuple[Any, ...]]:
    with log.lookup() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT {columns} FROM step ORDER BY id")]


@pytest.mark.parametrize("stream", [False, True])
def test_any_printable_name_comes_back_in_the_header(served: Served, stream: bool) -> None:
    address, _, log, _ = served
    name = "Łódź 50%"
    answer = ask(address, f"/sessions/{quote(name)}", stream=stream)
    assert answer.status_code == 200
    again = ask(address, "", {"X-Checkloop-Session": answer.headers["x-checkloop-session"]}, stream=stream)
    assert again.headers["x-checkloop-session"] == answer.headers["x-checkloop-session"] == quote(name)
    assert steps(log, "trajectory_id") == [(name,), (name,)]


def test_a_stream_that_is_asked_for_again_after_its_deadline_is_no_fork(served: Served) -> None:
    address, _, log, vllm = served
    vllm.pause_s, vllm.tokens = 0.3, 400
    assert '"timeout"' in ask(address, stream=True, max_tokens=400).text
    vllm.pause_s, vllm.tokens = 0.0, 4
    assert ask(address).status_code == 200
    assert ask(address).status_code == 200
    assert [(reason, bool(forked)) for reason, forked in steps(log, "untrainable_reason, forked")] == [
        ("cancelled", False),
        (None, False),
        (None, True),
    ]


def test_pages_of_the_web_sample_nothing_and_change_no_versions(served: Served) -> None:
    address, _, log, _ = served
    page = {"Origin": "https://evil.example"}
    rebound = {"Host": "evil.example:8080"}
    for headers in (page, rebound):
        for path in ("/admin/promote/v0001", "/admin/stage/v0001", "/admin/split?share=0"):
            answer = httpx.post(f"{address}{path}", headers=headers, timeout=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_request")
        for path in ("/admin/versions", "/v1/models"):
            assert httpx.get(f"{address}{path}", headers=headers, timeout=5).status_code == 403
        for path in ("", "/sessions/one", "/sessions/one/agents/two"):
            assert ask(address, path, headers).status_code == 403
    assert steps(log, "id") == []
    assert httpx.post(f"{address}/admin/promote/v0001", timeout=30).status_code == 200


def test_megabytes_are_refused_without_being_rendered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    address, gateway, log, _ = served
    asked: list[int] = []
    opened = gateway.renderer.open
    monkeypatch.setattr(gateway.renderer, "open", lambda *given: asked.append(1) or opened(*given))
    parts = [{"type": "text", "text": "a b " * 250_000}, {"type": "text", "text": "c" * 1_000_000}]
    for content in ("\u200b\u0301 " * 600_000, parts):
        answer = ask(address, messages=[{"role": "user", "content": content}])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "at least" in answer.json()["error"]["message"]
    assert asked == [] and steps(log, "id") == []
    assert ask(address).status_code == 200 and asked == [1]


@given(st.text(max_size=300) | st.text("\u0301e a\n\t", max_size=300))
def test_no_text_has_fewer_tokens_than_is_taken_for_the_least(renderer: Renderer, text: str) -> None:
    assert fewest_tokens(renderer, [{"role": "user", "content": text}]) <= len(renderer.encode(text))


def test_the_ipv6_loopback_address_is_served(tmp_path: Path) -> None:
    with one_stand_in(tmp_path, host="::1") as (address, *_):
        assert address.startswith("http://[::1]:") and ask(address).status_code == 200
        assert json.loads(httpx.post(f"{address}/admin/promote/v0001", timeout=30).text)["accepted"]


NULLS = ("temperature", "top_p", "n", "stream", "logprobs", "tool_choice", "parallel_tool_calls")
CALL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def test_null_means_the_default_and_what_changes_nothing_is_recorded(served: Served) -> None:
    address, _, log, vllm = served
    answer = ask(address, tools=[CALL], user="ada", metadata={"ticket": "7"}, **dict.fromkeys(NULLS))
    assert answer.status_code == 200 and answer.json()["choices"][0]["logprobs"] is None
    assert (vllm.requests[-1]["temperature"], vllm.requests[-1]["top_p"]) == (1.0, 1.0)
    ((sampling, trainable),) = steps(log, "sampling, trainable")
    assert json.loads(sampling) == {"temperature": 1.0, "user": "ada", "metadata": {"ticket": "7"}}
    assert trainable
    assert ask(address, user="x" * 513).status_code == 400
    large = ask(address, metadata={"a": "x" * 17_000})
    assert large.status_code == 400 and "metadata" in large.json()["error"]["message"]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"function_call": {"name": "f", "arguments": "{}"}}, "function_call is not supported: calls are tool_calls"),
        ({"audio": {"id": "a1"}}, "audio is not supported: the policy reads text only"),
        ({"refusal": "I cannot."}, "refusal is not supported"),
        ({"function_call": None, "audio": None, "refusal": None, "annotations": [], "cache_control": {}}, None),
    ],
)
def test_fields_of_messages_that_say_something_are_not_dropped(
    served: Served, message: dict[str, Any], said: str | None
) -> None:
    address, *_ = served
    answer = ask(address, messages=[*ASK, {"role": "assistant", "content": "Yes."} | message, *ASK])
    assert answer.status_code == (400 if said else 200), answer.text
    assert said is None or said in answer.json()["error"]["message"]


def test_every_refusal_has_the_form_of_openai(served: Served) -> None:
    address, *_ = served
    table = [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed", "POST"),
        ("POST", "/v1/nothing", 404, "not_found", "/v1/nothing"),
        ("POST", "/admin/split", 400, "invalid_parameter", "share"),
        ("POST", "/admin/split?share=much", 400, "invalid_parameter", "share"),
    ]
    for method, path, status, code, said in table:
        answer = httpx.request(method, address + path, timeout=5)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error"), path
        assert said in error["message"], path


def test_tools_that_may_not_be_called_are_not_shown(served: Served, renderer: Renderer) -> None:
    address, _, _, vllm = served
    for choice, shown in (("none", False), ("auto", True)):
        assert ask(address, tools=[CALL], tool_choice=choice).status_code == 200
        assert ("look" in renderer.decode(vllm.requests[-1]["prompt"])) is shown


def test_logprobs_of_an_answer_that_is_not_streamed(served: Served) -> None:
    address, *_ = served
    tokens = ask(address, logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert [token["logprob"] for token in tokens] == [-0.5] * 5
    assert bytes(tokens[0]["bytes"]).decode() == tokens[0]["token"] == " maybe"


def test_stop_words_go_to_the_server_and_their_step_is_not_trained_on(served: Served) -> None:
    address, _, log, vllm = served
    vllm.script = [[11, 12]]
    assert ask(address, stop=[" maybe"]).json()["choices"][0]["message"]["content"]
    assert vllm.requests[-1]["stop"] == [" maybe"]
    assert steps(log, "untrainable_reason") == [("truncated",)]


def test_a_session_lists_the_models_by_each_address(served: Served) -> None:
    address, *_ = served
    for path in ("", "/sessions/s", "/sessions/s/agents/a"):
        found = httpx.get(f"{address}{path}/v1/models", timeout=5).json()["data"]
        assert [model["id"] for model in found] == ["policy", "policy@v0001"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_to_nobody_knows_which_prompt_is_no_answer(served: Served, stream: bool) -> None:
    address, _, log, vllm = served
    vllm.fault = "no prompt"
    assert "policy_server_bad_answer" in ask(address, stream=stream).text
    assert steps(log, "id") == []


def test_a_body_of_five_megabytes_is_too_large_by_default(served: Served) -> None:
    address, *_ = served
    answer = ask(address, messages=[{"role": "user", "content": "x" * 5_000_000}])
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "4 MiB (gateway.max_body_mib)" in answer.json()["error"]["message"]
    assert ask(address).status_code == 200


ANSWER = {
    "type": "json_schema",
    "json_schema": {"schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


def test_tools_beside_a_json_answer_can_be_called(served: Served, renderer: Renderer) -> None:
    """OpenAI's agents send both: the policy calls a tool, or answers in the schema. Under the schema alone none could
    be called."""
    address, _, log, vllm = served
    written = '<tool_call>{"name": "look", "arguments": {}}</tool_call><|im_end|>'
    vllm.script, vllm.spell = [renderer.encode(written)], renderer.decode
    answer = ask(address, tools=[CALL], response_format=ANSWER).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls" and answer["message"]["tool_calls"][0]["function"]["name"] == "look"
    sent = vllm.requests[-1]
    assert "response_format" not in sent
    calls, json_answer = json.loads(sent["structured_outputs"]["structural_tag"])["format"]["elements"]
    assert "look" in json.dumps(calls) and json_answer["json_schema"] == ANSWER["json_schema"]["schema"]
    assert steps(log, "untrainable_reason") == [("sampled under a grammar",)]
    vllm.spell = None
    assert ask(address, tools=[CALL], tool_choice="none", response_format=ANSWER).status_code == 200
    assert vllm.requests[-1]["response_format"]["type"] == "json_schema"


def test_thinking_under_its_other_name_is_read(served: Served, renderer: Renderer) -> None:
    """A history that the gateway does not know is rendered: `reasoning` is what vLLM and OpenRouter call it."""
    address, _, _, vllm = served
    prompts = []
    for n, thought in enumerate(({"reasoning_content": "A look."}, {"reasoning": "A look."}, {"reasoning": None}, {})):
        said = [*ASK, {"role": "assistant", "content": "Yes."} | thought, *ASK]
        assert ask(address, f"/sessions/t{n}", messages=said).status_code == 200
        prompts.append(vllm.requests[-1]["prompt"])
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    assert "A look." in renderer.decode(prompts[1])
