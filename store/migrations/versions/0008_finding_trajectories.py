"""Indexes by which trajectories are found: the tools they called, their rewards in order"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("tool_call_by_name", "tool_call", ["name", "trajectory_id"], unique=False)
    op.drop_index(op.f("ix_tool_call_name"), table_name="tool_call")
    op.create_index("reward_by_value", "reward", ["value", "trajectory_id"], unique=False)


def downgrade() -> None:
    op.drop_index("reward_by_value", table_name="reward")
    op.create_index(op.f("ix_tool_call_name"), "tool_call", ["name"], unique=False)
    op.drop_index("tool_call_by_name", table_name="tool_call")
