"""Incidents that belong to no trajectory: a server that does not come back"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("incident") as table:
        table.alter_column("trajectory_id", existing_type=sa.String(length=64), nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM incident WHERE trajectory_id IS NULL")
    with op.batch_alter_table("incident") as table:
        table.alter_column("trajectory_id", existing_type=sa.String(length=64), nullable=False)
