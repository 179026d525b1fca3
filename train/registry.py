"""Versions on disk and in the log: a trained folder becomes `versions/v0007`, with hashes and its probe."""

from collections.abc import Sequence
from pathlib import Path

from agent.bundled_model import check_model_dir, prepare_bundled_model
from agent.proof import read_probe
from store.database import Log, LogError
from store.settings import Settings
from store.versions import add_version, list_versions, live_version, next_version_name, set_version_state
from store.vocabulary import VersionState
from train.checkpoints import file_hashes, move_into_place


def register_version(log: Log, settings: Settings, made: Path, *, parent: str | None, run_id: int | None) -> str:
    """Moves the trained model directory `made` to its place and adds it as a candidate; the new version's name."""
    name = next_version_name(log)
    target = (settings.home / "versions" / name).resolve()
    move_into_place(made, target)
    add_version(log, name, parent=parent, path=str(target), files=file_hashes(target), run_id=run_id)
    return name


def probe_prompts(version_dir: Path) -> Sequence[Sequence[int]]:
    """The prompts of a version's probe: its children answer the same ones."""
    probe = read_probe(version_dir)
    return probe.ids if probe else ()


def version_of_run(log: Log, run_id: int) -> str | None:
    """The version that a run made, if it did so before it was killed."""
    return next((v.name for v in list_versions(log) if v.run_id == run_id), None)


def model_directory(settings: Settings) -> Path:
    """The directory of the settings' model; the bundled one is made at first. Raises ModelError."""
    if settings.model.source != "bundled":
        return check_model_dir(Path(settings.model.source)).resolve()
    return prepare_bundled_model(settings.home / "model").resolve()


def register_first_version(log: Log, settings: Settings) -> str:
    """The settings' model as it comes becomes a version and goes live. Raises LogError if one is live already."""
    if (live := live_version(log)) is not None:
        raise LogError(f"version {live.name} is live already: a candidate goes live through the gate")
    directory = model_directory(settings)
    name = next_version_name(log)
    add_version(log, name, parent=None, path=str(directory), files=file_hashes(directory), reason="registered")
    set_version_state(log, name, VersionState.LIVE, "registered as the first version")
    return name
