"""A batch that is played and judged: what failed once is played again, what fails always is said."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from agent.vllm_client import ServerError
from store.database import Log
from store.scenarios import add_scenarios
from store.settings import load_settings
from store.trajectories import list_trajectories
from store.versions import add_version, set_version_state
from store.vocabulary import Origin, StopReason, VersionState
from tests.scripted_gateway import Refuses, RunningGateway, Says
from tests.small_loop import small_sets
from train.evaluation import Outcome, play_batch
from train.progress import Stage, StageProgress

SCENARIOS = small_sets().test
"""Four, each passed by a reply that names blue."""


def play_colours(log: Log, policy: Callable[[dict[str, Any]], Any]) -> dict[str, list[Outcome]]:
    add_version(log, "v0001", parent=None, path="v0001", files={})
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    add_scenarios(log, SCENARIOS)
    with RunningGateway(log, policy) as gateway:
        return play_batch(
            log,
            SCENARIOS,
            batch="b",
            version="v0001",
            seed=1,
            group_size=1,
            origin=Origin.EVALUATION,
            temperature=1.0,
            settings=load_settings(gateway={"port": gateway.port}),
            stage=Stage(StageProgress({}, Console(quiet=True)), "b", "b"),
            before_playing=lambda: None,
        )


def test_what_fails_while_others_do_not_is_played_once_more(sqlite_log: Log) -> None:
    """Numbers 0 and 1 get no answer at first; number 1 never gets one: it stays out, and counts for nothing."""
    refused: list[str] = []

    def policy(body: dict[str, Any]) -> Says | Refuses:
        said = body["messages"][-1]["content"]
        if "number 1" in said or ("number 0" in said and said not in refused):
            refused.append(said)
            return Refuses(504)
        return Says("blue")

    outcomes = play_colours(sqlite_log, policy)
    rewards = {s.name: [one.reward for one in outcomes[s.hash]] for s in SCENARIOS}
    assert {name: sorted(values, key=str) for name, values in rewards.items()} == {
        "test-0": [1.0, None],
        "test-1": [None, None],
        "test-2": [1.0],
        "test-3": [1.0],
    }
    ended = [one.stop_reason for one in list_trajectories(sqlite_log, batch="b", limit=None)]
    assert ended.count(StopReason.FAILED) == 3 and len(ended) == 6
    assert len(refused) == 3


def test_where_nothing_is_answered_nothing_is_tried_again(sqlite_log: Log) -> None:
    with pytest.raises(ServerError, match="not one of the 4 dialogues of b could be played"):
        play_colours(sqlite_log, lambda _: Refuses(503))
    assert len(list_trajectories(sqlite_log, batch="b", limit=None)) == 4
