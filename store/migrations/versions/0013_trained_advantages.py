"""What a run really trained a trajectory's steps with"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_trajectory", sa.Column("level", sa.String(length=16), nullable=True))
    op.add_column("run_trajectory", sa.Column("by_step", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("run_trajectory", sa.Column("largest", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("run_trajectory", "largest")
    op.drop_column("run_trajectory", "by_step")
    op.drop_column("run_trajectory", "level")
