"""Keeps the sums of the verdicts that count right: `rate_tally` and `item_tally` change with the verdicts, in one
transaction, by the difference between what counted before and what counts after.

On PostgreSQL transactions that change verdicts take turns (an advisory lock, held until the commit), as they do on
SQLite anyway: two that say something of the same item at the same time would each count it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, Select, Table, bindparam, select, text
from sqlalchemy.dialects import postgresql, sqlite

from store.database import in_chunks
from store.schema import ItemRow, ItemTallyRow, RateTallyRow, ScenarioRow, TrajectoryRow, VerdictRow
from store.standing import winning_verdicts
from store.vocabulary import Outcome

_ADVISORY_LOCK = 0x74616C6C79  # "tally"
_SUMS = {Outcome.PASS.value: 0, Outcome.FAIL.value: 1, Outcome.UNSCORED.value: 2}
"""Outcome to its place in `_SUM_NAMES`."""
_SUM_NAMES = ("passed", "failed", "unscored")
_ROWS_AT_ONCE = 500


class Standing(NamedTuple):
    """What is known of one verdict that counts; the empty string where nothing is."""

    item_id: int
    version: str
    origin: str
    batch: str
    day: str
    domain: str
    seen: bool
    kind: str
    channel: str
    tool: str
    outcome: str


@contextmanager
def kept_tallies(connection: Connection, trajectory_ids: Sequence[str]) -> Iterator[None]:
    """What the block adds to, takes back from or removes of these trajectories' verdicts is in the sums afterwards."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    ids = list(dict.fromkeys(trajectory_ids))
    before = standing_verdicts(connection, ids)
    yield
    changes = standing_verdicts(connection, ids)
    changes.subtract(before)
    rates: dict[tuple[Any, ...], list[int]] = {}
    items: dict[tuple[Any, ...], list[int]] = {}
    for one, count in changes.items():
        if count:
            place = _SUMS[one.outcome]
            rates.setdefault(one[1:10], [0, 0, 0])[place] += count
            items.setdefault((one.item_id, one.version, one.origin, one.batch), [0, 0, 0])[place] += count
    _add(connection, RateTallyRow.__table__, rates)
    _add(connection, ItemTallyRow.__table__, items)


def standing_verdicts(connection: Connection, trajectory_ids: Sequence[str]) -> Counter[Standing]:
    """The verdicts that count in these trajectories, like ones counted together."""
    found: Counter[Standing] = Counter()
    for chunk in in_chunks(trajectory_ids):
        for row in connection.execute(_standing_query(), {"trajectory_ids": list(chunk)}):
            item, version, origin, batch, at, domain, seen, kind, channel, tool, outcome = row
            what = (domain, seen, kind, channel, tool or "", outcome)
            found[Standing(item, version or "", origin, batch or "", day_of(at), *what)] += 1
    return found


@cache
def _standing_query() -> Select[Any]:
    """Of the verdicts of `trajectory_ids`. Made once: every judged turn asks it twice."""
    winning = winning_verdicts(VerdictRow.trajectory_id.in_(bindparam("trajectory_ids", expanding=True)))
    return (
        select(
            winning.c.item_id,
            TrajectoryRow.version,
            TrajectoryRow.origin,
            TrajectoryRow.batch,
            TrajectoryRow.created_at,
            ScenarioRow.domain,
            ScenarioRow.seen,
            ItemRow.kind,
            ItemRow.focus_on,
            ItemRow.tool,
            winning.c.outcome,
        )
        .join(TrajectoryRow, TrajectoryRow.id == winning.c.trajectory_id)
        .join(ItemRow, ItemRow.id == winning.c.item_id)
        .join(ScenarioRow, ScenarioRow.hash == ItemRow.scenario_hash)
    )


def day_of(moment: datetime) -> str:
    """ "2026-05-14", in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _add(connection: Connection, table: Table, changes: dict[tuple[Any, ...], list[int]]) -> None:
    if not changes:
        return
    key = [column.name for column in table.primary_key.columns]
    rows = [dict(zip((*key, *_SUM_NAMES), (*cell, *counts), strict=True)) for cell, counts in sorted(changes.items())]
    for some in in_chunks(rows, _ROWS_AT_ONCE):
        connection.execute(_addition(table, connection.dialect.name), list(some))


@cache
def _addition(table: Table, dialect: str) -> Executable:
    """Adds sums to a row of `table`, or makes it."""
    new = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    added = {name: table.c[name] + new.excluded[name] for name in _SUM_NAMES}
    key = [column.name for column in table.primary_key.columns]
    statement: Executable = new.on_conflict_do_update(index_elements=key, set_=added)
    return statement
