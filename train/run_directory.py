"""Where a training run keeps its checkpoints, so that a killed one goes on there; whose they are is written beside.

One process at a time trains in a run's folder: it holds a lock there, which goes with it however it ends.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from store.database import Log
from store.runs import list_runs
from train.checkpoints import mark_complete, newest_checkpoint, remove_others, write_note
from train.processes import is_first, wait_for_all
from train.training_run import TrainingError

LOCK = "lock"
"""Held by the process that trains in the folder; says which one that is."""


class MarkComplete(TrainerCallback):  # type: ignore[misc]
    """A checkpoint counts once all its files are on the disk; only then those before it go.

    The trainer's own `save_total_limit` removes the old one first: a kill in between would leave none.
    """

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        wait_for_all()  # each process writes its random state
        if is_first():
            written = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            mark_complete(written)
            remove_others(written)


def next_run_name(log: Log, kind: str) -> str:
    """grpo-0001, grpo-0002 …: one more than the greatest there is."""
    numbers = [run.name.removeprefix(f"{kind}-") for run in list_runs(log) if run.name.startswith(f"{kind}-")]
    return f"{kind}-{max((int(n) for n in numbers if n.isdigit()), default=0) + 1:04d}"


def open_run_dir(run_dir: Path, fingerprint: str) -> Path | None:
    """The checkpoint to go on from. Raises TrainingError if `run_dir` holds another run's."""
    note = run_dir / "run.json"
    if note.is_file():
        if json.loads(note.read_text())["fingerprint"] != fingerprint:
            raise TrainingError(
                f"{run_dir} holds checkpoints of a run with other data, settings, seed or start: remove it or "
                "choose another run_dir"
            )
        return newest_checkpoint(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_note(note, json.dumps({"fingerprint": fingerprint}))
    return None


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Nobody else trains in a run's folder meanwhile; it is made if need be, and goes with the block if it is empty.

    Raises TrainingError that says which process does. It comes from an OSError, so that a job which takes over from
    one that is about to end is tried again.
    """
    lock = _lock(folder)
    try:
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
    finally:
        if _is_at(lock, folder):
            (folder / LOCK).unlink()
            with contextlib.suppress(OSError):  # it holds checkpoints
                folder.rmdir()
        lock.close()


def _lock(folder: Path) -> TextIO:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / LOCK).open("a+")
        except (FileNotFoundError, FileExistsError):  # whoever was here has just removed the folder
            if folder.exists() and not folder.is_dir():
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            who = lock.read() or "another process"
            lock.close()
            raise TrainingError(
                f"{who} trains in {folder} already: wait for it, end it, or give this run another name (--name)"
            ) from error
        except OSError:  # a file system without locks
            return lock
        if _is_at(lock, folder):
            return lock
        lock.close()  # it was removed between opening and locking it, by whoever held it until then


def _is_at(lock: TextIO, folder: Path) -> bool:
    """Whether this file is the folder's lock, not one that went with an earlier folder of that name."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat())
    except FileNotFoundError:
        return False
