"""Whether a judge says the same again: flips between repeated judgments, drift over time on the anchor set. Pure.

What was said comes from store/agreement.py. UNSCORED is counted apart and never taken for a FAIL (invariant 3).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np

from reward.agreement import DRAWS, Agreement, Figure, measure_agreement, share_figure
from reward.intervals import resample_clusters
from store.agreement import AnchorVerdict, Pair, Repeat
from store.vocabulary import Outcome, Period


@dataclass(frozen=True)
class FlipRate:
    """How often a judge says something else when asked the same again."""

    items: int
    """(turn, item)s with at least two PASS or FAIL."""
    pairs: int
    differing: int
    unscored: int
    """Repeated verdicts that were UNSCORED: in no pair."""
    rate: Figure


class Standard(StrEnum):
    """What a judge's verdicts on the anchor set are held against."""

    PEOPLE = "people"
    FIRST = "its first judging"


@dataclass(frozen=True)
class DriftLine:
    judge: str
    prompt: str | None
    standard: Standard
    period: str
    agreement: Agreement


def measure_flips(repeats: Iterable[Repeat], seed: int, draws: int = DRAWS, confidence: float = 0.95) -> FlipRate:
    """Of all pairs of PASS or FAIL that a judge gave on the same item of the same turn, the share that differ.

    p PASS and f FAIL make (p + f)(p + f - 1)/2 pairs, of which p·f differ.
    """
    counts: dict[str, list[int]] = {}
    items = unscored = 0
    for repeat in repeats:
        unscored += repeat.unscored
        said = repeat.passed + repeat.failed
        if said < 2:
            continue
        items += 1
        of_trajectory = counts.setdefault(repeat.trajectory_id, [0, 0])
        of_trajectory[0] += repeat.passed * repeat.failed
        of_trajectory[1] += said * (said - 1) // 2 - repeat.passed * repeat.failed
    table_K_C = np.array(list(counts.values()), dtype=np.int64).reshape(-1, 2)
    totals = table_K_C.sum(axis=0)
    sums_B_C = resample_clusters(table_K_C, seed, draws)
    rate = share_figure(totals, sums_B_C, (0,), (0, 1), len(counts), confidence, "nothing was judged twice")
    return FlipRate(items, int(totals.sum()), int(totals[0]), unscored, rate)


def measure_drift(
    verdicts: Sequence[AnchorVerdict], period: Period, seed: int, draws: int = DRAWS, confidence: float = 0.95
) -> list[DriftLine]:
    """Each judge's agreement on the anchor set, period by period: with people, and with its own first judging.

    `verdicts` in the order they were said. Of each period a judge's last verdict on an item counts. Its first PASS or
    FAIL on an item is what later *periods* are held against. Periods are those of the calendar in UTC.
    """
    last: dict[tuple[str, str | None, str], dict[tuple[str, int, int], AnchorVerdict]] = {}
    first: dict[tuple[str, str | None, str, int, int], AnchorVerdict] = {}
    for verdict in verdicts:
        judge, unit = (verdict.judge, verdict.prompt), (verdict.trajectory_id, verdict.turn_index, verdict.item_id)
        last.setdefault((*judge, period_of(verdict.created_at, period)), {})[unit] = verdict
        if verdict.outcome != Outcome.UNSCORED:
            first.setdefault((*judge, *unit), verdict)
    lines = []
    for (name, prompt, label), said in last.items():
        with_people, with_first = [], []
        for unit, verdict in said.items():
            if verdict.person is not None:
                with_people.append(_anchor_pair(verdict, verdict.person))
            before = first.get((name, prompt, *unit))
            if before is not None and period_of(before.created_at, period) < label:
                with_first.append(_anchor_pair(verdict, before.outcome))
        for standard, pairs in ((Standard.PEOPLE, with_people), (Standard.FIRST, with_first)):
            if pairs:
                measured = measure_agreement(pairs, seed, draws, confidence)
                lines.append(DriftLine(name, prompt, standard, label, measured))
    return sorted(lines, key=lambda line: (line.judge, line.prompt or "", line.standard, line.period))


def period_of(moment: datetime, period: Period) -> str:
    """2026-11-22, 2026-W47 or 2026-11; later periods sort later."""
    if period is Period.DAY:
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%G-W%V}" if period is Period.WEEK else f"{moment:%Y-%m}"


def _anchor_pair(verdict: AnchorVerdict, reference: Outcome) -> Pair:
    return Pair(*verdict[:3], reference, verdict.outcome, verdict.judge, verdict.prompt, "", "", "", True)
