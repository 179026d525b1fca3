"""How far judges can be trusted, as HTML: agreement, flips, drift, cost. Pure: from what reward/ measured."""

from collections.abc import Mapping, Sequence

from dashboard.format import percent
from dashboard.links import REVIEW, TRAJECTORIES, address
from dashboard.text import badge, escape, link, soft, table
from reward.agreement import Agreement, Figure
from reward.stability import DriftLine, FlipRate
from store.agreement import JudgeId, Pair
from store.model_calls import CallTotals

Key = tuple[str, ...]


def judge_name(judge: JudgeId) -> str:
    """ "big-judge @1a2b3c4d"."""
    return judge.name if judge.prompt is None else f"{judge.name} @{judge.prompt[:8]}"


def agreement_rows(rows: Mapping[Key, Agreement], headings: Sequence[str]) -> str:
    """A row for each key, whose parts stand under `headings`; each figure with its interval under it."""
    cells = [
        (
            *map(escape, key),
            f"{found.n:,}",
            f"{found.trajectories:,}",
            figure(found.base_rate),
            figure(found.raw),
            figure(found.kappa, as_percent=False),
            figure(found.true_positive_rate),
            figure(found.false_positive_rate),
            _unscored(found),
        )
        for key, found in rows.items()
    ]
    columns = ("pairs", "dialogues", "base rate", "agreement", "κ", "true positive", "false positive", "unscored")
    first = len(headings)
    return table((*headings, *columns), cells, numeric=range(first, first + len(columns)))


def figure(found: Figure, as_percent: bool = True) -> str:
    """A figure over its 95 % interval; what cannot be said says why when it is pointed at."""
    if found.value is None:
        return f'<span title="{escape(found.why)}">–</span>'
    scale, digits, unit = (100, 1, " %") if as_percent else (1, 2, "")
    value = f"<b>{scale * found.value:.{digits}f}{unit}</b>"
    if found.low is None or found.high is None:
        return f'<span title="{escape(found.why)}">{value}</span><br>{soft(_short(found.why))}'
    return f"{value}<br>{soft(f'{scale * found.low:.{digits}f} to {scale * found.high:.{digits}f}')}"


def _short(why: str) -> str:
    return "too few" if "too few" in why else "no interval"


def _unscored(found: Agreement) -> str:
    reference = f"<br>{soft(f'{found.reference_unscored:,} of the reference')}" if found.reference_unscored else ""
    return f"{found.judge_unscored:,}{reference}"


def flip_rows(rows: Mapping[str, FlipRate]) -> str:
    cells = [
        (escape(name), f"{found.items:,}", f"{found.pairs:,}", f"{found.differing:,}", figure(found.rate))
        for name, found in rows.items()
    ]
    return table(("judge", "items asked again", "pairs", "differing", "flip rate"), cells, numeric=(1, 2, 3, 4))


def drift_rows(lines: Sequence[DriftLine]) -> str:
    cells = [
        (
            escape(judge_name(JudgeId(line.judge, line.prompt))),
            escape(str(line.standard)),
            escape(line.period),
            f"{line.agreement.n:,}",
            figure(line.agreement.raw),
            figure(line.agreement.kappa, as_percent=False),
        )
        for line in lines
    ]
    return table(("judge", "held against", "period", "pairs", "agreement", "κ"), cells, numeric=(3, 4, 5))


def cost_rows(totals: Sequence[CallTotals]) -> str:
    cells = [
        (
            escape(one.model),
            escape(one.role),
            f"{one.calls:,}",
            f"{one.failed:,}",
            f"{one.items:,}",
            f"{one.prompt_tokens:,}",
            percent(one.cached_tokens / one.prompt_tokens) if one.prompt_tokens else "–",
            f"{one.completion_tokens:,}",
            _usd(one),
            f"{1000 * one.usd / one.items:.3f} $" if one.items and one.unpriced < one.calls else "–",
        )
        for one in totals
    ]
    columns = ("model", "role", "calls", "failed", "items", "tokens sent", "from cache", "tokens generated")
    return table((*columns, "cost", "per 1,000 items"), cells, numeric=range(2, 10))


def _usd(one: CallTotals) -> str:
    if one.unpriced == one.calls:
        return soft("no price set")
    notes = [f"{one.unpriced:,} calls without a price"] if one.unpriced else []
    notes += [f"{one.estimated:,} calls by an estimate of their tokens"] if one.estimated else []
    return f"{one.usd:,.2f} $" + "".join(f"<br>{soft(note)}" for note in notes)


def disagreement_rows(pairs: Sequence[Pair], questions: Mapping[int, str], first: str, second: str) -> str:
    """Items on which two judges say different things, with the way to the turn, and to it in the queue of the item."""
    cells = [
        (
            escape(questions.get(pair.item_id, "–")),
            badge(pair.reference),
            badge(pair.judged),
            link(
                f"turn {pair.turn_index + 1} of {pair.trajectory_id}",
                f"{address(TRAJECTORIES, trajectory=pair.trajectory_id)}#turn-{pair.turn_index + 1}",
            ),
            link("review", address(REVIEW, turn=f"{pair.trajectory_id}:{pair.turn_index}", item=pair.item_id)),
        )
        for pair in pairs
    ]
    return table(("item", first, second, "dialogue", ""), cells)
