"""Two policy versions on the same scenarios: paired difference, regressions first, items gained and lost.

The unit is the scenario: its value is the mean reward (equation 4) of its judged dialogues. Where both versions played
it with the same seeds, only those dialogues count: same scenario and seed is the same simulated world (invariant 5). A
dialogue that could not be judged leaves (invariant 3), and a scenario with it that has no other. Evaluations and
rollouts are never mixed: they are sampled at different temperatures.

Reads the log through store/played.py; the pairing is pure.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reward.intervals import PairedInterval, paired_bootstrap
from store.checklists import current_checklists
from store.database import Log
from store.figures import Counts
from store.played import ItemOutcome, ItemWords, PlayedDialogue, outcomes_of, played_by, words_of
from store.scenarios import get_scenarios
from store.vocabulary import Origin, Outcome, Split

DRAWS = 4_000
FEWEST = 10
"""Scenarios that an interval needs."""


@dataclass(frozen=True)
class ScenarioPair:
    """One scenario that both versions played; the dialogues that count, all of them judged."""

    scenario_hash: str
    scenario: str
    domain: str
    seen: bool
    before: tuple[PlayedDialogue, ...]
    after: tuple[PlayedDialogue, ...]
    same_worlds: bool
    """They are of the same seeds."""

    @property
    def before_mean(self) -> float:
        return _mean(self.before)

    @property
    def after_mean(self) -> float:
        return _mean(self.after)

    @property
    def difference(self) -> float:
        return self.after_mean - self.before_mean


@dataclass(frozen=True)
class LeftOut:
    """What is in no pair."""

    only_before: int
    """Scenarios that the version after has no judged dialogue of."""
    only_after: int
    unjudged_before: int
    """Dialogues without a reward."""
    unjudged_after: int
    unjudged: int
    """Scenarios that both versions played, but could not both be judged on."""


@dataclass(frozen=True)
class Stratum:
    """The scenarios of one domain, or all of them. Means are of rewards in [0, 1]; a scenario with several dialogues
    counts as one, with their mean."""

    name: str
    scenarios: int
    before_mean: float
    after_mean: float
    difference: float
    interval: PairedInterval | None
    """Of the difference; None for fewer than FEWEST scenarios."""
    passed_before: float
    """Share of fully passed dialogues."""
    passed_after: float
    passed_interval: PairedInterval | None
    """Of the difference of these shares; None as `interval`."""
    better: int
    """Scenarios whose value rose."""
    worse: int


@dataclass(frozen=True)
class ItemChange:
    """An item that passes in another share of a scenario's dialogues than before; not reached is not passed, and counts
    as failed here."""

    item: ItemWords
    scenario: str
    counts_before: Counts
    counts_after: Counts

    @property
    def before(self) -> float:
        return self.counts_before.rate or 0.0

    @property
    def after(self) -> float:
        return self.counts_after.rate or 0.0


@dataclass(frozen=True)
class VersionComparison:
    before: str
    after: str
    origin: Origin
    pairs: tuple[ScenarioPair, ...]
    """Regressions first: by difference."""
    left_out: LeftOut
    all: Stratum | None
    """None without pairs."""
    domains: tuple[Stratum, ...]
    lost: tuple[ItemChange, ...]
    """The greatest loss first."""
    gained: tuple[ItemChange, ...]
    verdicts_before: Counts
    """On the dialogues of the pairs."""
    verdicts_after: Counts


def compare_versions(
    log: Log,
    *,
    before: str,
    after: str,
    origin: Origin = Origin.EVALUATION,
    split: Split | None = None,
    domain: str | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> VersionComparison:
    """What changed from one version to the other on the scenarios that both played. Intervals are of 95 %."""
    played = [played_by(log, version, origin=origin, split=split, domain=domain) for version in (before, after)]
    pairs, left_out = pair_dialogues(*played)
    domains = sorted({(not pair.seen, pair.domain) for pair in pairs})
    said = by_dialogue(outcomes_of(log, (one.trajectory_id for pair in pairs for one in (*pair.before, *pair.after))))
    changes = _item_changes(log, pairs, said)
    return VersionComparison(
        before=before,
        after=after,
        origin=origin,
        pairs=tuple(pairs),
        left_out=left_out,
        all=measure_pairs("all", pairs, seed, draws) if pairs else None,
        domains=tuple(
            measure_pairs(name + (" (unseen)" if unseen else ""), [p for p in pairs if p.domain == name], seed, draws)
            for unseen, name in domains
        ),
        lost=tuple(change for change in changes if change.after < change.before),
        gained=tuple(change for change in reversed(changes) if change.after > change.before),
        verdicts_before=_verdicts((one for pair in pairs for one in pair.before), said),
        verdicts_after=_verdicts((one for pair in pairs for one in pair.after), said),
    )


def pair_dialogues(
    before: Sequence[PlayedDialogue], after: Sequence[PlayedDialogue]
) -> tuple[list[ScenarioPair], LeftOut]:
    """The scenarios of which both sides have a judged dialogue, by difference: the greatest loss first."""
    judged_before, judged_after = _by_scenario(before), _by_scenario(after)
    pairs = [_pair(judged_before[digest], judged_after[digest]) for digest in judged_before if digest in judged_after]
    played_by_both = {one.scenario_hash for one in before} & {one.scenario_hash for one in after}
    pairs.sort(key=lambda pair: (pair.difference, pair.domain, pair.scenario))
    return pairs, LeftOut(
        only_before=len(judged_before) - len(pairs),
        only_after=len(judged_after) - len(pairs),
        unjudged_before=sum(dialogue.value is None for dialogue in before),
        unjudged_after=sum(dialogue.value is None for dialogue in after),
        unjudged=len(played_by_both) - len(pairs),
    )


def measure_pairs(name: str, pairs: Sequence[ScenarioPair], seed: int, draws: int = DRAWS) -> Stratum:
    """Raises ValueError without pairs."""
    values = [(pair.before_mean, pair.after_mean) for pair in pairs]
    before, after = [value for value, _ in values], [value for _, value in values]
    interval = paired_bootstrap(before, after, seed, draws)
    passed = [(_passed(pair.before), _passed(pair.after)) for pair in pairs]
    passed_before, passed_after = [share for share, _ in passed], [share for _, share in passed]
    enough = len(pairs) >= FEWEST
    return Stratum(
        name=name,
        scenarios=len(pairs),
        before_mean=sum(before) / len(pairs),
        after_mean=sum(after) / len(pairs),
        difference=interval.mean_difference,
        interval=interval if enough else None,
        passed_before=sum(passed_before) / len(pairs),
        passed_after=sum(passed_after) / len(pairs),
        passed_interval=paired_bootstrap(passed_before, passed_after, seed, draws) if enough else None,
        better=sum(pair.difference > 0 for pair in pairs),
        worse=sum(pair.difference < 0 for pair in pairs),
    )


def item_counts(pair: ScenarioPair, outcomes: Mapping[str, Mapping[int, Outcome]]) -> dict[int, tuple[Counts, Counts]]:
    """For each item of the scenario in how many dialogues it passed, before and after.

    `outcomes`: trajectory id to item id to verdict. An item without one was not reached, which is not passed: it counts
    as failed. Where every verdict of a side is UNSCORED nothing can be said, and the item is left out.
    """
    items = {item for dialogue in (*pair.before, *pair.after) for item in outcomes.get(dialogue.trajectory_id, {})}
    counts = {}
    for item in sorted(items):
        before, after = (
            _counts(outcomes.get(one.trajectory_id, {}).get(item, Outcome.FAIL) for one in side)
            for side in (pair.before, pair.after)
        )
        if before.judged and after.judged:
            counts[item] = (before, after)
    return counts


def _item_changes(
    log: Log, pairs: Sequence[ScenarioPair], said: Mapping[str, Mapping[int, Outcome]]
) -> list[ItemChange]:
    """By difference, the greatest loss first. Items that no checklist of today holds are left out."""
    changed = [
        (pair, item, before, after)
        for pair in pairs
        for item, (before, after) in item_counts(pair, said).items()
        if before.rate != after.rate
    ]
    words = words_of(log, (item for _, item, _, _ in changed))
    scenarios = get_scenarios(log, {pair.scenario_hash for pair, _, _, _ in changed})
    today = {
        (digest, turn, item.id)
        for digest, checklists_T in current_checklists(log, scenarios.values()).items()
        for turn, variants in enumerate(checklists_T)
        for checklist in variants
        for item in checklist.items
    }
    changes = [
        ItemChange(words[item], pair.scenario, before, after)
        for pair, item, before, after in changed
        if (words[item].scenario_hash, words[item].turn_index, words[item].key) in today
    ]
    return sorted(changes, key=lambda change: (change.after - change.before, change.scenario, change.item.id))


def by_dialogue(outcomes: Iterable[ItemOutcome]) -> dict[str, dict[int, Outcome]]:
    """Trajectory id to item id to verdict."""
    found: dict[str, dict[int, Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.trajectory_id, {})[outcome.item_id] = outcome.outcome
    return found


def _verdicts(dialogues: Iterable[PlayedDialogue], said: Mapping[str, Mapping[int, Outcome]]) -> Counts:
    return _counts(outcome for one in dialogues for outcome in said.get(one.trajectory_id, {}).values())


def _counts(outcomes: Iterable[Outcome]) -> Counts:
    number = Counter(outcomes)
    return Counts(number[Outcome.PASS], number[Outcome.FAIL], number[Outcome.UNSCORED])


def _by_scenario(dialogues: Sequence[PlayedDialogue]) -> dict[str, list[PlayedDialogue]]:
    judged: dict[str, list[PlayedDialogue]] = {}
    for dialogue in dialogues:
        if dialogue.value is not None:
            judged.setdefault(dialogue.scenario_hash, []).append(dialogue)
    return judged


def _pair(before: Sequence[PlayedDialogue], after: Sequence[PlayedDialogue]) -> ScenarioPair:
    shared = {one.seed for one in before} & {one.seed for one in after} - {None}
    first = before[0]
    return ScenarioPair(
        scenario_hash=first.scenario_hash,
        scenario=first.scenario,
        domain=first.domain,
        seen=first.seen,
        before=tuple(one for one in before if not shared or one.seed in shared),
        after=tuple(one for one in after if not shared or one.seed in shared),
        same_worlds=bool(shared),
    )


def _mean(dialogues: Sequence[PlayedDialogue]) -> float:
    values = [one.value for one in dialogues if one.value is not None]
    return sum(values) / len(values)


def _passed(dialogues: Sequence[PlayedDialogue]) -> float:
    passed = [bool(one.fully_passed) for one in dialogues]
    return sum(passed) / len(passed)
