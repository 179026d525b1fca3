"""Which recorded context a request continues: the gateway's memory of its sessions.

A client sends its whole history each time. Its messages are matched, by content, against the contexts that the log
holds; the longest match is the parent, and only what comes after it is rendered. No match means that the client
rewrote history: the step starts a branch of its own (a fork), it never inherits ids that are not its own.
"""

import asyncio
import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.rendering import Message, Renderer, with_tool_names
from store.conversations import stored_steps
from store.database import Log
from store.records import canonical_json


@dataclass
class Context:
    """A recorded step with all ids up to and including what it sampled."""

    step_id: int
    ids: "array[int]"
    sampled: int
    """How many of them it sampled: the last ones."""
    continued: bool = False
    """Whether a later step extends it; one that was cut off does not count, since its request is sent again."""
    cut_off: bool = False
    """Whether its client went away, or its deadline passed, in the middle."""
    parent: "Context | None" = None

    def go_on(self) -> "list[Context]":
        """A later step extends it; those that are so only now. Who goes on from what was cut off goes on from what was
        before it, too."""
        context: Context | None = self
        changed = []
        while context is not None:
            if not context.continued:
                context.continued = True
                changed.append(context)
            context = context.parent if context.cut_off else None
        return changed


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
    fingerprint: str
    """Of all messages and the tools."""
    tools_hash: str | None
    invented: bool = False
    """Whether it holds assistant messages that were not sampled here."""
    first: bool = True
    """Whether the conversation had no step yet that came to its end, when this was rendered."""
    conversation: "Conversation | None" = field(default=None, repr=False, compare=False)
    mark: object = field(default_factory=object, repr=False, compare=False)

    @property
    def forked(self) -> bool:
        """Whether the client rewrote history; asked just before the step is written."""
        began = self.conversation.began_with if self.conversation is not None else None
        if self.first and began in (None, self.mark):
            return False
        return self.parent is None or self.parent.continued or self.invented

    def begin(self) -> bool:
        """The conversation begins with this, unless another request was quicker; whether it does so only now."""
        if not self.first or self.conversation is None or self.conversation.began_with is not None:
            return False
        self.conversation.began_with = self.mark
        return True

    def take_back(self) -> None:
        """It could not be written: another request may begin the conversation."""
        if self.conversation is not None:
            self.conversation.began_with = None


