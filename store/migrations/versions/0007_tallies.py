"""Sums of the verdicts that count, the tool of an item, indexes for what the overview reads"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SUMS = ("passed", "failed", "unscored")
_ELIGIBLE = "scenario_hash IS NOT NULL AND stop_reason IS NOT NULL AND stop_reason <> 'failed'"
_WINNING = """
    SELECT verdict.trajectory_id, verdict.item_id, verdict.outcome, row_number() OVER (
        PARTITION BY verdict.trajectory_id, verdict.turn_index, verdict.item_id
        ORDER BY CASE WHEN verdict.source = 'human' THEN 1 ELSE 0 END DESC, verdict.id DESC
    ) AS place
    FROM verdict
    WHERE verdict.counts AND verdict.id NOT IN (SELECT verdict_id FROM withdrawal)
"""
_COUNTED = """
    sum(CASE WHEN w.outcome = 'PASS' THEN 1 ELSE 0 END),
    sum(CASE WHEN w.outcome = 'FAIL' THEN 1 ELSE 0 END),
    sum(CASE WHEN w.outcome = 'UNSCORED' THEN 1 ELSE 0 END)
"""
_FROM = f"""
    FROM ({_WINNING}) AS w
    JOIN trajectory ON trajectory.id = w.trajectory_id
    JOIN item ON item.id = w.item_id
    JOIN scenario ON scenario.hash = item.scenario_hash
    WHERE w.place = 1
"""


def upgrade() -> None:
    op.add_column("item", sa.Column("tool", sa.String(length=128), nullable=True))
    op.create_table(
        "rate_tally",
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("batch", sa.String(length=128), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("domain", sa.String(length=64), nullable=False),
        sa.Column("seen", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("tool", sa.String(length=128), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _SUMS),
        sa.PrimaryKeyConstraint("version", "origin", "batch", "day", "domain", "seen", "kind", "channel", "tool"),
    )
    op.create_table(
        "item_tally",
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("batch", sa.String(length=128), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _SUMS),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"]),
        sa.PrimaryKeyConstraint("item_id", "version", "origin", "batch"),
    )
    op.create_index("trajectory_by_origin", "trajectory", ["origin", "created_at"])
    where = sa.text(_ELIGIBLE)
    op.create_index(
        "trajectory_eligible",
        "trajectory",
        ["origin", "version", "id"],
        sqlite_where=where,
        postgresql_where=where,
    )
    _name_tools()
    _count()


def _name_tools() -> None:
    """The tool of every item that has a check, out of the scenarios' documents and the checklists' revisions."""
    connection = op.get_bind()
    scenario = sa.table("scenario", sa.column("hash"), sa.column("document", sa.JSON()))
    checklist = sa.table(
        "checklist", sa.column("scenario_hash"), sa.column("turn_index"), sa.column("items", sa.JSON())
    )
    item = sa.table("item", *map(sa.column, ("scenario_hash", "turn_index", "key", "tool")))
    named = sa.update(item).where(
        item.c.scenario_hash == sa.bindparam("of"),
        item.c.turn_index == sa.bindparam("turn"),
        item.c.key == sa.bindparam("called"),
    )
    for digest, document in connection.execute(sa.select(scenario.c.hash, scenario.c.document)).all():
        for turn, content in enumerate(document["turns"]):
            _name(connection, named, digest, turn, content["checklist"])
    for row in connection.execute(sa.select(checklist)).all():
        _name(connection, named, row.scenario_hash, row.turn_index, row.items)


def _name(connection: sa.Connection, named: sa.Update, digest: str, turn: int, items: list[dict[str, Any]]) -> None:
    for item in items:
        check = item.get("check") or {}
        kind, tools = check.get("kind"), list(check.get("tools") or [])
        tool = check.get("tool") or check.get("then")
        if kind == "not_called" and len(tools) == 1:
            tool = tools[0]
        if tool:
            where = {"of": digest, "turn": turn, "called": item["id"]}
            connection.execute(named.values(tool=tool[:128]), where)


def _count() -> None:
    day = "substr(trajectory.created_at, 1, 10)"
    if op.get_bind().dialect.name == "postgresql":
        day = "to_char(trajectory.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    version, batch = "coalesce(trajectory.version, '')", "coalesce(trajectory.batch, '')"
    of_item = f"w.item_id, {version}, trajectory.origin, {batch}"
    op.execute(f"INSERT INTO item_tally SELECT {of_item}, {_COUNTED} {_FROM} GROUP BY {of_item}")
    of_rate = f"""{version}, trajectory.origin, {batch}, {day}, scenario.domain, scenario.seen, item.kind,
        item.focus_on, coalesce(item.tool, '')"""
    op.execute(f"INSERT INTO rate_tally SELECT {of_rate}, {_COUNTED} {_FROM} GROUP BY {of_rate}")


def downgrade() -> None:
    op.drop_index("trajectory_eligible", "trajectory")
    op.drop_index("trajectory_by_origin", "trajectory")
    op.drop_table("item_tally")
    op.drop_table("rate_tally")
    op.drop_column("item", "tool")
