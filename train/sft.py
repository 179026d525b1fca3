"""Cold start: supervised fine-tuning on reference dialogues (CM2 pipeline, step 3) with TRL's SFTTrainer.

Reads a model directory and rendered dialogues, writes a new model directory. The loss is on the tokens that the
assistant says, averaged over all of them in a batch; dialogues are packed into rows without padding (train/packed.py).
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from store.training_settings import SftSettings
from train.adapters import adapted, base_of, merged
from train.best_weights import Best, BestWeights, Play, forget_if_moved
from train.checkpoints import attempt, save_version, write_probe
from train.half_precision import Bfloat16Twin
from train.packed import Family, PackedRow, pack, token_logprobs
from train.processes import refuse_several
from train.run_directory import MarkComplete, open_run_dir
from train.tracking import end_tracking
from train.training_run import (
    OnStep,
    StepReport,
    TrainingError,
    checkpoint_layers,
    last_epoch_loss,
    load_policy,
    quiet,
    shared_arguments,
)

MICRO_BATCH_TOKENS = 4096
"""Tokens of a forward pass; a batch of longer dialogues is taken in several, with the same gradient."""


@dataclass(frozen=True)
class SftExample:
    """A rendered dialogue; `loss_mask` is 1 on tokens that the assistant says. Equal lengths."""

    ids: list[int]
    loss_mask: list[int]


@dataclass(frozen=True)
class SftResult:
    steps: int
    tokens: int
    """Tokens that went through the model, all epochs."""
    loss: float
    """Mean over the last epoch's steps."""
    seconds: float
    files: dict[str, str]
    """File name -> SHA-256 of the written version."""
    best: Best | None = None
    """Whose weights these are, where they were measured; None: the last ones."""


@dataclass(frozen=True)
class MicroBatch:
    row: PackedRow
    sources: Tensor
    """(N,) positions in the row whose next token is in the loss."""
    targets: Tensor
    """(N,) those tokens."""
    weights: Tensor
    """(N,) what each of them weighs in the loss."""


