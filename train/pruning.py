"""Removes the weights of old versions. The rows stay, with what was removed and when in their figures."""

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.slot import is_adapter
from store.database import Log, LogError
from store.jobs import UNFINISHED, list_jobs
from store.runs import list_runs
from store.settings import Settings
from store.traffic import pinned_versions
from store.versions import PRUNED, PolicyVersion, add_figures, list_versions, previous_live
from store.vocabulary import JobStatus, VersionState


@dataclass(frozen=True)
class Pruned:
    versions: tuple[str, ...]
    freed_bytes: int


def prunable(
    versions: Sequence[PolicyVersion], *, keep: int, protected: Iterable[str], folder: Path
) -> list[PolicyVersion]:
    """Those whose weights may go, oldest first; pure but for the adapters' files that it looks at.

    Never: live ones and candidates, the newest `keep`, the `protected`, what lies outside of `folder`, and the full
    weights that an adapter among the kept sits on.
    """
    newest = {version.name for version in versions[len(versions) - keep :]} if keep else set()
    staying = newest | set(protected)
    staying |= {v.name for v in versions if v.state in (VersionState.LIVE, VersionState.CANDIDATE)}
    staying |= {v.name for v in versions if Path(v.path).resolve().parent != folder.resolve()}
    by_name = {version.name: version for version in versions}
    for name in list(staying):
        below = by_name.get(name)
        while below is not None and is_adapter(Path(below.path)) and below.parent is not None:
            below = by_name.get(below.parent)
            staying |= {below.name} if below is not None else set()
    return [version for version in versions if version.name not in staying]


def prune_versions(log: Log, settings: Settings, keep: int) -> Pruned:
    """Removes what may go; a version whose removal a kill interrupted is removed now."""
    gone: list[str] = []
    freed = 0
    for version in _may_go(log, settings, keep):
        # Asked again: removing takes a while, in which one may go live again, be pinned, or be chosen by a job.
        if version.name in {one.name for one in _may_go(log, settings, keep)}:
            removed = remove_weights(log, [version])
            gone += removed.versions
            freed += removed.freed_bytes
    return Pruned(tuple(gone), freed)


def _may_go(log: Log, settings: Settings, keep: int) -> list[PolicyVersion]:
    protected = set(pinned_versions(log)) | _in_use(log, settings)
    with contextlib.suppress(LogError):  # no other version has been live: there is nothing to roll back to
        protected.add(previous_live(log).name)
    return prunable(list_versions(log), keep=keep, protected=protected, folder=settings.home / "versions")


def _in_use(log: Log, settings: Settings) -> set[str]:
    """What the KL penalty of the settings is held against, and what runs in progress start from and are held against;
    a run that waits for its job to go on is in progress, too. So is what unfinished jobs ask for or chose."""
    jobs = [job for status in UNFINISHED for job in list_jobs(log, status=JobStatus(status), limit=None)]
    names: set[Any] = {settings.grpo.reference}
    for job in jobs:
        names |= {job.payload.get(key) for key in ("version", "base")}
        names |= {(job.notes or {}).get(key) for key in ("version", "base", "live")}
    waiting = {job.name for job in jobs}
    for run in list_runs(log):
        if run.status is JobStatus.RUNNING or run.name in waiting:
            names |= {run.base_version, run.settings.get("reference")}
    return {name for name in names if isinstance(name, str)}


def remove_weights(log: Log, versions: Iterable[PolicyVersion]) -> Pruned:
    """Removes the directories of `versions` and says so in their rows."""
    gone, freed = [], 0
    for version in versions:
        directory = Path(version.path)
        if not directory.is_dir():
            continue
        size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
        # Written first: a version without files whose row does not say so would look damaged.
        removed = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "bytes": size}
        add_figures(log, version.name, {PRUNED: removed})
        shutil.rmtree(directory)
        gone.append(version.name)
        freed += size
    return Pruned(tuple(gone), freed)
