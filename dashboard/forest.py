"""Rates and means in rows, each drawn as a point on its 95 % interval, with the numbers it stands on beside it.

Pure: from points to escaped HTML that fits any width and both themes.
"""

from collections.abc import Sequence

from dashboard.charts import RatePoint, RewardPoint
from dashboard.format import percent
from dashboard.text import escape
from dashboard.theme import ACCENT, NEUTRAL

_SCALE = '<div class="cl-axis"><span>0</span><span>25</span><span>50</span><span>75</span><span>100 %</span></div>'


def _line(value: float, low: float, high: float, color: str, title: str) -> str:
    return (
        f'<div class="cl-track" title="{escape(title)}">'
        f'<i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%;background:{color}"></i>'
        f'<b style="left:{100 * value:.2f}%;background:{color}"></b></div>'
    )


def _ends(low: float, high: float) -> str:
    return f'<span class="cl-soft">[{100 * low:.0f}, {100 * high:.0f}]</span>'


def rate_rows(points: Sequence[RatePoint]) -> str:
    """A row a rate: label, interval, rate, how many verdicts were judged, what share was left unscored, and of how many
    eligible dialogues they are."""
    rows = []
    for point in points:
        title = f"{percent(point.rate, 1)}, 95 % interval {percent(point.low, 1)} to {percent(point.high, 1)}"
        beside = f"of {point.judged:,} · {percent(1 - point.coverage, 1)} unscored"
        dialogues = f"<br>{escape(point.dialogues)}" if point.dialogues else ""
        rows.append(
            f'<div class="cl-name">{escape(point.label)}</div>'
            f"{_line(point.rate, point.low, point.high, ACCENT, title)}"
            f'<div class="cl-value">{percent(point.rate)} {_ends(point.low, point.high)}</div>'
            f'<div class="cl-soft">{escape(beside)}{dialogues}</div>'
        )
    return f'<div class="cl-forest">{"".join(rows)}<div></div>{_SCALE}</div>'


def reward_rows(points: Sequence[RewardPoint], before: str) -> str:
    """Two rows a domain, the batch `before` in grey above the other one; rewards of 1 are drawn as 100 %."""
    rows, shown = [], ""
    for point in points:
        color = NEUTRAL if point.label == before else ACCENT
        title = f"{point.label}: {point.mean:.3f}, 95 % interval {point.low:.3f} to {point.high:.3f}"
        name = point.domain if point.domain != shown else ""
        shown = point.domain
        rows.append(
            f'<div class="cl-name">{escape(name)}</div>'
            f"{_line(point.mean, point.low, point.high, color, title)}"
            f'<div class="cl-value">{100 * point.mean:.0f} {_ends(point.low, point.high)}</div>'
            f'<div class="cl-soft">{escape(point.label)} · {point.dialogues}</div>'
        )
    return f'<div class="cl-forest">{"".join(rows)}<div></div>{_SCALE.replace(" %", "")}</div>'
