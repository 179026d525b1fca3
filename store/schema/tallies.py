"""Sums of the verdicts that count, so that no page has to count them: kept in the transaction that changes a verdict
(store/tallies.py). They say nothing that the verdicts do not say, and could be made again from them.

What a row is about is its key; an unknown version, batch or tool is the empty string.
"""

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base


class RateTallyRow(Base):
    """By everything that the overview slices by."""

    __tablename__ = "rate_tally"
    version: Mapped[str] = mapped_column(String(16), primary_key=True)
    origin: Mapped[str] = mapped_column(String(16), primary_key=True)
    batch: Mapped[str] = mapped_column(String(128), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    """On which the dialogue began, in UTC: "2026-05-14"."""
    domain: Mapped[str] = mapped_column(String(64), primary_key=True)
    seen: Mapped[bool] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    channel: Mapped[str] = mapped_column(String(32), primary_key=True)
    tool: Mapped[str] = mapped_column(String(128), primary_key=True)
    passed: Mapped[int]
    failed: Mapped[int]
    unscored: Mapped[int]


class ItemTallyRow(Base):
    """By item."""

    __tablename__ = "item_tally"
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True)
    version: Mapped[str] = mapped_column(String(16), primary_key=True)
    origin: Mapped[str] = mapped_column(String(16), primary_key=True)
    batch: Mapped[str] = mapped_column(String(128), primary_key=True)
    passed: Mapped[int]
    failed: Mapped[int]
    unscored: Mapped[int]


class LogChangeRow(Base):
    """How often rows were changed in place or removed: what no greatest id tells (store/changes.py)."""

    __tablename__ = "log_change"
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    times: Mapped[int] = mapped_column(BigInteger)
