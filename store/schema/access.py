"""Who may do what in the dashboard (docs/dashboard-access.md)."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base, now


class RoleChangeRow(Base):
    """A person got a role, another one, or lost it; the newest row of a person counts."""

    __tablename__ = "role_change"
    id: Mapped[int] = mapped_column(primary_key=True)
    person: Mapped[str] = mapped_column(String(128), index=True)
    role: Mapped[str | None] = mapped_column(String(16))
    """None: removed."""
    given_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(default=now)
