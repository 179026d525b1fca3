"""Which trajectories are asked for and in which order, as SQL conditions; the same for the list and for exports.

Text is looked for in the newest dialogues that meet the other conditions, `searched` of them at most: no index of the
log's words is kept, and a request must not read the whole log.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, and_, exists, literal, or_, select

from store.schema import (
    ItemRow,
    RewardRow,
    RunTrajectoryRow,
    ScenarioRow,
    StepRow,
    ToolCallRow,
    ToolResponseRow,
    TrajectoryRow,
    TurnRow,
    VerdictRow,
)
from store.standing import newest_reward, winning_verdicts

RUNNING = "running"
"""Stands for "has not ended" where a stop reason is asked for."""
SEARCHED = 2_000
"""Dialogues in which a page looks for text: about 50 ms."""
LONGEST_TEXT = 200
"""Characters of a text that is looked for."""


class TrajectoryOrder(StrEnum):
    """By reward only those that have one are listed."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LOWEST = "lowest reward"
    HIGHEST = "highest reward"

    @property
    def by_reward(self) -> bool:
        return self in (TrajectoryOrder.LOWEST, TrajectoryOrder.HIGHEST)

    @property
    def descending(self) -> bool:
        return self in (TrajectoryOrder.NEWEST, TrajectoryOrder.HIGHEST)


@dataclass(frozen=True)
class TrajectoryFilter:
    """Which trajectories; None means any. `low` and `high` bound the newest reward, ends included."""

    trajectory_id: str | None = None
    origin: str | None = None
    version: str | None = None
    domain: str | None = None
    batch: str | None = None
    stop_reason: str | None = None
    low: float | None = None
    high: float | None = None
    item_id: int | None = None
    kind: str | None = None
    outcome: str | None = None
    """With `item_id` or `kind`: only where that item's verdict is this one."""
    run_id: int | None = None
    scenario: str | None = None
    """A part of its scenario's name, or how the scenario's hash begins."""
    tool: str | None = None
    """A tool that the policy called."""
    text: str | None = None
    """Occurs in what a user, the policy or a tool said (upper and lower case alike), or in a call's arguments."""
    since: datetime | None = None
    """Began then or later; aware."""
    until: datetime | None = None
    """Began before then; aware."""
    searched: int | None = SEARCHED
    """In how many of the newest dialogues `text` is looked for; None: in all of them."""

    @property
    def reads_whole_log(self) -> bool:
        """Whether it takes a large log seconds, so that nobody should wait for it in a request."""
        return bool(self.text) and self.searched is None


def conditions_of(wanted: TrajectoryFilter) -> list[ColumnElement[bool]]:
    """On TrajectoryRow; empty for a filter that leaves everything."""
    conditions = _plain_conditions(wanted)
    if wanted.text:
        conditions.append(_says(wanted.text[:LONGEST_TEXT], conditions, wanted.searched))
    return conditions


