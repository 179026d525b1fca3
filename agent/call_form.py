"""How a format writes tool calls, found by looking at what it renders; the grammar that makes the policy write some.

A form is known where a call is fixed text, the function's name, fixed text, its arguments as JSON, and fixed text.
Calls written as XML or numbered by the policy have none: what needs a grammar is refused for them.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from agent.completions import ParsedCall, ParsedCompletion

MOST_CALLS = 8
"""Of one answer under a grammar: a policy that never chooses to end would go on to its last token."""

PROBE_NAME = "probe_tool"
PROBE_ARGUMENTS = {"probe": 1}
_WRITTEN_ARGUMENTS = re.compile(r'\{"probe":\s*1\}')


@dataclass(frozen=True)
class CallForm:
    """Pieces of fixed text; each is a sequence of special tokens' ids and plain strings."""

    lead: tuple[int | str, ...]
    """Before the first call of an answer that is nothing but calls."""
    begin: tuple[int | str, ...]
    """Up to the name."""
    middle: tuple[int | str, ...]
    """From the name to the arguments."""
    end: tuple[int | str, ...]
    between: tuple[int | str, ...]

    def grammar(self, functions: Sequence[dict[str, Any]], most: int = MOST_CALLS) -> dict[str, Any]:
        """A structural tag (xgrammar's, as vLLM takes it): one to `most` calls to any of `functions`, by its schema."""
        return {"type": "structural_tag", "format": self._calls(functions, most)}

    def calls_or_json(
        self, functions: Sequence[dict[str, Any]], schema: dict[str, Any], most: int = MOST_CALLS
    ) -> dict[str, Any]:
        """Calls as above, or an answer that is JSON by `schema`. Arguments whose schema cannot be enforced are any
        object: nobody was promised more of calls that the policy chooses."""
        able = [f | {"parameters": None} if unenforceable(f.get("parameters")) else f for f in functions]
        answer = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 2}
        return {"type": "structural_tag", "format": {"type": "or", "elements": [self._calls(able, most), answer]}}

    def _calls(self, functions: Sequence[dict[str, Any]], most: int) -> dict[str, Any]:
        calls = [self._call(function) for function in functions]
        call = calls[0] if len(calls) == 1 else {"type": "or", "elements": calls}
        more = {"type": "repeat", "min": 0, "max": most - 1, "content": _sequence([*_fixed(self.between), call])}
        return _sequence([*_fixed(self.lead), call, *([more] if most > 1 else [])])

    def _call(self, function: dict[str, Any]) -> dict[str, Any]:
        schema = function.get("parameters") or {"type": "object"}
        arguments = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 2}
        name = _joined([*self.begin, function["name"], *self.middle])
        return _sequence([*_fixed(name), arguments, *_fixed(self.end)])


def find_call_form(
    rendered: Callable[[int], str],
    pieces: Callable[[str], tuple[int | str, ...]],
    ends: Collection[str],
    parse: Callable[[str], ParsedCompletion],
) -> CallForm | None:
    """The form of a format, None where it has none.

    `rendered(n)`: an answer of n calls to PROBE_NAME with PROBE_ARGUMENTS, its end of turn included (one of `ends`);
    `pieces` splits text at special tokens. What the form writes must be read back by `parse`.
    """
    try:
        one, two = rendered(1), rendered(2)
    except ValueError:  # formats that know one call an answer
        return None
    name, arguments = one.find(PROBE_NAME), _WRITTEN_ARGUMENTS.search(one)
    end_of_turn = next((end for end in ends if one.endswith(end)), None)
    if name < 0 or arguments is None or end_of_turn is None or arguments.start() < name:
        return None
    before, middle = one[:name], one[name + len(PROBE_NAME) : arguments.start()]
    end = one[arguments.end() : len(one) - len(end_of_turn)]
    second = two.rfind(PROBE_NAME)
    first_end = _WRITTEN_ARGUMENTS.search(two)
    if first_end is None or not two[first_end.end() : second].startswith(end):
        return None
    gap = two[first_end.end() + len(end) : second]
    between, special = "", pieces(gap)
    if special and isinstance(special[0], str):
        between = special[0]
    begin = gap[len(between) :]
    if not begin or not before.endswith(begin):
        return None
    form = CallForm(
        lead=pieces(before[: len(before) - len(begin)]),
        begin=pieces(begin),
        middle=pieces(middle),
        end=pieces(end),
        between=pieces(between),
    )
    written = f"{begin}{PROBE_NAME}{middle}{json.dumps(PROBE_ARGUMENTS)}{end}"
    wanted = (ParsedCall(PROBE_NAME, json.dumps(PROBE_ARGUMENTS)),) * 2
    read = parse(before[: len(before) - len(begin)] + written + between + written + end_of_turn)
    return form if read.calls == wanted and not read.content else None


def find_call_end(rendered: Callable[[int], Sequence[int]], special: Collection[int]) -> int | None:
    """The special token that ends each call, None where there is none: the last one that two calls have twice as often.

    `rendered(n)`: ids of an answer of n calls.
    """
    try:
        one, two = list(rendered(1)), list(rendered(2))
    except ValueError:
        return None
    return next((i for i in reversed(one) if i in special and (one.count(i), two.count(i)) == (1, 2)), None)


def probe_message(count: int) -> dict[str, Any]:
    """An assistant message of `count` calls and nothing else."""
    function = {"name": PROBE_NAME, "arguments": PROBE_ARGUMENTS}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": f"call_{n}", "type": "function", "function": function} for n in range(count)],
    }


def split_at_special_tokens(tokenizer: Any, text: str) -> tuple[int | str, ...]:
    """`text` as ids of the tokenizer's added tokens and the plain strings between them."""
    added = tokenizer.added_tokens_decoder
    pieces: list[int | str] = []
    run: list[int] = []
    for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], None]:
        if token is not None and token not in added:
            run.append(token)
            continue
        if run:
            pieces.append(str(tokenizer.decode(run, clean_up_tokenization_spaces=False)))
            run = []
        if token is not None:
            pieces.append(token)
    return tuple(pieces)


def unenforceable(schema: Any) -> str | None:
    """A keyword of a JSON Schema that xgrammar would silently leave out, if there is one (as vLLM's backend_xgrammar
    lists them; `format` is an annotation).
    """
    if not isinstance(schema, dict):
        return None
    if found := _NOT_ENFORCED & schema.keys():
        return min(found)
    if ("pattern" in schema or "format" in schema) and ("minLength" in schema or "maxLength" in schema):
        return "minLength or maxLength beside pattern or format"
    for keyword, value in schema.items():
        if keyword in ("enum", "const", "default", "examples"):
            continue
        parts = value.values() if keyword in _OF_NAMES and isinstance(value, dict) else _listed(value)
        if inner := next((keyword for keyword in map(unenforceable, parts) if keyword), None):
            return inner
    return None


_NOT_ENFORCED = {"multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"}
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value maps names to schemas."""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _sequence(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "sequence", "elements": list(elements)}


def _fixed(pieces: Sequence[int | str]) -> list[dict[str, Any]]:
    return [
        {"type": "token", "token": piece} if isinstance(piece, int) else {"type": "const_string", "value": piece}
        for piece in pieces
    ]


def _joined(pieces: Sequence[int | str]) -> list[int | str]:
    """Neighbouring strings as one."""
    found: list[int | str] = []
    for piece in pieces:
        if found and isinstance(piece, str) and isinstance(found[-1], str):
            found[-1] += piece
        else:
            found.append(piece)
    return found
