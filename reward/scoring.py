"""Scores logged trajectories from the verdicts and checklists that count now; writes reward rows that changed.

A reward says what it was made of (`Reward.made_of`):

* `checklists`: for each turn of the scenario [variant, revision] of each checklist;
* `newest_verdict`: the greatest number of a verdict that went into it (a later one changes it, or says the same);
* `judges`: who said these verdicts;
* `unasked`, where there are any: how many items have no verdict yet, or none that still counts (store.backlog);
* `software`: the version of checkloop that did the sum.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from typing import Any

from reward.advantages import TurnStates
from reward.code_judge import RULE_JUDGE, unjustified
from reward.outcomes import reward_of, turn_states
from store.checklists import Checklist, current_checklists
from store.database import Log, in_chunks
from store.records import Item, Scenario, TurnRecord
from store.scenarios import get_scenarios
from store.trajectories import TrajectorySummary, get_trajectories
from store.turns import step_counts_of, turns_of
from store.verdicts import Reward, Verdict, add_rewards, rewards_of, verdicts_of
from store.vocabulary import Origin, Outcome, StopReason

try:
    SOFTWARE = version("checkloop")
except PackageNotFoundError:  # run from a source tree that is not installed
    SOFTWARE = "unknown"

_CHUNK = 500
"""Trajectories that are read, scored and written in one go."""
NO_LONGER = "it failed by rule, because of something that fails no more: `checkloop judge` judges it"


@dataclass(frozen=True)
class Played:
    """Trajectories as judging and scoring need them."""

    summaries: list[TrajectorySummary]
    turns: dict[str, list[TurnRecord]]
    """By trajectory, the reached turns in order; of those that are judged, and empty where they were not asked for."""
    step_counts: dict[str, list[int]]
    """By trajectory, the number of steps of each turn reached; of those that are judged."""
    scenarios: dict[str, Scenario]
    checklists: dict[str, list[list[Checklist]]]
    """By scenario hash, for each turn the newest revision of every variant."""

    def items_T_V(self, summary: TrajectorySummary) -> list[list[tuple[Item, ...]]]:
        """The checklists of each turn of the trajectory's scenario."""
        variants_T = self.checklists[str(summary.scenario_hash)]
        return [[checklist.items for checklist in variants] for variants in variants_T]

    def why_not_scored(self, summary: TrajectorySummary) -> str | None:
        """As `why_not_judged`; also where its turns are not those of its scenario."""
        reason = why_not_judged(summary)
        if reason is not None:
            return reason
        reached, known = (
            len(self.step_counts.get(summary.id, [])),
            len(self.scenarios[str(summary.scenario_hash)].turns),
        )
        if reached > known:
            return f"it has {reached} turns, its scenario {known}: it was not played from this scenario"
        if summary.origin is Origin.CHAT and reached < known:
            return "the chat was said anew since it became a scenario"
        return None


def read_played(log: Log, trajectory_ids: Iterable[str], *, with_turns: bool = True) -> Played:
    """A few queries for all of them. Raises LogError for an id that is not in the log.

    Without turns (to score what was judged before) no message is read.
    """
    summaries = get_trajectories(log, trajectory_ids)
    scenarios = get_scenarios(log, [summary.scenario_hash for summary in summaries if summary.scenario_hash])
    judged = [summary.id for summary in summaries if why_not_judged(summary) is None]
    # A chat goes on after it was promoted: which of its turns count is in what was said.
    chats = {summary.id: str(summary.scenario_hash) for summary in summaries if summary.origin is Origin.CHAT}
    turns = turns_of(log, judged if with_turns else [name for name in judged if name in chats])
    for name in chats.keys() & turns.keys():
        turns[name] = promoted_turns(scenarios[chats[name]], turns[name])
    step_counts = step_counts_of(log, [name for name in judged if name not in turns])
    step_counts |= {name: [turn.steps[-1].index + 1 for turn in said] for name, said in turns.items()}
    return Played(summaries, turns, step_counts, scenarios, current_checklists(log, scenarios.values()))


def score_trajectories(log: Log, trajectory_ids: Iterable[str], *, dry_run: bool = False) -> dict[str, Reward]:
    """The reward of each trajectory as it stands now; judges nothing, writes what changed unless `dry_run`.

    Raises LogError for an id that is not in the log.
    """
    rewards: dict[str, Reward] = {}
    for chunk in in_chunks(list(dict.fromkeys(trajectory_ids)), _CHUNK):
        played = read_played(log, chunk, with_turns=False)
        rewards |= compute_rewards(log, played) if dry_run else write_rewards(log, played)
    return rewards


def write_rewards(log: Log, played: Played, *, unfinished: bool = True) -> dict[str, Reward]:
    """`compute_rewards`, and appends a row where the reward changed, or how many of its items wait for a judge.

    `unfinished` False: nothing of a trajectory that has such items, since whoever judged was stopped before them.
    """
    rewards = {name: made for name, made in compute_rewards(log, played).items() if unfinished or not unasked(made)}
    known = rewards_of(log, rewards)
    add_rewards(
        log,
        [
            reward
            for name, reward in rewards.items()
            if known.get(name) != reward or unasked(known.get(name)) != unasked(reward)
        ],
    )
    return rewards


def unasked(reward: Reward | None) -> int:
    """How many items of the trajectory waited for a judge when the reward was computed."""
    return 0 if reward is None or reward.made_of is None else int(reward.made_of.get("unasked", 0))


