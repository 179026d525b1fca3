"""The messages of a session as the graph had them, out of its recorded steps; reads and writes nothing."""

import json
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, AnyMessage, InvalidToolCall, ToolCall, convert_to_messages

from agent.policy import is_json_object
from store.conversations import StoredStep


def messages_of(steps: Sequence[StoredStep]) -> list[AnyMessage]:
    """The dialogue that the last reply of `steps` ends, as the graph would have it; what came after it is left out."""
    by_id = {step.id: step for step in steps}
    replies = [step for step in steps if not step.message.get("tool_calls")]
    chain: list[StoredStep] = []
    step = replies[-1] if replies else None
    while step is not None:
        chain.insert(0, step)
        step = None if step.parent_id is None else by_id[step.parent_id]
    messages: list[AnyMessage] = []
    for step in chain:
        messages += [_as_message(message) for message in step.new_messages]
        messages.append(_sampled_message(step.message.get("content"), step.message.get("tool_calls")))
    return messages


def _as_message(message: dict[str, Any]) -> AnyMessage:
    if message["role"] == "assistant":
        calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls") or ()]
        return _sampled_message(message.get("content"), calls)
    return cast(AnyMessage, convert_to_messages([message])[0])


def _sampled_message(content: Any, calls: Sequence[dict[str, Any]] | None) -> AIMessage:
    parsed: list[ToolCall] = []
    broken: list[InvalidToolCall] = []
    for call in calls or ():
        name, arguments, call_id = call["name"], call["arguments"], call["id"]
        if is_json_object(arguments):
            args = json.loads(arguments or "{}")
            parsed.append(ToolCall(type="tool_call", name=name, args=args, id=call_id))
        else:
            error = "the arguments are no JSON object"
            broken.append(InvalidToolCall(type="invalid_tool_call", name=name, args=arguments, id=call_id, error=error))
    return AIMessage(content=content or "", tool_calls=parsed, invalid_tool_calls=broken)
