"""Weights on disk, whole or not at all: policy versions, and where a killed run goes on.

A version directory is what vLLM and the trainers load: safetensors, configuration, tokenizer and chat template. It is
written beside its place, hashed, flushed to the disk and renamed; a full disk or a kill leaves nothing under its name.
"""

import errno
import json
import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.precision import native_precision
from agent.proof import PROBE_FILE
from agent.weight_files import damaged_files, file_hashes
from train.errors import TrainingFailed
from train.packed import Family, pack, token_logprobs
from train.training_run import load_policy

COMPLETE = "complete"
"""A trainer's checkpoint counts only if it holds this file, written after everything else."""

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".safetensors.index.json")


class CheckpointError(TrainingFailed):
    """Weights could not be written or read; says which directory and why."""


def save_version(model: PreTrainedModel, source_dir: Path, out_dir: Path) -> dict[str, str]:
    """Write a version: `model`'s weights in their own type, all other files but the probe as in `source_dir`.

    Returns file name -> SHA-256. Replaces nothing: raises CheckpointError if `out_dir` exists, if the disk is full, or
    if it cannot be written; then `out_dir` does not exist and no part of it is left.
    """
    with new_directory(out_dir) as part:
        for file in sorted(source_dir.iterdir()):
            if file.is_file() and file.name != PROBE_FILE and not file.name.endswith(WEIGHT_SUFFIXES):
                shutil.copyfile(file, part / file.name)
        attention = model.config._attn_implementation
        model.save_pretrained(part)
        model.config._attn_implementation = attention
        return file_hashes(part)


def check_files(directory: Path, files: dict[str, str]) -> None:
    """Raises CheckpointError that names the files of a version which are missing or differ from their SHA-256."""
    if not directory.is_dir():
        raise CheckpointError(f"the version's directory {directory} does not exist")
    if wrong := damaged_files(directory, files):
        raise CheckpointError(f"{directory} is damaged: {', '.join(wrong)} missing or changed since it was written")


def move_into_place(made: Path, target: Path) -> None:
    """`take_place`, but whatever a killed try left there is replaced.

    Raises CheckpointError if it cannot be done (another file system, no such directory).
    """
    while not take_place(made, target):
        try:
            shutil.rmtree(target)
        except OSError as error:
            raise CheckpointError(f"could not remove {target}: {_reason(error, target)}") from error


def take_place(made: Path, target: Path) -> bool:
    """Give a finished directory, flushed to the disk, its final name; False, with nothing changed, if it is taken.

    One step of the file system, which refuses a directory that holds anything: of two processes that want a name, one
    gets it. Raises CheckpointError if it cannot be done.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in made.iterdir():
            _flush(file)
        try:
            made.rename(target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        _flush_names(target.parent)
    except OSError as error:
        raise CheckpointError(f"could not move {made} to {target}: {_reason(error, target)}") from error
    return True


def write_probe(version_dir: Path, probe_ids: Sequence[Sequence[int]], model: PreTrainedModel | None = None) -> None:
    """Write the trainer's logprobs of `probe_ids` under the version's weights (agent/proof.py), atomically.

    `model`: the trainer's, which holds those weights; without it they are loaded. Raises CheckpointError if it cannot
    be written, ValueError for a prompt of fewer than two tokens.
    """
    if short := [ids for ids in probe_ids if len(ids) < 2]:
        raise ValueError(f"a probe needs prompts of at least two tokens, got {short[0]}")
    if model is None:
        model, _ = load_policy(version_dir)
    model.eval()
    # In one pass: autocast turns all weights into bfloat16 anew for each. As a server computes by default.
    row = pack([Family(ids) for ids in probe_ids])
    spans = [range(start, stop - 1) for start, stop, _ in row.layout.families]
    sources = torch.tensor([at for span in spans for at in span])
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=native_precision() == "bfloat16"):
        logprobs, _ = token_logprobs(model, row, sources, row.ids[0][sources + 1])
    rows = [part.tolist() for part in logprobs.split([len(span) for span in spans])]
    ids = [list(ids) for ids in probe_ids]
    write_note(version_dir / PROBE_FILE, json.dumps({"ids": ids, "logprobs": rows}))


def write_note(place: Path, text: str) -> None:
    """Write a small file, whole or not at all. Raises CheckpointError."""
    part = _part_of(place)
    try:
        part.write_text(text)
        _flush(part)
        part.replace(place)
    except OSError as error:
        raise CheckpointError(f"could not write {place}: {_reason(error, place)}") from error
    finally:
        part.unlink(missing_ok=True)


def save_state(state: Any, path: Path) -> None:
    """Write tensors and plain values (an optimizer's state) to one file, atomically. Raises CheckpointError."""
    part = _part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, part)
        _flush(part)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"could not write {path}: {_reason(error, path)}") from error
    finally:
        part.unlink(missing_ok=True)


def load_state(path: Path) -> Any:
    """What `save_state` wrote. Raises CheckpointError if it is missing or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"could not read {path}: it is damaged or no such file ({type(error).__name__})"
        ) from error


@contextmanager
def new_directory(out_dir: Path) -> Iterator[Path]:
    """A directory to fill that becomes `out_dir` when the block ends well, and vanishes when it does not."""
    if out_dir.exists():
        raise CheckpointError(f"{out_dir} exists: versions are immutable, choose a new name")
    part = _part_of(out_dir)
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _flush(file)
        part.rename(out_dir)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"could not write {out_dir}: {_reason(error, out_dir)}") from error
    except Exception as error:
        # safetensors reports a failed write as its own exception type.
        if type(error).__name__ == "SafetensorError":
            raise CheckpointError(f"could not write {out_dir}: {_reason(error, out_dir)}") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The trainer's newest complete checkpoint (`checkpoint-N`) in `run_dir`; half-written ones are passed over."""
    complete = [path for path in run_dir.glob("checkpoint-*") if (path / COMPLETE).is_file()]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def mark_complete(checkpoint: Path) -> None:
    """Say that every file of a trainer's checkpoint is on the disk."""
    for file in checkpoint.iterdir():
        _flush(file)
    (checkpoint / COMPLETE).touch()


def remove_others(checkpoint: Path) -> None:
    """Remove the run's other checkpoints. Each stops counting before its first file goes: a kill half-way leaves none
    that looks whole."""
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other.name != checkpoint.name:
            (other / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(other, ignore_errors=True)


def attempt(action: Callable[[], Any], place: Path) -> Any:
    """Run a library's write to `place`; its failure becomes a CheckpointError with the reason."""
    try:
        return action()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"could not write {place}: {_reason(error, place)}") from error


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def _flush(file: Path) -> None:
    if file.is_file():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException, place: Path) -> str:
    parent = next(p for p in (place, *place.parents) if p.exists())
    free = shutil.disk_usage(parent).free / 2**20
    return f"{error} ({free:,.0f} MiB free there; make room or set `home` to another disk)"
