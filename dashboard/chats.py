"""How a chat is set up: which tools the agent has, what stands behind them, and where a person is asked first.

Everything that a restart needs is in the log: the dialogue, the setup, and the seed from which a simulated world is
built again. Light: what talks to models is in dashboard/equipment.py.
"""

import getpass
import secrets
from collections.abc import Sequence
from functools import lru_cache

from agent.real_tools import real_specs
from env_sim.scenario_generator import generate_scenarios
from env_sim.worlds import WORLDS
from env_sim.worlds.consequential import CONSEQUENTIAL
from store.chats import ChatSetup
from store.database import Log, LogError
from store.records import Scenario, ToolSpec
from store.trajectories import TrajectorySummary, get_trajectory
from store.vocabulary import ChatTools, Split


def new_seed() -> int:
    return secrets.randbelow(2**31)


def new_chat_id() -> str:
    return f"chat-{secrets.token_hex(8)}"


@lru_cache(maxsize=64)
def scenario_of(domain: str, seed: int) -> Scenario:
    """Tools, system prompt and world of a chat in `domain`; its user turns are what one could ask. Not in the log."""
    return generate_scenarios(Split.TEST, 1, seed, [domain])[0]


def specs_of(setup: ChatSetup, seed: int) -> Sequence[ToolSpec]:
    """The tools that the agent has in a chat of this setup."""
    return real_specs() if setup.domain is None else scenario_of(setup.domain, seed).tools


def marked(specs: Sequence[ToolSpec]) -> tuple[str, ...]:
    """The tools among them that a person is asked about unless they say otherwise."""
    return tuple(spec.name for spec in specs if spec.name in CONSEQUENTIAL)


def setup_of(summary: TrajectorySummary) -> ChatSetup | None:
    """What a chat of the log runs with; None for one that was started elsewhere, with tools that are not ours."""
    if summary.seed is None:
        return None
    if summary.chat is not None:
        setup = ChatSetup.from_dict(summary.chat)
        return setup if setup.domain is None or setup.domain in WORLDS else None
    if summary.title in WORLDS:  # chats of older logs keep their domain in the title
        return ChatSetup(ChatTools.WORLD, summary.title)
    return None


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


def who() -> str:
    """The person at this machine, as ratings name them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
