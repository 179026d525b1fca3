"""Rendering by the library `renderers`: formats of many model families, tested there against the models' own templates.

A renderer of the library is taken only after a dialogue of ours went through it, when `LibraryRenderer` is made: what
it would sample is read back, and going on from it keeps every id. Nothing is downloaded.
"""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from renderers.base import MODEL_RENDERER_MAP, ParsedToolCall, ToolCallParseStatus, create_renderer
from renderers.configs import BaseRendererConfig, config_from_name

from agent.call_form import PROBE_NAME, CallForm, find_call_end, find_call_form, probe_message, split_at_special_tokens
from agent.completions import CallId, CompletionReader, ParsedCall, ParsedCompletion, arguments_text, parse_call
from agent.library_reader import LibraryReader
from agent.rendering import Message, RenderingError, Tools, build_dialogue, longest_token, with_tool_names

logger = logging.getLogger(__name__)

PROBE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": PROBE_NAME,
        "description": "A probe",
        "parameters": {"type": "object", "properties": {"probe": {"type": "integer"}}, "required": ["probe"]},
    },
}
PROBE_QUESTION: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
]
PROBE_DIALOGUE: list[Message] = [
    *PROBE_QUESTION,
    {**probe_message(1), "reasoning_content": "A look."},
    {"role": "tool", "tool_call_id": "call_0", "name": PROBE_NAME, "content": '{"found": 1}'},
    {"role": "assistant", "content": "It is one."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]

KNOWN_FORMATS = tuple(sorted(set(MODEL_RENDERER_MAP.values())))
"""The library's formats by name, as `model.renderer` takes them."""

_NATIVE_ID = re.compile(r"(?:functions\.)?[\w.-]+:\d+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PARSER_TROUBLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, RuntimeError)
"""What a parser may meet in text that a policy made up."""


class LibraryRenderer:
    """One of the library's renderers behind our protocol. Raises RenderingError where it does not do for a policy.

    `tokenizer` is a Hugging Face tokenizer without an unknown token (`without_unknown`), `choices` what the format
    leaves open, such as `enable_thinking`.
    """

    reads_calls = True

    def __init__(self, tokenizer: Any, name: str, **choices: Any) -> None:
        self.name = name
        self._tokenizer = tokenizer
        if name == "gpt-oss" and not os.environ.get("TIKTOKEN_ENCODINGS_BASE"):
            raise RenderingError(
                "the format gpt-oss needs the vocabulary o200k_base.tiktoken, which would be downloaded: put the file "
                "into a folder and name that in TIKTOKEN_ENCODINGS_BASE"
            )
        self._config = _config(name, choices)
        try:
            self._library = create_renderer(tokenizer, self._config)
        except _PARSER_TROUBLE as error:
            raise RenderingError(f"the format {name!r} does not fit the model's tokenizer: {error}") from error
        self.stop_ids: Sequence[int] = tuple(self._library.get_stop_token_ids())
        self._numbered = False
        self._check()
        self.streams = self._can_stream()

    @property
    def open_choices(self) -> list[dict[str, bool]]:
        """What a model's template may have decided the other way."""
        names = self._config.template_field_names() & {"enable_thinking", "thinking"}
        return [{name: value} for name in sorted(names) for value in (True, False)]

    @property
    def template_settings(self) -> dict[str, Any]:
        """What the chat template must be told to write the same: the date, which it would take from the clock."""
        return {"date_string": self._config.date_string} if hasattr(self._config, "date_string") else {}

    @cached_property
    def longest_token(self) -> int:
        return longest_token(self._tokenizer)

    def open(self, messages: Sequence[Message], tools: Tools | None) -> list[int]:
        return list(self._rendered(self.prepared(messages), tools, prompt=True).token_ids)

    def extend(
        self, prompt: Sequence[int], sampled: Sequence[int], messages: Sequence[Message], tools: Tools | None
    ) -> list[int] | None:
        before = [*prompt, *sampled]
        try:
            bridged = self._library.bridge_to_next_turn(
                list(prompt), list(sampled), self.prepared(messages), tools=_listed(tools)
            )
        except _PARSER_TROUBLE as error:
            raise RenderingError(f"the format {self.name!r} refuses them: {error}") from error
        if bridged is None or bridged.token_ids[: len(before)] != before:
            return None
        return list(bridged.token_ids[len(before) :])

    def dialogue(self, messages: Sequence[Message], tools: Tools | None) -> tuple[list[int], list[int]]:
        prepared = self.prepared(with_tool_names(messages))
        return build_dialogue(self, prepared, tools, lambda i, _: self._sampled(prepared, i, tools))

    def ends_turn(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in self.stop_ids

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        decoded = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(decoded)

    def parse(self, ids: Sequence[int], prompt: Sequence[int] = (), tools: Tools | None = None) -> ParsedCompletion:
        return self.parse_prefix(ids, prompt, tools)[0]

    def parse_prefix(
        self, ids: Sequence[int], prompt: Sequence[int], tools: Tools | None
    ) -> tuple[ParsedCompletion, int]:
        """(what was said so far, how many of its calls are complete)."""
        try:
            parsed = self._library.parse_response(list(ids), tools=_listed(tools), prompt_ids=list(prompt) or None)
            calls = tuple(_call_of(call) for call in parsed.tool_calls)
        except _PARSER_TROUBLE as error:
            logger.warning("an answer could not be parsed as %s and is kept as text: %r", self.name, error)
            return ParsedCompletion(self.decode(ids[: -1 if self.ends_turn(ids) else None]).strip(), ""), 0
        # A call that has only begun looks malformed; once another follows, that is what it is.
        complete = len(calls) - bool(calls and parsed.tool_calls[-1].status is not ToolCallParseStatus.OK)
        return ParsedCompletion(parsed.content.strip(), (parsed.reasoning_content or "").strip(), calls), complete

    def reader(
        self, call_id: CallId, prompt: Sequence[int], tools: Tools | None, *, cut_by_text: bool = False
    ) -> CompletionReader:
        return LibraryReader(self, call_id, prompt, tools, cut_by_text=cut_by_text, live=self.streams)

    @cached_property
    def call_end_id(self) -> int | None:
        return find_call_end(self._probe_calls, self._tokenizer.added_tokens_decoder)

    @cached_property
    def call_form(self) -> CallForm | None:
        prompt = self.open(PROBE_QUESTION, [PROBE_TOOL])
        return find_call_form(
            lambda n: self.decode(self._probe_calls(n)),
            lambda text: split_at_special_tokens(self._tokenizer, text),
            [self.decode([token]) for token in self.stop_ids],
            lambda text: self.parse(self.encode(text), prompt, [PROBE_TOOL]),
        )

    def _probe_calls(self, count: int) -> list[int]:
        return self._sampled(self.prepared([*PROBE_QUESTION, probe_message(count)]), 2, [PROBE_TOOL])

    def _rendered(self, messages: Sequence[Message], tools: Tools | None, *, prompt: bool) -> Any:
        try:
            return self._library.render(list(messages), tools=_listed(tools), add_generation_prompt=prompt)
        except _PARSER_TROUBLE as error:
            raise RenderingError(f"the format {self.name!r} refuses them: {error}") from error

    def prepared(self, messages: Sequence[Message]) -> list[Any]:
        """Messages as the library takes them: arguments as objects, and the policy's own ids of its calls where the
        format writes them."""
        numbers = count()
        own: dict[str, str] = {}
        found = []
        for message in messages:
            kept = dict(message)
            if calls := message.get("tool_calls"):
                kept["tool_calls"] = [_with_object(call) for call in calls]
                if self._numbered:
                    for call in kept["tool_calls"]:
                        own[call["id"]] = _native(call["id"]) or f"functions.{call['function']['name']}:{next(numbers)}"
                        call["id"] = own[call["id"]]
            if self._numbered and (answered := message.get("tool_call_id")):
                kept["tool_call_id"] = own.get(answered) or _native(answered) or answered
            found.append(kept)
        return found

    def _sampled(self, messages: Sequence[Message], place: int, tools: Tools | None) -> list[int]:
        """What the policy would have sampled for message `place`, its end of turn included."""
        ids = self._continued(messages[:place], messages[place], tools)
        if ids is None and not messages[place].get("reasoning_content"):
            # The prompt begins thinking, but the format writes a message without any as if it had not been begun: the
            # policy would have ended it at once. So it is in a message with a thought, less that.
            thought = "PROBE"
            with_one = self._continued(messages[:place], {**messages[place], "reasoning_content": thought}, tools)
            if with_one is not None and (said := self.decode(with_one)).lstrip().startswith(thought):
                ids = self.encode(said.replace(thought, "", 1))
        if ids is None:
            raise RenderingError(
                f"the format {self.name!r} writes message {place} differently from what its prompt begins with"
            )
        return ids if self.ends_turn(ids) else [*ids, self._end_after(messages, place, tools)]

    def _continued(self, before: Sequence[Message], message: Message, tools: Tools | None) -> list[int] | None:
        """What `message` adds to its prompt, up to its last sampled token; None if it does not begin with that."""
        prompt = self._rendered(before, tools, prompt=True).token_ids
        whole = self._rendered([*before, message], tools, prompt=False)
        last = max((n for n, sampled in enumerate(whole.sampled_mask) if sampled), default=-1)
        ids: list[int] = list(whole.token_ids[: last + 1])
        if ids[: len(prompt)] == list(prompt):
            return ids[len(prompt) :]
        # A token may span the end of the prompt: what the policy samples is split there.
        begun, said = self.decode(prompt), self.decode(ids)
        return self.encode(said[len(begun) :]) if said.startswith(begun) else None

    def _end_after(self, messages: Sequence[Message], place: int, tools: Tools | None) -> int:
        """The token that ends message `place` where that is how the next message begins."""
        following: Message = {"role": "tool", "tool_call_id": "", "content": ""}
        if not messages[place].get("tool_calls"):
            following = {"role": "user", "content": ""}
        elif calls := messages[place]["tool_calls"]:
            following |= {"tool_call_id": calls[0]["id"], "name": calls[0]["function"]["name"]}
        longer = self._rendered([*messages[: place + 1], following], tools, prompt=False)
        for token, owner in zip(reversed(longer.token_ids), reversed(longer.message_indices), strict=True):
            if owner == place and token in self.stop_ids:
                return int(token)
        return self.stop_ids[0]

    def _check(self) -> None:
        """A dialogue of ours goes through: what is sampled in it is read back, and going on keeps every id."""
        tools = [PROBE_TOOL]
        self._numbered = any(call.native_id for call in self._read_probe(tools).calls)
        said = self._read_probe(tools)
        if [call.name for call in said.calls] != [PROBE_NAME] or json.loads(said.calls[0].arguments) != {"probe": 1}:
            raise RenderingError(f"the format {self.name!r} does not read back the call that it writes: {said}")
        try:
            ids, mask = self.dialogue(PROBE_DIALOGUE, tools)
        except RenderingError:  # formats that do not think
            ids, mask = self.dialogue([{**m, "reasoning_content": ""} for m in PROBE_DIALOGUE], tools)
        last = self.open(PROBE_QUESTION, tools)
        if ids[: len(last)] != last or not self.ends_turn(ids) or not any(mask):
            raise RenderingError(f"the format {self.name!r} does not keep the ids that it began with")

    def _read_probe(self, tools: Tools) -> ParsedCompletion:
        messages = self.prepared([*PROBE_QUESTION, probe_message(1)])
        return self.parse(self._sampled(messages, 2, tools), self.open(PROBE_QUESTION, tools), tools)

    def _can_stream(self) -> bool:
        """Whether what is read of a beginning stays true: not so where calls have no opening token of their own."""
        prompt = self.open(PROBE_QUESTION, [PROBE_TOOL])
        said = {"content": "First, a look.", "reasoning_content": "A probe, then."}
        for message in ({**probe_message(1), **said}, {"role": "assistant", **said}):
            try:
                ids = self._sampled(self.prepared([*PROBE_QUESTION, message]), 2, [PROBE_TOOL])
            except RenderingError:
                ids = self._sampled(
                    self.prepared([*PROBE_QUESTION, message | {"reasoning_content": ""}]), 2, [PROBE_TOOL]
                )
            reader = LibraryReader(self, lambda n, _: str(n), prompt, [PROBE_TOOL], cut_by_text=False, live=True)
            for token in ids:
                reader.feed([token], "")
            reader.feed([], "", final=True)
            if not reader.consistent:
                return False
        return True


def without_unknown(tokenizer: Any) -> Any:
    """The tokenizer, changed: where its unknown token is one of a format's (byte-level ones never use it), the library
    would take that for missing."""
    tokenizer.unk_token = None
    return tokenizer


def _config(name: str, choices: Mapping[str, Any]) -> BaseRendererConfig:
    """The format's defaults, with earlier thinking kept: what was sampled stays (invariant 1)."""
    default = config_from_name(name)
    if default is None:
        raise RenderingError(f"{name!r} is no format of the library renderers: {', '.join(KNOWN_FORMATS)}")
    return type(default)(thinking_retention="all", **choices)


def _listed(tools: Tools | None) -> Any:
    return list(tools) if tools else None


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    """The call with its arguments as an object, where they are one: some formats write each by itself."""
    function = call["function"]
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except (ValueError, RecursionError):
            read = None
        arguments = read if isinstance(read, dict) else arguments
    return {**call, "function": {**function, "arguments": arguments}}


def _native(identifier: str) -> str | None:
    """The policy's own id in an id that the gateway gave (`gateway.call_ids`), or in one of the same form."""
    own = identifier.partition("/")[0]
    return own if _NATIVE_ID.fullmatch(own) else None


def _call_of(call: ParsedToolCall) -> ParsedCall:
    if call.name and _NAME.fullmatch(call.name) and isinstance(call.arguments, Mapping):
        return ParsedCall(call.name, arguments_text(dict(call.arguments)), call.id)
    return parse_call(call.raw)
