"""What a renderer is: messages to token ids once, then only extended (invariant 1), and sampled ids back to messages.

Every place that needs to know a model's format (prompts, end of turn, tool calls, grammars) asks the renderer. There
are two: the model's chat template (`template_rendering`) and the library `renderers` (`library_rendering`);
`renderer_choice` takes one for a model directory.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agent.call_form import CallForm
from agent.completions import CallId, CompletionReader, ParsedCompletion

Message = dict[str, Any]
Tools = Sequence[dict[str, Any]]


class RenderingError(ValueError):
    """The format cannot be extended token by token, or messages cannot be rendered."""


class Renderer(Protocol):
    """One model's format. Messages are OpenAI's, thinking in `reasoning_content`."""

    name: str
    """"template" or the library's name of the format."""
    stop_ids: Sequence[int]
    """Tokens that end an answer."""

    @property
    def reads_calls(self) -> bool:
        """Whether a tool call that the format writes is read back as one."""
        ...

    @property
    def call_form(self) -> CallForm | None:
        """How a tool call is written, where a grammar can make the policy write one."""
        ...

    @property
    def call_end_id(self) -> int | None:
        """The special token that ends each tool call, where one does."""
        ...

    @property
    def longest_token(self) -> int:
        """Characters; what no token has more of (`longest_token`)."""
        ...

    def open(self, messages: Sequence[Message], tools: Tools | None) -> list[int]:
        """Ids of a whole prompt, ready for the policy to continue. Raises RenderingError."""
        ...

    def extend(
        self, prompt: Sequence[int], sampled: Sequence[int], messages: Sequence[Message], tools: Tools | None
    ) -> list[int] | None:
        """Ids that `messages` add after `prompt` and what was `sampled` after it, up to where the policy continues; a
        turn that was cut off is closed first. None where the format cannot go on from there: then the whole history
        has to be opened anew.
        """
        ...

    def dialogue(self, messages: Sequence[Message], tools: Tools | None) -> tuple[list[int], list[int]]:
        """(ids, loss mask) of a whole dialogue, as if each assistant message had been sampled: the ids that the gateway
        would have recorded, with 1 on every token of an assistant message, its end of turn included.
        """
        ...

    def ends_turn(self, ids: Sequence[int]) -> bool:
        """Whether sampled ids end with the end of the turn."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, special tokens read as such, nothing added."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def parse(self, ids: Sequence[int], prompt: Sequence[int] = (), tools: Tools | None = None) -> ParsedCompletion:
        """A sampled answer; `prompt` tells what had been begun for it, `tools` the types of arguments. Never raises."""
        ...

    def reader(
        self, call_id: CallId, prompt: Sequence[int], tools: Tools | None, *, cut_by_text: bool = False
    ) -> CompletionReader:
        """Reads one answer as it comes. `cut_by_text`: a stop string may end the text before its ids end."""
        ...


def longest_token(tokenizer: Any) -> int:
    """Characters that one token of a Hugging Face tokenizer stands for, at most: where a vocabulary is of bytes there
    are no more of them, and what a normalizer composes is taken as two in one."""
    return 2 * max(map(len, tokenizer.get_vocab()))


def fewest_tokens(renderer: Renderer, messages: Sequence[Message]) -> int:
    """As many tokens as the contents of `messages` have at least, without rendering them."""
    characters = 0
    for message in messages:
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
        characters += sum(map(len, parts))
    return characters // renderer.longest_token


def build_dialogue(
    renderer: Renderer,
    messages: Sequence[Message],
    tools: Tools | None,
    sampled: Callable[[int, Sequence[int]], list[int]],
) -> tuple[list[int], list[int]]:
    """`Renderer.dialogue` by way of `open` and `extend`; `sampled(i, context)`: what the policy would have sampled for
    message i. Raises RenderingError."""
    first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), None)
    if first is None:
        raise RenderingError("a dialogue without an assistant message has nothing to learn from")
    ids = renderer.open(messages[:first], tools)
    mask = [0] * len(ids)
    position = first
    while True:
        said = sampled(position, ids)
        mask += [1] * len(said)
        following = position + 1
        while following < len(messages) and messages[following]["role"] != "assistant":
            following += 1
        if following >= len(messages):
            return [*ids, *said], mask
        added = renderer.extend(ids, said, messages[position + 1 : following], tools)
        if added is None:
            raise RenderingError(f"the format {renderer.name!r} cannot go on after message {position} of the dialogue")
        ids = [*ids, *said, *added]
        mask += [0] * len(added)
        position = following


def with_tool_names(messages: Sequence[Message]) -> list[Message]:
    """Tool messages with the name of the tool that answered, which some formats write."""
    names: dict[str, str] = {}
    found: list[Message] = []
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[call.get("id", "")] = call["function"]["name"]
        name = names.get(message.get("tool_call_id", ""))
        found.append({**message, "name": name} if message["role"] == "tool" and name else message)
    return found
