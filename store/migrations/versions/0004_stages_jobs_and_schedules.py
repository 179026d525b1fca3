"""What a loop has done is a stage; jobs, schedules and workers get tables of their own"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rename("job", "stage")


def downgrade() -> None:
    _rename("stage", "job")


def _rename(old: str, new: str) -> None:
    """The table and, on PostgreSQL, what is named after it: another table will want the names."""
    op.rename_table(old, new)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER SEQUENCE {old}_id_seq RENAME TO {new}_id_seq")
        for suffix in ("pkey", "loop_fkey", "loop_key_key"):
            op.execute(f"ALTER TABLE {new} RENAME CONSTRAINT {old}_{suffix} TO {new}_{suffix}")
