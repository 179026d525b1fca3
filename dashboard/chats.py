"""How a chat is set up: which tools the agent has, what stands behind them, and where a person is asked first.

Everything that a restart needs is in the log: the dialogue, the setup, and the seed from which a simulated world is
built again. Light: what talks to models is in dashboard/equipment.py.
"""

import secrets
from collections.abc import Sequence

from env_sim.chat_worlds import scenario_of, setup_of, specs_of
from env_sim.worlds import WORLDS
from env_sim.worlds.consequential import CONSEQUENTIAL
from store.chats import ChatSetup
from store.database import Log, LogError
from store.records import ToolSpec
from store.settings import SettingsError
from store.trajectories import TrajectorySummary, get_trajectory

__all__ = [
    "asked_first",
    "marked",
    "new_chat_id",
    "new_seed",
    "scenario_of",
    "setup_of",
    "specs_of",
    "stored_setup",
    "title_of",
]


def new_seed() -> int:
    return secrets.randbelow(2**31)


def new_chat_id() -> str:
    return f"chat-{secrets.token_hex(8)}"


def marked(specs: Sequence[ToolSpec]) -> tuple[str, ...]:
    """The tools among them that a person is asked about unless they say otherwise."""
    return tuple(spec.name for spec in specs if spec.name in CONSEQUENTIAL)


def asked_first(specs: Sequence[ToolSpec], chosen: Sequence[str]) -> tuple[str, ...]:
    """Those of `chosen` that the chat has: a seed gives it some of a world's tools. Raises SettingsError for what is no
    tool of the chat or of a bundled world."""
    names = [spec.name for spec in specs]
    known = {*names, *(spec.name for world in WORLDS.values() for spec in world.tools)}
    if unknown := [one for one in chosen if one not in known]:
        raise SettingsError(f"there is no tool {unknown[0]!r}; this chat has {', '.join(names)}")
    return tuple(name for name in names if name in chosen)


def stored_setup(log: Log, chat_id: str) -> tuple[ChatSetup, int]:
    """Setup and seed of a chat in the log. Raises LogError if there is none, or this checkloop lacks its tools."""
    summary = get_trajectory(log, chat_id)
    setup = setup_of(summary)
    if setup is None or summary.seed is None:
        raise LogError(f"chat {chat_id!r} was started elsewhere, with tools that checkloop does not have")
    return setup, summary.seed


def title_of(summary: TrajectorySummary) -> str | None:
    """The name that a person gave a chat; None if nobody did."""
    return None if summary.chat is None and summary.title in WORLDS else summary.title