def train_sft(
    model_dir: Path,
    out_dir: Path,
    examples: Sequence[SftExample],
    settings: SftSettings,
    seed: int,
    on_step: OnStep = lambda step, steps, metrics: None,
    *,
    probe_ids: Sequence[Sequence[int]] = (),
    validation: Sequence[SftExample] = (),
    play: Play | None = None,
    run_dir: Path | None = None,
    tracking: Mapping[str, Any] | None = None,
) -> SftResult:
    """Train `model_dir` on `examples` and write `out_dir`: AdamW, cosine decay after 10 % warm-up, seeded order.

    With `validation` or `play` the weights are measured every `settings.evaluate_every` steps and at the end, and the
    best ones are written, by `play`'s reward where it is given, else by the loss on `validation`. With `run_dir` a
    killed run that is called again with the same arguments goes on from its last checkpoint; whoever registers the
    version removes it after that. With `probe_ids`, what the trained model makes of these prompts is written there too
    (agent/proof.py). `tracking`: what `tracking_arguments` gives.

    Raises TrainingError for examples that cannot be trained on, CheckpointError if `out_dir` cannot be written.
    """
    began = time.monotonic()
    refuse_several("a cold start")
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    _check(examples)
    _check(validation or examples)
    if (validation or play is not None) and run_dir is None:
        raise TrainingError("weights that are measured need a run_dir to keep the best ones in")
    model, tokenizer = load_policy(model_dir)
    top = max(max(e.ids) for e in (*examples, *validation))
    if top >= model.get_input_embeddings().num_embeddings:
        raise TrainingError(f"token id {top} is not in the vocabulary of {model_dir}: render with its tokenizer")
    checkpoint = None
    arguments = shared_arguments(run_dir or out_dir.parent, seed, settings.learning_rate, settings.precision)
    if run_dir is not None:
        forget_if_moved(run_dir)
        checkpoint = open_run_dir(run_dir, _fingerprint(model_dir, examples, validation, settings, seed))
        saving = {"save_strategy": "steps", "save_steps": settings.checkpoint_every}
        arguments |= saving
    arguments |= tracking or {}
    trained = model
    if settings.method == "lora":
        torch.manual_seed(seed)
        trained = adapted(model, settings, "sft")
    trainer = PackedSftTrainer(
        model=trained,
        args=SFTConfig(
            **arguments,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list([_row(e) for e in examples]),
        processing_class=tokenizer,
        data_collator=_collate,
    )
    quiet(trainer)
    if settings.gradient_checkpointing:
        trainer.checkpoint_layers()
    keeper = None
    if run_dir is not None and (validation or play is not None):
        batches = [_collate([_row(e)])["micro_batches"][0] for e in validation]
        keeper = BestWeights(
            run_dir,
            every=settings.evaluate_every,
            loss=(lambda: trainer.loss_on(batches)) if batches else None,
            save=lambda place: save_version(merged(trained), model_dir, place),
            play=play,
            metrics=trainer.add_metrics,
        )
        trainer.add_callback(keeper)
    trainer.add_callback(StepReport(on_step, trainer.step_metrics))
    trainer.add_callback(MarkComplete())
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    end_tracking(arguments)
    if keeper is not None:
        files = keeper.copy_to(out_dir)
    else:
        model = merged(trained)
        files = save_version(model, model_dir, out_dir)
    if probe_ids:
        write_probe(out_dir, probe_ids, None if keeper is not None else model)
    steps = trainer.state.global_step
    tokens = settings.epochs * sum(len(e.ids) for e in examples)
    loss = last_epoch_loss(trainer, settings.epochs) or 0.0
    best = keeper.best if keeper is not None else None
    return SftResult(steps, tokens, loss, time.monotonic() - began, files, best)


class PackedSftTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose batch is a list of packed micro-batches: same loss, no padding, logits only where needed."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._twin = Bfloat16Twin(base_of(self.accelerator.unwrap_model(self.model)), wanted=self.args.bf16)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        model.train()
        micro_batches: list[MicroBatch] = inputs["micro_batches"]
        in_loss = sum(len(micro.targets) for micro in micro_batches)
        weight = sum(float(micro.weights.sum()) for micro in micro_batches)
        total = torch.zeros((), device=self.accelerator.device)
        self._twin.refresh()
        for micro in micro_batches:
            logprobs, _ = token_logprobs(self._twin.model, micro.row, micro.sources, micro.targets)
            loss = -(logprobs * micro.weights.to(logprobs.device)).sum() / weight
            self.accelerator.backward(loss)
            total += loss.detach()
        self._last = {"tokens": float(inputs["input_ids"].numel()), "tokens_in_loss": float(in_loss)}
        return total

    def loss_on(self, batches: Sequence[MicroBatch]) -> float:
        """Mean over the tokens in the loss, with the weights as they are now; nothing is learnt."""
        self._twin.refresh()
        model = self._twin.model
        was_training = model.training
        model.eval()
        nats = tokens = 0.0
        with torch.no_grad():
            for micro in batches:
                logprobs, _ = token_logprobs(model, micro.row, micro.sources, micro.targets)
                nats -= float((logprobs * micro.weights.to(logprobs.device)).sum())
                tokens += float(micro.weights.sum())
        model.train(was_training)
        return nats / tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """To the trackers goes what goes into the log's metric table."""
        tracked = self.step_metrics() if self.args.report_to and "loss" in logs else {}
        super().log(logs | tracked, start_time)

    def checkpoint_layers(self) -> None:
        checkpoint_layers(self._twin.model)

    def step_metrics(self) -> dict[str, float]:
        return self._last

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Metrics that go with those of the last step."""
        self._last |= metrics

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # TRL's own writes a model card first, which a checkpoint has no use for.
        save = super(SFTTrainer, self)._save_checkpoint
        attempt(lambda: save(model, trial), Path(self.args.output_dir or "."))


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """One optimizer step's dialogues as micro-batches of at most MICRO_BATCH_TOKENS tokens (or one dialogue)."""
    micro_batches: list[list[dict[str, list[int]]]] = []
    room = 0
    for row in sorted(rows, key=lambda r: len(r["input_ids"]), reverse=True):
        if not micro_batches or len(row["input_ids"]) > room:
            micro_batches.append([])
            room = MICRO_BATCH_TOKENS
        micro_batches[-1].append(row)
        room -= len(row["input_ids"])
    ids = [token for row in rows for token in row["input_ids"]]
    return {"input_ids": torch.tensor([ids]), "micro_batches": [_micro_batch(rows) for rows in micro_batches]}


def _micro_batch(rows: list[dict[str, list[int]]]) -> MicroBatch:
    sources, targets, start = [], [], 0
    for row in rows:
        places = [i for i, label in enumerate(row["labels"]) if label != -100]
        sources += [start + i - 1 for i in places]
        targets += [row["labels"][i] for i in places]
        start += len(row["input_ids"])
    packed = pack([Family(row["input_ids"]) for row in rows])
    return MicroBatch(packed, torch.tensor(sources), torch.tensor(targets), torch.ones(len(targets)))


def _row(example: SftExample) -> dict[str, list[int]]:
    return {"input_ids": example.ids, "labels": _labels(example)}


def _fingerprint(
    model_dir: Path,
    examples: Sequence[SftExample],
    validation: Sequence[SftExample],
    settings: SftSettings,
    seed: int,
) -> str:
    found = hashlib.sha256(json.dumps([str(model_dir.resolve()), settings.model_dump(mode="json"), seed]).encode())
    for example in (*examples, None, *validation):
        found.update(json.dumps(example and [example.ids, example.loss_mask]).encode())
    return found.hexdigest()


def _labels(example: SftExample) -> list[int]:
    return [token if kept else -100 for token, kept in zip(example.ids, example.loss_mask, strict=True)]


def _check(examples: Sequence[SftExample]) -> None:
    if not examples:
        raise TrainingError("there are no dialogues to train on")
    for index, example in enumerate(examples):
        if len(example.ids) != len(example.loss_mask):
            raise TrainingError(
                f"dialogue {index} has {len(example.ids)} ids and a loss mask of {len(example.loss_mask)}"
            )
        if not example.ids or example.loss_mask[0] or not any(example.loss_mask):
            raise TrainingError(f"dialogue {index} needs a prompt without loss and at least one token in the loss")
