"""Sampled text to messages: whole, and in chunks of any size."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.completions import MALFORMED_TOOL_CALL, ParsedCall, TextReader, parse_call, parse_completion

WHOLE = '<think>go</think>Hi <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call> there'


def stream(text: str, cuts: list[int]) -> tuple[str, str, list[dict[str, str]]]:
    """(content, reasoning, calls) as a client would put the deltas together."""
    parser = TextReader(lambda n, _: f"c{n}", "<end>")
    places = [0, *sorted(c for c in cuts if c <= len(text)), len(text)]
    deltas = []
    for begin, end in itertools.pairwise(places):
        deltas += parser.feed((), text[begin:end])
    deltas += parser.feed((), "<end>", final=True)
    content = "".join(d.get("content", "") for d in deltas)
    reasoning = "".join(d.get("reasoning_content", "") for d in deltas)
    return content, reasoning, [c["function"] for d in deltas for c in d.get("tool_calls", [])]


def test_thinking_content_and_calls_are_told_apart() -> None:
    parsed = parse_completion(WHOLE)
    assert (parsed.reasoning, parsed.content) == ("go", "Hi  there")
    assert [(c.name, json.loads(c.arguments)) for c in parsed.calls] == [("f", {"x": 1})]


def test_a_reply_without_thinking_is_content() -> None:
    """Fault 6 of the reference code: it showed such replies to the judge as thinking."""
    parsed = parse_completion("Just a reply.")
    assert (parsed.content, parsed.reasoning, parsed.calls) == ("Just a reply.", "", ())


def test_the_short_form_of_a_call_is_read_like_the_long_one() -> None:
    assert parse_call('find_trains{"origin":"Oslo","seats":2}') == parse_call(
        '{"name": "find_trains", "arguments": {"origin": "Oslo", "seats": 2}}'
    )
    assert parse_call("last_mail {}") == ParsedCall("last_mail", "{}")
    assert parse_call('f{"x": }') == ParsedCall("f", '{"x": }'), "not JSON: kept as sampled"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"name": "f", "arguments": {"x": }}', "f"),
        ('{"name": "f", "arguments": "x=1"}', "f"),
        ("f(x=1)", MALFORMED_TOOL_CALL),
        ("", MALFORMED_TOOL_CALL),
        ("[" * 100_000, MALFORMED_TOOL_CALL),
        ('{"name": "a b\\n", "arguments": {}}', MALFORMED_TOOL_CALL),
    ],
)
def test_a_malformed_call_keeps_what_was_sampled(body: str, name: str) -> None:
    call = parse_call(body)
    assert call.name == name
    assert call.arguments == (body.strip() or "(empty)")


@pytest.mark.parametrize("body", ["[1]", "3", "null", '"text"', "true"])
def test_json_that_is_no_object_does_not_pass_for_arguments(body: str) -> None:
    """ChatOpenAI, as its users have it, dies of arguments that parse to something else."""
    call = parse_call(body)
    assert (call.name, call.arguments) == (MALFORMED_TOOL_CALL, f"malformed: {body}")


def test_half_a_surrogate_pair_can_be_sent_on() -> None:
    assert parse_call('{"name": "f", "arguments": {"x": "\\ud83d"}}').arguments.encode()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_stream_says_the_same_however_it_is_cut(cuts: list[int]) -> None:
    content, reasoning, calls = stream(WHOLE, cuts)
    assert (content.split(), reasoning) == (["Hi", "there"], "go")
    assert calls == [{"name": "f", "arguments": '{"x": 1}'}]


@given(st.text("<think/>tol_ca l{}", max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_streaming_and_parsing_agree_on_any_text(text: str, cuts: list[int]) -> None:
    content, reasoning, calls = stream(text, cuts)
    parsed = parse_completion(text)
    assert reasoning == parsed.reasoning
    assert content.strip() == parsed.content
    assert [c["arguments"] for c in calls] == [c.arguments for c in parsed.calls]
