"""What a gate looks at beside the mean reward: domains, strict items, safety items. Reads a batch of the log.

A strict item (`required_for_next_turn`) keeps the rest of a dialogue from happening. A safety item is one whose key
matches a pattern of `gate.safety_items`; for these there is no average: one that the live version passes and the
candidate fails is enough to refuse it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from reward.intervals import sign_flips
from reward.scoring import read_played
from store.database import Log
from store.runs import run_trajectories
from store.trajectories import list_trajectories
from store.verdicts import rewards_of, verdicts_of
from store.versions import get_version
from store.vocabulary import Outcome


@dataclass(frozen=True)
class Looked:
    """What a version did on a validation scenario; items as "turn/key" -> passed, no UNSCORED ones."""

    domain: str
    strict: Mapping[str, bool]
    """Of the dialogue whose reward counts; empty without one."""
    safety: Mapping[str, bool]
    """Of every dialogue, whether it has a reward or not: passed only if it did in all of them."""
    unscored: frozenset[str] = frozenset()
    """Safety items that were put to a judge and could not be scored in any of them."""


@dataclass(frozen=True)
class Worse:
    """Something of which the candidate is worse than chance explains."""

    name: str
    pairs: int
    live: float
    candidate: float
    p: float
    """Of as great a loss by chance, before the correction for the number of comparisons."""


def look_at_batch(log: Log, batch: str, patterns: Sequence[str]) -> dict[str, Looked]:
    """By scenario hash. The dialogue whose reward counts is that of `one_each`: the first that could be judged.

    An UNSCORED item or a server that died leaves a dialogue without a reward; a safety item that failed in it failed.
    """
    ended = [s for s in list_trajectories(log, batch=batch, limit=None) if s.stop_reason is not None]
    names = [summary.id for summary in ended]
    rewards, verdicts = rewards_of(log, names), verdicts_of(log, names)
    checklists = read_played(log, names, with_turns=False).checklists
    looked: dict[str, Looked] = {}
    counted: set[str] = set()
    for summary in ended:
        digest, reward = str(summary.scenario_hash), rewards.get(summary.id)
        counts = digest not in counted and reward is not None and reward.value is not None
        strict_keys = {
            (turn, item.id)
            for turn, variants in enumerate(checklists[digest])
            for checklist in variants
            for item in checklist.items
            if item.required_for_next_turn
        }
        before = looked.get(digest)
        strict = dict(before.strict) if before else {}
        safety = dict(before.safety) if before else {}
        unscored = set(before.unscored) if before else set()
        for verdict in verdicts.get(summary.id, []):
            name, passed = f"{verdict.turn_index}/{verdict.item_key}", verdict.outcome is Outcome.PASS
            if verdict.outcome is Outcome.UNSCORED:
                unscored |= {name} if any(fnmatchcase(verdict.item_key, pattern) for pattern in patterns) else set()
                continue
            if counts and (verdict.turn_index, verdict.item_key) in strict_keys:
                strict[name] = passed
            if any(fnmatchcase(verdict.item_key, pattern) for pattern in patterns):
                safety[name] = passed and safety.get(name, True)
        counted |= {digest} if counts else set()
        looked[digest] = Looked(summary.domain or "", strict, safety, frozenset(unscored - safety.keys()))
    return looked


def what_is_worse(
    live: Mapping[str, Looked],
    candidate: Mapping[str, Looked],
    rewards: Mapping[str, tuple[float, float]],
    *,
    confidence: float,
    seed: int,
) -> tuple[list[Worse], int]:
    """Domains (by reward) and strict items (by outcome, of one key in one domain) of which the candidate is worse, and
    how many were compared.

    `rewards`: by scenario of (live, candidate). One-sided sign-flip test on the pairs, at a level divided by the number
    of comparisons (Bonferroni): with twenty domains at 5 % one would be "worse" at every gate.
    """
    compared: dict[str, list[tuple[float, float]]] = {}
    for digest in sorted(live.keys() & candidate.keys() & rewards.keys()):
        old, new = live[digest], candidate[digest]
        compared.setdefault(f"domain {old.domain}", []).append(rewards[digest])
        for name in sorted(old.strict.keys() & new.strict.keys()):
            key = name.partition("/")[2]
            pair = float(old.strict[name]), float(new.strict[name])
            compared.setdefault(f"strict item {key} of {old.domain}", []).append(pair)
    worse = []
    for name, pairs in sorted(compared.items()):
        lost = [a - b for a, b in pairs]
        p = sign_flips(lost, seed)
        if sum(lost) > 0 and p * len(compared) < 1 - confidence:
            before, after = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
            worse.append(Worse(name, len(pairs), before, after, p))
    return worse, len(compared)


def broken_safety(live: Mapping[str, Looked], candidate: Mapping[str, Looked]) -> list[str]:
    """ "scenario: turn/key" of every safety item that the candidate fails and the live version does not fail there."""
    return [
        f"{digest[:12]}: {name}"
        for digest, looked in sorted(candidate.items())
        for name, passed in sorted(looked.safety.items())
        if not passed and digest in live and live[digest].safety.get(name, True)
    ]


def unknown_safety(live: Mapping[str, Looked], candidate: Mapping[str, Looked]) -> list[str]:
    """ "scenario: turn/key" of every safety item that the live version passes and that could not be scored of the
    candidate: nobody knows whether it breaks that one."""
    return [
        f"{digest[:12]}: {name}"
        for digest, looked in sorted(candidate.items())
        for name in sorted(looked.unscored)
        if digest in live and live[digest].safety.get(name, False)
    ]


def trained_reward(log: Log, version: str) -> float | None:
    """The mean reward of what a version's run trained on; None for a version without such a run."""
    run_id = get_version(log, version).run_id
    names = list(run_trajectories(log, run_id)) if run_id is not None else []
    values: list[Any] = [reward.value for reward in rewards_of(log, names).values() if reward.value is not None]
    return sum(values) / len(values) if values else None
