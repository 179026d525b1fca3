"""Versions on disk and in the log: a trained folder becomes `versions/v0007`, with hashes and its probe."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.bundled_model import check_model_dir, prepare_bundled_model
from agent.proof import read_probe
from agent.weight_files import file_hashes
from reward.scoring import SOFTWARE
from store.database import Log, LogError
from store.settings import Settings
from store.versions import add_version, list_versions, live_version, next_version_name, set_version_state
from store.vocabulary import VersionState
from train.checkpoints import CheckpointError, take_place

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of files that run code when they are loaded."""


def register_version(
    log: Log,
    settings: Settings,
    made: Path,
    *,
    parent: str | None,
    run_id: int | None,
    figures: Mapping[str, Any] | None = None,
) -> str:
    """Moves the trained model directory `made` to its place and adds it as a candidate; the new version's name.

    What it was made from is in the log: settings, seed and base are its run's, the data are the run's trajectories;
    `figures`: what else is to be known of it; None: the code's version. Trainers that end in the same moment get a name
    each: a directory that is there is never replaced, and whose name is taken meanwhile takes the next one. Raises
    CheckpointError for a file that holds pickled objects: what is served is safetensors.
    """
    if pickled := sorted(f.name for f in made.iterdir() if f.suffix in PICKLED):
        raise CheckpointError(f"{made} holds {', '.join(pickled)}: a version is safetensors only, convert it first")
    files = file_hashes(made)
    known = dict(code_version() if figures is None else figures)
    while True:
        target = _free_place(log, settings)
        if not take_place(made, target):
            continue
        try:
            add_version(log, target.name, parent=parent, path=str(target), files=files, run_id=run_id, figures=known)
        except LogError:
            # Where this cannot be read either, the row may be there: then the directory has to stay.
            there = {version.name: version for version in list_versions(log)}.get(target.name)
            if there is None or (there.files, there.run_id) != (files, run_id):
                target.rename(made)
                if there is not None:
                    continue
                raise
        return target.name


def _free_place(log: Log, settings: Settings) -> Path:
    """The directory of the next name that no version has and that nothing is in: another trainer's, just moved there,
    or what a killed one left."""
    folder = (settings.home / "versions").resolve()
    number = int(next_version_name(log)[1:])
    while (folder / f"v{number:04d}").exists():
        number += 1
    return folder / f"v{number:04d}"


def probe_prompts(version_dir: Path) -> Sequence[Sequence[int]]:
    """The prompts of a version's probe: its children answer the same ones."""
    probe = read_probe(version_dir)
    return probe.ids if probe else ()


def code_version() -> dict[str, str]:
    """The checkloop that makes a version: its release, and the git commit where it runs from a checkout."""
    commit = ""
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists() and (git := shutil.which("git")) is not None:
        said = subprocess.run([git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        commit = said.stdout.strip()
    return {"software": SOFTWARE} | ({"commit": commit} if commit else {})


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
