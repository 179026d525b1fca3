"""What reward/agreement.py and reward/stability.py measured, as tables for the terminal.

Shares are in percent, with their intervals under them; below each table stands, in words, what cannot be said.
"""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from reward.agreement import Agreement, Figure
from reward.stability import DriftLine, FlipRate

Judge = tuple[str, str | None]
"""Name and hash of the prompt."""

INTERVALS = "Under each figure: 95 % bootstrap interval over trajectories."


def judge_name(judge: Judge) -> str:
    name, prompt = judge
    return name if prompt is None else f"{name} @{prompt[:8]}"


def agreement_table(
    title: str, rows: Mapping[tuple[str, ...], Agreement], headings: Sequence[str] = ("judge",)
) -> Group:
    """A line for each key of `rows`, whose parts stand under `headings`."""
    table = Table(title=title, title_justify="left", show_lines=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for heading in ("pairs", "trajectories", "base rate", "agreement", "κ", "true pos.", "false pos.", "UNSCORED"):
        table.add_column(heading, justify="right")
    notes: list[str] = []
    for key, found in rows.items():
        table.add_row(
            *key,
            str(found.n),
            str(found.trajectories),
            *_cells(found),
            _unscored(found.judge_unscored, found.reference_unscored),
        )
        notes += _notes(" ".join(key), found)
    return _with_notes(table, notes)


def flip_table(title: str, rows: Mapping[tuple[str, ...], FlipRate]) -> Group:
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("judge", overflow="fold")
    for heading in ("items asked again", "pairs", "differing", "flip rate", "UNSCORED"):
        table.add_column(heading, justify="right")
    notes = []
    for key, found in rows.items():
        cells = (str(found.items), str(found.pairs), str(found.differing), _cell(found.rate), str(found.unscored))
        table.add_row(*key, *cells)
        if found.rate.why:
            notes.append(f"{' '.join(key)}: flip rate: {found.rate.why}")
    return _with_notes(table, notes)


def drift_table(title: str, lines: Iterable[DriftLine]) -> Group:
    table = Table(title=title, title_justify="left", show_lines=True)
    for heading in ("judge", "against", "period"):
        table.add_column(heading, overflow="fold")
    for heading in ("pairs", "trajectories", "agreement", "κ", "UNSCORED"):
        table.add_column(heading, justify="right")
    notes = []
    for line in lines:
        found = line.agreement
        judge = judge_name((line.judge, line.prompt))
        table.add_row(
            judge,
            line.standard,
            line.period,
            str(found.n),
            str(found.trajectories),
            _cell(found.raw),
            _cell(found.kappa, percent=False),
            str(found.judge_unscored),
        )
        for name, figure in (("agreement", found.raw), ("κ", found.kappa)):
            if figure.why:
                notes.append(f"{judge}, {line.period}, against {line.standard}: {name}: {figure.why}")
    return _with_notes(table, notes)


def _cells(found: Agreement) -> tuple[str, ...]:
    kappa = _cell(found.kappa, percent=False)
    rates = (found.true_positive_rate, found.false_positive_rate)
    return (_cell(found.base_rate), _cell(found.raw), kappa, *map(_cell, rates))


def _cell(figure: Figure, percent: bool = True) -> str:
    if figure.value is None:
        return "–"
    scale, digits, unit = (100, 1, " %") if percent else (1, 2, "")
    value = f"{scale * figure.value:.{digits}f}{unit}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value}\n{scale * figure.low:.{digits}f} to {scale * figure.high:.{digits}f}"


def _notes(name: str, found: Agreement) -> list[str]:
    figures = {
        "base rate": found.base_rate,
        "agreement": found.raw,
        "κ": found.kappa,
        "true positives": found.true_positive_rate,
        "false positives": found.false_positive_rate,
    }
    by_reason: dict[str, list[str]] = {}
    for what, figure in figures.items():
        if figure.why:
            by_reason.setdefault(figure.why, []).append(what)
    return [f"{name}: {', '.join(whats)}: {why}" for why, whats in by_reason.items()]


def _unscored(judge: int, reference: int) -> str:
    return f"{judge}" if not reference else f"{judge}\nreference {reference}"


def _with_notes(table: Table, notes: Sequence[str]) -> Group:
    # As text: a judge's or a version's name is no markup.
    return Group(table, *(Text(note, style="dim") for note in notes))
