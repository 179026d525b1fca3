"""A gate that could not decide"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("gate_decision") as table:
        table.alter_column("passed", existing_type=sa.Boolean(), nullable=True)


def downgrade() -> None:
    op.execute(sa.text("UPDATE gate_decision SET passed = FALSE WHERE passed IS NULL"))
    with op.batch_alter_table("gate_decision") as table:
        table.alter_column("passed", existing_type=sa.Boolean(), nullable=False)
