"""Calls to annotators and judges: what they cost and what went wrong; appended, never changed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, insert, select

from store.database import Log
from store.schema import ModelCallRow
from store.vocabulary import ModelRole


@dataclass(frozen=True)
class ModelCall:
    role: ModelRole
    model: str
    prompt_hash: str | None
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, served from the endpoint's prefix cache, where it says so."""
    completion_tokens: int
    usd: float | None
    """None where the settings have no price for the model."""
    latency_ms: float
    error: str | None = None
    items: int = 0
    scenario_hash: str | None = None
    trajectory_id: str | None = None
    turn_index: int | None = None
    estimated: bool = False
    """Some of its tokens are estimated."""


@dataclass(frozen=True)
class CallTotals:
    """Sums over calls of one role and model."""

    role: ModelRole
    model: str
    calls: int
    failed: int
    items: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usd: float
    unpriced: int
    """Calls without a price: `usd` leaves them out."""
    estimated: int = 0
    """Calls of which some tokens are estimated."""


def add_model_calls(log: Log, calls: Iterable[ModelCall]) -> None:
    rows = [asdict(call) | {"role": ModelRole(call.role).value} for call in calls]
    if rows:
        with log.writing() as connection:
            connection.execute(insert(ModelCallRow.__table__), rows)


def call_totals(log: Log) -> list[CallTotals]:
    """By role and model, in their order."""
    row = ModelCallRow
    query = (
        select(
            row.role,
            row.model,
            func.count(),
            func.count(row.error),
            func.sum(row.items),
            func.sum(row.prompt_tokens),
            func.sum(row.cached_tokens),
            func.sum(row.completion_tokens),
            func.coalesce(func.sum(row.usd), 0.0),
            func.count() - func.count(row.usd),
            func.count().filter(row.estimated),
        )
        .group_by(row.role, row.model)
        .order_by(row.role, row.model)
    )
    with log.lookup() as connection:
        rows = connection.execute(query).all()
    return [_totals(tuple(row)) for row in rows]


def _totals(row: tuple[Any, ...]) -> CallTotals:
    # Sums are Decimals on PostgreSQL.
    return CallTotals(
        role=ModelRole(row[0]),
        model=row[1],
        calls=row[2],
        failed=row[3],
        items=int(row[4]),
        prompt_tokens=int(row[5]),
        cached_tokens=int(row[6]),
        completion_tokens=int(row[7]),
        usd=float(row[8]),
        unpriced=row[9],
        estimated=row[10],
    )
