"""Policy versions: what weights there are, where they stand (candidate, live, retired, refused), and why.

Weights are immutable; states and gate decisions are appended. At most one version is live at any time.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update

from store.database import Log, LogError
from store.schema import GateRow, VersionRow, VersionStateRow
from store.vocabulary import VERSION_TRANSITIONS, VersionState

PRUNED = "pruned"
"""The figure that says when a version's files were removed, and how many bytes."""


@dataclass(frozen=True)
class PolicyVersion:
    name: str
    parent: str | None
    run_id: int | None
    path: str
    """Directory of the weights."""
    files: dict[str, str]
    """File name to SHA-256."""
    figures: dict[str, Any]
    state: VersionState
    created_at: datetime


@dataclass(frozen=True)
class GateDecision:
    id: int
    candidate: str
    live: str
    passed: bool | None
    """None: it could not decide."""
    figures: dict[str, Any]
    reason: str
    created_at: datetime

    @property
    def outcome(self) -> str:
        return "undecided" if self.passed is None else "passed" if self.passed else "refused"


@dataclass(frozen=True)
class StateChange:
    version: str
    state: VersionState
    reason: str
    created_at: datetime


def next_version_name(log: Log) -> str:
    """v0001, v0002 …: one more than the greatest there is."""
    with log.lookup() as connection:
        names = connection.scalars(select(VersionRow.name)).all()
    numbers = [int(name[1:]) for name in names if name[:1] == "v" and name[1:].isdigit()]
    return f"v{max(numbers, default=0) + 1:04d}"


def add_version(
    log: Log,
    name: str,
    *,
    parent: str | None,
    path: str,
    files: dict[str, str],
    run_id: int | None = None,
    figures: dict[str, Any] | None = None,
    reason: str = "trained",
) -> PolicyVersion:
    """Adds a version in state candidate. Raises LogError if the name is taken or the parent is unknown."""
    with log.writing() as connection:
        _lock(connection)
        known = set(connection.scalars(select(VersionRow.name).where(VersionRow.name.in_([name, parent]))))
        if name in known:
            raise LogError(f"there is already a version {name!r}: weights are immutable, take the next name")
        if parent is not None and parent not in known:
            raise LogError(f"the parent {parent!r} of version {name!r} is not in the log")
        values = {"name": name, "parent": parent, "run_id": run_id, "path": str(path), "files": files}
        connection.execute(insert(VersionRow.__table__), values | {"figures": figures or {}})
        _append_state(connection, name, VersionState.CANDIDATE, reason)
    return get_version(log, name)


def set_version_state(log: Log, name: str, state: VersionState | str, reason: str) -> None:
    """Changes a version's state as VERSION_TRANSITIONS allows; making it live retires the live one with it.

    Raises LogError that names both states for any other change, and for an unknown version.
    """
    state = VersionState(state)
    with log.writing() as connection:
        _lock(connection)
        states = _states(connection)
        if name not in states:
            raise LogError(f"there is no version {name!r} in the log")
        if state not in VERSION_TRANSITIONS[states[name]]:
            allowed = ", ".join(sorted(VERSION_TRANSITIONS[states[name]])) or "none"
            raise LogError(f"version {name!r} cannot go from {states[name]} to {state}; from there: {allowed}")
        if state is VersionState.LIVE:
            for other in [other for other, current in states.items() if current is VersionState.LIVE]:
                _append_state(connection, other, VersionState.RETIRED, f"{name} went live")
        _append_state(connection, name, state, reason)


def state_changes(log: Log, name: str) -> list[StateChange]:
    """Oldest first. Raises LogError for an unknown version."""
    get_version(log, name)
    columns = (VersionStateRow.version, VersionStateRow.state, VersionStateRow.reason, VersionStateRow.created_at)
    query = select(*columns).where(VersionStateRow.version == name).order_by(VersionStateRow.id)
    with log.lookup() as connection:
        rows = connection.execute(query).all()
    return [StateChange(row.version, VersionState(row.state), row.reason, row.created_at) for row in rows]


