"""What wrong verdicts leave of the advantages, at each level: the same logged groups, with and without them.

Nothing is trained. What a run learns from is the sum of advantage times gradient over steps; where the advantages under
a judge that errs point elsewhere than those under the checks, so does what is learned.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.line import Line
from reward.outcomes import reward_of
from reward.scoring import dialogue_states, read_played, standing_verdicts
from store.database import Log
from store.records import Item
from store.training_settings import GrpoSettings
from store.verdicts import Verdict
from store.vocabulary import Outcome, VerdictSource
from train.groups import TrainingGroup, TrainingMember, advantages_by_step, load_groups

LEVELS = ("trajectory", "turn", "step")
WRONG_JUDGE = "errs on purpose"
DRAWS = 1000


@dataclass(frozen=True)
class Told:
    """What advantages are made of again once verdicts have changed."""

    items_T_V: list[list[tuple[Item, ...]]]
    verdicts: list[Verdict]
    step_counts: list[int]


def noise_lines(log: Log, batches: Sequence[str], shares: Sequence[float]) -> list[Line]:
    """For each share of wrong verdicts and each level the cosine between the advantages of all steps without and with
    them (1: nothing is lost, 0: nothing is left), with a 95 % bootstrap interval over groups."""
    groups = [group for batch in batches for group in load_groups(log, batch, step_level=True)]
    told = _told(log, [member.trajectory_id for group in groups for member in group.members])
    found = []
    for share in shares:
        turned = [_turned(group, told, share) for group in groups]
        for level in LEVELS:
            products = [_products(a, b, level) for a, b in zip(groups, turned, strict=True)]
            low, high = _interval(products)
            found.append(
                Line(
                    f"advantages by {level}, {100 * share:.0f} % of verdicts wrong",
                    f"cosine {_cosine(products):.3f}",
                    "the same without",
                    f"[{low:.3f}, {high:.3f}]",
                    "",
                )
            )
    return found


def turned_round(verdicts: Sequence[Verdict], steps_T: Sequence[int], share: float) -> list[Verdict]:
    """The opposite of each verdict that is drawn, by a draw of its own; a PASS for a FAIL holds from some step on.

    `steps_T`: the number of steps of each turn reached. UNSCORED stays, and what was said before is not drawn anew.
    """
    found = []
    for verdict in verdicts:
        draw = random.Random(f"{verdict.trajectory_id} {verdict.turn_index} {verdict.item_key}")
        if verdict.outcome is Outcome.UNSCORED or verdict.judge == WRONG_JUDGE or draw.random() >= share:
            continue
        passes = verdict.outcome is Outcome.FAIL
        step = draw.randrange(steps_T[verdict.turn_index]) if passes else None
        found.append(
            replace(
                verdict,
                outcome=Outcome.PASS if passes else Outcome.FAIL,
                step_index=step,
                source=VerdictSource.LLM,
                judge=WRONG_JUDGE,
                reason="turned round",
                quote="",
                created_at=None,
                id=None,
            )
        )
    return found


def _told(log: Log, names: Sequence[str]) -> dict[str, Told]:
    played = read_played(log, names, with_turns=False)
    verdicts = standing_verdicts(log, played)
    return {
        summary.id: Told(played.items_T_V(summary), verdicts.get(summary.id, []), played.step_counts[summary.id])
        for summary in played.summaries
        if played.why_not_scored(summary) is None
    }


def _turned(group: TrainingGroup, told: dict[str, Told], share: float) -> TrainingGroup:
    return replace(group, members=tuple(_told_wrong(member, told, share) for member in group.members))


def _told_wrong(member: TrainingMember, told: dict[str, Told], share: float) -> TrainingMember:
    if member.reward is None:
        return member
    known = told[member.trajectory_id]
    wrong = {(one.turn_index, one.item_key): one for one in turned_round(known.verdicts, known.step_counts, share)}
    verdicts = [wrong.get((one.turn_index, one.item_key), one) for one in known.verdicts]
    reward = reward_of(member.trajectory_id, known.items_T_V, verdicts, known.step_counts)
    states_T_V = dialogue_states(known.items_T_V, verdicts, known.step_counts)
    return replace(
        member,
        reward=reward.value,
        turn_values=reward.turn_values,
        states_T_V=tuple(tuple(variants) for variants in states_T_V),
    )


def _products(clean: TrainingGroup, turned: TrainingGroup, level: str) -> tuple[float, float, float]:
    """Sums over the steps of all members: without times with, and each squared."""
    settings = GrpoSettings(advantage=level)
    before, after = advantages_by_step(clean, settings), advantages_by_step(turned, settings)
    pairs = [(a, b) for name, steps in before.items() for (_, _, a), (_, _, b) in zip(steps, after[name], strict=True)]
    return sum(a * b for a, b in pairs), sum(a * a for a, _ in pairs), sum(b * b for _, b in pairs)


def _cosine(products: Sequence[tuple[float, float, float]]) -> float:
    both, clean, turned = (math.fsum(column) for column in zip(*products, strict=True))
    return both / math.sqrt(clean * turned) if clean * turned > 0 else math.nan


def _interval(products: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    draw = random.Random(1)
    drawn = sorted(_cosine(draw.choices(products, k=len(products))) for _ in range(DRAWS))
    return drawn[round(0.025 * (DRAWS - 1))], drawn[round(0.975 * (DRAWS - 1))]
