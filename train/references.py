"""Reference dialogues of scenarios as training examples, in the gateway's own rendering."""

from collections.abc import Sequence
from typing import Any

from agent.rendering import Message, Renderer
from store.records import ReferenceStep, Scenario
from train.sft import SftExample


def reference_messages(scenario: Scenario) -> list[Message]:
    """The reference dialogue as OpenAI messages, thinking in `reasoning_content`."""
    messages: list[Message] = [{"role": "system", "content": scenario.system}] if scenario.system else []
    for turn_index, turn in enumerate(scenario.turns):
        messages.append({"role": "user", "content": turn.user})
        for step_index, step in enumerate(turn.reference):
            messages += _step_messages(step, f"call_{turn_index}_{step_index}")
    return messages


def _step_messages(step: ReferenceStep, stem: str) -> list[Message]:
    said: Message = {"role": "assistant", "content": step.reply or "", "reasoning_content": step.thinking}
    if step.calls:
        said["tool_calls"] = [
            {"id": f"{stem}_{n}", "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for n, c in enumerate(step.calls)
        ]
    answers: list[Message] = [
        {"role": "tool", "tool_call_id": f"{stem}_{n}", "content": c.response} for n, c in enumerate(step.calls)
    ]
    return [said, *answers]


def sft_examples(scenarios: Sequence[Scenario], renderer: Renderer) -> list[SftExample]:
    """One example a scenario: ids of the whole dialogue, loss on what the assistant says."""
    examples = []
    for scenario in scenarios:
        tools: list[dict[str, Any]] = [tool.as_openai() for tool in scenario.tools]
        ids, mask = renderer.dialogue(reference_messages(scenario), tools)
        examples.append(SftExample(ids, mask))
    return examples
