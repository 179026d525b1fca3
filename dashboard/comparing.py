"""A comparison of two versions as HTML: differences on their intervals, scenarios, items, two dialogues. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboard.alignment import align_steps
from dashboard.dialogue import step_html, user_html
from dashboard.format import percent, plural
from dashboard.format import points as format_points
from dashboard.links import COMPARE, TRAJECTORIES, address
from dashboard.text import badge, chip, escape, link, soft, table
from dashboard.theme import ACCENT, CONTRAST, NEUTRAL, change_color
from reward.comparison import FEWEST, ItemChange, LeftOut, ScenarioPair, Stratum, VersionComparison
from store.browsing import StepFigures
from store.figures import Counts
from store.records import TurnRecord
from store.vocabulary import Outcome

_REACHES = (5, 10, 25, 50, 100)
"""Points, to which the scale of differences may reach on either side of 0."""


def default_versions(versions: Sequence[str], live: str | None, before: Sequence[str]) -> tuple[str, str] | None:
    """The newest version against the live one; where the newest is live itself, or the live one has not played,
    against the first of `before` (the newest one's predecessors) that has, else the one that played before it."""
    if len(versions) < 2:
        return None
    *earlier, newest = versions
    wanted = before if live is None or live == newest else [live, *before]
    return next((name for name in wanted if name in earlier), earlier[-1]), newest


def points(stratum: Stratum) -> str:
    """ "+12.0 points [+4.1, +19.8]"."""
    if stratum.interval is None:
        return f"{100 * stratum.difference:+.1f} points"
    return format_points(stratum.difference, stratum.interval.low, stratum.interval.high)


def verdict_on(stratum: Stratum, before: str, after: str) -> str:
    """In one sentence, which version is better."""
    if stratum.interval is None:
        return f"{plural(stratum.scenarios, 'scenario')}: too few to say (an interval needs {FEWEST})"
    if stratum.interval.low > 0:
        return f"{after} is better than {before}"
    if stratum.interval.high < 0:
        return f"{after} is worse than {before}"
    return f"No difference between {before} and {after} that {plural(stratum.scenarios, 'scenario')} could show"


def difference_rows(strata: Sequence[Stratum]) -> str:
    """A row a stratum: the paired difference in points on its 95 % interval, 0 in the middle."""
    ends = [abs(100 * value) for one in strata for value in _ends(one)]
    reach = next((reach for reach in _REACHES if reach >= max(ends, default=0)), _REACHES[-1])
    rows = []
    for one in strata:
        low, high = _ends(one)
        color = NEUTRAL if one.interval is None else change_color(low, high)
        ends_of = "no interval" if one.interval is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        left, width = _place(low, reach), _place(high, reach) - _place(low, reach)
        rows.append(
            f'<div class="cl-name">{escape(one.name)}</div>'
            f'<div class="cl-track cl-zero" title="{escape(points(one))}">'
            f'<i style="left:{left:.2f}%;width:{width:.2f}%;background:{color}"></i>'
            f'<b style="left:{_place(one.difference, reach):.2f}%;background:{color}"></b></div>'
            f'<div class="cl-value">{100 * one.difference:+.1f} <span class="cl-soft">{ends_of}</span></div>'
            f'<div class="cl-soft">{one.before_mean:.3f} → {one.after_mean:.3f} · '
            f"{plural(one.scenarios, 'scenario')}</div>"
        )
    marks = "".join(f"<span>{mark:+d}</span>" if mark else "<span>0</span>" for mark in (-reach, 0, reach))
    return f'<div class="cl-forest">{"".join(rows)}<div></div><div class="cl-axis">{marks}</div></div>'


def _ends(stratum: Stratum) -> tuple[float, float]:
    if stratum.interval is None:
        return stratum.difference, stratum.difference
    return stratum.interval.low, stratum.interval.high


def _place(value: float, reach: int) -> float:
    """Percent from the left end of the track."""
    return min(100.0, max(0.0, 50 + 50 * 100 * value / reach))


def paired_note(found: VersionComparison) -> str:
    """What the figures stand on: how many scenarios are paired, and what share of the verdicts there is UNSCORED."""
    pairs, both = len(found.pairs), len(found.pairs) + found.left_out.unjudged
    sides = ((found.verdicts_before, found.before), (found.verdicts_after, found.after))
    unscored = ", ".join(
        f"{percent(1 - counts.coverage if counts.coverage is not None else None, 1)} of {counts.total:,} on {version}"
        for counts, version in sides
    )
    judged = f"Paired: {pairs:,} of the {plural(both, 'scenario')} that both played ({percent(pairs / both)})"
    return f"{judged}, {found.left_out.unjudged:,} left out as not judged · UNSCORED verdicts: {unscored}"


def left_out_note(left_out: LeftOut, before: str, after: str) -> str:
    """What is in no pair; empty if everything is."""
    parts = [
        f"{plural(count, 'scenario')} judged for {version} alone"
        for count, version in ((left_out.only_before, before), (left_out.only_after, after))
        if count
    ]
    parts += [
        f"{plural(count, 'dialogue')} of {version} that could not be judged"
        for count, version in ((left_out.unjudged_before, before), (left_out.unjudged_after, after))
        if count
    ]
    return "Left out: " + ", ".join(parts) if parts else ""


def pair_rows(pairs: Sequence[ScenarioPair], before: str, after: str, parameters: Mapping[str, str]) -> str:
    """A row a scenario, with the way to its dialogues side by side."""
    rows = [
        (
            link(pair.scenario, address(COMPARE, **parameters, scenario=pair.scenario_hash)),
            escape(pair.domain + ("" if pair.seen else " · unseen")),
            f"{pair.before_mean:.2f}",
            f"{pair.after_mean:.2f}",
            _signed(pair.difference),
            escape(_count(pair)),
        )
        for pair in pairs
    ]
    columns = ("scenario", "domain", f"reward {before}", f"reward {after}", "difference, points", "dialogues")
    return table(columns, rows, numeric=(2, 3, 4))


def _count(pair: ScenarioPair) -> str:
    count = f"{len(pair.before)} and {len(pair.after)}" if len(pair.before) + len(pair.after) > 2 else "1 each"
    return count if pair.same_worlds else f"{count}, other seeds"


def signed(difference: float) -> str:
    """ "+12", "-3", "0": points without decimals."""
    rounded = round(100 * difference)
    return f"{rounded:+d}" if rounded else "0"


def _signed(difference: float) -> str:
    color = NEUTRAL if difference == 0 else ACCENT if difference > 0 else CONTRAST
    arrow = "■" if difference == 0 else "▲" if difference > 0 else "▼"
    return f'<span style="color:{color}">{arrow}</span> {signed(difference)}'


def item_change_rows(changes: Sequence[ItemChange], before: str, after: str, parameters: Mapping[str, str]) -> str:
    rows = [
        (
            escape(change.item.question),
            escape(change.item.kind) + (f" {chip('strict')}" if change.item.strict else ""),
            link(
                f"{change.scenario}, turn {change.item.turn_index + 1}",
                address(COMPARE, **parameters, scenario=change.item.scenario_hash),
            ),
            _passed(change.counts_before),
            _passed(change.counts_after),
        )
        for change in changes
    ]
    return table(("question", "kind", "scenario", f"passed {before}", f"passed {after}"), rows, numeric=(3, 4))


def _passed(counts: Counts) -> str:
    """ "67 % of 3 dialogues", with how many are UNSCORED beside them."""
    beside = f"of {plural(counts.judged, 'dialogue')}" + (f" · {counts.unscored:,} UNSCORED" if counts.unscored else "")
    return f"{percent(counts.rate)} {soft(beside)}"


@dataclass(frozen=True)
class Side:
    """One of two dialogues: a turn of it (None if it ended before), what its steps cost, its arguments as sampled."""

    turn: TurnRecord | None
    figures: Mapping[tuple[int, int], StepFigures]
    sampled: Mapping[str, str]


def side_by_side(left: Side, right: Side) -> str:
    """One turn of two dialogues in two columns; what differs stands over the steps concerned, which are marked."""
    sides = (left, right)
    cells = []
    users = [side.turn.user if side.turn else None for side in sides]
    if users[0] == users[1] and users[0] is not None:
        cells.append(f'<div class="cl-both">{user_html(users[0])}</div>')
    else:
        cells += [user_html(user) if user is not None else soft("this dialogue ended before") for user in users]
    for pair in align_steps(*(side.turn.steps if side.turn else () for side in sides)):
        for step, side in zip((pair.left, pair.right), sides, strict=True):
            if step is None or side.turn is None:
                cells.append('<div class="cl-gap"></div>')
                continue
            weighty = any(what != "thinking" for what in pair.differs)
            note = f'<div class="cl-row">{"".join(chip(what) for what in pair.differs)}</div>' if pair.differs else ""
            body = step_html(step, side.figures.get((side.turn.index, step.index)), side.sampled)
            cells.append(f'<div class="{"cl-differs" if weighty else "cl-same"}">{note}{body}</div>')
    return f'<div class="cl-sides">{"".join(cells)}</div>'


def outcome_rows(rows: Sequence[tuple[str, Outcome | None, Outcome | None]], before: str, after: str) -> str:
    """Items of a turn with both verdicts; what changed comes first."""
    ordered = sorted(rows, key=lambda row: not _changed(*row[1:]))
    cells = [
        (escape(question), _verdict(left), _verdict(right), chip("differs") if _changed(left, right) else "")
        for question, left, right in ordered
    ]
    return table(("item", before, after, ""), cells)


def _changed(left: Outcome | None, right: Outcome | None) -> bool:
    """Whether it passes on one side alone; not reached is not passed."""
    return (left == Outcome.PASS) != (right == Outcome.PASS)


def _verdict(outcome: Outcome | None) -> str:
    return badge(outcome) if outcome else soft("not reached")


def dialogue_link(trajectory_id: str, version: str, value: float | None) -> str:
    reward = f"reward {value:.2f}" if value is not None else "no reward"
    return (
        f"<b>{escape(version)}</b> {link('dialogue', address(TRAJECTORIES, trajectory=trajectory_id))} {soft(reward)}"
    )
