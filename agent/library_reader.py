"""Reads an answer as it comes where only a parser of whole answers is there: what is read of its beginning, again and
again, each time after a thirtieth more has come.

What has been shown is never taken back. Formats where a beginning can turn out to be something else (a call without an
opening token of its own looks like content until its end) are read once, at the end.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from agent.completions import CallId, ParsedCall, ParsedCompletion, call_delta

STEPS = 30
"""An answer of n tokens is parsed about STEPS * log(n / STEPS) times, at a cost that grows with n."""


class PrefixParser(Protocol):
    def parse_prefix(
        self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[dict[str, Any]] | None
    ) -> tuple[ParsedCompletion, int]: ...

    def encode(self, text: str) -> list[int]: ...


class LibraryReader:
    def __init__(
        self,
        parser: PrefixParser,
        call_id: CallId,
        prompt: Sequence[int],
        tools: Sequence[dict[str, Any]] | None,
        *,
        cut_by_text: bool,
        live: bool,
    ) -> None:
        self._parser = parser
        self._call_id = call_id
        self._prompt = prompt
        self._tools = tools
        self._cut_by_text = cut_by_text
        self._live = live and not cut_by_text
        self._ids: list[int] = []
        self._text = ""
        self._next = 1
        self._shown = {"reasoning_content": "", "content": ""}
        self._given: list[ParsedCall] = []
        self.consistent = True
        """Whether all that was shown is part of what was read in the end."""

    def completion(self) -> ParsedCompletion:
        return self._read()[0]

    def feed(self, ids: Sequence[int], text: str, *, final: bool = False) -> list[dict[str, Any]]:
        self._ids += ids
        self._text += text
        if not final and (not self._live or len(self._ids) < self._next):
            return []
        self._next = len(self._ids) + max(1, len(self._ids) // STEPS)
        parsed, complete = self._read()
        deltas = self._addition("reasoning_content", parsed.reasoning, final)
        deltas += self._addition("content", parsed.content, final)
        for n in range(len(self._given), len(parsed.calls) if final else complete):
            deltas.append(call_delta(n, self._call_id(n, parsed.calls[n]), parsed.calls[n]))
            self._given.append(parsed.calls[n])
        if final:
            self.consistent = self.consistent and tuple(self._given) == parsed.calls
        return deltas

    def _read(self) -> tuple[ParsedCompletion, int]:
        # A stop string ends the text in the middle of a token: that text is what the client gets, so it is read.
        ids = self._parser.encode(self._text) if self._cut_by_text else self._ids
        return self._parser.parse_prefix(ids, self._prompt, self._tools)

    def _addition(self, channel: str, read: str, final: bool) -> list[dict[str, Any]]:
        shown = self._shown[channel]
        if not final:
            read = read.rstrip("\ufffd")  # a character whose last bytes are still to come
        if not read.startswith(shown):
            self.consistent = self.consistent and not final
            return []
        self._shown[channel] = read
        return [{channel: read[len(shown) :]}] if len(read) > len(shown) else []
