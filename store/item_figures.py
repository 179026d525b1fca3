"""Items of checklists by how often they pass, from the sums of verdicts (store/tallies.py).

Reads item tallies, items and scenarios, writes none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from store.database import Log
from store.figures import OUTCOMES, Counts
from store.schema import ItemRow, ItemTallyRow, ScenarioRow


@dataclass(frozen=True)
class ItemFigures:
    """How one item of one scenario fares."""

    item_id: int
    scenario_hash: str
    scenario: str
    domain: str
    turn_index: int
    key: str
    kind: str
    focus_on: str
    question: str
    strict: bool
    weight: float
    counts: Counts


@dataclass(frozen=True)
class JudgedItems:
    """The worst of the items that have a verdict which counts; items never judged are not among them."""

    items: Sequence[ItemFigures]
    total: int
    """Of how many items these are the worst."""


def item_figures(
    log: Log,
    *,
    origin: str | None = None,
    version: str | None = None,
    batch: str | None = None,
    domain: str | None = None,
    kind: str | None = None,
    limit: int = 200,
) -> JudgedItems:
    """By pass rate, worst first (ties: the more often judged first), at most `limit` of them."""
    tally = ItemTallyRow
    passed, failed, unscored = (func.sum(column) for column in (tally.passed, tally.failed, tally.unscored))
    item = (
        ItemRow.id.label("item_id"),
        ScenarioRow.hash.label("scenario_hash"),
        ScenarioRow.name.label("scenario"),
        ScenarioRow.domain,
        ItemRow.turn_index,
        ItemRow.key,
        ItemRow.kind,
        ItemRow.focus_on,
        ItemRow.question,
        ItemRow.strict,
        ItemRow.weight,
    )
    chosen = (
        (tally.origin, origin),
        (tally.version, version),
        (tally.batch, batch),
        (ScenarioRow.domain, domain),
        (ItemRow.kind, kind),
    )
    query = (
        select(
            func.count().over().label("total"),
            *item,
            *(sums.label(name) for name, sums in zip(OUTCOMES, (passed, failed, unscored), strict=True)),
        )
        .select_from(tally)
        .join(ItemRow, ItemRow.id == tally.item_id)
        .join(ScenarioRow, ScenarioRow.hash == ItemRow.scenario_hash)
        .where(*(column == value for column, value in chosen if value is not None))
        .group_by(*item)
        .having(passed + failed > 0)
        .order_by(passed * 1.0 / (passed + failed), (passed + failed).desc(), ItemRow.id)
        .limit(limit)
    )
    with log.reading() as session:
        rows = [row._asdict() for row in session.execute(query)]
    total = max((int(row.pop("total")) for row in rows), default=0)
    items = [ItemFigures(counts=Counts(*(int(row.pop(one)) for one in OUTCOMES)), **row) for row in rows]
    return JudgedItems(items, total)
