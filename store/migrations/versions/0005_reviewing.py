"""What people take back, who reviews which turn, where each stood"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "withdrawal",
        sa.Column("id", BIG, nullable=False),
        sa.Column("trajectory_id", sa.String(length=64), nullable=False),
        sa.Column("verdict_id", BIG, nullable=False),
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trajectory_id"], ["trajectory.id"]),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdict.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("verdict_id"),
    )
    op.create_index(op.f("ix_withdrawal_trajectory_id"), "withdrawal", ["trajectory_id"], unique=False)
    op.create_table(
        "restoration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("objection_id", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["objection_id"], ["item_objection.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("objection_id"),
    )
    op.create_table(
        "review_claim",
        sa.Column("trajectory_id", sa.String(length=64), nullable=False),
        sa.Column("turn_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("trajectory_id", "turn_index"),
    )
    op.create_index(op.f("ix_review_claim_person"), "review_claim", ["person"], unique=False)
    op.create_table(
        "review_place",
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("trajectory_id", sa.String(length=64), nullable=False),
        sa.Column("turn_index", sa.Integer(), nullable=False),
        sa.Column("draft", sa.Text(), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("person", "queue"),
    )
    said = sa.text("source = 'human'")
    unscored = sa.text("outcome = 'UNSCORED'")
    for name, columns, where in (
        ("verdict_of_person", ["judge", "created_at"], said),
        ("verdict_by_people", ["trajectory_id", "turn_index", "item_id"], said),
        ("verdict_unscored", ["trajectory_id", "turn_index"], unscored),
    ):
        op.create_index(name, "verdict", columns, sqlite_where=where, postgresql_where=where)
    op.create_index("trajectory_by_version", "trajectory", ["version", "created_at"])


def downgrade() -> None:
    op.drop_index("trajectory_by_version", "trajectory")
    for name in ("verdict_of_person", "verdict_by_people", "verdict_unscored"):
        op.drop_index(name, "verdict")
    for table in ("review_place", "review_claim", "restoration", "withdrawal"):
        op.drop_table(table)