def _plain_conditions(wanted: TrajectoryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (TrajectoryRow.id, wanted.trajectory_id),
        (TrajectoryRow.origin, wanted.origin),
        (TrajectoryRow.version, wanted.version),
        (TrajectoryRow.batch, wanted.batch),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.stop_reason == RUNNING:
        conditions.append(TrajectoryRow.stop_reason.is_(None))
    elif wanted.stop_reason is not None:
        conditions.append(TrajectoryRow.stop_reason == wanted.stop_reason)
    if wanted.since is not None:
        conditions.append(TrajectoryRow.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(TrajectoryRow.created_at < wanted.until)
    if wanted.domain is not None:
        hashes = select(ScenarioRow.hash).where(ScenarioRow.domain == wanted.domain)
        conditions.append(TrajectoryRow.scenario_hash.in_(hashes))
    if wanted.scenario:
        hashes = select(ScenarioRow.hash).where(scenario_named(wanted.scenario))
        conditions.append(TrajectoryRow.scenario_hash.in_(hashes))
    if wanted.tool:
        called = exists().where(ToolCallRow.name == wanted.tool, ToolCallRow.trajectory_id == TrajectoryRow.id)
        conditions.append(called)
    if wanted.low is not None or wanted.high is not None:
        reward = [RewardRow.id == newest_reward()]
        if wanted.low is not None:
            reward.append(RewardRow.value >= wanted.low)
        if wanted.high is not None:
            reward.append(RewardRow.value <= wanted.high)
        conditions.append(exists(select(1).where(*reward).correlate(TrajectoryRow)))
    if wanted.item_id is not None or wanted.kind is not None:
        items: list[ColumnElement[bool]] = []
        if wanted.item_id is not None:
            items.append(VerdictRow.item_id == wanted.item_id)
        if wanted.kind is not None:
            items.append(VerdictRow.item_id.in_(select(ItemRow.id).where(ItemRow.kind == wanted.kind)))
        winning = winning_verdicts(*items)
        ids = select(winning.c.trajectory_id)
        if wanted.outcome is not None:
            ids = ids.where(winning.c.outcome == wanted.outcome)
        conditions.append(TrajectoryRow.id.in_(ids))
    if wanted.run_id is not None:
        trained = select(RunTrajectoryRow.trajectory_id).where(RunTrajectoryRow.run_id == wanted.run_id)
        conditions.append(TrajectoryRow.id.in_(trained))
    return conditions


def scenario_named(text: str) -> ColumnElement[bool]:
    """On ScenarioRow: the text is a part of its name, or how its hash begins."""
    return or_(
        ScenarioRow.name.icontains(text, autoescape=True),
        ScenarioRow.hash.startswith(text.lower(), autoescape=True),
    )


def _says(text: str, others: list[ColumnElement[bool]], searched: int | None) -> ColumnElement[bool]:
    newest = select(TrajectoryRow.id).where(*others)
    if searched is not None:
        newest = newest.order_by(TrajectoryRow.created_at.desc(), TrajectoryRow.id.desc()).limit(searched)
    among = newest.cte("searched")

    def saying(
        row: type[TurnRow | StepRow | ToolCallRow | ToolResponseRow], *said: SQLColumnExpression[str]
    ) -> ColumnElement[bool]:
        found = or_(*(column.icontains(text, autoescape=True) for column in said))
        one = select(literal(1)).where(row.trajectory_id == among.c.id, found)
        if searched is None:
            return one.exists()
        # Asked of one dialogue after the other: of EXISTS, as of a join, PostgreSQL makes a search of the whole table.
        return one.limit(1).scalar_subquery().is_not(None)

    # JSON is looked into by its keys: as text it has escapes, and every message would hold the word "content".
    found = or_(
        saying(TurnRow, TurnRow.user),
        saying(StepRow, StepRow.message["content"].as_string(), StepRow.message["reasoning"].as_string()),
        saying(ToolCallRow, ToolCallRow.arguments),
        saying(ToolResponseRow, ToolResponseRow.response),
    )
    return TrajectoryRow.id.in_(select(among.c.id).where(found))


def in_order(query: Select[str], order: TrajectoryOrder) -> Select[str]:
    """A query of TrajectoryRow.id in this order; by reward, those that have one."""
    key: SQLColumnExpression[Any] = TrajectoryRow.created_at
    if order.by_reward:
        query = query.join(RewardRow, RewardRow.id == newest_reward()).where(RewardRow.value.is_not(None))
        key = RewardRow.value
    if order.descending:
        return query.order_by(key.desc(), TrajectoryRow.id.desc())
    return query.order_by(key, TrajectoryRow.id)


def beyond(order: TrajectoryOrder, key: datetime | float, trajectory_id: str) -> ColumnElement[bool]:
    """On a query of `in_order`: what comes after the trajectory that has this key (its beginning, or its reward)."""
    column: SQLColumnExpression[Any] = RewardRow.value if order.by_reward else TrajectoryRow.created_at
    if order.descending:
        return or_(column < key, and_(column == key, TrajectoryRow.id < trajectory_id))
    return or_(column > key, and_(column == key, TrajectoryRow.id > trajectory_id))


REVERSED = {
    TrajectoryOrder.NEWEST: TrajectoryOrder.OLDEST,
    TrajectoryOrder.OLDEST: TrajectoryOrder.NEWEST,
    TrajectoryOrder.LOWEST: TrajectoryOrder.HIGHEST,
    TrajectoryOrder.HIGHEST: TrajectoryOrder.LOWEST,
}
