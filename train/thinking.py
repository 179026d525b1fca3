"""Thinking passages of a reference dialogue: shown to a compressor, its answer read, kept only if it stays true. Pure.

Only thinking is ever replaced: calls, their order, responses and replies are the original's by construction.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from openai.types.shared_params import ResponseFormatJSONSchema

from reward.guided_json import closed_object, json_format
from store.records import ReferenceStep, Scenario

Place = tuple[int, int]
"""(turn, step)"""
MARKUP = re.compile(r"</?(think|thinking|tool_calls?|tool_responses?|function_call)\b[^>]*>|<\|\w+\|>", re.IGNORECASE)
"""What a model's format writes around thinking, calls and responses."""
_NUMBER = re.compile(r"(?:(?<![\w)\]])([-−])[$€£]?)?(\d+(?:,\d{3})*(?:\.\d+)?)")
"""With its sign: a dash is one where nothing that counts stands before it (not in 3-5 or 2026-01-31)."""


def passages(scenario: Scenario, min_words: int) -> dict[Place, str]:
    """The thinking of at least `min_words` words, in order."""
    return {
        (t, s): step.thinking
        for t, turn in enumerate(scenario.turns)
        for s, step in enumerate(turn.reference)
        if len(step.thinking.split()) >= min_words
    }


def with_thinking(scenario: Scenario, shorter: Mapping[Place, str]) -> Scenario:
    """The scenario with other thinking at these places, and nothing else changed."""
    turns = []
    for t, turn in enumerate(scenario.turns):
        steps = [
            step.model_copy(update={"thinking": shorter.get((t, s), step.thinking)})
            for s, step in enumerate(turn.reference)
        ]
        turns.append(turn.model_copy(update={"reference": tuple(steps)}))
    return scenario.model_copy(update={"turns": tuple(turns)})


def why_untrue(original: str, shorter: str, tools: Iterable[str]) -> str | None:
    """Why a shorter passage cannot stand for the original; None if it can."""
    if not shorter.strip():
        return "it is empty"
    if len(shorter.split()) >= len(original.split()):
        return "it is not shorter"
    if MARKUP.search(shorter):
        return "it holds tags"
    names = list(tools)
    wanted, found = _tools_named(original, names), _tools_named(shorter, names)
    if missing := [name for name in wanted if name not in found]:
        return f"a tool is not named any more: {', '.join(missing)}"
    if added := [name for name in found if name not in wanted]:
        return f"another tool is named: {', '.join(added)}"
    if wanted != found:
        return f"the tools are named in another order: {', '.join(found)} instead of {', '.join(wanted)}"
    before, after = _numbers(original), _numbers(shorter)
    if lost := [number for number in before if number not in after]:
        return f"a number is lost: {', '.join(lost)}"
    if invented := [number for number in after if number not in before]:
        return f"a number is invented: {', '.join(invented)}"
    return None


def kind_of(reason: str) -> str:
    """The reason without its figures, to count it."""
    return reason.partition(":")[0]


def show_task(scenario: Scenario, places: Sequence[Place], boundary: str) -> str:
    """The dialogue with its thinking passages numbered, and which of them are asked for."""
    asked = "Shorten the passages " + ", ".join(f"{t}.{s}" for t, s in places) + "."
    return "\n".join([*show_dialogue(scenario, boundary), "", asked])


def show_dialogue(scenario: Scenario, boundary: str) -> list[str]:
    """The lines of the whole reference dialogue, delimited as data."""
    lines = [f"<data-{boundary}>", f"system: {scenario.system}"]
    lines += [f"tool {tool.name}: {tool.description}" for tool in scenario.tools]
    for t, turn in enumerate(scenario.turns):
        lines.append(f"user: {turn.user}")
        for s, step in enumerate(turn.reference):
            lines += _shown(step, f"{t}.{s}")
    return [*lines, f"</data-{boundary}>"]


def answer_format(places: Sequence[Place]) -> ResponseFormatJSONSchema:
    """The JSON schema of an answer about these passages: each stands there once."""
    return json_format("passages", {"passages": closed_object({f"{t}.{s}": {"type": "string"} for t, s in places})})


def read_answer(text: str, places: Sequence[Place]) -> dict[Place, str]:
    """What an answer says for these passages; whatever else it holds is passed over. Never raises."""
    start, end = text.find("{"), text.rfind("}")
    try:
        document = json.loads(text[start : end + 1]) if start >= 0 else {}
    except (ValueError, RecursionError):
        return {}
    said = document.get("passages") if isinstance(document, dict) else None
    by_id = {f"{t}.{s}": (t, s) for t, s in places}
    found: dict[Place, str] = {}
    for name, shorter in said.items() if isinstance(said, dict) else ():
        if name in by_id and isinstance(shorter, str):
            found[by_id[name]] = shorter.strip()
    return found


def _shown(step: ReferenceStep, number: str) -> list[str]:
    lines = [f"thinking {number}: {step.thinking}"] if step.thinking else []
    for call in step.calls:
        lines.append(f"call: {call.name}({json.dumps(call.arguments, ensure_ascii=False)})")
        lines.append(f"response: {call.response}")
    return [*lines, f"reply: {step.reply}"] if step.reply is not None else lines


def _tools_named(text: str, tools: Sequence[str]) -> list[str]:
    """Each tool once, in the order in which the text first names it."""
    places = [
        (found.start(), tool) for tool in tools if (found := re.search(rf"(?<![\w-]){re.escape(tool)}(?![\w-])", text))
    ]
    return [tool for _, tool in sorted(places)]


def _numbers(text: str) -> list[str]:
    """Each number once, 1,200.00 as 1200, with its sign."""
    values = (Decimal(("-" if found[1] else "") + found[2].replace(",", "")) for found in _NUMBER.finditer(text))
    return list(dict.fromkeys(f"{value.normalize():f}" for value in values))
