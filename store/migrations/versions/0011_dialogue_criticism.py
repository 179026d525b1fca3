"""What an LLM found wrong with reference dialogues"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dialogue_criticism",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("scenario_hash", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("effort", sa.String(length=16), nullable=False),
        sa.Column("questions", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["scenario_hash"], ["scenario.hash"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_dialogue_criticism_scenario_hash"), "dialogue_criticism", ["scenario_hash"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_dialogue_criticism_scenario_hash"), table_name="dialogue_criticism")
    op.drop_table("dialogue_criticism")
