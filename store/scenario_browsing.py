"""Finding scenarios: filtered pages of the list, with what hangs on each. Reads the log, writes nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, func, or_, select

from store.database import Log, LogError
from store.figures import as_utc
from store.records import Scenario
from store.schema import ChecklistRow, ItemRow, ScenarioRow, TrajectoryRow
from store.trajectory_filters import scenario_named


@dataclass(frozen=True)
class ScenarioFilter:
    """Which scenarios; None means any."""

    named: str | None = None
    """A part of the name, or how the hash begins."""
    domain: str | None = None
    source: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class ScenarioListing:
    """One line of the list."""

    hash: str
    name: str
    domain: str
    source: str
    split: str
    seen: bool
    turns: int
    items: int
    """That its checklists ever had."""
    revisions: int
    """Of all its checklists; 0: only what came with it."""
    played: int
    created_at: datetime


@dataclass(frozen=True)
class ScenarioFacets:
    """What there is to filter by, in order."""

    domains: tuple[str, ...]
    sources: tuple[str, ...]
    splits: tuple[str, ...]


def scenario_facets(log: Log) -> ScenarioFacets:
    with log.lookup() as connection:
        domains, sources, splits = (
            tuple(connection.scalars(select(column).distinct().order_by(column)))
            for column in (ScenarioRow.domain, ScenarioRow.source, ScenarioRow.split)
        )
    return ScenarioFacets(domains, sources, splits)


def count_scenarios(log: Log, wanted: ScenarioFilter) -> int:
    with log.lookup() as connection:
        return connection.scalar(select(func.count()).select_from(ScenarioRow).where(*_conditions(wanted))) or 0


def page_of_scenarios(log: Log, wanted: ScenarioFilter, *, limit: int, offset: int) -> list[ScenarioListing]:
    """One page, by name. What hangs on a scenario is counted for the page alone."""
    columns = (
        ScenarioRow.hash,
        ScenarioRow.name,
        ScenarioRow.domain,
        ScenarioRow.source,
        ScenarioRow.split,
        ScenarioRow.seen,
        ScenarioRow.turn_count,
        ScenarioRow.created_at,
    )
    query = select(*columns).where(*_conditions(wanted)).order_by(ScenarioRow.name, ScenarioRow.hash)
    with log.lookup() as connection:
        rows = connection.execute(query.limit(limit).offset(offset)).all()
        hashes = [row.hash for row in rows]

        def counted(column: SQLColumnExpression[Any]) -> dict[str, int]:
            found = connection.execute(select(column, func.count()).where(column.in_(hashes)).group_by(column))
            return dict(found.all())

        items = counted(ItemRow.scenario_hash)
        revisions = counted(ChecklistRow.scenario_hash)
        played = counted(TrajectoryRow.scenario_hash)
    return [
        ScenarioListing(
            hash=row.hash,
            name=row.name,
            domain=row.domain,
            source=row.source,
            split=row.split,
            seen=row.seen,
            turns=row.turn_count,
            items=items.get(row.hash, 0),
            revisions=revisions.get(row.hash, 0),
            played=played.get(row.hash, 0),
            created_at=as_utc(row.created_at),
        )
        for row in rows
    ]


def find_scenario(log: Log, named: str) -> Scenario:
    """The one with this name or a hash that begins so. Raises LogError if there is none, or more than one."""
    begins = ScenarioRow.hash.startswith(named, autoescape=True)
    query = select(ScenarioRow.document).where(or_(ScenarioRow.name == named, begins)).limit(2)
    with log.lookup() as connection:
        found = connection.scalars(query).all()
    if len(found) != 1:
        how = "no scenario" if not found else "more than one scenario"
        raise LogError(f"{how} of the log is named {named!r} or has a hash that begins so: give more of the hash")
    return Scenario.model_validate(found[0])


def _conditions(wanted: ScenarioFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (ScenarioRow.domain, wanted.domain),
        (ScenarioRow.source, wanted.source),
        (ScenarioRow.split, wanted.split),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.named:
        conditions.append(scenario_named(wanted.named))
    return conditions
