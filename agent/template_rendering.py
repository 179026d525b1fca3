"""Rendering by a tokenizer's own chat template, calls read in the Hermes format or the bundled model's short one.

Reads a model directory's tokenizer and chat template. What the policy sampled is never rendered again: `extend` gives
only the ids that new messages add after it. That needs a prefix-preserving template, which is checked when the
renderer is made; where TRL has a training form of the template that form is taken, any other is refused.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from agent.call_form import PROBE_NAME, CallForm, find_call_end, find_call_form, probe_message, split_at_special_tokens
from agent.completions import CallId, CompletionReader, ParsedCompletion, TextReader, parse_completion
from agent.rendering import Message, RenderingError, Tools, build_dialogue, longest_token

_PROBE_PREFIX: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


class TemplateRenderer:
    """Renders with a tokenizer's own chat template.

    `tokenizer` is a Hugging Face tokenizer whose eos token is the end-of-turn token.
    """

    name = "template"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        self.end_of_turn: str = tokenizer.eos_token
        self.end_of_turn_id: int = tokenizer.eos_token_id
        self.stop_ids: Sequence[int] = (self.end_of_turn_id,)
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

    @cached_property
    def reads_calls(self) -> bool:
        """A template may write calls in a form that is not read here, or none at all."""
        try:
            text = self._probe_calls(1)
        except RenderingError:
            return False
        read = parse_completion(text.removesuffix(self.end_of_turn)).calls
        return [call.name for call in read] == [PROBE_NAME] and "probe" in read[0].arguments

    @cached_property
    def call_form(self) -> CallForm | None:
        if not self.reads_calls:
            return None
        return find_call_form(
            self._probe_calls,
            lambda text: split_at_special_tokens(self._tokenizer, text),
            [self.end_of_turn],
            lambda text: parse_completion(text.removesuffix(self.end_of_turn)),
        )

    @cached_property
    def call_end_id(self) -> int | None:
        if not self.reads_calls:
            return None
        return find_call_end(lambda n: self.encode(self._probe_calls(n)), self._tokenizer.added_tokens_decoder)

    @cached_property
    def longest_token(self) -> int:
        return longest_token(self._tokenizer)

    def open(self, messages: Sequence[Message], tools: Tools | None) -> list[int]:
        return self.encode(self._text(messages, tools, True))

    def extend(
        self, prompt: Sequence[int], sampled: Sequence[int], messages: Sequence[Message], tools: Tools | None
    ) -> list[int]:
        rendered = self._text([*_PROBE_PREFIX, *messages], None, True)
        if not rendered.startswith(self._closed_prefix):
            raise RenderingError("the chat template rewrites earlier turns: it cannot be extended")
        added = rendered[len(self._closed_prefix) :]
        return self.encode(added if self.ends_turn(sampled) else self.end_of_turn + added)

    def dialogue(self, messages: Sequence[Message], tools: Tools | None) -> tuple[list[int], list[int]]:
        return build_dialogue(self, messages, tools, lambda i, context: self.encode(self.assistant_text(messages[i])))

    def assistant_text(self, message: Message) -> str:
        """What the policy would sample for `message`, its end of turn included."""
        before = self._text(_PROBE_PREFIX[:1], None, True)
        after = self._text([_PROBE_PREFIX[0], message], None, False)
        if not after.startswith(before):
            raise RenderingError("the chat template renders an assistant message differently from its prompt")
        body = after[len(before) :]
        return body[: body.rfind(self.end_of_turn) + len(self.end_of_turn)]

    def ends_turn(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] == self.end_of_turn_id

    def encode(self, text: str) -> list[int]:
        # The way there through transformers takes as long again as the tokens themselves, on every step.
        if self._backend is not None and _adds_nothing(self._backend):
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def parse(self, ids: Sequence[int], prompt: Sequence[int] = (), tools: Tools | None = None) -> ParsedCompletion:
        return parse_completion(self.decode(ids).removesuffix(self.end_of_turn))

    def reader(
        self, call_id: CallId, prompt: Sequence[int], tools: Tools | None, *, cut_by_text: bool = False
    ) -> CompletionReader:
        return TextReader(call_id, self.end_of_turn)

    def _probe_calls(self, count: int) -> str:
        return self.assistant_text(probe_message(count))

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

    def _text(self, messages: Sequence[Message], tools: Tools | None, prompt: bool) -> str:
        offered = list(tools) if tools else None
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tools=offered, tokenize=False, add_generation_prompt=prompt
                )
            )
        except (TemplateError, TypeError) as error:
            raise RenderingError(f"the model's chat template refuses them: {error}") from error


def _adds_nothing(backend: Any) -> bool:
    """Whether it makes a text's tokens and no more: whoever trains with the same tokenizer may have it cut or pad."""
    return backend.truncation is None and backend.padding is None and not backend.encode_special_tokens


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
