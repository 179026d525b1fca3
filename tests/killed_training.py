"""A GRPO run in a process of its own that is killed (SIGKILL) at a given moment: in a step, or writing a checkpoint."""

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from store.training_settings import GrpoSettings
from train.groups import TrainingGroup
from train.grpo import train_grpo


@dataclass(frozen=True)
class Moment:
    """When the process dies, counted from its own start."""

    steps: int = 0
    """So many optimizer steps are done …"""
    then_s: float = 0.0
    """… and so many seconds have passed; what it does meanwhile is up to the machine."""
    file: int | None = None
    """Instead: when the n-th file of a checkpoint is opened to be written, or is about to be removed."""


def train(
    model_dir: Path,
    home: Path,
    groups: list[TrainingGroup],
    settings: GrpoSettings,
    every: int,
    dies: Moment | None = None,
) -> None:
    """The run of `home`, gone on with if it was killed; `home / "made"` holds the version."""
    torch.set_num_threads(1)
    done = 0

    def on_step(*_: Any) -> None:
        nonlocal done
        done += 1
        if dies is not None and dies.file is None and done == dies.steps + 1:
            threading.Timer(dies.then_s, die).start()

    if dies is not None and dies.file is not None:
        _die_at_file(home / "run", dies.file)
    train_grpo(model_dir, home / "made", groups, settings, 1, on_step, run_dir=home / "run", checkpoint_every=every)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_file(run_dir: Path, count: int) -> None:
    touched = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if event == "open" and arguments[2] & _WRITING:
            place = str(arguments[0])
        elif event == "os.remove":
            folder = f"{os.readlink(f'/proc/self/fd/{arguments[1]}')}/" if arguments[1] >= 0 else ""
            place = f"{folder}{arguments[0]}"
        else:
            return
        if f"{run_dir}/checkpoint-" not in place:
            return
        touched += 1
        if touched == count:
            die()

    sys.addaudithook(hook)


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
