"""The bundled worlds: everyday domains with tools, a small stateful backend, and what their users ask for.

`SEEN` domains are played in training, `UNSEEN` ones only in the test split.
"""

from collections.abc import Sequence

from env_sim.worlds import banking, calendar_mail, dining, library, shop, smart_home, support, travel
from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Domain
from env_sim.worlds.world import CombinedWorld, World, WorldResponse, combine
from store.records import WorldRef

SEEN: dict[str, Domain] = {
    module.DOMAIN.world.name: module.DOMAIN for module in (travel, shop, calendar_mail, banking, smart_home, support)
}
UNSEEN: dict[str, Domain] = {module.DOMAIN.world.name: module.DOMAIN for module in (library, dining)}
DOMAINS: dict[str, Domain] = SEEN | UNSEEN
WORLDS: dict[str, type[Catalogue]] = {name: domain.world for name, domain in DOMAINS.items()}


def build_world(ref: WorldRef, tool_names: Sequence[str]) -> CombinedWorld:
    """The backend of a scenario's tools in their initial state; every tool's world is built from the same seed.

    Raises ValueError for an unknown world or a tool that no world has.
    """
    return combine(WORLDS, ref, tool_names)


__all__ = ["DOMAINS", "SEEN", "UNSEEN", "WORLDS", "CombinedWorld", "World", "WorldResponse", "build_world"]
