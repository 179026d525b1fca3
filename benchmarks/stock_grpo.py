"""TRL's GRPOTrainer as it comes, fed rollouts that are there already: the peer of train/grpo.py.

Nothing is generated: the method that would do it hands over the logged ids, logprobs and advantages, padded as TRL pads
them. Forward, loss, backward and optimizer are TRL's and transformers' own, with the arguments of ours.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from train.groups import TrainingGroup, TrainingMember
from train.training_run import shared_arguments

MICRO_BATCH = 4


class StockTrainer(GRPOTrainer):  # type: ignore[misc]
    """Takes the members of `groups`, whose number is the prompt, instead of generating completions."""

    def __init__(self, groups: Sequence[TrainingGroup], **arguments: Any) -> None:
        self._groups = groups
        super().__init__(**arguments)

    def _generate_and_score_completions(self, inputs: list[dict[str, str]]) -> dict[str, Tensor]:
        seen: dict[str, int] = {}
        members = []
        for row in inputs:
            place = seen.setdefault(row["prompt"], 0)
            seen[row["prompt"]] += 1
            members.append(self._groups[int(row["prompt"])].members[place])
        mean = sum(member.reward or 0.0 for member in members) / len(members)
        in_loss = _padded([member.in_loss for member in members])
        return {
            "prompt_ids": _padded([member.prompt_ids for member in members], left=True),
            "prompt_mask": _padded([[1] * len(member.prompt_ids) for member in members], left=True),
            "completion_ids": _padded([member.completion_ids for member in members]),
            "completion_mask": _padded([[1] * len(member.completion_ids) for member in members]),
            "tool_mask": in_loss,
            "old_per_token_logps": _padded([member.logprobs for member in members], kind=torch.float32),
            "advantages": torch.tensor([(member.reward or 0.0) - mean for member in members]),
            "num_items_in_batch": in_loss.sum().float(),
        }


class _Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def stock_speed(model_dir: Path, groups: Sequence[TrainingGroup], folder: Path, groups_a_step: int) -> float:
    """Tokens a second of all steps but the first, the optimizer's work included; padding is not counted."""
    size = len(groups[0].members)
    arguments = shared_arguments(folder, 1, 1e-6) | {
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": groups_a_step * size // MICRO_BATCH,
        "num_generations": size,
        "shuffle_dataset": False,
        "loss_type": "dapo",
        "beta": 0.0,
        "scale_rewards": "none",
        "max_steps": len(groups) // groups_a_step,
    }
    clock = _Clock()
    trainer = StockTrainer(
        groups,
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_dict({"prompt": [str(n) for n in range(len(groups))]}),
        processing_class=AutoTokenizer.from_pretrained(model_dir),
        callbacks=[clock],
    )
    trainer.train()
    shutil.rmtree(folder, ignore_errors=True)
    tokens = sum(_length(member) for group in groups[groups_a_step:] for member in group.members)
    return tokens / (clock.ends[-1] - clock.ends[0])


def _length(member: TrainingMember) -> int:
    return len(member.prompt_ids) + len(member.completion_ids)


def _padded(rows: Sequence[Sequence[float]], *, left: bool = False, kind: torch.dtype = torch.long) -> Tensor:
    tensors = [torch.tensor(list(row), dtype=kind) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_side="left" if left else "right")
