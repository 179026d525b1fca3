"""Revisions of checklists, panels and caches of verdicts, objections to items, model calls, annotations, reviews"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big_key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("verdict", sa.Column("counts", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("verdict", sa.Column("draw", sa.Integer(), server_default="0", nullable=False))
    op.add_column("verdict", sa.Column("share", sa.Double(), nullable=True))
    op.add_column("verdict", sa.Column("votes", sa.JSON(), nullable=True))
    op.add_column("verdict", sa.Column("cache_key", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_verdict_cache_key"), "verdict", ["cache_key"], unique=False)
    op.add_column("reward", sa.Column("made_of", sa.JSON(), nullable=True))
    op.create_table(
        "checklist",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("scenario_hash", sa.String(length=64), nullable=False),
        sa.Column("turn_index", sa.Integer(), nullable=False),
        sa.Column("variant", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["scenario_hash"], ["scenario.hash"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("scenario_hash", "turn_index", "variant", "revision"),
    )
    op.create_table(
        "item_objection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seen_in", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_item_objection_item_id"), "item_objection", ["item_id"], unique=False)
    op.create_table(
        "model_call",
        sa.Column("id", big_key, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=True),
        sa.Column("scenario_hash", sa.String(length=64), nullable=True),
        sa.Column("trajectory_id", sa.String(length=64), nullable=True),
        sa.Column("turn_index", sa.Integer(), nullable=True),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=True),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_model_call_trajectory_id"), "model_call", ["trajectory_id"], unique=False)
    op.create_index(op.f("ix_model_call_created_at"), "model_call", ["created_at"], unique=False)
    op.create_table(
        "annotation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("scenario_hash", sa.String(length=64), nullable=False),
        sa.Column("variant", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.String(length=128), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["scenario_hash"], ["scenario.hash"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_annotation_scenario_hash"), "annotation", ["scenario_hash"], unique=False)
    op.create_table(
        "review_sample",
        sa.Column("id", big_key, nullable=False),
        sa.Column("trajectory_id", sa.String(length=64), nullable=False),
        sa.Column("turn_index", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trajectory_id"], ["trajectory.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("trajectory_id", "turn_index", "reason", "batch"),
    )
    op.create_index(op.f("ix_review_sample_batch"), "review_sample", ["batch"], unique=False)


def downgrade() -> None:
    for table in ("review_sample", "annotation", "model_call", "item_objection", "checklist"):
        op.drop_table(table)
    op.drop_column("reward", "made_of")
    op.drop_index(op.f("ix_verdict_cache_key"), table_name="verdict")
    for column in ("cache_key", "votes", "share", "draw", "counts"):
        op.drop_column("verdict", column)
