"""What a domain's users ask for, as data: the scenario generator turns these records into dialogues.

A request is either a clause in lower case ("find a flight to {destination}"), which the generator puts into a
sentence, or a whole sentence with a capital letter or a slot at its start. `[a|b]` is a choice, `{slot}` a value: what
`draw` returned (the tool's parameters among it become the arguments) or a field of the response.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from env_sim.worlds.world import Pool, World

Arguments = dict[str, Any]
Draw = Callable[[Any, Random], Arguments]
"""(world, random) -> slots, the arguments among them; the world is the one that the intent belongs to."""


class Unfit(Exception):
    """The world does not hold what a dialogue needs; the generator draws another one."""


@dataclass(frozen=True)
class Missing:
    """A parameter that the user may leave out, so that the assistant must ask for it."""

    parameter: str
    without: Pool[str]
    question: str
    about: tuple[str, ...]
    """Words of which the assistant's question must contain one."""
    answers: Pool[str]


@dataclass(frozen=True)
class Intent:
    """One thing to do with one tool."""

    tool: str
    requests: Pool[str]
    draw: Draw
    thinking: str
    replies: tuple[str, ...]
    facts: tuple[str, ...]
    """Fields of the response that the reply must mention, the most important first (at most two)."""
    missing: tuple[Missing, ...] = ()
    unchecked: tuple[str, ...] = ()
    """Parameters in the user's own words, whose exact value no item demands."""


@dataclass(frozen=True)
class Chain:
    """Two calls where an argument of the second comes from the first one's response."""

    first: Intent
    then: Intent
    link: Mapping[str, str]
    """Parameter of the second tool -> field of the first response."""
    requests: Pool[str]
    """Asks for both at once. Slots of both draws; where they share a name, the second one's is `new_<name>`."""
    follow_ups: Pool[str]
    """The second request as a turn of its own, after the first was answered."""


@dataclass(frozen=True)
class Recovery:
    """A call that the world answers with an error and a suggestion, which the user allows to take."""

    intent: Intent
    draw: Draw
    """Like the intent's, but the world must answer with an error whose `try` field is set."""
    requests: Pool[str]
    parameter: str | None
    """The parameter that takes the suggestion; None: the suggestion is another tool for the same arguments."""
    other: Intent | None = None
    """With `parameter` None: the intent whose tool is suggested."""


@dataclass(frozen=True)
class Unserved:
    """A request that no tool of any world serves."""

    clause: str
    subject: tuple[str, ...]
    """Words of which the refusal must contain one."""


@dataclass(frozen=True)
class Domain:
    """A world with what its users say."""

    world: type[World]
    intents: tuple[Intent, ...]
    chains: tuple[Chain, ...]
    recoveries: tuple[Recovery, ...]
    unserved: Pool[Unserved]

    @property
    def asked(self) -> tuple[Intent, ...]:
        """What the bundled scenarios' users ask for: intents that some chain or recovery is made of. The tools of the
        others stay in the world and are offered beside them, as distractors that nobody needs."""
        used = {id(i) for chain in self.chains for i in (chain.first, chain.then)}
        used |= {id(i) for recovery in self.recoveries for i in (recovery.intent, recovery.other)}
        return tuple(intent for intent in self.intents if id(intent) in used)
