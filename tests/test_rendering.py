"""Rendering on the bundled model's tokenizer: opened once, extended exactly, refused where it cannot be."""

from pathlib import Path

import pytest

from agent.rendering import Message, RenderingError
from agent.template_rendering import TemplateRenderer as Renderer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_flights",
            "description": "Find flights",
            "parameters": {
                "type": "object",
                "properties": {
                    "origin": {"type": "string"},
                    "seats": {"type": "integer"},
                    "cabin": {"type": "string", "enum": ["economy", "business"]},
                },
                "required": ["origin"],
            },
        },
    }
]
CALL = {"id": "c1", "type": "function", "function": {"name": "find_flights", "arguments": '{"origin": "Oslo"}'}}
DIALOGUE: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "A flight from Oslo?"},
    {"role": "assistant", "content": "", "reasoning_content": "search", "tool_calls": [CALL, CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"id": "F1"}'},
    {"role": "tool", "tool_call_id": "c1", "content": '{"id": "F2"}'},
    {"role": "assistant", "content": "F1 or F2."},
    {"role": "user", "content": "Thanks, 1,200 kr?"},
    {"role": "assistant", "content": "Yes."},
]


def test_tools_are_one_line_signatures(renderer: Renderer) -> None:
    text = renderer.decode(renderer.open(DIALOGUE[:2], TOOLS))
    assert "find_flights(origin, seats?: integer, cabin?: economy|business) - Find flights" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_extending_gives_the_ids_of_rendering_everything_at_once(renderer: Renderer) -> None:
    """Each assistant message as if sampled, each later message by `extend`: the same ids as one rendering."""
    ids = renderer.open(DIALOGUE[:2], TOOLS)
    ids += renderer.encode(renderer.assistant_text(DIALOGUE[2]))
    ids += renderer.extend((), ids, DIALOGUE[3:5], TOOLS)
    assert ids == renderer.open(DIALOGUE[:5], TOOLS)
    ids += renderer.encode(renderer.assistant_text(DIALOGUE[5]))
    ids += renderer.extend((), ids, DIALOGUE[6:7], TOOLS)
    assert ids == renderer.open(DIALOGUE[:7], TOOLS)


def test_a_cut_off_turn_is_closed_before_it_is_extended(renderer: Renderer) -> None:
    said = renderer.encode("F1 or")
    ended = [*said, renderer.end_of_turn_id]
    closed = renderer.extend((), said, DIALOGUE[6:7], TOOLS)
    assert closed == [renderer.end_of_turn_id, *renderer.extend((), ended, DIALOGUE[6:7], TOOLS)]


def test_the_loss_mask_covers_exactly_what_the_assistant_says(renderer: Renderer) -> None:
    ids, mask = renderer.dialogue(DIALOGUE, TOOLS)
    said = renderer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    call = '<tool_call>find_flights{"origin": "Oslo"}</tool_call>'
    assert said == f"<think>search</think>{call}{call}<|im_end|>F1 or F2.<|im_end|>Yes.<|im_end|>"
    assert ids == renderer.open(DIALOGUE[:7], TOOLS) + renderer.encode("Yes.<|im_end|>")


def test_special_tokens_are_one_id_each(renderer: Renderer) -> None:
    for token in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"):
        assert len(renderer.encode(token)) == 1


def test_nobody_else_s_use_of_the_tokenizer_changes_the_ids(renderer: Renderer) -> None:
    """Whoever trains has a tokenizer cut and pad, and it keeps that in mind."""
    from copy import deepcopy

    tokenizer = deepcopy(renderer._tokenizer)
    again, text = Renderer(tokenizer), "A flight from Oslo to Rome for two, <tool_call>, and back on Friday."
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert again.encode(text) == expected and len(expected) > 8
    for options in (
        {"truncation": True, "max_length": 8},
        {"padding": "max_length", "max_length": 64},
        {"split_special_tokens": True},
    ):
        assert tokenizer(text, add_special_tokens=False, **options)["input_ids"] != expected
        assert again.encode(text) == expected, options


def test_a_template_that_rewrites_earlier_turns_is_refused(renderer: Renderer) -> None:
    from copy import deepcopy

    forgetful = deepcopy(renderer._tokenizer)
    forgetful.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not loop.last %}(earlier){% else %}{{ m.content }}{% endif %}<|im_end|>\n"
        "{% endfor %}"
    )
    with pytest.raises(RenderingError, match="prefix-preserving"):
        Renderer(forgetful)


def test_a_dialogue_without_an_assistant_is_refused(renderer: Renderer) -> None:
    with pytest.raises(RenderingError, match="nothing to learn"):
        renderer.dialogue(DIALOGUE[:2], None)


@pytest.mark.parametrize("family", ["qwen3", "qwen2_5"])
def test_a_template_that_trl_knows_is_taken_in_its_training_form(renderer: Renderer, family: str) -> None:
    """Qwen's own template drops earlier thinking: what was sampled would be rendered away. TRL's form keeps it."""
    from copy import deepcopy

    import trl

    tokenizer = deepcopy(renderer._tokenizer)
    own = (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text()
    tokenizer.chat_template = own
    theirs = Renderer(tokenizer)
    assert (tokenizer.chat_template != own) == (family == "qwen3"), "only where its own form cannot be extended"
    ids = theirs.open(DIALOGUE[:2], TOOLS)
    call = '<tool_call>\n{"name": "find_flights", "arguments": {}}\n</tool_call>'
    sampled = theirs.encode(f"<think>\nsearch\n</think>\n\n{call}<|im_end|>")
    more = theirs.extend(ids, sampled, DIALOGUE[3:4], TOOLS)
    text = theirs.decode([*ids, *sampled, *more])
    assert text.count("<think>\nsearch\n</think>") == 1
    assert text.endswith("<|im_start|>assistant\n")
    assert '<tool_response>\n{"id": "F1"}\n</tool_response>' in text
    assert text.count("<|im_start|>user") == 2, "a tool's response is a user message in this family"