@dataclass
class Conversation:
    """The contexts of one dialogue, by fingerprint of the messages that lead to them."""

    contexts: dict[str, Context] = field(default_factory=dict)
    size: int = 0
    """Ids kept."""
    began_with: object = None
    """The mark of whose step is the first one, from the moment in which that is written: its choices are roots."""

    def keep(self, key: str, context: Context) -> None:
        replaced = self.contexts.get(key)
        self.size += len(context.ids) - (len(replaced.ids) if replaced is not None else 0)
        self.contexts[key] = context

    def prompt(self, renderer: Renderer, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> Prompt:
        """Renders `messages`: the longest recorded context is extended, otherwise a prompt is opened (also where the
        format cannot go on from what was sampled: a fork)."""
        offered = tools_hash(tools)
        prints = fingerprints(messages, offered)
        users = [i for i, m in enumerate(messages) if m["role"] == "user"]
        since = messages[users[-1] :] if users else messages
        turn = max(len(users) - 1, 0)
        step = sum(m["role"] == "assistant" for m in since)
        user = text_of(messages[users[-1]].get("content")) if users else ""
        parent, new = self._known_part(messages, prints)
        whole = with_tool_names([rendered(m) for m in messages])
        delta = None
        if parent is not None:
            context = parent.ids.tolist()
            begun = len(context) - parent.sampled
            delta = renderer.extend(context[:begun], context[begun:], whole[len(messages) - len(new) :], tools)
        if parent is not None and delta is not None:
            ids = [*context, *delta]
        else:
            parent, new = None, messages
            ids = delta = renderer.open(whole, tools)
        return Prompt(
            parent=parent,
            new_messages=new,
            delta_ids=delta,
            ids=ids,
            turn_index=turn,
            step_index=step,
            user=user,
            fingerprint=prints[-1],
            tools_hash=offered,
            invented=any(m["role"] == "assistant" for m in new),
            first=all(context.cut_off for context in self.contexts.values()),
            conversation=self,
        )

    def add(
        self, step_id: int, prompt: Prompt, answer: Message, sampled_ids: Sequence[int], *, cut_off: bool = False
    ) -> str:
        """Keeps a recorded step's context; gives its fingerprint."""
        key = _chain(prompt.fingerprint, answer)
        ids = array("I", [*prompt.ids, *sampled_ids])
        self.keep(key, Context(step_id, ids, len(sampled_ids), cut_off=cut_off, parent=prompt.parent))
        return key

    def _known_part(
        self, messages: Sequence[Message], prints: Sequence[str]
    ) -> tuple[Context | None, Sequence[Message]]:
        """The longest recorded context that `messages` begin with, and the messages after it."""
        for end in range(len(messages), 0, -1):
            if messages[end - 1]["role"] == "assistant" and (parent := self.contexts.get(prints[end - 1])):
                return parent, messages[end:]
        return None, messages


class Conversations:
    """The dialogues in memory, by trajectory id; an evicted or unknown one is read back from the log."""

    def __init__(self, log: Log, capacity: int = 2000, max_ids: int = 20_000_000) -> None:
        self._log = log
        self._capacity = capacity
        self._max_ids = max_ids
        self._ids = 0
        """Of all that is kept, as far as it was counted."""
        self._kept: OrderedDict[str, Conversation] = OrderedDict()
        self._counted: dict[str, int] = {}
        self._ends: OrderedDict[str, str] = OrderedDict()
        """Trajectories, by the fingerprint of where they end or could be continued from."""

    async def get(self, trajectory: str) -> Conversation:
        """The dialogue; read from the log where it is not in memory."""
        if trajectory not in self._kept:
            read = await asyncio.to_thread(self._read, trajectory)
            # Another request of the dialogue may have read it meanwhile: there is one, and both add to it.
            self._kept.setdefault(trajectory, read)
            self._count(trajectory)
        conversation = self._kept[trajectory]
        self._kept.move_to_end(trajectory)
        self._evict()
        return conversation

    def start(self, trajectory: str) -> Conversation:
        """A dialogue whose name was just made up: there is nothing to read."""
        return self._kept.setdefault(trajectory, Conversation())

    def ended(self, trajectory: str, key: str, conversation: Conversation) -> None:
        """Remembers where a dialogue ends now, for clients that name no session."""
        if self._kept.get(trajectory) is conversation:
            self._count(trajectory)
        elif trajectory in self._kept:
            # Evicted while it was answered, and read again without this step: the next time it is read whole.
            self._drop(trajectory)
        self._ends[key] = trajectory
        self._ends.move_to_end(key)
        while len(self._ends) > self._capacity:
            self._ends.popitem(last=False)
        self._evict()

    def continued_by(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> str | None:
        """The trajectory whose end is exactly the last assistant message of `messages`, if nobody went on from it."""
        last = next((i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "assistant"), None)
        if last is None:
            return None
        key = fingerprints(messages[: last + 1], tools_hash(tools))[-1]
        trajectory = self._ends.get(key)
        if trajectory is None or trajectory not in self._kept:
            return trajectory  # of what was evicted only ends are remembered that nobody had continued
        context = self._kept[trajectory].contexts.get(key)
        return trajectory if context is not None and not context.continued else None

    def _count(self, trajectory: str) -> None:
        size = self._kept[trajectory].size
        self._ids += size - self._counted.get(trajectory, 0)
        self._counted[trajectory] = size

    def _drop(self, trajectory: str) -> None:
        dropped = self._kept.pop(trajectory)
        self._ids -= self._counted.pop(trajectory, 0)
        for key, context in dropped.contexts.items():
            if context.continued and self._ends.get(key) == trajectory:
                del self._ends[key]

    def _evict(self) -> None:
        while len(self._kept) > 1 and (len(self._kept) > self._capacity or self._ids > self._max_ids):
            self._drop(next(iter(self._kept)))

    def _read(self, trajectory: str) -> Conversation:
        conversation = Conversation()
        chains: dict[int, tuple[str, Context | None]] = {}
        for step in stored_steps(self._log, trajectory):
            key, parent = (_root(step.tools_hash), None) if step.parent_id is None else chains[step.parent_id]
            for message in [*step.new_messages, as_openai_message(step.message)]:
                key = _chain(key, message)
            before = parent.ids if parent is not None else array("I")
            ids = before + array("I", [*step.delta_ids, *step.sampled_ids])
            context = Context(step.id, ids, len(step.sampled_ids), cut_off=step.cut_off, parent=parent)
            if parent is not None and not step.cut_off:
                parent.go_on()
            chains[step.id] = (key, context)
            conversation.keep(key, context)
        return conversation


def tools_hash(tools: list[dict[str, Any]] | None) -> str | None:
    return hashlib.sha256(canonical_json(tools).encode()).hexdigest() if tools else None


def fingerprints(messages: Sequence[Message], tools: str | None) -> list[str]:
    """For each message, a hash of everything up to it, the tools (by their hash) included."""
    key, keys = _root(tools), []
    for message in messages:
        key = _chain(key, message)
        keys.append(key)
    return keys


def _root(tools: str | None) -> str:
    return tools or "no tools"


def _chain(before: str, message: Message) -> str:
    text = text_of(message.get("content"))
    if message["role"] == "assistant":
        text = text.strip()  # a streamed answer reaches the client with the white space that its recorded form lacks
    said: list[Any] = [before, message["role"], text, message.get("tool_call_id")]
    calls = message.get("tool_calls") or []
    said.append(sorted([c.get("id"), c["function"]["name"], _canonical(c["function"]["arguments"])] for c in calls))
    # Not of an assistant's: agents put their own name on what was sampled here without one.
    if (name := message.get("name")) and message["role"] != "assistant":
        said.append(name)
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
    return "".join(part.get("text") or part.get("refusal") or "" for part in content if isinstance(part, dict))


def rendered(message: Message) -> Message:
    """A client's message as the chat template takes it: text content, arguments as text."""
    kept = {
        k: v for k, v in message.items() if k in ("role", "tool_calls", "reasoning_content", "tool_call_id", "name")
    }
    if kept["role"] == "developer":
        kept["role"] = "system"
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
