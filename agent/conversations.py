"""Which recorded context a request continues: the gateway's memory of its sessions.

A client sends its whole history each time. Its messages are matched, by content, against the contexts that the log
holds; the longest match is the parent, and only what comes after it is rendered. No match means that the client
rewrote history: the step starts a branch of its own (a fork), it never inherits ids that are not its own.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.rendering import Message, Renderer
from store.conversations import stored_steps
from store.database import Log
from store.records import canonical_json


@dataclass(frozen=True)
class Context:
    """A recorded step with all ids up to and including what it sampled."""

    step_id: int
    ids: tuple[int, ...]
    ended: bool
    """Whether the sampled ids end with the end-of-turn token."""


@dataclass(frozen=True)
class Prompt:
    """A rendered request: `parent` plus `delta_ids` is what the server sees."""

    parent: Context | None
    new_messages: Sequence[Message]
    delta_ids: list[int]
    ids: list[int]
    turn_index: int
    step_index: int
    user: str


@dataclass
class Conversation:
    """The contexts of one session, by fingerprint of the messages that lead to them."""

    contexts: dict[str, Context] = field(default_factory=dict)

    def prompt(self, renderer: Renderer, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> Prompt:
        """Renders `messages`: the longest recorded context is extended, otherwise a prompt is opened."""
        prints = fingerprints(messages, tools)
        users = [i for i, m in enumerate(messages) if m["role"] == "user"]
        since = messages[users[-1] :] if users else messages
        turn = max(len(users) - 1, 0)
        step = sum(m["role"] == "assistant" for m in since)
        user = text_of(messages[users[-1]].get("content")) if users else ""
        for end in range(len(messages), 0, -1):
            if messages[end - 1]["role"] == "assistant" and (parent := self.contexts.get(prints[end - 1])):
                new = list(messages[end:])
                delta = renderer.extend([rendered(m) for m in new], ended=parent.ended)
                return Prompt(parent, new, delta, [*parent.ids, *delta], turn, step, user)
        ids = renderer.open([rendered(m) for m in messages], tools)
        return Prompt(None, list(messages), ids, ids, turn, step, user)

    def add(
        self,
        step_id: int,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        answer: Message,
        ids: Sequence[int],
        ended: bool,
    ) -> None:
        key = fingerprints([*messages, answer], tools)[-1]
        self.contexts[key] = Context(step_id, tuple(ids), ended)


class Conversations:
    """The conversations in memory; an evicted or unknown one is read back from the log."""

    def __init__(self, log: Log, renderer: Renderer, capacity: int = 2000) -> None:
        self._log = log
        self._renderer = renderer
        self._capacity = capacity
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    def get(self, session: str) -> Conversation:
        conversation = self._kept.get(session)
        if conversation is None:
            conversation = self._read(session)
            self._kept[session] = conversation
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(session)
        return conversation

    def _read(self, session: str) -> Conversation:
        conversation = Conversation()
        chains: dict[int, tuple[str, tuple[int, ...]]] = {}
        for step in stored_steps(self._log, session):
            nothing: tuple[int, ...] = ()
            key, before = (_root(step.tools_hash), nothing) if step.parent_id is None else chains[step.parent_id]
            for message in [*step.new_messages, as_openai_message(step.message)]:
                key = _chain(key, message)
            ids = (*before, *step.delta_ids, *step.sampled_ids)
            chains[step.id] = (key, ids)
            ended = bool(step.sampled_ids) and step.sampled_ids[-1] == self._renderer.end_of_turn_id
            conversation.contexts[key] = Context(step.id, ids, ended)
        return conversation


def tools_hash(tools: list[dict[str, Any]] | None) -> str | None:
    return hashlib.sha256(canonical_json(tools).encode()).hexdigest() if tools else None


def fingerprints(messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> list[str]:
    """For each message, a hash of everything up to it, the tools included."""
    key, keys = _root(tools_hash(tools)), []
    for message in messages:
        key = _chain(key, message)
        keys.append(key)
    return keys


def _root(tools: str | None) -> str:
    return tools or "no tools"


def _chain(before: str, message: Message) -> str:
    said: list[Any] = [before, message["role"], text_of(message.get("content")), message.get("tool_call_id")]
    calls = message.get("tool_calls") or []
    said.append(sorted([c.get("id"), c["function"]["name"], _canonical(c["function"]["arguments"])] for c in calls))
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(arguments: Any) -> str:
    """Clients parse arguments and write them again: equal values must match, other text must match exactly."""
    try:
        return canonical_json(json.loads(arguments) if isinstance(arguments, str) else arguments)
    except ValueError:
        return str(arguments)


def text_of(content: Any) -> str:
    """A message's text; content parts are joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def rendered(message: Message) -> Message:
    """A client's message as the chat template takes it: text content, arguments as text."""
    kept = {
        k: v for k, v in message.items() if k in ("role", "tool_calls", "reasoning_content", "tool_call_id", "name")
    }
    return {**kept, "content": text_of(message.get("content"))}


def as_openai_message(message: dict[str, Any]) -> Message:
    """A step's recorded message in the form in which the client has it."""
    answer: Message = {"role": "assistant", "content": message.get("content") or ""}
    if calls := message.get("tool_calls"):
        answer["tool_calls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls
        ]
    return answer
