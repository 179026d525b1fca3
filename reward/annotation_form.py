"""What the annotator is shown and how it answers: the dialogue as text, the guided JSON, the answer as draft items.

What users, assistants and tools wrote stands between tags with a boundary that they cannot know. Pure; reads and writes
nothing.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai.types.shared_params import ResponseFormatJSONSchema
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from env_sim.recordings import played_reference
from reward.checks import quote_call, succeeded
from reward.guided_json import SaidTwice, closed_object, json_format, refuse_twice
from reward.transcripts import REMOVED, shorten, strip_tags
from store.records import Check, Evidence, Item, Scenario, ToolSpec, canonical_json
from store.vocabulary import FocusOn

MOST_ITEMS = 16
"""Of one turn's checklist."""


@dataclass(frozen=True)
class Draft:
    """An item as the annotator wrote it; its check waits apart until it has proved itself."""

    item: Item
    proposal: Check | None = None
    bad_proposal: str | None = None
    """Why the check that was proposed is none."""


@dataclass
class TurnDraft:
    """A turn's checklist as the annotator wrote it, and what cannot be read of it."""

    drafts: list[Draft] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _ItemAnswer(BaseModel):
    id: str = Field(pattern=r"^\S+$", max_length=100)
    focus_on: FocusOn
    evidence: tuple[Evidence, ...] = ()
    question: str = Field(min_length=1, max_length=2000)
    pass_condition: str = Field(min_length=1, max_length=2000)
    failure_examples: tuple[str, ...] = ()
    must_not: bool = False
    required_for_next_turn: bool = False
    depends_on: tuple[str, ...] = ()
    check: Any = None
    weight: float | None = None


_CHECK: TypeAdapter[Check] = TypeAdapter(Check)


def show_dialogue(scenario: Scenario, boundary: str, longest: int | None = None) -> str:
    """Tools, system prompt and every turn; of a block longer than `longest` characters the middle is left out."""

    def block(attributes: str, text: str) -> str:
        clean = strip_tags(text).replace(boundary, REMOVED)
        return f"<data-{boundary} {attributes}>\n{shorten(clean, longest)}\n</data-{boundary}>"

    tools = "\n".join(canonical_json(tool.as_openai()["function"]) for tool in scenario.tools) or "none"
    pieces = ["# Tools", block('channel="tools"', tools)]
    if scenario.system:
        pieces += ["# System prompt of the assistant", block('channel="system"', scenario.system)]
    pieces.append("# Dialogue")
    for index, spoken in enumerate(scenario.turns):
        pieces += [f"## Turn {index}", block('channel="user"', spoken.user)]
        for step in played_reference(spoken, index).steps:
            at = f'step="{step.index}" channel='
            if step.thinking:
                pieces.append(block(f'{at}"{FocusOn.THINKING.value}"', step.thinking))
            status = [f' status="{"ok" if succeeded(call) else "failed"}"' for call in step.calls]
            for call, said in zip(step.calls, status, strict=True):
                pieces.append(block(f'{at}"{FocusOn.TOOL_CALLS.value}"{said}', quote_call(call)))
            for call, said in zip(step.calls, status, strict=True):
                pieces.append(block(f'{at}"{FocusOn.TOOL_RESPONSE.value}"{said}', call.response or ""))
            if step.is_reply:
                pieces.append(block(f'{at}"{FocusOn.REPLY.value}"', step.content))
        if not spoken.reference:
            pieces.append("(The assistant gave no reply.)")
    return "\n\n".join(pieces)


def show_task(turns: Sequence[int], untrusted: Sequence[int]) -> str:
    """What to write, after the dialogue, so that the questions about one dialogue share a prefix."""
    text = f"# Task\n\nWrite the checklists of these turns: {', '.join(map(str, turns))}."
    if untrusted:
        text += (
            f" Nobody has reviewed what the assistant did in turn {', '.join(map(str, untrusted))}: it may be wrong or "
            "missing. Write what a good assistant would have to do there; where the dialogue does not show that, leave "
            "`evidence` empty."
        )
    return text


