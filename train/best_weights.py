"""Keeps the best weights of a run: measured every k steps, written beside the checkpoints, copied out at the end.

A killed run that goes on finds what was best; what it measures again comes out equal, and the earlier stays.
"""

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from agent.weight_files import file_hashes
from train.checkpoints import CheckpointError, new_directory

Play = Callable[[Path, int], float]
"""(version directory, step) to the mean reward of rollouts with it; NaN where it is not known."""


@dataclass(frozen=True)
class Best:
    step: int
    loss: float | None
    """On the validation dialogues."""
    reward: float | None
    """Of rollouts; it decides where it is known."""

    @property
    def is_known(self) -> bool:
        return self.loss is not None or self.reward is not None

    def beats(self, other: "Best | None") -> bool:
        if other is None:
            return True
        if self.reward is not None and other.reward is not None:
            return self.reward > other.reward
        if self.loss is not None and other.loss is not None:
            return self.loss < other.loss
        return not other.is_known and self.is_known


def forget_if_moved(run_dir: Path) -> None:
    """Empties the directory of a run whose best weights are gone (an earlier checkloop moved them out): it begins
    anew."""
    note = run_dir / "best.json"
    if note.is_file() and not _place(run_dir, int(json.loads(note.read_text())["step"])).is_dir():
        shutil.rmtree(run_dir)


class BestWeights(TrainerCallback):  # type: ignore[misc]
    """`save` writes the current weights as a version; `metrics` takes what was measured."""

    def __init__(
        self,
        run_dir: Path,
        *,
        every: int,
        loss: Callable[[], float] | None,
        save: Callable[[Path], object],
        play: Play | None,
        metrics: Callable[[dict[str, float]], None],
    ) -> None:
        self._run_dir = run_dir
        self._note = run_dir / "best.json"
        self._every = every
        self._loss = loss
        self._save = save
        self._play = play
        self._metrics = metrics
        self.best = Best(**json.loads(self._note.read_text())) if self._note.is_file() else None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = int(state.global_step)
        if step < state.max_steps and not (self._every and step % self._every == 0):
            return
        place = self._place(step)
        if self.best is not None and self.best.step == step:  # measured before a kill
            return
        shutil.rmtree(place, ignore_errors=True)
        loss = _known(self._loss()) if self._loss is not None else None
        reward = None
        if self._play is not None:
            self._save(place)
            reward = _known(self._play(place, step))
        found = Best(step, loss, reward)
        self._metrics({f"validation_{k}": v for k, v in (("loss", loss), ("reward", reward)) if v is not None})
        if not found.beats(self.best):
            shutil.rmtree(place, ignore_errors=True)
            return
        if not place.exists():
            self._save(place)
        before, self.best = self.best, found
        part = self._note.with_name("best.part")
        part.write_text(json.dumps(asdict(found)))
        part.replace(self._note)
        if before is not None:
            shutil.rmtree(self._place(before.step), ignore_errors=True)

    def copy_to(self, out_dir: Path) -> dict[str, str]:
        """The best weights as `out_dir`; file name -> SHA-256. They stay here, too, until the run's folder goes: a kill
        before the version is registered loses nothing. Raises CheckpointError if it is there already."""
        if out_dir.exists():
            raise CheckpointError(f"{out_dir} exists: versions are immutable, choose a new name")
        if self.best is None:
            raise CheckpointError(f"no weights were measured in {self._run_dir}")
        with new_directory(out_dir) as part:
            for file in self._place(self.best.step).iterdir():
                _link(file, part / file.name)
        return file_hashes(out_dir)

    def _place(self, step: int) -> Path:
        return _place(self._run_dir, step)


def _link(file: Path, place: Path) -> None:
    """The same bytes under another name, without taking room twice where the file system can do that."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _known(value: float) -> float | None:
    """None for what is no number: it would be beaten by nothing, and JSON has no word for it."""
    return None if math.isnan(value) else value


def _place(run_dir: Path, step: int) -> Path:
    return run_dir / f"best-{step}"
