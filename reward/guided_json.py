"""Guided JSON: the schema of an answer in which each thing stands under its name, and reading it. Pure."""

from collections.abc import Mapping
from typing import Any

from openai.types.shared_params import ResponseFormatJSONSchema


def closed_object(properties: Mapping[str, object]) -> dict[str, Any]:
    """The schema of an object with exactly these properties, in this order, as strict structured output asks for."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def json_format(name: str, properties: Mapping[str, object]) -> ResponseFormatJSONSchema:
    """`response_format` of an answer that is one closed object."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": closed_object(properties)}}


class SaidTwice(ValueError):
    """Of a server that guides nobody: JSON takes the last of two for what is meant, a model said both."""


def refuse_twice(entries: list[tuple[str, object]]) -> dict[str, object]:
    """For `json.loads(…, object_pairs_hook=refuse_twice)`. Raises SaidTwice, which names what stands there twice."""
    found = dict(entries)
    if len(found) < len(entries):
        names = [name for name, _ in entries]
        raise SaidTwice(next(name for name in found if names.count(name) > 1))
    return found
