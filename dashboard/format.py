"""Numbers, spans and moments as people read them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reward.intervals import Interval


def percent(share: float | None, digits: int = 0) -> str:
    """0.934 as "93 %"; "–" for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def plural(count: int, noun: str) -> str:
    """ "1 turn", "2,000 turns"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def interval(value: Interval | None, *, as_percent: bool = False) -> str:
    """ "0.412 [0.350, 0.470]", or in percent; "–" for None."""
    if value is None:
        return "–"
    if as_percent:
        return f"{100 * value.mean:.0f} % [{100 * value.low:.0f}, {100 * value.high:.0f}]"
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def points(difference: float, low: float, high: float) -> str:
    """A difference of shares or rewards with its interval, in points of 100: "+3.6 points [+1.2, +6.0]"."""
    return f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def ago(moment: datetime, now: datetime) -> str:
    """ "12 min ago"; both moments carry their zone."""
    seconds = max(0.0, (now - moment).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def moment(when: datetime) -> str:
    """ "2026-05-14 09:05" in UTC."""
    return f"{when:%Y-%m-%d %H:%M}"


def seconds(value: float | None) -> str:
    """ "1 min 12 s", "8.4 s"; "–" for None."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {value % 60:.0f} s"


def figure(value: Any) -> str:
    """Any value of a figures or settings document, short: floats to four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {figure(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(figure(part) for part in value) + "]"
    return str(value)


def figures(document: Mapping[str, Any]) -> str:
    """A flat document on one line: "candidate 0.61 · live 0.55"."""
    return " · ".join(f"{name} {figure(value)}" for name, value in document.items())
