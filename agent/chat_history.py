"""The dialogue of a chat as the graph has it, out of the log's steps; reads and writes nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    InvalidToolCall,
    ToolCall,
    ToolMessage,
    convert_to_messages,
)

from agent.policy import is_json_object
from store.chats import WHOLE, ChatAnswer, ChatStep


@dataclass(frozen=True)
class LoggedDialogue:
    """Where the log stands: the branch that ends in its newest step."""

    said: list[AnyMessage]
    """All of it, an unfinished turn and the answers to the newest calls (if all are there) included."""
    finished: list[AnyMessage]
    """Up to the last turn that ended with a reply; `said` itself if the newest one did."""
    newest_unanswered: bool
    """The newest step made calls, and none of them has been answered."""


NOTHING_SAID = LoggedDialogue([], [], False)


def dialogue_of(steps: Sequence[ChatStep], answers: Mapping[str, ChatAnswer]) -> LoggedDialogue:
    """The dialogue that the newest of `steps` stands in."""
    if not steps:
        return NOTHING_SAID
    by_id = {step.id: step for step in steps}
    chain: list[ChatStep] = []
    step: ChatStep | None = steps[-1]
    while step is not None:
        chain.append(step)
        step = None if step.parent_id is None else by_id[step.parent_id]
    messages: list[AnyMessage] = []
    for step in reversed(chain):
        messages += [_as_message(message) for message in step.new_messages]
        messages.append(_sampled_message(step.message.get("content"), step.message.get("tool_calls")))
    newest = steps[-1]
    calls = newest.message.get("tool_calls") or []
    if not calls and not newest.cut_off:
        return LoggedDialogue(messages, messages, False)
    answered = [call["id"] in answers for call in calls]
    finished = before_turn(messages, len(turns_in(messages)) - 1)
    if calls and all(answered):
        messages += [_answer_message(call, answers[call["id"]]) for call in calls]
    unanswered = bool(calls) and not any(answered) and newest.finish_reason in WHOLE
    return LoggedDialogue(messages, finished, unanswered)


def turns_in(messages: Sequence[AnyMessage]) -> list[int]:
    """Where each turn begins: the places of the user's messages."""
    return [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]


def before_turn(messages: Sequence[AnyMessage], turn: int) -> list[AnyMessage]:
    """The dialogue as it stood before turn `turn` (0 for the first) was said."""
    starts = turns_in(messages)
    if not 0 <= turn <= len(starts):
        raise ValueError(f"the chat has {len(starts)} turns: there is none with the index {turn} to say again")
    return list(messages[: starts[turn]] if turn < len(starts) else messages)


def same_dialogue(some: Sequence[AnyMessage], others: Sequence[AnyMessage]) -> bool:
    """Whether two dialogues say the same; ids and metadata of the messages do not count."""
    return [_content(message) for message in some] == [_content(message) for message in others]


def _content(message: AnyMessage) -> tuple[Any, ...]:
    if isinstance(message, AIMessage):
        calls = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
        broken = [(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls]
        return ("ai", message.text, calls, broken)
    return (message.type, message.text, getattr(message, "tool_call_id", None))


def _as_message(message: dict[str, Any]) -> AnyMessage:
    if message["role"] == "assistant":
        calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls") or ()]
        return _sampled_message(message.get("content"), calls)
    return cast(AnyMessage, convert_to_messages([message])[0])


def _answer_message(call: Mapping[str, Any], answer: ChatAnswer) -> ToolMessage:
    status = "error" if answer.is_error else "success"
    return ToolMessage(content=answer.response, name=call["name"], tool_call_id=call["id"], status=status)


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
