"""Which share of new sessions a candidate answers, and which versions are pinned. Append-only."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select

from store.database import Log, LogError
from store.figures import as_utc
from store.schema import TrafficSplitRow, VersionPinRow
from store.versions import get_version
from store.vocabulary import VersionState


@dataclass(frozen=True)
class TrafficSplit:
    candidate: str
    share: float
    """Of the sessions, 0 to 1."""
    reason: str
    since: datetime


def traffic_split(log: Log) -> TrafficSplit | None:
    """The split in force, None if all sessions go to the live version."""
    columns = (TrafficSplitRow.candidate, TrafficSplitRow.share, TrafficSplitRow.reason, TrafficSplitRow.created_at)
    with log.lookup() as connection:
        row = connection.execute(select(*columns).order_by(TrafficSplitRow.id.desc()).limit(1)).first()
    if row is None or row.candidate is None or row.share <= 0:
        return None
    return TrafficSplit(row.candidate, row.share, row.reason, as_utc(row.created_at))


def set_traffic_split(log: Log, candidate: str | None, share: float, reason: str) -> None:
    """Raises LogError for a share outside 0 to 1, or a version that is not a candidate."""
    if not 0 <= share <= 1:
        raise LogError(f"a share of the sessions is between 0 and 1, not {share:g}")
    if candidate is not None and (state := get_version(log, candidate).state) is not VersionState.CANDIDATE:
        raise LogError(f"version {candidate!r} is {state}: only a candidate takes a share of the sessions")
    with log.writing() as connection:
        row = {"candidate": candidate, "share": share if candidate else 0.0, "reason": reason}
        connection.execute(insert(TrafficSplitRow.__table__), row)


def pinned_versions(log: Log) -> dict[str, str]:
    """Version -> why it is pinned."""
    newest = select(func.max(VersionPinRow.id)).group_by(VersionPinRow.version)
    columns = (VersionPinRow.version, VersionPinRow.reason)
    query = select(*columns).where(VersionPinRow.id.in_(newest), VersionPinRow.pinned)
    with log.lookup() as connection:
        return {row.version: row.reason for row in connection.execute(query)}


def pin_version(log: Log, version: str, reason: str, *, pinned: bool = True) -> None:
    """Raises LogError for an unknown version."""
    get_version(log, version)
    with log.writing() as connection:
        connection.execute(insert(VersionPinRow.__table__), {"version": version, "pinned": pinned, "reason": reason})
