"""How many of the dialogues that can be judged are.

A dialogue has one version, day, domain, origin and batch: by those it is one query over the log, summed here under any
filter. Kind, channel and tool are those of items, of which a dialogue has several: it counts under each that an item of
its scenario has, so those figures do not add up to the whole; they are one query for each filter.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, literal_column, select, text, union

from store.database import Log, in_chunks
from store.figures import NO_TOOL, Slice
from store.schema import ItemRow, ScenarioRow, TrajectoryRow
from store.schema.dialogues import ELIGIBLE
from store.standing import has_verdict

OF_DIALOGUES = frozenset({Slice.VERSION, Slice.DAY, Slice.DOMAIN, Slice.ORIGIN})
"""What a dialogue has one of."""
OF_ITEMS = {Slice.KIND: ItemRow.kind, Slice.CHANNEL: ItemRow.focus_on, Slice.TOOL: func.coalesce(ItemRow.tool, NO_TOOL)}
"""What it may have several of, by its scenario's items."""


@dataclass(frozen=True)
class Coverage:
    """Eligible is a dialogue of a scenario that ended, not by a failure of ours; judged, one of them on which a verdict
    counts."""

    eligible: int = 0
    judged: int = 0

    @property
    def share(self) -> float | None:
        return self.judged / self.eligible if self.eligible else None

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(self.eligible + other.eligible, self.judged + other.judged)


@dataclass(frozen=True)
class CoverageCell:
    """The dialogues of one combination of what the overview filters by; names as `rates_by` gives them."""

    version: str
    origin: str
    batch: str
    day: str
    domain: str
    coverage: Coverage


@dataclass(frozen=True, eq=False)
class CoverageCells:
    """Equal to nothing but itself: what was added up of it once is known."""

    cells: tuple[CoverageCell, ...]


def coverage_cells(log: Log) -> CoverageCells:
    """Of the whole log. Reads every eligible dialogue by its index, and of the verdicts on it the first that counts."""
    row = TrajectoryRow
    key = (row.version, row.origin, row.batch, _day_of(log), ScenarioRow.domain)
    query = (
        select(*key, func.count(), _judged())
        .select_from(row)
        .join(ScenarioRow, ScenarioRow.hash == row.scenario_hash)
        .where(text(ELIGIBLE))
        .group_by(*key)
    )
    with log.lookup() as connection:
        return CoverageCells(
            tuple(
                CoverageCell(version or "unknown", origin, batch or "", day, domain, Coverage(n, int(said)))
                for version, origin, batch, day, domain, n, said in connection.execute(query)
            )
        )


def _judged() -> ColumnElement[Any]:
    """Of a group of dialogues, those on which a verdict counts."""
    return func.sum(case((has_verdict(), 1), else_=0))


def _day_of(log: Log) -> ColumnElement[Any]:
    """The UTC day on which a dialogue began, as `rate_tally` has it."""
    if log.engine.dialect.name == "sqlite":
        return func.date(TrajectoryRow.created_at)
    return literal_column("to_char(trajectory.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')")


@lru_cache(maxsize=32)
def coverage_by(
    cells: CoverageCells,
    by: Slice,
    *,
    origin: str | None = None,
    batch: str | None = None,
    domain: str | None = None,
    version: str | None = None,
) -> Mapping[str, Coverage]:
    """In sorted order; shared, so never change it. Raises ValueError for what is no property of a dialogue
    (`OF_DIALOGUES`)."""
    if by not in OF_DIALOGUES:
        raise ValueError(f"a dialogue has no {by}: coverage goes by {', '.join(sorted(OF_DIALOGUES))}")
    wanted = {"origin": origin, "batch": batch, "domain": domain, "version": version}
    kept: Iterable[CoverageCell] = cells.cells
    for name, value in wanted.items():
        if value is not None:
            of = attrgetter(name)
            kept = [cell for cell in kept if of(cell) == value]
    # Numbers are added, not objects: there are thousands of cells.
    eligible: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    named = attrgetter(by.value)
    for cell in kept:
        name, coverage = named(cell), cell.coverage
        eligible[name] += coverage.eligible
        judged[name] += coverage.judged
    return {name: Coverage(eligible[name], judged[name]) for name in sorted(eligible)}


def scenario_coverage(
    log: Log,
    *,
    scenarios: Sequence[str],
    origin: str | None = None,
    batch: str | None = None,
    version: str | None = None,
) -> dict[str, Coverage]:
    """The dialogues of these scenarios, by their hashes; a scenario of none is left out."""
    row = TrajectoryRow
    query = select(row.scenario_hash, func.count(), _judged()).where(text(ELIGIBLE)).group_by(row.scenario_hash)
    for column, value in ((row.origin, origin), (row.batch, batch), (row.version, version)):
        if value is not None:
            query = query.where(column == value)
    found: dict[str, Coverage] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(sorted(set(scenarios))):
            for digest, eligible, judged in connection.execute(query.where(row.scenario_hash.in_(chunk))):
                found[str(digest)] = Coverage(eligible, int(judged))
    return found


def item_coverage(
    log: Log,
    *,
    origin: str | None = None,
    batch: str | None = None,
    domain: str | None = None,
    version: str | None = None,
) -> dict[Slice, dict[str, Coverage]]:
    """By kind, channel and tool (`OF_ITEMS`), each in sorted order: dialogues whose scenario has such an item.

    Reads every eligible dialogue that the filter leaves, once, and the items of their scenarios.
    """
    row = TrajectoryRow
    dialogues = (
        select(row.scenario_hash, func.count().label("eligible"), _judged().label("judged"))
        .where(text(ELIGIBLE))
        .group_by(row.scenario_hash)
    )
    if domain is not None:
        dialogues = dialogues.where(row.scenario_hash.in_(select(ScenarioRow.hash).where(ScenarioRow.domain == domain)))
    for column, value in ((row.origin, origin), (row.batch, batch), (row.version, version)):
        if value is not None:
            dialogues = dialogues.where(column == value)
    played = dialogues.cte("played")
    items: list[Select[Any, Any, Any]] = [
        select(literal(by.value).label("slice"), name.label("name"), ItemRow.scenario_hash)
        for by, name in OF_ITEMS.items()
    ]
    named = union(*items).cte("named")
    query = (
        select(named.c.slice, named.c.name, func.sum(played.c.eligible), func.sum(played.c.judged))
        .join(played, played.c.scenario_hash == named.c.scenario_hash)
        .group_by(named.c.slice, named.c.name)
        .order_by(named.c.name)
    )
    found: dict[Slice, dict[str, Coverage]] = {by: {} for by in OF_ITEMS}
    with log.lookup() as connection:
        for by, name, eligible, judged in connection.execute(query):
            found[Slice(by)][name] = Coverage(int(eligible), int(judged))
    return found
