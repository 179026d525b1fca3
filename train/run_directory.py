"""Where a training run keeps its checkpoints, so that a killed one goes on there; whose they are is written beside."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from store.database import Log
from store.runs import list_runs
from train.checkpoints import mark_complete, newest_checkpoint, remove_others
from train.processes import is_first, wait_for_all
from train.training_run import TrainingError


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
    note.write_text(json.dumps({"fingerprint": fingerprint}))
    return None
