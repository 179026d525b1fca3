"""Chats of the dashboard in the log: starting one, and what is needed to go on with one.

Everything that a reload needs stands in the log: the dialogue, and the domain (the title) and seed from which the
simulated world is built again.
"""

import secrets

from env_sim.scenario_generator import generate_scenarios
from env_sim.worlds import WORLDS
from store.database import Log
from store.records import Scenario
from store.trajectories import NewTrajectory, TrajectorySummary, create_trajectories
from store.vocabulary import Origin, Split


class ChatFailed(RuntimeError):
    """A turn could not be finished: the gateway, the log or a tool failed. Says what and why."""


def new_seed() -> int:
    return secrets.randbelow(2**31)


def scenario_of(domain: str, seed: int) -> Scenario:
    """Tools, system prompt and world of a chat in `domain`; its user turns are what one could ask. Not in the log."""
    return generate_scenarios(Split.TEST, 1, seed, [domain])[0]


def domain_of(summary: TrajectorySummary) -> str | None:
    """The bundled domain that a chat of the dashboard lives in; None for chats that were started elsewhere."""
    return summary.title if summary.title in WORLDS and summary.seed is not None else None


def start_session(log: Log, domain: str, seed: int, version: str | None) -> str:
    """A new chat in the log; returns its id, which is also the gateway's session."""
    session_id = f"chat-{secrets.token_hex(6)}"
    new = NewTrajectory(id=session_id, origin=Origin.CHAT, version=version, seed=seed, title=domain)
    create_trajectories(log, [new])
    return session_id