def show_problems(problems: Mapping[int, Sequence[str]]) -> str:
    """What goes back to the annotator."""
    lines = [f"- turn {turn}: {problem}" for turn, said in problems.items() for problem in said]
    asked = ", ".join(map(str, problems))
    return (
        "These checklists cannot be used:\n" + "\n".join(lines) + f"\n\nWrite all items of these turns anew: {asked}."
    )


def answer_format(turns: Sequence[int]) -> ResponseFormatJSONSchema:
    """The guided JSON: an entry under each turn's number, so that none is left out or written twice. Every field is
    required and no object is open, as strict structured output asks for."""
    evidence = _object(step=_INTEGER, channel=_enum(FocusOn), snippet=_STRING)
    item = _object(
        id=_STRING,
        focus_on=_enum(FocusOn),
        evidence=_array(evidence),
        question=_STRING,
        pass_condition=_STRING,
        failure_examples=_array(_STRING),
        must_not={"type": "boolean"},
        required_for_next_turn={"type": "boolean"},
        depends_on=_array(_STRING),
        check={"anyOf": [{"type": "null"}, *_CHECK_SCHEMAS]},
        weight={"type": "number"},
    )
    turn = _object(items=_array(item) | {"minItems": 1, "maxItems": MOST_ITEMS})
    return json_format("checklists", {"turns": closed_object({str(number): turn for number in turns})})


def read_answer(text: str, turns: Iterable[int], tools: Mapping[str, ToolSpec]) -> dict[int, TurnDraft]:
    """The checklist of every turn asked for, each with what cannot be read of it; nothing is raised.

    Weights stand in the items, or in a `weights` object of the turn whose keys must be the items' ids (as in CM2).
    """
    found = {turn: TurnDraft() for turn in turns}
    try:
        answer = json.loads(_without_fence(text), object_pairs_hook=refuse_twice)
        entries = answer["turns"]
        if not isinstance(entries, dict):
            raise TypeError("turns")
    except SaidTwice as error:
        return _all_fail(found, f"{str(error)!r} stands in the answer more than once")
    except (ValueError, RecursionError) as error:
        return _all_fail(found, f"the answer is not JSON: {error}")
    except (KeyError, TypeError):
        return _all_fail(found, 'the answer is not of the form {"turns": {"0": {"items": [...]}}}')
    seen = set()
    for turn in found:
        if isinstance(entry := entries.get(str(turn)), dict):
            seen.add(turn)
            found[turn] = _read_turn(entry, tools)
    for turn in found.keys() - seen:
        found[turn].problems.append("the answer has no checklist of this turn")
    return found


def _read_turn(entry: Mapping[str, Any], tools: Mapping[str, ToolSpec]) -> TurnDraft:
    items = entry.get("items")
    if not isinstance(items, list) or not items:
        return TurnDraft(problems=["it has no items"])
    made = TurnDraft()
    if len(items) > MOST_ITEMS:
        made.problems.append(f"it has {len(items)} items: keep the {MOST_ITEMS} that matter most")
    weights = entry.get("weights")
    if weights is not None:
        made.problems += _weights_problems(weights, items)
    for place, raw in enumerate(items):
        name = raw.get("id") if isinstance(raw, dict) else None
        where = f"item {name!r}" if name and isinstance(name, str) else f"item number {place + 1}"
        if isinstance(raw, dict) and isinstance(name, str) and isinstance(weights, dict):
            raw = raw | {"weight": weights.get(name, raw.get("weight"))}
        try:
            answer = _ItemAnswer.model_validate(raw)
            if answer.weight is None:
                made.problems.append(f"{where}: it has no weight")
                continue
            weight = answer.weight
            if not 0 <= weight < float("inf"):
                made.problems.append(f"{where}: the weight is {weight:g}; a weight is 0 or more")
                weight = 0.0
            fields = answer.model_dump(exclude={"check"}) | {"weight": weight}
            made.drafts.append(_with_proposal(Item(**fields), answer.check, tools))
        except ValidationError as error:
            for problem in error.errors():
                at = ".".join(map(str, problem["loc"])) or "the item"
                made.problems.append(f"{where}: {at}: {problem['msg']}")
    return made


