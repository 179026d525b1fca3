"""Messages to token ids, once: a conversation is opened, then only ever extended (invariant 1).

Reads a model directory's tokenizer and chat template. What the policy sampled is never rendered again: `extend` gives
only the ids that new messages add after it. That needs a prefix-preserving template, which is checked when the
renderer is made; where TRL has a training form of the template that form is taken, any other is refused.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

Message = dict[str, Any]

_PROBE_PREFIX: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


class RenderingError(ValueError):
    """The template cannot be extended token by token, or messages cannot be rendered."""


class Renderer:
    """Renders with a tokenizer's own chat template.

    `tokenizer` is a Hugging Face tokenizer whose eos token is the end-of-turn token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.end_of_turn: str = tokenizer.eos_token
        self.end_of_turn_id: int = tokenizer.eos_token_id
        try:
            self._prepare()
        except RenderingError:
            # Qwen3 and many others drop the thinking of earlier turns; TRL keeps templates of theirs that do not.
            training = _training_template(tokenizer)
            if training is None:
                raise
            tokenizer.chat_template = training
            self._prepare()

    def _prepare(self) -> None:
        rendered = self._text(_PROBE_PREFIX, None, False)
        end = rendered.rfind(self.end_of_turn)
        if end < 0:
            raise RenderingError(f"the chat template does not end a turn with the eos token {self.end_of_turn!r}")
        self._closed_prefix = rendered[: end + len(self.end_of_turn)]
        self._check_prefix_preserving()

    @classmethod
    def from_dir(cls, model_dir: Path) -> "Renderer":
        """The renderer of a model directory; one per path is kept."""
        return _renderer_of(str(Path(model_dir).resolve()))

    def open(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> list[int]:
        """Ids of a whole prompt, ready for the policy to continue."""
        return self._encode(self._text(messages, tools, True))

    def extend(self, messages: Sequence[Message], *, ended: bool = True) -> list[int]:
        """Ids that `messages` add after a sampled turn, up to where the policy continues.

        `ended` is False if the sampled turn did not end with the end-of-turn token (it was cut off): it is closed
        first.
        """
        rendered = self._text([*_PROBE_PREFIX, *messages], None, True)
        if not rendered.startswith(self._closed_prefix):
            raise RenderingError("the chat template rewrites earlier turns: it cannot be extended")
        added = rendered[len(self._closed_prefix) :]
        return self._encode(added if ended else self.end_of_turn + added)

    def dialogue(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None
    ) -> tuple[list[int], list[int]]:
        """(ids, loss mask) of a whole dialogue, as if each assistant message had been sampled: the same rendering as
        the gateway's, with 1 on every token of an assistant message, its end of turn included.
        """
        first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), None)
        if first is None:
            raise RenderingError("a dialogue without an assistant message has nothing to learn from")
        ids = self.open(messages[:first], tools)
        mask = [0] * len(ids)
        position = first
        while position < len(messages):
            sampled = self._encode(self.assistant_text(messages[position]))
            ids += sampled
            mask += [1] * len(sampled)
            following = position + 1
            while following < len(messages) and messages[following]["role"] != "assistant":
                following += 1
            if following >= len(messages):
                break
            added = self.extend(messages[position + 1 : following])
            ids += added
            mask += [0] * len(added)
            position = following
        return ids, mask

    def assistant_text(self, message: Message) -> str:
        """What the policy would sample for `message`, its end of turn included."""
        before = self._text(_PROBE_PREFIX[:1], None, True)
        after = self._text([_PROBE_PREFIX[0], message], None, False)
        if not after.startswith(before):
            raise RenderingError("the chat template renders an assistant message differently from its prompt")
        body = after[len(before) :]
        return body[: body.rfind(self.end_of_turn) + len(self.end_of_turn)]

    def ends_turn(self, ids: Sequence[int]) -> bool:
        """Whether sampled ids end with the end-of-turn token."""
        return bool(ids) and ids[-1] == self.end_of_turn_id

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, special tokens read as such, nothing added."""
        return self._encode(text)

    def single_token(self, text: str) -> int | None:
        """The id of `text` if it is one token."""
        ids = self._encode(text)
        return ids[0] if len(ids) == 1 else None

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _check_prefix_preserving(self) -> None:
        turns: list[Message] = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "", "tool_calls": [_call("f", {"x": "1"})]},
            {"role": "tool", "content": "{}", "tool_call_id": "c"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ]
        text = [self._text(turns[: n + 1], None, False) for n in range(len(turns))]
        for shorter, longer in zip(text, text[1:], strict=False):
            if not longer.startswith(shorter):
                raise RenderingError(
                    "the chat template is not prefix-preserving: an earlier turn is rendered differently once another "
                    "follows, so recorded ids could not be extended; use a training template (docs/architecture.md)"
                )

    def _text(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, prompt: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=prompt
            )
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def _training_template(tokenizer: Any) -> str | None:
    """TRL's prefix-preserving form of the tokenizer's chat template, if it knows the template."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        template = get_training_chat_template(tokenizer)
    except (ValueError, TypeError):
        return None
    return None if template is None else str(template)


@lru_cache(maxsize=8)
def _renderer_of(path: str) -> Renderer:
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(path))