def standing_verdicts(log: Log, played: Played) -> dict[str, list[Verdict]]:
    """The verdicts that win in the log, by trajectory. A FAIL by rule that these no longer justify is UNSCORED: nobody
    has looked at the item, and 0 for it would be a person's word on another one taken back."""
    verdicts = verdicts_of(log, [summary.id for summary in played.summaries])
    doubtful: dict[str, set[int]] = {}
    items: dict[tuple[str, int], list[Item]] = {}
    for summary in played.summaries:
        if played.why_not_scored(summary) is not None:
            continue
        checklists_T = played.checklists[str(summary.scenario_hash)]
        reached = len(played.step_counts.get(summary.id, []))
        failed = {(v.turn_index, v.item_key) for v in verdicts.get(summary.id, ()) if v.outcome is Outcome.FAIL}
        for verdict in verdicts.get(summary.id, ()):
            place = verdict.turn_index
            if verdict.judge != RULE_JUDGE or verdict.outcome is not Outcome.FAIL or place >= reached:
                continue
            items[summary.id, place] = merged_items(checklists_T[place])
            item = next((one for one in items[summary.id, place] if one.id == verdict.item_key), None)
            if item is not None and not any((place, key) in failed for key in item.depends_on):
                doubtful.setdefault(summary.id, set()).add(place)
    # Most of them fail for want of a channel, which only the turn itself can tell.
    turns = played.turns | turns_of(log, [name for name in doubtful if name not in played.turns])
    for name, indices in doubtful.items():
        for turn in (turn for turn in turns[name] if turn.index in indices):
            said = {v.item_key: v for v in verdicts[name] if v.turn_index == turn.index}
            stale = unjustified(items[name, turn.index], turn, said)
            verdicts[name] = [_reopened(v, turn.index, stale) for v in verdicts[name]]
    return verdicts


def _reopened(verdict: Verdict, turn_index: int, stale: set[str]) -> Verdict:
    if verdict.turn_index != turn_index or verdict.item_key not in stale or verdict.outcome is not Outcome.FAIL:
        return verdict
    return replace(verdict, outcome=Outcome.UNSCORED, reason=NO_LONGER)


def compute_rewards(log: Log, played: Played) -> dict[str, Reward]:
    """Equations 2, 4 and 6 on the verdicts that win in the log; writes nothing."""
    verdicts = standing_verdicts(log, played)
    rewards: dict[str, Reward] = {}
    for summary in played.summaries:
        reason = played.why_not_scored(summary)
        if reason is not None:
            rewards[summary.id] = Reward(summary.id, None, (), None, 0, reason)
            continue
        step_counts, said = played.step_counts.get(summary.id, []), verdicts.get(summary.id, [])
        reward = reward_of(summary.id, played.items_T_V(summary), said, step_counts)
        made_of = _made_of(played.checklists[str(summary.scenario_hash)], said, len(step_counts))
        rewards[summary.id] = replace(reward, made_of=made_of)
    return rewards


def states_of(log: Log, trajectory_ids: Iterable[str]) -> dict[str, list[list[TurnStates]]]:
    """What step-level advantages are taken from: by trajectory, for each turn reached, the items of each checklist.

    By the verdicts and checklists that count now. Trajectories that are not judged are left out.
    """
    states: dict[str, list[list[TurnStates]]] = {}
    for chunk in in_chunks(list(dict.fromkeys(trajectory_ids)), _CHUNK):
        played = read_played(log, chunk, with_turns=False)
        verdicts = standing_verdicts(log, played)
        for summary in played.summaries:
            if played.why_not_scored(summary) is None:
                counts = played.step_counts.get(summary.id, [])
                states[summary.id] = dialogue_states(played.items_T_V(summary), verdicts.get(summary.id, []), counts)
    return states


def dialogue_states(
    checklists_T: Sequence[Sequence[Sequence[Item]]], verdicts: Iterable[Verdict], step_counts: Sequence[int]
) -> list[list[TurnStates]]:
    """Of one trajectory, for each turn reached, the items of each checklist; arguments as in `reward_of`."""
    states_T_V = turn_states(checklists_T, verdicts, step_counts)
    return [
        [TurnStates(items, count) for items in variants]
        for variants, count in zip(states_T_V, step_counts, strict=True)
    ]


def items_of(scenario: Scenario, checklists_T: Sequence[Sequence[Checklist]], turn: TurnRecord) -> list[Item]:
    """The items of all checklists that count for the turn. Raises ValueError if the scenario has no such turn."""
    if not 0 <= turn.index < len(scenario.turns):
        raise ValueError(
            f"trajectory {turn.trajectory_id!r} has a turn {turn.index}, but scenario {scenario.name!r} has only "
            f"{len(scenario.turns)} turns: it was not played from this scenario"
        )
    return merged_items(checklists_T[turn.index])


def merged_items(checklists: Sequence[Checklist]) -> list[Item]:
    """The items of a turn's checklists. Variants may share an item: it is judged once."""
    return list({item.id: item for checklist in checklists for item in checklist.items}.values())


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


def _made_of(
    variants_T: Sequence[Sequence[Checklist]], verdicts: Sequence[Verdict], turns_reached: int
) -> dict[str, Any]:
    keys_T = [
        {item.id for checklist in variants for item in checklist.items} for variants in variants_T[:turns_reached]
    ]
    used = [v for v in verdicts if v.turn_index < len(keys_T) and v.item_key in keys_T[v.turn_index]]
    decided = {(v.turn_index, v.item_key) for v in used if v.reason != NO_LONGER}
    waiting = sum((turn, key) not in decided for turn, keys in enumerate(keys_T) for key in keys)
    made_of: dict[str, Any] = {"unasked": waiting} if waiting else {}
    return made_of | {
        "checklists": [[[checklist.variant, checklist.revision] for checklist in variants] for variants in variants_T],
        "newest_verdict": max((v.id for v in used if v.id is not None), default=None),
        "judges": sorted({v.judge for v in used}),
        "software": SOFTWARE,
    }
