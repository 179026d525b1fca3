"""How people go through judged turns: who has which one, where each stood, and what was taken back (docs/review.md)."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base, BigKey, now


class WithdrawalRow(Base):
    """A person's verdict is taken back: it stays in the log and counts for nothing from now on."""

    __tablename__ = "withdrawal"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"), index=True)
    verdict_id: Mapped[int] = mapped_column(BigKey, ForeignKey("verdict.id"), unique=True)
    person: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class RestorationRow(Base):
    """A person's "this item is bad" is taken back."""

    __tablename__ = "restoration"
    id: Mapped[int] = mapped_column(primary_key=True)
    objection_id: Mapped[int] = mapped_column(ForeignKey("item_objection.id"), unique=True)
    person: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ReviewClaimRow(Base):
    """Who is looking at a turn, and until when nobody else is given it. No part of the log's history: it is
    overwritten, and is as good as gone once its time is over."""

    __tablename__ = "review_claim"
    trajectory_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    turn_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    person: Mapped[str] = mapped_column(String(128), index=True)
    until: Mapped[datetime]


class ReviewPlaceRow(Base):
    """Where a person stood in a queue, and what they had begun to write; overwritten."""

    __tablename__ = "review_place"
    person: Mapped[str] = mapped_column(String(128), primary_key=True)
    queue: Mapped[str] = mapped_column(String(255), primary_key=True)
    """A filter in its one spelling (`store.review_queues.QueueFilter.name`)."""
    trajectory_id: Mapped[str] = mapped_column(String(64))
    turn_index: Mapped[int]
    draft: Mapped[str]
    moved_at: Mapped[datetime] = mapped_column(default=now)
