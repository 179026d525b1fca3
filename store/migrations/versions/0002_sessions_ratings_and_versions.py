"""Sessions of several agents, forks, swaps inside a step, ratings, incidents, pins and the traffic split"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trajectory", sa.Column("session", sa.String(length=64), nullable=True))
    op.add_column("trajectory", sa.Column("agent", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_trajectory_session"), "trajectory", ["session"], unique=False)
    op.add_column("trajectory", sa.Column("chat", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("step", sa.Column("version_spans", sa.JSON(), nullable=True))
    op.add_column("step", sa.Column("forked", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "policy_version_pin",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["policy_version.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_policy_version_pin_version"), "policy_version_pin", ["version"], unique=False)
    op.create_table(
        "traffic_split",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.String(length=16), nullable=True),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["candidate"], ["policy_version.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    big_key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "rating",
        sa.Column("id", big_key, nullable=False),
        sa.Column("trajectory_id", sa.String(length=64), nullable=False),
        sa.Column("turn_index", sa.Integer(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trajectory_id"], ["trajectory.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("rating_by_turn", "rating", ["trajectory_id", "turn_index"], unique=False)
    op.create_table(
        "incident",
        sa.Column("id", big_key, nullable=False),
        sa.Column("trajectory_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trajectory_id"], ["trajectory.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_incident_trajectory_id"), "incident", ["trajectory_id"], unique=False)
    op.create_index(op.f("ix_incident_created_at"), "incident", ["created_at"], unique=False)


def downgrade() -> None:
    for table in ("incident", "rating", "traffic_split", "policy_version_pin"):
        op.drop_table(table)
    op.drop_column("step", "forked")
    op.drop_column("step", "version_spans")
    op.drop_index(op.f("ix_trajectory_session"), table_name="trajectory")
    op.drop_column("trajectory", "chat")
    op.drop_column("trajectory", "agent")
    op.drop_column("trajectory", "session")
