"""A GRPO run in one of several processes, as a launcher starts them; the first notes each step's metrics."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from store.training_settings import GrpoSettings
from train.groups import TrainingGroup
from train.grpo import train_grpo
from train.processes import follow, in_all_processes, is_first, leading


def run(
    rank: int, count: int, port: int, home: Path, model_dir: Path, groups: list[TrainingGroup], settings: GrpoSettings
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    if not is_first():
        follow()
        return
    seen: list[dict[str, Any]] = []
    options: dict[str, Any] = {"run_dir": home / "run", "checkpoint_every": 2}
    notes = {"on_step": lambda step, steps, metrics: seen.append(metrics)}
    with leading():
        in_all_processes(train_grpo, model_dir, home / "made", groups, settings, 1, here=notes, **options)
    (home / "metrics.json").write_text(json.dumps(seen))
