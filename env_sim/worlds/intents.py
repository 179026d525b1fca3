"""What a domain's users ask for, as data: the scenario generator turns these records into dialogues.

A request is either a clause in lower case ("book {thing} for {person}"), which the generator puts into a sentence, or
a whole sentence with a capital letter at its start. `[a|b]` is a choice, `{slot}` a value: a parameter of the tool, a
field of its response, or `{thing}`, which is how the user refers to the thing: by its id, by its name, as "it".
"""

from dataclasses import dataclass
from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.world import Pool

Arguments = dict[str, Any]


class Unfit(Exception):
    """The world does not hold what a dialogue needs; the generator draws another one."""


@dataclass(frozen=True)
class Things:
    """How users refer to a thing of the domain's catalogue."""

    by_id: Pool[str]
    by_name: Pool[str]
    it: Pool[str]
    """When it was spoken of before."""
    unnamed: Pool[str]
    """When they forget to say which one."""


@dataclass(frozen=True)
class Missing:
    """A parameter that the user may leave out, so that the assistant must ask for it."""

    parameter: str
    question: str
    about: tuple[str, ...]
    """Words of which the assistant's question must contain one."""
    answers: Pool[str]


@dataclass(frozen=True)
class Intent:
    """One thing to do with one tool."""

    tool: str
    requests: Pool[str]
    thinking: str
    replies: tuple[str, ...]
    fact: str
    """The field of the response that the reply must mention."""


@dataclass(frozen=True)
class Action(Intent):
    """An intent whose tool takes a parameter beside the id; of some things it is refused."""

    parameter: str
    values: Pool[str] | Pool[int]
    without: Pool[str]
    """Requests that leave the parameter out."""
    missing: Missing
    otherwise: Pool[str]
    """Follows a request: what the user wants if the thing is not to be had."""


@dataclass(frozen=True)
class Unserved:
    """A request that no tool of any world serves."""

    clause: str
    subject: tuple[str, ...]
    """Words of which the refusal must contain one."""


@dataclass(frozen=True)
class Domain:
    """A world with what its users say."""

    world: type[Catalogue]
    things: Things
    find: Intent
    get: Intent
    act: Action
    drop: Intent
    which: Missing
    """The question for the id, where the user did not say which thing."""
    unserved: Pool[Unserved]

    @property
    def on_id(self) -> tuple[Intent, ...]:
        """The intents whose tools take an id."""
        return (self.get, self.act, self.drop)
