"""Rewards of logged trajectories from the verdicts and checklists that count now; writes reward rows that changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from typing import Any

from reward.outcomes import reward_of
from store.checklists import Checklist, current_checklists
from store.database import Log
from store.records import Item, Scenario, TurnRecord
from store.scenarios import get_scenario
from store.trajectories import TrajectorySummary, get_trajectory
from store.turns import turns_of
from store.verdicts import Reward, add_rewards, rewards_of, verdicts_of
from store.vocabulary import Origin, StopReason

try:
    SOFTWARE = version("checkloop")
except PackageNotFoundError:  # run from a source tree that is not installed
    SOFTWARE = "unknown"


@dataclass(frozen=True)
class Played:
    """Trajectories as judging and scoring need them."""

    summaries: list[TrajectorySummary]
    turns: dict[str, list[TurnRecord]]
    """By trajectory, the reached turns in order; of those that are judged."""
    scenarios: dict[str, Scenario]
    checklists: dict[str, list[list[Checklist]]]
    """By scenario hash, for each turn the newest revision of every variant."""


def read_played(log: Log, trajectory_ids: Iterable[str]) -> Played:
    """Raises LogError for an id that is not in the log."""
    summaries = [get_trajectory(log, trajectory_id) for trajectory_id in trajectory_ids]
    digests = dict.fromkeys(summary.scenario_hash for summary in summaries if summary.scenario_hash)
    scenarios = {digest: get_scenario(log, digest) for digest in digests}
    turns = turns_of(log, [summary.id for summary in summaries if why_not_judged(summary) is None])
    for summary in summaries:
        if summary.origin is Origin.CHAT and summary.id in turns:
            turns[summary.id] = promoted_turns(scenarios[str(summary.scenario_hash)], turns[summary.id])
    return Played(summaries, turns, scenarios, current_checklists(log, scenarios.values()))


def score_trajectories(log: Log, trajectory_ids: Iterable[str]) -> dict[str, Reward]:
    """The reward of each trajectory as it stands now; judges nothing. Raises LogError for an id not in the log."""
    return write_rewards(log, read_played(log, trajectory_ids))


def write_rewards(log: Log, played: Played) -> dict[str, Reward]:
    """Equations 2, 4 and 6 on the verdicts that win in the log; appends a row where the reward changed."""
    names = [summary.id for summary in played.summaries]
    verdicts = verdicts_of(log, names)
    rewards: dict[str, Reward] = {}
    for summary in played.summaries:
        reason = why_not_judged(summary)
        if reason is not None:
            rewards[summary.id] = Reward(summary.id, None, (), None, 0, reason)
            continue
        variants_T = played.checklists[str(summary.scenario_hash)]
        checklists_T = [[checklist.items for checklist in variants] for variants in variants_T]
        step_counts = [turn.steps[-1].index + 1 for turn in played.turns.get(summary.id, [])]
        gone = summary.origin is Origin.CHAT and len(step_counts) < len(checklists_T)
        excluded = "the chat was said anew since it became a scenario" if gone else None
        reward = reward_of(summary.id, checklists_T, verdicts.get(summary.id, []), step_counts, excluded)
        rewards[summary.id] = replace(reward, made_of=_made_of(variants_T))
    known = rewards_of(log, names)
    add_rewards(log, [reward for name, reward in rewards.items() if known.get(name) != reward])
    return rewards


def items_of(scenario: Scenario, checklists_T: Sequence[Sequence[Checklist]], turn: TurnRecord) -> list[Item]:
    """The items of all checklists that count for the turn. Raises ValueError if the scenario has no such turn."""
    if not 0 <= turn.index < len(scenario.turns):
        raise ValueError(
            f"trajectory {turn.trajectory_id!r} has a turn {turn.index}, but scenario {scenario.name!r} has only "
            f"{len(scenario.turns)} turns: it was not played from this scenario"
        )
    # Variants may share an item: it is judged once.
    return list({item.id: item for checklist in checklists_T[turn.index] for item in checklist.items}.values())


def promoted_turns(scenario: Scenario, turns: Sequence[TurnRecord]) -> list[TurnRecord]:
    """The turns of a promoted chat as far as they are its scenario's: a chat goes on, or is said anew, afterwards."""
    spoken = zip(turns, scenario.turns, strict=False)
    return [turn for turn, _ in takewhile(lambda pair: pair[0].user == pair[1].user, spoken)]


def why_not_judged(summary: TrajectorySummary) -> str | None:
    """Why a trajectory has no reward whatever its verdicts say; None if it is judged."""
    if summary.scenario_hash is None:
        return "it has no scenario, so no checklist"
    if summary.stop_reason is None and summary.origin is not Origin.CHAT:
        return "it has not ended"
    if summary.stop_reason is StopReason.FAILED:
        return summary.error or "it failed without saying why"
    return None


def _made_of(variants_T: Sequence[Sequence[Checklist]]) -> dict[str, Any]:
    revisions_T = [[[checklist.variant, checklist.revision] for checklist in variants] for variants in variants_T]
    return {"software": SOFTWARE, "checklists": revisions_T}
