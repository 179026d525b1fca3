"""Values at a path of a tool's response: read, listed, changed. Pure; reads and writes nothing.

A path is keys and list positions with dots between them ("price", "items.0.name"); a key may hold dots itself.
"""

import json
from typing import Any

_ABSENT = object()


def field_values(response: str, path: str) -> list[str]:
    """What a reply would have to mention of the field: the value as text, of a list or object every value in it.

    Empty where the response is no JSON or has no such field, and where nothing in it can be mentioned (null, true, "",
    what is nested too deeply to be read).
    """
    found = _at(_parsed(response), path)
    try:
        return [] if found is _ABSENT else list(dict.fromkeys(_texts(found)))
    except RecursionError:
        return []


def with_field(response: str, path: str, value: Any) -> str | None:
    """The response with another value at the path; None if it has no such field, or is nested too deeply."""
    parsed = _parsed(response)
    if _at(parsed, path) is _ABSENT:
        return None
    try:
        return json.dumps(_replaced(parsed, path, value), ensure_ascii=False)
    except RecursionError:
        return None


def field(response: str, path: str) -> Any:
    """The value at the path; None if there is none."""
    found = _at(_parsed(response), path)
    return None if found is _ABSENT else found


def _parsed(response: str) -> Any:
    try:
        return json.loads(response)
    except (ValueError, RecursionError):
        return _ABSENT


def _at(value: Any, path: str) -> Any:
    for key, rest in _steps(value, path):
        found = value[key] if not rest else _at(value[key], rest)
        if found is not _ABSENT:
            return found
    return _ABSENT


def _replaced(value: Any, path: str, other: Any) -> Any:
    for key, rest in _steps(value, path):
        if rest and _at(value[key], rest) is _ABSENT:
            continue
        new = other if not rest else _replaced(value[key], rest, other)
        if isinstance(value, list):
            return [new if place == key else entry for place, entry in enumerate(value)]
        return value | {key: new}
    return value


def _steps(value: Any, path: str) -> list[tuple[Any, str]]:
    """The ways to go on: a key or position that is there, and the path that is left after it."""
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        return [(int(head), rest)] if head.isascii() and head.isdigit() and int(head) < len(value) else []
    if not isinstance(value, dict):
        return []
    parts = path.split(".")
    heads = [(".".join(parts[:n]), ".".join(parts[n:])) for n in range(1, len(parts) + 1)]
    return [(head, rest) for head, rest in heads if head in value]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _texts(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in _texts(entry)]
    if value is None or isinstance(value, bool):
        return []
    text = value if isinstance(value, str) else json.dumps(value)
    return [text] if any(map(str.isalnum, text)) else []
