"""Versions on disk and in the log: a trained folder becomes `versions/v0007`, with hashes and its probe."""

from collections.abc import Sequence
from pathlib import Path

from store.database import Log
from store.settings import Settings
from store.versions import add_version, list_versions, next_version_name
from train.checkpoints import file_hashes, move_into_place, write_probe


def register_version(
    log: Log,
    settings: Settings,
    made: Path,
    *,
    parent: str | None,
    run_id: int | None,
    probe_ids: Sequence[Sequence[int]] | None = None,
) -> str:
    """Moves the trained model directory `made` to its place and adds it as a candidate; the new version's name.

    The probe's prompts come from the parent unless `probe_ids` are given: all versions answer the same ones.
    """
    from store.versions import get_version

    name = next_version_name(log)
    if probe_ids is None and parent is not None:
        from agent.proof import read_probe

        probe = read_probe(Path(get_version(log, parent).path))
        probe_ids = probe.ids if probe else None
    if probe_ids:
        write_probe(made, probe_ids)
    target = (settings.home / "versions" / name).resolve()
    move_into_place(made, target)
    add_version(log, name, parent=parent, path=str(target), files=file_hashes(target), run_id=run_id)
    return name


def version_of_run(log: Log, run_id: int) -> str | None:
    """The version that a run made, if it did so before it was killed."""
    return next((v.name for v in list_versions(log) if v.run_id == run_id), None)
