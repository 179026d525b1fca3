"""The executable world: tools with a JSON Schema each, over a small state that one integer seed determines.

A world answers every call (it is total): what a handler cannot serve becomes an error response, often with a `try`
field that names what would work. Ids and amounts are functions of (seed, arguments), not of the order of calls, so
that all rollouts of a group that do the same thing see the same thing (invariant 5). Reads and writes nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, ClassVar, Generic, TypeVar

from store.records import ToolSpec, WorldRef

T = TypeVar("T")

TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}


@dataclass(frozen=True)
class WorldResponse:
    """What a tool answers: compact JSON text, and whether it is an error."""

    text: str
    is_error: bool

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.text)
        return fields


class ToolError(Exception):
    """A call that the world cannot serve; `suggestion` becomes the response's `try` field."""

    def __init__(self, message: str, suggestion: str | int | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


@dataclass(frozen=True)
class Pool(Generic[T]):
    """Values of which training sees only `train`; validation and test draw from `held_out`."""

    train: tuple[T, ...]
    held_out: tuple[T, ...]

    def of(self, held_out: bool) -> tuple[T, ...]:
        return self.held_out if held_out else self.train

    def mixed(self, held_out: bool) -> tuple[T, ...]:
        """For phrasings: what training saw, and when `held_out` also what it did not."""
        return self.train + self.held_out if held_out else self.train


def words(train: str, held_out: str) -> Pool[str]:
    """A pool of comma-separated values."""
    return Pool(tuple(re.split(r",\s*", train)), tuple(re.split(r",\s*", held_out)))


def tool(tool_name: str, description: str, /, **parameters: str | tuple[str, ...]) -> ToolSpec:
    """A tool whose parameters are all required; each is a JSON type or the tuple of its allowed strings."""
    properties = {
        key: {"type": "string", "enum": list(kind)} if isinstance(kind, tuple) else {"type": kind}
        for key, kind in parameters.items()
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(parameters),
        "additionalProperties": False,
    }
    return ToolSpec(name=tool_name, description=description, parameters=schema)


class World:
    """Base of the bundled worlds: a subclass names its tools and has one method of the same name for each.

    A method takes the tool's parameters by name and returns the response's fields, or raises ToolError. A world with
    an odd seed is filled with held-out values only (validation and test), one with an even seed never is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tools: ClassVar[tuple[ToolSpec, ...]]

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.held_out = seed % 2 == 1
        self.random = Random(f"{self.name} {seed}")
        self.fill()

    def fill(self) -> None:
        """Builds the initial state from `self.random`."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> WorldResponse:
        """Answers any call; never raises."""
        spec = next((spec for spec in self.tools if spec.name == name), None)
        if spec is None:
            return _error(ToolError(f"unknown tool {name}"))
        try:
            check_arguments(spec, arguments)
            fields: dict[str, Any] = getattr(self, name)(**arguments)
        except ToolError as error:
            return _error(error)
        return WorldResponse(_compact(fields), is_error=False)

    def values(self, pool: Pool[T]) -> tuple[T, ...]:
        return pool.of(self.held_out)

    def number(self, low: int, high: int, *key: Any) -> int:
        """An integer in [low, high] that (seed, key) determines."""
        text = json.dumps([self.name, self.seed, [_normal(part) for part in key]])
        return low + int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) % (high - low + 1)

    def pick(self, options: Sequence[T], *key: Any) -> T:
        return options[self.number(0, len(options) - 1, *key)]

    def code(self, letter: str, *key: Any) -> str:
        """A short readable id such as F27."""
        return f"{letter}{self.number(10, 99, letter, *key)}"

    def clock(self, first: int, last: int, *key: Any) -> str:
        """A time of day such as 9:40, between the hours `first` and `last`."""
        return f"{self.number(first, last, 'hour', *key)}:{self.number(0, 5, 'minute', *key)}0"

    def codes(self, letter: str, count: int) -> list[str]:
        """`count` different ids of the initial state."""
        return [f"{letter}{number}" for number in self.random.sample(range(10, 100), count)]


class CombinedWorld:
    """The worlds of all tools a scenario offers, each built from the scenario's seed on first use."""

    def __init__(self, owners: Mapping[str, type[World]], seed: int) -> None:
        self._owners = owners
        self._seed = seed
        self._worlds: dict[str, World] = {}

    def world_of(self, name: str) -> World | None:
        owner = self._owners.get(name)
        return None if owner is None else self._worlds.setdefault(owner.name, owner(self._seed))

    def call(self, name: str, arguments: Mapping[str, Any]) -> WorldResponse:
        world = self.world_of(name)
        return _error(ToolError(f"unknown tool {name}")) if world is None else world.call(name, arguments)


def combine(worlds: Mapping[str, type[World]], ref: WorldRef, tool_names: Sequence[str]) -> CombinedWorld:
    """The combined world of `tool_names`. Raises ValueError for a tool that no world has, or an unknown world."""
    if ref.name not in worlds:
        raise ValueError(f"unknown world {ref.name!r}; bundled ones are {sorted(worlds)}")
    all_owners = {spec.name: world for world in worlds.values() for spec in world.tools}
    if unknown := sorted(set(tool_names) - all_owners.keys()):
        raise ValueError(f"no bundled world has the tools {unknown}")
    return CombinedWorld({name: all_owners[name] for name in tool_names}, ref.seed)


def check_arguments(spec: ToolSpec, arguments: Mapping[str, Any]) -> None:
    """Raises ToolError that names the parameter which is missing, unknown or of the wrong type."""
    properties = spec.parameters["properties"]
    for name in spec.parameters["required"]:
        if name not in arguments:
            raise ToolError(f"{name} is missing")
    for name, value in arguments.items():
        if name not in properties:
            raise ToolError(f"{spec.name} has no parameter {name}")
        kind = properties[name]["type"]
        if not isinstance(value, TYPES[kind]) or isinstance(value, bool):
            raise ToolError(f"{name} must be of type {kind}")
        allowed = properties[name].get("enum")
        if allowed and value not in allowed:
            raise ToolError(f"{name} must be one of {', '.join(allowed)}")


def same(left: str, right: str) -> bool:
    """Equal up to case and spacing."""
    return bool(_normal(left) == _normal(right))


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _error(error: ToolError) -> WorldResponse:
    fields: dict[str, Any] = {"error": str(error)}
    if error.suggestion is not None:
        fields["try"] = error.suggestion
    return WorldResponse(_compact(fields), is_error=True)


def _compact(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
