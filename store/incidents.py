"""Requests that ended in no step, and servers that did not come back: what went wrong, never a reward.

Reads and writes the incident table.
"""

from collections import Counter
from datetime import datetime

from sqlalchemy import func, insert, select

from store.database import Log, insert_new
from store.schema import IncidentRow, TrajectoryRow
from store.steps import Announcement
from store.vocabulary import IncidentKind


def record_incident(
    log: Log,
    trajectory_id: str | None,
    kind: IncidentKind | str,
    detail: str,
    *,
    version: str | None = None,
    announcement: Announcement | None = None,
) -> None:
    """Appends an incident; creates the trajectory if it is announced and new. None: it is about no dialogue."""
    row = {"trajectory_id": trajectory_id, "kind": IncidentKind(kind).value, "detail": detail[:2000]}
    with log.writing() as connection:
        if announcement is not None and trajectory_id is not None:
            connection.execute(insert_new(log, TrajectoryRow.__table__), announcement.row(trajectory_id))
        connection.execute(insert(IncidentRow.__table__), row | {"version": version})


def incident_counts(log: Log, since: datetime | None = None) -> Counter[IncidentKind]:
    """How many there are of each kind, from `since` on."""
    query = select(IncidentRow.kind, func.count()).group_by(IncidentRow.kind)
    if since is not None:
        query = query.where(IncidentRow.created_at >= since)
    with log.lookup() as connection:
        return Counter({IncidentKind(kind): count for kind, count in connection.execute(query)})