def previous_live(log: Log) -> PolicyVersion:
    """The version that was live last before the live one. Raises LogError if there was none."""
    query = (
        select(VersionStateRow.version)
        .where(VersionStateRow.state == VersionState.RETIRED.value)
        .order_by(VersionStateRow.id.desc())
        .limit(1)
    )
    with log.lookup() as connection:
        name = connection.scalar(query)
    if name is None:
        raise LogError("there is nothing to roll back to: no other version has been live")
    return get_version(log, name)


def predecessors_of(log: Log, name: str) -> list[str]:
    """What a version is held against, the most telling first: the one that it took over from when it last went live,
    then its ancestors, the nearest first."""
    state = VersionStateRow
    went_live = (
        select(func.max(state.id)).where(state.version == name, state.state == VersionState.LIVE.value)
    ).scalar_subquery()
    handed_over = (
        select(state.version)
        .where(state.state == VersionState.RETIRED.value, state.version != name, state.id < went_live)
        .order_by(state.id.desc())
        .limit(1)
    )
    with log.lookup() as connection:
        found = list(connection.scalars(handed_over))
        parents = {row.name: row.parent for row in connection.execute(select(VersionRow.name, VersionRow.parent))}
    parent = parents.get(name)
    while parent is not None:
        found.append(parent)
        parent = parents.get(parent)
    return list(dict.fromkeys(found))


def live_version(log: Log) -> PolicyVersion | None:
    return next((version for version in list_versions(log) if version.state is VersionState.LIVE), None)


def get_version(log: Log, name: str) -> PolicyVersion:
    """Raises LogError if there is none."""
    version = next((version for version in list_versions(log) if version.name == name), None)
    if version is None:
        raise LogError(f"there is no version {name!r} in the log")
    return version


def list_versions(log: Log) -> list[PolicyVersion]:
    """All of them, oldest first."""
    with log.lookup() as connection:
        states = _states(connection)
        rows = connection.execute(select(VersionRow.__table__).order_by(VersionRow.created_at, VersionRow.name)).all()
    return [PolicyVersion(**row._asdict(), state=states[row.name]) for row in rows]


def add_figures(log: Log, name: str, figures: dict[str, Any]) -> None:
    """Adds figures to those the version has; one of the same name is replaced."""
    with log.writing() as connection:
        _lock(connection)
        before = connection.scalar(select(VersionRow.figures).where(VersionRow.name == name))
        if before is None:
            raise LogError(f"there is no version {name!r} in the log")
        merged = before | figures
        connection.execute(update(VersionRow.__table__).where(VersionRow.name == name).values(figures=merged))


def add_gate_decision(
    log: Log, candidate: str, live: str, passed: bool | None, figures: dict[str, Any], reason: str
) -> GateDecision:
    values = {"candidate": candidate, "live": live, "passed": passed, "figures": figures, "reason": reason}
    with log.writing() as connection:
        row = connection.execute(insert(GateRow.__table__).values(**values).returning(*GateRow.__table__.c)).one()
    return GateDecision(**row._asdict())


def list_gate_decisions(log: Log) -> list[GateDecision]:
    """Oldest first."""
    with log.lookup() as connection:
        return [
            GateDecision(**row._asdict())
            for row in connection.execute(select(GateRow.__table__).order_by(GateRow.id)).all()
        ]


def _lock(connection: Connection) -> None:
    """One change of versions at a time. SQLite's writing transaction holds the write lock anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE policy_version_state IN SHARE ROW EXCLUSIVE MODE"))


def _states(connection: Connection) -> dict[str, VersionState]:
    newest = select(func.max(VersionStateRow.id)).group_by(VersionStateRow.version)
    rows = connection.execute(
        select(VersionStateRow.version, VersionStateRow.state).where(VersionStateRow.id.in_(newest))
    )
    return {version: VersionState(state) for version, state in rows}


def _append_state(connection: Connection, name: str, state: VersionState, reason: str) -> None:
    connection.execute(insert(VersionStateRow.__table__), {"version": name, "state": state.value, "reason": reason})
