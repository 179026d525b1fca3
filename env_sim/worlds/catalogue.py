"""Worlds whose state is a catalogue: things with an id and a name, some of which are not to be had.

The bundled worlds name their tools and parameters alike (`find_x(query)`, `get_x(id)`, an action on an id, its
opposite), as the interfaces of one house do, so that what is learned in one of them is of use in the next.
Reads and writes nothing.
"""

from random import Random
from typing import ClassVar

from env_sim.worlds.world import Pool, ToolError, World, same

HAD_IN = 3
"""One thing of so many is not to be had."""


class Catalogue(World):
    """`letter` opens the ids of the things, `names` are what they are found by; `taken` says why one is not to be had.

    A thing is gone once it was dropped (canceled, returned, closed): every call with its id is an error from then on.
    """

    noun: ClassVar[str]
    letter: ClassVar[str]
    names: ClassVar[Pool[str]]
    taken: ClassVar[str]

    def fill(self) -> None:
        names = list(self.values(self.names))
        self.random.shuffle(names)
        self.things: dict[str, str] = dict(zip(self.codes(self.letter, len(names)), names, strict=True))
        codes = list(self.things)
        self.not_to_be_had = codes[: len(codes) // HAD_IN]
        self.free = codes[len(codes) // HAD_IN :]
        self.dropped: set[str] = set()

    def id_of(self, query: str) -> str:
        """The id of the thing of that name. Raises ToolError."""
        for code, name in self.things.items():
            if same(name, query):
                return code
        raise ToolError(f"no {self.noun} {query}")

    def known(self, id: str) -> str:
        """The id as the catalogue spells it. Raises ToolError for what it no longer holds, and for what is no id of a
        thing, with the tool that finds ids: a name in its place is the usual mistake."""
        for code in self.things:
            if same(code, id):
                if code in self.dropped:
                    raise ToolError(f"{code} is gone already")
                return code
        raise ToolError(f"no {self.noun} {id}", f"find_{self.noun}")

    def take(self, id: str) -> str:
        """The id of a thing that is to be had. Raises ToolError that suggests another one."""
        code = self.known(id)
        if code in self.not_to_be_had:
            raise ToolError(f"{code} is {self.taken}", self.pick(self.free, "instead", code))
        return code

    def drop(self, id: str) -> str:
        """The id of a thing that is gone from now on."""
        code = self.known(id)
        self.dropped.add(code)
        return code

    def draw(self, random: Random, taken: bool = False) -> dict[str, str]:
        """`id` and `query` of a thing that is to be had, or with `taken`, of one that is not."""
        code = random.choice(self.not_to_be_had if taken else self.free)
        return {"id": code, "query": self.things[code]}
