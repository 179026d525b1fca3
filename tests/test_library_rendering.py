"""The library `renderers` behind our protocol: on the bundled tokenizer with each format's special tokens added."""

import json
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import xgrammar
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from agent.bundled_model import ModelError, prepare_bundled_model
from agent.completions import ParsedCall
from agent.conversations import Conversation, tools_hash
from agent.gateway import call_ids, recorded_message, refuse_unless_possible
from agent.library_rendering import LibraryRenderer
from agent.openai_form import ApiError, ChatRequest
from agent.renderer_choice import load_renderer
from agent.rendering import Message, Renderer, RenderingError
from agent.template_rendering import TemplateRenderer
from tests.library_formats import speaking, template_of
from tests.serving import MODEL

FAMILIES = ["qwen3", "qwen3.5", "glm-4.5", "kimi-k2", "llama-3", "minimax-m2", "gemma4"]
THINKING = {"qwen3", "qwen3.5", "glm-4.5", "minimax-m2", "gemma4"}

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find_flights",
        "description": "Find flights",
        "parameters": {
            "type": "object",
            "properties": {"origin": {"type": "string"}, "seats": {"type": "integer"}},
            "required": ["origin"],
        },
    },
}


@lru_cache(maxsize=1)
def bundled_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(prepare_bundled_model(MODEL))


@lru_cache(maxsize=16)
def of_format(name: str) -> LibraryRenderer:
    return LibraryRenderer(speaking(bundled_tokenizer(), name), name)


def called(*calls: tuple[str, dict[str, Any]], content: str = "", thought: str = "") -> Message:
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(calls)
    ]
    said: Message = {"role": "assistant", "content": content, "reasoning_content": thought}
    return said | ({"tool_calls": made} if made else {})


def answered(*texts: str) -> list[Message]:
    return [{"role": "tool", "tool_call_id": f"c{n}", "content": text} for n, text in enumerate(texts)]


def asked(text: str) -> Message:
    return {"role": "user", "content": text}


