"""Alembic's environment: runs on the connection that `store.database` (or `store.migrations`) hands in."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from store.schema import Base, StoredText, UtcDateTime


def render_type(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """A revision names plain column types: it must still run when store/schema/ has moved on."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, StoredText):
        return "sa.Text()"
    return False


context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_item=render_type
)
with context.begin_transaction():
    context.run_migrations()
