"""Distils a small judge: a LoRA adapter (peft) trained with TRL's SFTTrainer on what people, checks and judges said.

Reads a model directory and examples (train/judge_examples.py), writes an adapter directory as peft does (safetensors).
Weights of the adapter, gradients and optimizer are float32, the passes run on a bfloat16 twin; the loss is on the
answers alone, PASS and FAIL weigh the same in all (train/judge_batches.py).
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import SFTConfig

from store.training_settings import DistilSettings
from train.adapters import adapted
from train.checkpoints import new_directory
from train.judge_batches import TurnFamily, collate, make_families, order_steps
from train.judge_examples import JudgeExample, class_weights
from train.run_directory import MarkComplete, open_run_dir
from train.sft import PackedSftTrainer
from train.training_run import (
    OnStep,
    StepReport,
    TrainingError,
    last_epoch_loss,
    load_policy,
    quiet,
    shared_arguments,
)


@dataclass(frozen=True)
class DistilResult:
    steps: int
    examples: int
    too_long: int
    """Examples left out because they are longer than `distil.max_tokens` or the model's context."""
    tokens: int
    """That went through the model, all epochs; what a turn's items share counts once."""
    loss: float | None
    """Mean over the last epoch's steps, also of those before a kill; None if no step's is known."""
    seconds: float


def train_judge(
    model_dir: Path,
    out_dir: Path,
    examples: Sequence[JudgeExample],
    settings: DistilSettings,
    seed: int,
    on_step: OnStep = lambda step, steps, metrics: None,
    *,
    run_dir: Path,
) -> DistilResult:
    """Trains an adapter on `model_dir` and writes it to `out_dir`: AdamW, cosine decay after 10 % warm-up.

    Every `settings.checkpoint_every` steps are saved in `run_dir`; a killed run that is called again with the same
    examples, settings and seed goes on there, with the same result; at the end they are removed. Raises TrainingError
    if it cannot start, CheckpointError if something cannot be written; then `out_dir` does not exist.
    """
    began = time.monotonic()
    model, tokenizer = load_policy(model_dir)
    room = min(settings.max_tokens, int(model.config.get_text_config().max_position_embeddings))
    families, too_long = make_families(examples, tokenizer, room, class_weights(examples))
    if not families:
        raise TrainingError(f"none of {len(examples)} examples has at most {room} tokens: raise distil.max_tokens")
    checkpoint = open_run_dir(run_dir, _fingerprint(model_dir, families, settings, seed))
    torch.manual_seed(seed)
    with_adapter = adapted(model, settings, "distil", layers=settings.lora_layers)
    steps = order_steps(families, settings.batch_turns, settings.epochs, seed)
    trainer = JudgeTrainer(
        steps,
        model=with_adapter,
        args=SFTConfig(
            **shared_arguments(run_dir, seed, settings.learning_rate)
            | {"save_strategy": "steps", "save_steps": settings.checkpoint_every},
            max_steps=len(steps),
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_dict({"input_ids": [[0]] * len(steps), "labels": [[0]] * len(steps)}),
        processing_class=tokenizer,
        data_collator=collate,
    )
    quiet(trainer)
    trainer.add_callback(StepReport(on_step, trainer.step_metrics))
    trainer.add_callback(MarkComplete())
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    with new_directory(out_dir) as part:
        with_adapter.save_pretrained(str(part), save_embedding_layers=False)
        # peft's own card is an empty form.
        (part / "README.md").unlink(missing_ok=True)
    shutil.rmtree(run_dir, ignore_errors=True)
    tokens = settings.epochs * sum(family.tokens for family in families)
    count = sum(len(family.examples) for family in families)
    loss = last_epoch_loss(trainer, settings.epochs)
    return DistilResult(len(steps), count, too_long, tokens, loss, time.monotonic() - began)


class JudgeTrainer(PackedSftTrainer):
    """SFTTrainer whose batches are the turns of one step each, in an order decided beforehand."""

    def __init__(self, steps: Sequence[Sequence[TurnFamily]], **arguments: Any) -> None:
        self._steps = list(steps)
        super().__init__(**arguments)

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        steps: Any = self._steps
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=lambda drawn: collate(drawn[0]))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 6 * int(inputs["input_ids"].numel()) * int(self.model.num_parameters(exclude_embeddings=True))


def _fingerprint(model_dir: Path, families: Sequence[TurnFamily], settings: DistilSettings, seed: int) -> str:
    found = hashlib.sha256(json.dumps([str(model_dir.resolve()), settings.model_dump(mode="json"), seed]).encode())
    for family in families:
        for example, weight in family.examples:
            found.update(json.dumps([example.question, example.answer, weight]).encode())
    return found.hexdigest()
