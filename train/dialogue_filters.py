"""Which reference dialogues are fit to learn from (CM2 pipeline, step 1): one reason for each that is not. Pure.

Role order, unique tool names and calls with responses are what a `Scenario` guarantees by itself.
"""

import json
from collections.abc import Sequence

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from env_sim.recordings import played_reference
from env_sim.simulator import violation
from reward.checks import decide_check
from store.checklists import Checklist
from store.records import RecordedCall, Scenario, canonical_json
from store.settings import DataSettings
from train.thinking import MARKUP


def why_unfit(scenario: Scenario, checklists_T: Sequence[Sequence[Checklist]], wanted: DataSettings) -> str | None:
    """The first filter of `[data]` that leaves the dialogue out; None if it stays. Lengths in tokens are not looked at.

    `checklists_T`: for each turn the checklists that count now.
    """
    if any(not turn.reference for turn in scenario.turns):
        return "a turn has no reference"
    if len(scenario.turns) < wanted.min_turns:
        return f"fewer turns than data.min_turns = {wanted.min_turns}"
    if wanted.max_turns and len(scenario.turns) > wanted.max_turns:
        return f"more turns than data.max_turns = {wanted.max_turns}"
    if wanted.duplicate_tools and _has_duplicate_tools(scenario):
        return "two tools with the same description and schema (data.duplicate_tools)"
    return (
        _wrong_calls(scenario, wanted) or _wrong_words(scenario, wanted) or _wrong_items(scenario, checklists_T, wanted)
    )


def fingerprint(scenario: Scenario) -> str:
    """Equal for scenarios with the same users' messages and reference."""
    spoken = [[turn.user, [step.model_dump(mode="json") for step in turn.reference]] for turn in scenario.turns]
    return canonical_json(spoken)


def _has_duplicate_tools(scenario: Scenario) -> bool:
    shapes = [json.dumps([tool.description, tool.parameters], sort_keys=True) for tool in scenario.tools]
    return len(set(shapes)) < len(shapes)


def _wrong_calls(scenario: Scenario, wanted: DataSettings) -> str | None:
    validators = {tool.name: Draft202012Validator(tool.parameters) for tool in scenario.tools}
    try:
        for tool in scenario.tools:
            Draft202012Validator.check_schema(tool.parameters)
    except SchemaError:
        return "a tool's parameters are no JSON Schema"
    for call in _calls(scenario):
        if call.name not in validators:
            if wanted.unknown_tools:
                return "a call of a tool that is not offered (data.unknown_tools)"
        elif wanted.invalid_arguments and not call.is_error and violation(validators[call.name], dict(call.arguments)):
            return "arguments against the tool's schema (data.invalid_arguments)"
        if wanted.empty_content and not call.response.strip():
            return "a tool response without text (data.empty_content)"
    return None


def _wrong_words(scenario: Scenario, wanted: DataSettings) -> str | None:
    for turn in scenario.turns:
        if wanted.empty_content and not turn.user.strip():
            return "a user's message without text (data.empty_content)"
        for step in turn.reference:
            if wanted.empty_content and step.reply is not None and not step.reply.strip():
                return "a reply without text (data.empty_content)"
            if wanted.markup and MARKUP.search(f"{step.thinking}\n{step.reply or ''}"):
                return "tags in what the assistant says or thinks (data.markup)"
            if wanted.missing_thinking and not step.thinking.strip():
                return "a step without thinking (data.missing_thinking)"
    return None


def _wrong_items(scenario: Scenario, checklists_T: Sequence[Sequence[Checklist]], wanted: DataSettings) -> str | None:
    if wanted.needs_checklist and any(not any(one.items for one in current) for current in checklists_T):
        return "a turn without a checklist (data.needs_checklist)"
    if not wanted.self_test:
        return None
    for index, (turn, current) in enumerate(zip(scenario.turns, checklists_T, strict=True)):
        reference = played_reference(turn, index)
        for check in (item.check for one in current for item in one.items if item.check is not None):
            try:
                if not decide_check(check, reference).satisfied:
                    return "the reference fails a check of its own checklist (data.self_test)"
            except ValueError:
                return "a check of its checklist cannot be decided (data.self_test)"
    return None


def _calls(scenario: Scenario) -> list[RecordedCall]:
    return [call for turn in scenario.turns for step in turn.reference for call in step.calls]