def _weights_problems(weights: Any, items: Sequence[Any]) -> list[str]:
    if not isinstance(weights, dict):
        return ["`weights` is no object of item ids and numbers"]
    ids = {raw["id"] for raw in items if isinstance(raw, dict) and isinstance(raw.get("id"), str)}
    wrong = [f"`weights` names {key!r}, which is no item" for key in weights if key not in ids]
    return wrong + [f"`weights` has no weight for item {key!r}" for key in sorted(ids - weights.keys())]


def _with_proposal(item: Item, raw: Any, tools: Mapping[str, ToolSpec]) -> Draft:
    if raw is None:
        return Draft(item)
    try:
        return Draft(item, _CHECK.validate_python(_as_check(raw, tools)))
    except (ValueError, TypeError, AttributeError) as error:
        return Draft(item, bad_proposal=next(iter(str(error).splitlines()), type(error).__name__))


def _as_check(raw: Any, tools: Mapping[str, ToolSpec]) -> Any:
    """The answer's form of a check as ours: arguments are a list of names with values as text, bounds may be null."""
    if not isinstance(raw, dict) or raw.get("kind") != "called":
        return raw
    given = raw.get("arguments", [])
    if isinstance(given, list):
        lacking = [entry for entry in given if not isinstance(entry, dict) or not {"name", "value"} <= entry.keys()]
        if lacking:
            raise ValueError(f"the argument {str(lacking[0])[:80]} has no name or no value")
        given = {entry["name"]: entry["value"] for entry in given}
    spec = tools.get(raw.get("tool", ""))
    rules = spec.parameters.get("properties", {}) if spec is not None else {}
    return raw | {"arguments": {name: _typed(value, rules.get(name)) for name, value in given.items()}}


def _typed(value: Any, rule: Any) -> Any:
    """A value given as text in the type that the tool's schema asks for; as it is where it has none or does not fit."""
    kind = rule.get("type") if isinstance(rule, dict) else None
    if not isinstance(value, str) or kind in (None, "string"):
        return value
    try:
        return json.loads(value.strip().lower() if kind == "boolean" else value)
    except (ValueError, RecursionError):
        return value


def _all_fail(found: dict[int, TurnDraft], problem: str) -> dict[int, TurnDraft]:
    for draft in found.values():
        draft.problems.append(problem)
    return found


def _without_fence(text: str) -> str:
    match = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    return match.group(1) if match else text


def _object(**properties: Any) -> dict[str, Any]:
    return closed_object(properties)


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _enum(values: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": [str(value) for value in values]}


_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_STRINGS = _array(_STRING)
_CHECK_SCHEMAS = [
    _object(
        kind=_enum(["called"]),
        tool=_STRING,
        arguments=_array(_object(name=_STRING, value=_STRING)),
        tolerance={"type": "number"},
        at_least={"anyOf": [{"type": "null"}, _INTEGER]},
        at_most={"anyOf": [{"type": "null"}, _INTEGER]},
    ),
    _object(kind=_enum(["not_called"]), tools=_STRINGS),
    _object(kind=_enum(["response_received"]), tool=_STRING, values=_STRINGS),
    _object(kind=_enum(["reply_mentions"]), all_of=_array(_STRINGS), none_of=_STRINGS),
    _object(kind=_enum(["reply_repeats"]), tool=_STRING, fields=_STRINGS),
    _object(kind=_enum(["reply_asks"]), about=_STRINGS),
    _object(kind=_enum(["call_order"]), first=_STRING, then=_STRING),
]
