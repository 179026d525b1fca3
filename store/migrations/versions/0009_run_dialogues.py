"""Which dialogues a cold start was trained and measured on"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_dialogue",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("scenario_hash", sa.String(length=64), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"]),
        sa.ForeignKeyConstraint(["scenario_hash"], ["scenario.hash"]),
        sa.PrimaryKeyConstraint("run_id", "scenario_hash"),
    )
    op.create_index(op.f("ix_run_dialogue_scenario_hash"), "run_dialogue", ["scenario_hash"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_run_dialogue_scenario_hash"), table_name="run_dialogue")
    op.drop_table("run_dialogue")