def spans(ids: Sequence[int], mask: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """(prompt, sampled ids) of each assistant message of a dialogue."""
    found, start = [], 0
    for position in range(1, len(ids) + 1):
        if position == len(ids) or mask[position] != mask[position - 1]:
            if mask[position - 1]:
                found.append((list(ids[:start]), list(ids[start:position])))
            start = position
    return found


def check_dialogue(renderer: Renderer, messages: Sequence[Message], *, thinks: bool) -> None:
    """Every answer is read back as it was meant, and going on from the ids before adds exactly what follows."""
    ids, mask = renderer.dialogue(messages, [TOOL])
    steps = spans(ids, mask)
    meant = [message for message in messages if message["role"] == "assistant"]
    assert len(steps) == len(meant)
    for (prompt, sampled), message in zip(steps, meant, strict=True):
        read = renderer.parse(sampled, prompt, [TOOL])
        calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls", ())]
        assert [(c.name, json.loads(c.arguments)) for c in read.calls] == calls
        assert read.content == message["content"].strip()
        assert read.reasoning == (message["reasoning_content"].strip() if thinks else "")
        assert renderer.ends_turn(sampled)
        assert ids[: len(prompt) + len(sampled)] == prompt + sampled


@pytest.mark.parametrize("name", FAMILIES)
def test_a_dialogue_goes_through_each_format(name: str) -> None:
    """Tools, thinking, several turns: GLM, Kimi, Qwen3.5, Llama 3 and the others are read in their own form."""
    thought = "Look it up." if name in THINKING else ""
    calls = [("find_flights", {"origin": "Oslo", "seats": 2}), ("find_flights", {"origin": "Rome"})]
    calls = calls[:1] if name == "llama-3" else calls
    messages = [
        {"role": "system", "content": "Be brief."},
        asked("A flight?"),
        called(*calls, thought=thought),
        *answered(*['{"id": "F1"}', "none"][: len(calls)]),
        called(content="F1 it is.", thought=thought),
        asked("Sure?"),
        called(content="Yes."),
    ]
    check_dialogue(of_format(name), messages, thinks=name in THINKING)


WORDS = st.text("ab é漢<>{}\"\\/:\n'", min_size=1, max_size=12).map(str.strip).filter(bool)
CALLS = st.tuples(st.just("find_flights"), st.fixed_dictionaries({"origin": WORDS}, optional={"seats": st.integers()}))


@st.composite
def dialogues(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": draw(WORDS)}]
    for _ in range(draw(st.integers(1, 3))):
        messages.append(asked(draw(WORDS)))
        for _ in range(draw(st.integers(0, 2))):
            calls = draw(st.lists(CALLS, min_size=1, max_size=3))
            content = draw(st.sampled_from(["", "I look."]))
            messages.append(called(*calls, content=content, thought=draw(st.sampled_from(["", "Hm, 2?"]))))
            messages += answered(*(draw(WORDS) for _ in calls))
        messages.append(called(content="It is " + draw(WORDS), thought=draw(st.sampled_from(["", "So."]))))
    return messages


@settings(max_examples=25, deadline=None)
@given(dialogues())
def test_qwen3_keeps_every_id_whatever_is_said(messages: list[Message]) -> None:
    check_dialogue(of_format("qwen3"), messages, thinks=True)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_a_stream_says_what_the_whole_answer_says(name: str, chunk: int) -> None:
    """However it is cut, and with a call never shown as text; at its end at the latest."""
    renderer = of_format(name)
    thought = "Hm 漢字." if name in THINKING else ""
    content = "" if name == "llama-3" else "I look."
    message = called(("find_flights", {"origin": "Tromsø"}), content=content, thought=thought)
    ids, mask = renderer.dialogue([asked("A flight?"), message], [TOOL])
    ((prompt, sampled),) = spans(ids, mask)
    call_id = call_ids()
    reader = renderer.reader(call_id, prompt, [TOOL])
    deltas = []
    for start in range(0, len(sampled), chunk):
        deltas += reader.feed(sampled[start : start + chunk], "")
    early = len(deltas)
    deltas += reader.feed((), "", final=True)
    assert "".join(d.get("content", "") for d in deltas) == content
    assert "".join(d.get("reasoning_content", "") for d in deltas) == thought
    (call,) = [one for d in deltas for one in d.get("tool_calls", ())]
    recorded = recorded_message(reader, call_id)
    assert (recorded["content"], recorded["reasoning"]) == (content, thought)
    assert recorded["tool_calls"] == [{"id": call["id"], **call["function"]}]
    assert json.loads(call["function"]["arguments"]) == {"origin": "Tromsø"}
    assert early or not renderer.streams


def test_what_has_no_opening_token_is_shown_only_when_it_is_whole() -> None:
    """A call of Llama 3 is bare JSON, which looks like content until it ends."""
    assert not of_format("llama-3").streams
    assert all(of_format(name).streams for name in ("qwen3", "qwen3.5", "glm-4.5", "kimi-k2", "minimax-m2"))


def test_a_call_that_is_none_is_kept_as_sampled() -> None:
    renderer = of_format("qwen3")
    read = renderer.parse(renderer.encode('Hm <tool_call>\n{"name": "f", "arguments": {"x": }}\n</tool_call>'))
    assert read.content == "Hm"
    assert read.calls == (ParsedCall("f", '{"name": "f", "arguments": {"x": }}'),)
    deep = renderer.parse(renderer.encode("<tool_call>" + "[" * 5000 + "</tool_call>"))
    assert "[" * 5000 in deep.content or deep.calls, "whatever the library's parser thinks of it"


def test_a_stop_string_ends_what_is_read_where_the_client_sees_it_end() -> None:
    renderer = of_format("qwen3")
    reader = renderer.reader(call_ids(), (), None, cut_by_text=True)
    deltas = reader.feed(renderer.encode("Oslo. Rome"), "Oslo")
    assert deltas == []
    assert reader.feed((), "", final=True) == [{"content": "Oslo"}]
    assert reader.completion().content == "Oslo"


def test_the_gateway_and_the_cold_start_give_the_same_ids() -> None:
    """What the gateway would have recorded of a dialogue is what the policy is fine-tuned on."""
    renderer = of_format("qwen3")
    messages = [
        asked("A flight?"),
        called(("find_flights", {"origin": "Oslo"}), ("find_flights", {"origin": "Rome"}), thought="Both."),
        *answered("F1", "none"),
        called(content="F1.", thought="Short."),
        asked("Sure?"),
        called(content="Yes."),
    ]
    ids, mask = renderer.dialogue(messages, [TOOL])
    conversation = Conversation()
    said = iter(spans(ids, mask))
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = conversation.prompt(renderer, messages[:place], [TOOL])
            before, sampled = next(said)
            assert prompt.ids == before
            assert (prompt.parent is None) == (place == 1)
            conversation.add(place, prompt, message, sampled)
    assert tools_hash([TOOL])


def test_an_answer_that_the_format_cannot_go_on_from_is_a_fork() -> None:
    """Qwen3: a turn that ended inside its thinking. The history is rendered anew, and the step says so."""
    renderer = of_format("qwen3")
    conversation = Conversation()
    prompt = conversation.prompt(renderer, [asked("One?")], None)
    sampled = [*renderer.encode("<think>Hm"), renderer.stop_ids[0]]
    said: Message = {"role": "assistant", "content": ""}
    conversation.add(1, prompt, said, sampled)
    again = conversation.prompt(renderer, [asked("One?"), said, asked("And?")], None)
    assert again.parent is None and again.forked
    assert again.ids == renderer.open([asked("One?"), said, asked("And?")], None)


def test_a_policy_that_numbers_its_calls_gets_its_own_numbers_back() -> None:
    """Kimi: the client's id carries the policy's, and a tool's answer is rendered under that."""
    renderer = of_format("kimi-k2")
    ids, mask = renderer.dialogue([asked("?"), called(("find_flights", {"origin": "Oslo"}))], [TOOL])
    ((prompt, sampled),) = spans(ids, mask)
    assert "functions.find_flights:0" in renderer.decode(sampled)
    reader = renderer.reader(call_id := call_ids(), prompt, [TOOL])
    reader.feed(sampled, "", final=True)
    (call,) = recorded_message(reader, call_id)["tool_calls"]
    assert call["id"] != "functions.find_flights:0", "the log needs one that is unique"
    added = renderer.extend(prompt, sampled, [{"role": "tool", "tool_call_id": call["id"], "content": "F1"}], [TOOL])
    assert added is not None and "## Return of functions.find_flights:0\nF1" in renderer.decode(added)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model directories (tokenizers alone) by what their template is."""
    places = {}
    for name, family, template in (
        ("qwen3", "qwen3", "qwen3"),
        ("glm", "glm-4.5", "glm4moe"),
        ("qwen3.5 that does not think", "qwen3.5", "qwen3_5_nothink"),
    ):
        tokenizer = of_format(family)._tokenizer
        tokenizer.chat_template = template_of(template)
        places[name] = tmp_path_factory.mktemp("speaks")
        tokenizer.save_pretrained(places[name])
    return places


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("qwen3", "qwen3"),
        ("glm", "glm-4.5"),
        ("qwen3.5 that does not think", "qwen3.5"),
    ],
)
def test_the_library_is_taken_where_it_writes_what_the_models_template_writes(
    directories: dict[str, Path], name: str, taken: str
) -> None:
    renderer = load_renderer(directories[name])
    assert renderer.name == taken
    assert renderer.reads_calls
    assert (renderer.call_form is not None) == (name == "qwen3")
    if name == "qwen3.5 that does not think":
        assert renderer.decode(renderer.open([asked("?")], None)).endswith("<think>\n\n</think>\n\n")
    assert load_renderer(MODEL).name == "template", "the bundled model keeps its short signatures"


def test_a_setting_that_cannot_be_is_refused(directories: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RenderingError, match=r"'qwen4'.*auto, template or.*qwen3"):
        load_renderer(directories["qwen3"], "qwen4")
    with pytest.raises(RenderingError, match=r"'glm-5' does not fit.*gMASK"):
        load_renderer(directories["qwen3"], "glm-5")
    with pytest.raises(ModelError, match="no model directory"):
        load_renderer(directories["qwen3"] / "gone")
    monkeypatch.delenv("TIKTOKEN_ENCODINGS_BASE", raising=False)
    with pytest.raises(RenderingError, match="TIKTOKEN_ENCODINGS_BASE"):
        LibraryRenderer(bundled_tokenizer(), "gpt-oss")


def request(**asked_for: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "policy", "messages": [asked("?")], "tools": [TOOL], **asked_for})


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def test_what_a_format_cannot_do_is_refused_by_name() -> None:
    hermes, xml, bare = of_format("qwen3"), of_format("qwen3.5"), of_format("llama-3")
    strange = TOOL | {"function": TOOL["function"] | {"parameters": {"properties": {"n": {"multipleOf": 3}}}}}
    for renderer, asked_for in (
        (hermes, {"tool_choice": "required"}),
        (hermes, {"parallel_tool_calls": False}),
        (xml, {"parallel_tool_calls": False}),
        (bare, {}),
        (bare, {"tool_choice": "none", "parallel_tool_calls": False}),
        (xml, {"tool_choice": "none", "response_format": {"type": "json_object"}}),
        (hermes, {"response_format": {"type": "json_object"}}),
        (hermes, {"tools": [strange], "response_format": schema_of({"type": "object"})}),
    ):
        refuse_unless_possible(renderer, request(**asked_for))
    for renderer, asked_for, said in (
        (xml, {"tool_choice": "required"}, "no grammar for tool calls of the format 'qwen3.5'"),
        (bare, {"tool_choice": {"type": "function", "function": {"name": "find_flights"}}}, "no grammar"),
        (bare, {"parallel_tool_calls": False}, "cannot be ended after the first"),
        (hermes, {"tool_choice": "required", "tools": [strange]}, "multipleOf"),
        (xml, {"response_format": {"type": "json_object"}}, "no tool could be called"),
        (hermes, {"response_format": schema_of(strange["function"]["parameters"])}, "response_format uses multipleOf"),
    ):
        with pytest.raises(ApiError, match=said) as refused:
            refuse_unless_possible(renderer, request(**asked_for))
        assert refused.value.status == 400


def test_the_grammar_of_forced_calls_takes_what_the_format_writes_and_no_more_calls_than_asked_for() -> None:
    renderer = of_format("qwen3")
    form = renderer.call_form
    assert form is not None
    info = xgrammar.TokenizerInfo.from_huggingface(renderer._tokenizer, stop_token_ids=list(renderer.stop_ids))
    compiler = xgrammar.GrammarCompiler(info)

    def taken(calls: Sequence[tuple[str, dict[str, Any]]], most: int) -> bool:
        ids, mask = renderer.dialogue([asked("?"), called(*calls)], [TOOL])
        ((_, sampled),) = spans(ids, mask)
        tag = json.dumps(form.grammar([TOOL["function"]], most))
        matcher = xgrammar.GrammarMatcher(compiler.compile_structural_tag(tag))
        return all(matcher.accept_token(token) for token in sampled) and matcher.is_terminated()

    call = ("find_flights", {"origin": "Oslo", "seats": 2})
    assert taken([call], 1) and taken([call], 8) and taken([call] * 8, 8)
    assert not taken([call] * 2, 1) and not taken([call] * 9, 8)
    assert not taken([("find_trains", {"origin": "Oslo"})], 8)
    assert not taken([("find_flights", {"seats": 2})], 8), "the schema is kept"


def test_the_grammar_of_tools_beside_a_json_answer_takes_either() -> None:
    renderer = of_format("qwen3")
    form = renderer.call_form
    assert form is not None
    info = xgrammar.TokenizerInfo.from_huggingface(renderer._tokenizer, stop_token_ids=list(renderer.stop_ids))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    strange = {"name": "odd", "parameters": {"properties": {"n": {"multipleOf": 3}}}}
    tag = json.dumps(form.calls_or_json([TOOL["function"], strange], schema, 2))
    compiled = xgrammar.GrammarCompiler(info).compile_structural_tag(tag)

    def taken(said: dict[str, Any] | str) -> bool:
        if isinstance(said, str):
            sampled = [*renderer._tokenizer(said)["input_ids"], renderer._tokenizer.eos_token_id]
        else:
            ((_, sampled),) = spans(*renderer.dialogue([asked("?"), said], [TOOL]))
        matcher = xgrammar.GrammarMatcher(compiled)
        return all(matcher.accept_token(token) for token in sampled) and matcher.is_terminated()

    call = ("find_flights", {"origin": "Oslo", "seats": 2})
    assert taken(called(call)) and taken(called(call, call)) and not taken(called(call, call, call))
    assert taken(called(("odd", {"n": 4}))), "what cannot be enforced is any object"
    assert taken('{"n": 3}')
    assert not taken('{"n": "three"}') and not taken("Three.")


def test_tools_are_refused_where_calls_could_not_be_read_back(renderer: TemplateRenderer) -> None:
    """A template that writes no calls, or in a form of its own that the library does not know."""
    silent = deepcopy(renderer._tokenizer)
    silent.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(ApiError, match=r"model\.renderer"):
        refuse_unless_possible(TemplateRenderer(silent), request())
    refuse_unless_possible(TemplateRenderer(silent), request(tools=None))
