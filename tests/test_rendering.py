"""Rendering on the bundled model's tokenizer: opened once, extended exactly, refused where it cannot be."""

import pytest

from agent.rendering import Message, Renderer, RenderingError

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
    ids += renderer._encode(renderer.assistant_text(DIALOGUE[2]))
    ids += renderer.extend(DIALOGUE[3:5])
    assert ids == renderer.open(DIALOGUE[:5], TOOLS)
    ids += renderer._encode(renderer.assistant_text(DIALOGUE[5]))
    ids += renderer.extend(DIALOGUE[6:7])
    assert ids == renderer.open(DIALOGUE[:7], TOOLS)


def test_a_cut_off_turn_is_closed_before_it_is_extended(renderer: Renderer) -> None:
    closed = renderer.extend(DIALOGUE[6:7], ended=False)
    assert closed == [renderer.end_of_turn_id, *renderer.extend(DIALOGUE[6:7])]


def test_the_loss_mask_covers_exactly_what_the_assistant_says(renderer: Renderer) -> None:
    ids, mask = renderer.dialogue(DIALOGUE, TOOLS)
    said = renderer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    call = '<tool_call>find_flights{"origin": "Oslo"}</tool_call>'
    assert said == f"<think>search</think>{call}{call}<|im_end|>F1 or F2.<|im_end|>Yes.<|im_end|>"
    assert ids == renderer.open(DIALOGUE[:7], TOOLS) + renderer._encode("Yes.<|im_end|>")


def test_special_tokens_are_one_id_each(renderer: Renderer) -> None:
    for token in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"):
        assert len(renderer._encode(token)) == 1


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
