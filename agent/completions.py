"""Sampled text to an assistant message: thinking, content and tool calls; plain and as a stream.

`ParsedCompletion` and `CompletionReader` are of every renderer. The format read here is the one of Hermes and Qwen
models: `<think>…</think>`, content, `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, or a call in the short form
of the bundled model's template, `<tool_call>name{…}</tool_call>`, which takes a third to a half of the tokens less. A
call that is no valid JSON is kept as sampled, so that it can be answered as a tool would.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MALFORMED_TOOL_CALL = "malformed_tool_call"
"""Name of a tool call whose own name could not be read."""

_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|$)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_SHORT = re.compile(r"([a-zA-Z0-9_-]{1,64})\s*(\{.*)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([a-zA-Z0-9_-]{1,64})"')


@dataclass(frozen=True)
class ParsedCall:
    """`arguments` is JSON text as sampled; not valid JSON where the policy wrote none."""

    name: str
    arguments: str
    native_id: str | None = None
    """The call's own id, where the format writes one."""


@dataclass(frozen=True)
class ParsedCompletion:
    content: str
    reasoning: str
    calls: tuple[ParsedCall, ...] = ()


CallId = Callable[[int, ParsedCall], str]
"""(place in the answer, the call) -> the id that the client gets."""


class CompletionReader(Protocol):
    """Reads one answer as it comes."""

    def feed(self, ids: Sequence[int], text: str, *, final: bool = False) -> list[dict[str, Any]]:
        """OpenAI deltas ({"content"} | {"reasoning_content"} | {"tool_calls"}) that the addition makes certain."""
        ...

    def completion(self) -> ParsedCompletion:
        """All that was fed."""
        ...


def call_delta(index: int, identifier: str, call: ParsedCall) -> dict[str, Any]:
    """A whole call as a delta: a client can use nothing of a half one."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"tool_calls": [{"index": index, "id": identifier, "type": "function", "function": function}]}


def parse_completion(text: str) -> ParsedCompletion:
    """Parses sampled text (special tokens kept, end of turn removed)."""
    reasoning = ""
    if match := _THINK.match(text):
        reasoning, text = match.group(1), text[match.end() :]
    calls = tuple(parse_call(body) for body in _CALL.findall(text))
    return ParsedCompletion(_CALL.sub("", text).strip(), reasoning, calls)


def parse_call(body: str) -> ParsedCall:
    """Parses what stands between the tool-call tags; never raises."""
    body = body.strip()
    if short := _SHORT.fullmatch(body):
        arguments = _read_json(short.group(2))
        return ParsedCall(short.group(1), arguments_text(arguments) if isinstance(arguments, dict) else short.group(2))
    value = _read_json(body)
    if isinstance(value, dict) and isinstance(value.get("name"), str) and _NAME.match(f'"name":"{value["name"]}"'):
        arguments = value.get("arguments", {})
        if isinstance(arguments, dict):
            return ParsedCall(value["name"], arguments_text(arguments))
    named = _NAME.search(body)
    # Text that is JSON but no object would pass for arguments and break clients that expect one.
    said = f"malformed: {body}" if _is_json_but_no_object(body) else body or "(empty)"
    return ParsedCall(named.group(1) if named else MALFORMED_TOOL_CALL, said)


def _read_json(text: str) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_json_but_no_object(text: str) -> bool:
    return text == "null" or not isinstance(_read_json(text), dict | None)


def arguments_text(arguments: dict[str, Any]) -> str:
    """JSON text; escaped where it holds what UTF-8 cannot carry (half a surrogate pair)."""
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(arguments)
    return text


@dataclass
class TextReader:
    """Reads the format above from text, whatever the ids; calls are yielded whole, at their closing tag."""

    call_id: CallId
    end_of_turn: str
    _text: str = ""
    _calls: int = 0
    _position: int = field(default=0, repr=False)
    _mode: str = "start"

    def completion(self) -> ParsedCompletion:
        return parse_completion(self._text)

    def feed(self, ids: Sequence[int], text: str, *, final: bool = False) -> list[dict[str, Any]]:
        self._text += text.removesuffix(self.end_of_turn)
        deltas: list[dict[str, Any]] = []
        while True:
            rest = self._text[self._position :]
            if self._mode == "start":
                stripped = rest.lstrip()
                if stripped.startswith("<think>"):
                    self._advance(len(rest) - len(stripped) + len("<think>"), "think")
                elif not final and (not stripped or "<think>".startswith(stripped)):
                    return deltas
                else:
                    self._mode = "content"
            elif self._mode == "think":
                if not self._emit_until(rest, "</think>", "reasoning_content", "content", final, deltas):
                    return deltas
            elif self._mode == "content":
                if not self._emit_until(rest, "<tool_call>", "content", "call", final, deltas):
                    return deltas
            else:
                end = rest.find("</tool_call>")
                if end < 0 and not final:
                    return deltas
                body = rest if end < 0 else rest[:end]
                call = parse_call(body)
                deltas.append(call_delta(self._calls, self.call_id(self._calls, call), call))
                self._calls += 1
                self._advance(len(rest) if end < 0 else end + len("</tool_call>"), "content")
                if end < 0:
                    return deltas

    def _emit_until(
        self, rest: str, tag: str, channel: str, then: str, final: bool, deltas: list[dict[str, Any]]
    ) -> bool:
        """Emits up to `tag`; True if it was found and the mode changed."""
        end = rest.find(tag)
        if end >= 0:
            ready, consumed, found = rest[:end], end + len(tag), True
        else:
            held = 0 if final else max((n for n in range(1, len(tag)) if rest.endswith(tag[:n])), default=0)
            ready, found = rest[: len(rest) - held], False
            consumed = len(ready)
        if ready:
            deltas.append({channel: ready})
        self._advance(consumed, then if found else self._mode)
        return found

    def _advance(self, count: int, mode: str) -> None:
        self._position += count
        self._mode = mode
