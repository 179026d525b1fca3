"""GRPO from logged groups with TRL's GRPOTrainer (CM2 equation 5, pipeline step 5).

Reads a model directory and groups of the log, writes a new model directory.

The ratio of the PPO loss is taken against the *behaviour* policy: `old_per_token_logps` are the logprobs that the
server returned when it sampled, so a group that an older version sampled gets the corrected gradient, and so does
the difference between the server's arithmetic and the trainer's, in every epoch. On top of TRL's clipping the weights
are bounded (train/corrections.py; by default CM2's: truncated at `importance_cap`, and a trajectory with a token ratio
below `importance_veto` has no gradient). The loss is summed over the tokens in the loss and divided by their number in
the whole optimizer step (loss_type "dapo"), however the step is cut into micro-batches.

What is TRL's: the loss, the optimizer, the schedule, the loop, checkpoints. What is ours: the batches come from the
log instead of a generation, the forward pass is the packed one (train/packed.py), and the KL penalty is bounded as the
loss is.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from peft.helpers import rescale_adapter_scale
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from store.training_settings import GrpoSettings
from train.adapters import adapted, base_of, merged
from train.alerts import Alerts, AlertWatch
from train.batches import DrawnSteps, MicroBatch, StepBatch
from train.checkpoints import attempt, load_state, save_state, save_version, write_probe
from train.corrections import Correction, correct
from train.groups import TrainingGroup
from train.half_precision import Bfloat16Twin
from train.packed import token_logprobs
from train.processes import (
    Alone,
    average_gradients,
    fill,
    from_first,
    is_first,
    share_of,
    through_root,
    total,
    wait_for_all,
    whole_weights,
)
from train.run_directory import MarkComplete, open_run_dir
from train.tracking import end_tracking
from train.training_run import (
    OnStep,
    StepReport,
    TrainingError,
    checkpoint_layers,
    freeze_all_but,
    load_policy,
    quiet,
    shared_arguments,
)
from train.trl_trainer import GRPOConfig, GRPOTrainer


@dataclass(frozen=True)
class GrpoResult:
    steps: int
    tokens: int
    """Of all members trained on; a prompt counts once for each."""
    loss: float
    """Of the last step."""
    seconds: float
    files: dict[str, str]
    """File name -> SHA-256 of the written version."""


def train_grpo(
    model_dir: Path,
    out_dir: Path,
    groups: Sequence[TrainingGroup],
    settings: GrpoSettings,
    seed: int,
    on_step: OnStep = lambda step, steps, metrics: None,
    *,
    optimizer_in: Path | None = None,
    optimizer_out: Path | None = None,
    run_dir: Path | None = None,
    checkpoint_every: int = 0,
    temperature: float = 1.0,
    probe_ids: Sequence[Sequence[int]] = (),
    reference_dir: Path | None = None,
    tracking: Mapping[str, Any] | None = None,
) -> GrpoResult:
    """`settings.epochs` passes over `groups` (as `select_groups` took them), from `model_dir`; the result is `out_dir`.

    `optimizer_in` / `optimizer_out`: Adam's moments from the run before, and where to leave them for the next one. With
    `checkpoint_every` k, every k steps are saved in `run_dir`, and a killed run that is called again with the same
    groups, settings and seed goes on there, with the same result; whoever registers the version removes `run_dir` after
    that. `temperature` is the one that the groups were sampled at. With `probe_ids`, what the trained model makes of
    these prompts is written into `out_dir` too (agent/proof.py). `reference_dir`: what `settings.kl` is held against;
    None: `model_dir`. `tracking`: what `tracking_arguments` gives. Of several processes (train/processes.py) all must
    call it alike; the first writes.

    Raises TrainingError if there is nothing to train on or `run_dir` belongs to another run, RunStopped if an alert
    stops it (its checkpoints from before stay in `run_dir`), CheckpointError if something cannot be written; then
    `out_dir` does not exist.
    """
    began = time.monotonic()
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    if checkpoint_every and run_dir is None:
        raise TrainingError("checkpoint_every needs a run_dir to keep the checkpoints in")
    steps = DrawnSteps(groups, settings, seed)
    if not steps:
        raise TrainingError("there is nothing to train on: no group has a member with an advantage")
    if settings.method == "lora" and (optimizer_in or optimizer_out):
        raise TrainingError("a run with an adapter begins with a fresh one: it takes and leaves no optimizer state")
    trained, tokenizer = _what_learns(model_dir, settings, seed)
    work_dir = Path(run_dir) if run_dir is not None else out_dir.parent
    checkpoint = None
    if run_dir is not None:
        start = [str(model_dir.resolve()), str((reference_dir or model_dir).resolve())]
        fingerprint = _fingerprint(start, groups, settings, seed, temperature)
        checkpoint = from_first(open_run_dir(work_dir, fingerprint) if is_first() else None)
    arguments = grpo_arguments(work_dir, settings, seed, temperature)
    if checkpoint_every:
        arguments |= {"save_strategy": "steps", "save_steps": checkpoint_every}
    arguments |= tracking or {}
    trainer = LoggedGroupsTrainer(trained, tokenizer, steps, settings, arguments, reference_dir or model_dir)
    last: dict[str, float] = {}

    def report(step: int, count: int, metrics: dict[str, float]) -> None:
        last.update(metrics)
        on_step(step, count, metrics)

    trainer.add_callback(StepReport(report, trainer.step_metrics))
    trainer.add_callback(AlertWatch(Alerts.read(settings.alerts, checkpoint), trainer.step_metrics))
    trainer.add_callback(MarkComplete())
    if optimizer_in is not None:
        trainer.take_moments(optimizer_in)
    resume = str(checkpoint) if checkpoint is not None else None
    trainer.train(resume_from_checkpoint=resume)
    end_tracking(arguments)
    files: dict[str, str] = {}
    whole = whole_weights(trainer.model) if trainer.is_sharded else None
    if is_first():
        if whole is not None:
            trained, _ = _what_learns(model_dir, settings, seed)
            fill(trained, whole)
        model = merged(trained)
        with ThreadPoolExecutor(1) as beside:  # the disk is waited for while the probe is computed
            saving = beside.submit(save_state, trainer.optimizer.state_dict(), optimizer_out) if optimizer_out else None
            files = save_version(model, model_dir, out_dir)
            if probe_ids:
                write_probe(out_dir, probe_ids, model)
            if saving is not None and (error := saving.exception()):
                shutil.rmtree(out_dir, ignore_errors=True)
                raise error
    wait_for_all()
    return GrpoResult(len(steps), steps.tokens, last.get("loss", 0.0), time.monotonic() - began, files)


def _what_learns(model_dir: Path, settings: GrpoSettings, seed: int) -> tuple[Any, PreTrainedTokenizerBase]:
    """The policy, with its adapter or with the layers frozen that do not learn, and its tokenizer."""
    model, tokenizer = load_policy(model_dir)
    if settings.method == "lora":
        torch.manual_seed(seed)
        return adapted(model, settings, "grpo"), tokenizer
    freeze_all_but(model, settings.trained_layers)
    return model, tokenizer


def grpo_arguments(work_dir: Path, settings: GrpoSettings, seed: int, temperature: float = 1.0) -> dict[str, Any]:
    """Arguments of GRPOConfig: constant learning rate, no generation. The epochs are in the steps."""
    return shared_arguments(work_dir, seed, settings.learning_rate, settings.precision) | {
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.99,
        "loss_type": "dapo",
        "epsilon": settings.clip_low,
        "epsilon_high": settings.clip_high,
        "beta": settings.kl,
        "temperature": temperature,
        "scale_rewards": "none",
        "num_iterations": 1,
        "steps_per_generation": 1,
        # Not used: a batch is one StepBatch. TRL asks for a batch that holds whole groups of at least two.
        "per_device_train_batch_size": 2,
        "num_generations": 2,
    }


class LoggedGroupsTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose batches are StepBatches made from the log; `arguments` as in `grpo_arguments`."""

    accelerator: Any

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        steps: Sequence[StepBatch],
        settings: GrpoSettings,
        arguments: dict[str, Any],
        reference_dir: Path,
    ) -> None:
        self._steps = steps
        self._settings = settings
        self._sums: dict[str, float] = {}
        self._ready: tuple[Tensor, Tensor] | None = None
        # TRL loads the model of the KL penalty from there; of a model with an adapter it would copy the adapter, where
        # the frozen weights are all that is needed.
        loaded_from, model.config._name_or_path = model.config._name_or_path, str(reference_dir)
        if is_peft_model(model):
            arguments = arguments | {"beta": 0.0}
        super().__init__(
            model=model,
            reward_funcs=_reward_is_logged,
            args=GRPOConfig(**arguments, max_steps=len(self._steps)),
            train_dataset=Dataset.from_dict({"prompt": [""] * len(self._steps)}),
            processing_class=tokenizer,
        )
        self.beta = settings.kl
        model.config._name_or_path = loaded_from
        if self.ref_model is not None and self.ref_model.config.vocab_size != model.config.vocab_size:
            raise TrainingError(
                f"the reference in {reference_dir} has {self.ref_model.config.vocab_size} tokens, the trained model "
                f"{model.config.vocab_size}: grpo.reference must name a version of the same model"
            )
        quiet(self)
        self.is_sharded = bool(self.is_fsdp_enabled)
        if self.is_sharded:
            # Logprobs leave the model in float32; accelerate's own policy would round them, and the gradients' sums.
            param_dtype = torch.bfloat16 if self.args.bf16 else torch.float32
            policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy
        # What is sharded is computed with in bfloat16 as it is gathered, without a twin.
        wanted = self.args.bf16 and not self.is_sharded
        self._twin = Bfloat16Twin(base_of(self.accelerator.unwrap_model(self.model)), wanted=wanted)
        if settings.gradient_checkpointing:
            checkpoint_layers(self._twin.model)

    def get_train_dataloader(self) -> DataLoader[StepBatch]:
        steps: Any = self._steps
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=lambda drawn: {"step": drawn[0]})

    def take_moments(self, file: Path) -> None:
        """Start from the Adam moments of an earlier run, with this run's learning rate. Raises CheckpointError."""
        self.create_optimizer()
        assert self.optimizer is not None
        wanted = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(load_state(file))
        except (ValueError, KeyError) as error:
            raise TrainingError(f"the optimizer state in {file} does not fit this model: {error}") from error
        for group, values in zip(self.optimizer.param_groups, wanted, strict=True):
            # Also drops what the earlier run's schedule left there: its initial learning rate.
            params = group["params"]
            group.clear()
            group.update(params=params, **values)

    def training_step(
        self, model: nn.Module, inputs: dict[str, StepBatch], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        model.train()
        self._twin.refresh()
        step = inputs["step"]
        self._sums = {}
        loss_of_step = torch.zeros((), device=self.accelerator.device)
        for micro in share_of(step.micro_batches):
            loss = self._compute_loss(model, self._trl_inputs(micro, step.tokens_in_loss))
            self.accelerator.backward(loss)
            loss_of_step += loss.detach()
        # TRL multiplies the loss by the number of processes, whose mean is taken of gradients and of losses.
        if not self.is_sharded:
            average_gradients(self.accelerator.unwrap_model(model))
        self._sums = total(self._sums, ("ratio_max",), self.accelerator.device)
        self._step += 1
        self._metrics["train"].clear()
        self._last_step = step
        return loss_of_step

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """To the trackers goes what goes into the log's metric table."""
        tracked = self.step_metrics() if self.args.report_to and "loss" in logs else {}
        super().log(logs | tracked, start_time)

    def floating_point_ops(self, inputs: dict[str, StepBatch]) -> int:
        return 6 * inputs["step"].tokens_computed * int(self.model.num_parameters(exclude_embeddings=True))

    def _trl_inputs(self, micro: MicroBatch, tokens_in_loss: int) -> dict[str, Any]:
        device = self.accelerator.device
        empty = torch.zeros(len(micro.completion_ids), 0, dtype=torch.long, device=device)
        return {
            "micro_batch": micro,
            "prompt_ids": empty,
            "prompt_mask": empty,
            "completion_ids": micro.completion_ids.to(device),
            "completion_mask": micro.completion_mask.to(device),
            "tool_mask": micro.loss_mask.to(device),
            "advantages": micro.advantages.to(device),
            "old_per_token_logps": micro.behaviour_logprobs.to(device),
            "num_items_in_batch": torch.tensor(float(tokens_in_loss), device=device),
        }

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        micro: MicroBatch = inputs["micro_batch"]
        logprobs, entropies = self._forward(self._twin.model, micro)
        mask = inputs["tool_mask"].bool()
        behaviour, advantages = inputs["old_per_token_logps"], inputs["advantages"]
        correction = correct(logprobs.detach(), behaviour, mask, self._settings)
        self._count(logprobs.detach(), entropies, behaviour, advantages, mask, correction)
        if self._settings.correction.startswith("sequence_"):
            # TRL takes exp(logprobs - old) for the ratio: its value is the sequence's, its gradient the token's.
            inputs["old_per_token_logps"] = logprobs.detach() - correction.log_ratio
        # A factor on the advantage is a factor on the token's loss: both sides of TRL's minimum are linear in it.
        inputs["advantages"] = advantages * correction.factor
        penalty = self._penalty(micro, logprobs, behaviour, mask, correction) if self._settings.kl else None
        self._ready = (logprobs, entropies)
        together, self.accelerator = self.accelerator, Alone(self.accelerator)
        beta, self.beta = self.beta, 0.0
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self.accelerator, self.beta = together, beta
        if penalty is None:
            return loss
        # Divided as TRL divides the policy's loss of type "dapo".
        return loss + penalty * (together.num_processes / inputs["num_items_in_batch"].clamp(min=1.0))

    def _penalty(
        self, micro: MicroBatch, logprobs: Tensor, behaviour: Tensor, mask: Tensor, correction: Correction
    ) -> Tensor:
        """Summed over the tokens in the loss: the divergence from the reference (k3) times the ratio, whose gradient
        makes it the unbiased one of the reverse KL divergence, bounded as the token's policy loss is.

        TRL's own takes the ratio as it is: a vetoed or masked trajectory would still have a gradient, and a token that
        the policy has come to say a hundred times as often would count a hundred times.
        """
        apart = self._reference(micro) - logprobs
        divergence = apart.exp() - apart - 1
        self._sums["kl"] = self._sums.get("kl", 0.0) + float(divergence.detach()[mask].sum())
        weighed = divergence * (logprobs - behaviour).exp() * correction.factor
        return self._settings.kl * weighed[mask].sum()

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        """TRL asks here for a padded forward pass; the packed one has been made."""
        assert self._ready is not None
        (logprobs, entropies), self._ready = self._ready, None
        return logprobs, entropies, None

    def _reference(self, micro: MicroBatch) -> Tensor:
        """Logprobs (B, T) under the reference; with an adapter these are the frozen weights' own."""
        with torch.no_grad():
            if self.ref_model is None:
                with rescale_adapter_scale(self._twin.model, 0.0):
                    return self._forward(self._twin.model, micro)[0]
            with self.accelerator.autocast():
                return self._forward(self.ref_model, micro)[0]

    def _forward(self, model: PreTrainedModel, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logprobs and entropies (B, T) of the tokens in the loss, 0 elsewhere."""

        def compute() -> tuple[Tensor, Tensor]:
            return token_logprobs(model, micro.row, micro.sources, micro.targets, self.temperature)

        root = self.model if model is self._twin.model else model
        logprobs, entropies = through_root(root, compute) if self.is_sharded else compute()
        places = tuple(index.to(logprobs.device) for index in micro.places)
        blank = torch.zeros(micro.loss_mask.shape, device=logprobs.device)
        return blank.index_put(places, logprobs), blank.index_put(places, entropies)

    def _count(
        self,
        logprobs: Tensor,
        entropies: Tensor,
        behaviour: Tensor,
        advantages: Tensor,
        mask: Tensor,
        correction: Correction,
    ) -> None:
        ratio = correction.log_ratio.exp()[mask]
        apart = (logprobs - behaviour)[mask]
        clipped = ((ratio > 1 + self.epsilon_high) & (advantages[mask] > 0)) | (
            (ratio < 1 - self.epsilon_low) & (advantages[mask] < 0)
        )
        values = {
            "ratio": ratio.sum(),
            "ratio_squared": ratio.square().sum(),
            "clipped": clipped.sum(),
            "truncated": (ratio > self._settings.importance_cap).sum(),
            "vetoed": correction.vetoed.sum(),
            "masked": correction.masked.sum(),
            "mismatch": -apart.sum(),
            "mismatch_k3": (apart.exp() - apart - 1).sum(),
            "entropy": entropies[mask].sum(),
            "tokens": mask.sum(),
            "members": mask.any(dim=1).sum(),
        }
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._sums["ratio_max"] = max(self._sums.get("ratio_max", 0.0), float(ratio.max()) if len(ratio) else 0.0)

    def step_metrics(self) -> dict[str, float]:
        """What `on_step` and the log's metric table get of the last optimizer step (names are stable)."""
        step, sums = self._last_step, self._sums
        tokens = max(sums["tokens"], 1.0)
        advantages = torch.tensor(step.advantages)
        kl = {"kl": sums["kl"] / tokens} if "kl" in sums else {}
        by_kind = {f"pass_rate/{kind}": rate for kind, rate in step.pass_rates.items()}
        return (
            kl
            | by_kind
            | {
                "reward_mean": sum(step.rewards) / len(step.rewards),
                "advantage_std": float(advantages.std(correction=0)),
                "ratio_mean": sums["ratio"] / tokens,
                "ratio_max": sums["ratio_max"],
                "clipped_share": sums["clipped"] / tokens,
                "truncated_share": sums["truncated"] / tokens,
                "masked_share": sums["masked"] / tokens,
                "vetoed": sums["vetoed"],
                "vetoed_share": sums["vetoed"] / max(sums["members"], 1.0),
                # (Σ w)² / (n Σ w²): 1 if all tokens weigh the same.
                "effective_sample_share": sums["ratio"] ** 2 / max(tokens * sums["ratio_squared"], 1e-12),
                # Two estimates of KL(behaviour || policy): the plain mean, and k3, which is never negative.
                "mismatch_kl": sums["mismatch"] / tokens,
                "mismatch_kl_k3": sums["mismatch_k3"] / tokens,
                "entropy": sums["entropy"] / tokens,
                "members": sums["members"],
                "tokens": float(step.tokens),
                "tokens_computed": float(step.tokens_computed),
                "tokens_in_loss": float(step.tokens_in_loss),
            }
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # TRL's own writes a model card first, which a checkpoint has no use for.
        save = super(GRPOTrainer, self)._save_checkpoint
        attempt(lambda: save(model, trial), Path(self.args.output_dir or "."))


def _reward_is_logged(**_: Any) -> list[float]:
    raise TrainingError("rewards come from the log; TRL must not ask for one")


def _fingerprint(
    start: list[str], groups: Sequence[TrainingGroup], settings: GrpoSettings, seed: int, temperature: float
) -> str:
    content: list[Any] = [start, settings.model_dump(mode="json"), seed, temperature]
    content += [asdict(group) for group in sorted(groups, key=lambda group: group.group_id)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
