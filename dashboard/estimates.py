"""Rates and rewards with their intervals: from counts and rewards in the log to what charts and tables show.

Pure but for `estimate_batches` and `compare_batches`, which read store.figures. Bootstraps are seeded, so the same log
shows the same intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.charts import RatePoint, RewardPoint
from reward.intervals import Interval, PairedInterval, bootstrap_mean, paired_bootstrap, wilson
from store.database import Log
from store.figures import Counts, EvaluationReward, evaluation_rewards
from store.vocabulary import Split

SEED = 0
DRAWS = 4_000


@dataclass(frozen=True)
class BatchFigures:
    """One evaluation batch. `reward` and `passed` are None where nothing of it could be judged."""

    batch: str
    version: str
    split: str
    dialogues: int
    judged: int
    reward: Interval | None
    """Mean trajectory reward (equation 4)."""
    passed: Interval | None
    """Share of fully passed dialogues."""


@dataclass(frozen=True)
class Comparison:
    """Two evaluation batches over the scenarios that both played and both could be judged on. Intervals are of 95 %."""

    before_batch: str
    after_batch: str
    before_version: str
    after_version: str
    pairs: int
    unjudged: int
    """Scenarios that both played, but could not both be judged on."""
    reward: Interval
    """Mean trajectory reward of the batch after, over the pairs."""
    difference: PairedInterval
    passed: Interval
    """Share of fully passed dialogues of the batch after, over the pairs."""
    passed_difference: PairedInterval
    by_domain: tuple[RewardPoint, ...]


def rate_points(
    counts: Mapping[Any, Counts], dialogues: Mapping[Any, str] | str = "", *, worst_first: bool = False
) -> list[RatePoint]:
    """A point with a Wilson interval for each label of which anything was judged.

    `dialogues`: for each label how many of its dialogues are judged, or for all of them why that is not counted.
    """
    points = [
        RatePoint(
            str(label),
            share.mean,
            share.low,
            share.high,
            c.judged,
            c.coverage or 0.0,
            dialogues=dialogues if isinstance(dialogues, str) else dialogues.get(label, ""),
        )
        for label, c in counts.items()
        if c.judged and (share := wilson(c.passed, c.judged))
    ]
    return sorted(points, key=lambda point: point.rate) if worst_first else points


def estimate_batches(log: Log) -> list[BatchFigures]:
    """Every evaluation batch, in the order of play."""
    return [_batch(name, rewards) for name, rewards in _by_batch(evaluation_rewards(log)).items()]


def default_pair(batches: Sequence[BatchFigures]) -> tuple[str, str] | None:
    """First and last judged batch of test scenarios, or of any if there are no two; None if there are no two at all."""
    judged = [batch for batch in batches if batch.judged]
    test = [batch for batch in judged if batch.split == Split.TEST]
    chosen = test if len(test) > 1 else judged
    return (chosen[0].batch, chosen[-1].batch) if len(chosen) > 1 else None


def compare_batches(log: Log, *, before: str, after: str) -> Comparison | None:
    """The paired comparison of two batches; None if they share no judged scenario."""
    batches = _by_batch(evaluation_rewards(log))
    first = _judged(batches.get(before, []))
    second = _judged(batches.get(after, []))
    shared = [key for key in first if key in second]
    if not shared:
        return None
    values_before = [_value(first[key]) for key in shared]
    values_after = [_value(second[key]) for key in shared]
    passed_before = [float(bool(first[key].fully_passed)) for key in shared]
    passed_after = [float(bool(second[key].fully_passed)) for key in shared]
    played = {_key(reward) for reward in batches[before]} & {_key(reward) for reward in batches[after]}
    one, other = first[shared[0]], second[shared[0]]
    return Comparison(
        before_batch=before,
        after_batch=after,
        before_version=one.version,
        after_version=other.version,
        pairs=len(shared),
        unjudged=len(played) - len(shared),
        reward=bootstrap_mean(values_after, SEED, DRAWS),
        difference=paired_bootstrap(values_before, values_after, SEED, DRAWS),
        passed=bootstrap_mean(passed_after, SEED, DRAWS),
        passed_difference=paired_bootstrap(passed_before, passed_after, SEED, DRAWS),
        by_domain=tuple(
            _point(batch, domain, [rewards[key] for key in shared if rewards[key].domain == domain])
            for domain in sorted({first[key].domain for key in shared}, key=lambda d: _place(d, first.values()))
            for batch, rewards in ((before, first), (after, second))
        ),
    )


def _by_batch(rewards: Sequence[EvaluationReward]) -> dict[str, list[EvaluationReward]]:
    batches: dict[str, list[EvaluationReward]] = {}
    for reward in rewards:
        batches.setdefault(reward.batch, []).append(reward)
    return batches


def _batch(name: str, rewards: Sequence[EvaluationReward]) -> BatchFigures:
    judged = list(_judged(rewards).values())
    values = [_value(reward) for reward in judged]
    passed = [float(bool(reward.fully_passed)) for reward in judged]
    return BatchFigures(
        batch=name,
        version=", ".join(sorted({reward.version for reward in rewards})),
        split=rewards[0].split,
        dialogues=len(rewards),
        judged=len(judged),
        reward=bootstrap_mean(values, SEED, DRAWS) if values else None,
        passed=bootstrap_mean(passed, SEED, DRAWS) if passed else None,
    )


def _judged(rewards: Sequence[EvaluationReward]) -> dict[tuple[str, int], EvaluationReward]:
    return {_key(reward): reward for reward in rewards if reward.value is not None}


def _key(reward: EvaluationReward) -> tuple[str, int]:
    return reward.scenario_hash, reward.member


def _value(reward: EvaluationReward) -> float:
    assert reward.value is not None
    return reward.value


def _point(batch: str, domain: str, rewards: Sequence[EvaluationReward]) -> RewardPoint:
    mean = bootstrap_mean([_value(reward) for reward in rewards], SEED, DRAWS)
    label = domain if rewards[0].seen else f"{domain} (unseen)"
    return RewardPoint(batch, label, mean.mean, mean.low, mean.high, len(rewards))


def _place(domain: str, rewards: Any) -> tuple[bool, str]:
    """Seen domains first, then unseen ones, each by name."""
    return (not next(reward.seen for reward in rewards if reward.domain == domain), domain)
