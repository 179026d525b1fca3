"""What the SFT and the GRPO run share: loading the policy, TRL arguments without side effects, progress of each step.

Weights, gradients and optimizer are float32 (an update of 2e-5 vanishes in bfloat16); where
the hardware multiplies bfloat16 (agent/precision.py), a twin in that type runs the passes.
"""

import ctypes
import gc
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer import Trainer

from agent.precision import native_precision
from train.errors import TrainingFailed
from train.packed import use_packed_attention

RESIDENT_LIMIT_GIB = 6.5
"""Above this a step ends by handing free memory back, which costs a fifth of the next step's time."""

OnStep = Callable[[int, int, dict[str, float]], None]
"""(step from 1, steps in all, metrics of the step)"""


class TrainingError(TrainingFailed):
    """A run cannot start or go on: says what is wrong and what to do."""


def load_policy(model_dir: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy in float32 with packed attention, and its tokenizer. Raises TrainingError if it is not there."""
    if not (model_dir / "config.json").is_file():
        raise TrainingError(f"there is no model in {model_dir}: it has no config.json")
    transformers.logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        use_packed_attention(model)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the model in {model_dir} cannot be loaded for training: {error}") from error
    return model, tokenizer


def shared_arguments(
    run_dir: Path, seed: int, learning_rate: float, precision: Literal["auto", "bfloat16", "float32"] = "auto"
) -> dict[str, Any]:
    """Arguments of all trainers: no reports, no hub, no saving unless asked, every step logged."""
    transformers.logging.set_verbosity_error()
    keep_freed_memory()
    transformers.logging.disable_progress_bar()
    return {
        "output_dir": str(run_dir),
        "seed": seed,
        "data_seed": seed,
        "learning_rate": learning_rate,
        "bf16": (native_precision() if precision == "auto" else precision) == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "report_to": "none",
        "push_to_hub": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
    }


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed for the next allocation, in this process, instead of handing it back.

    A training step allocates and frees the same few gigabytes of activations again and again; taking them from the
    kernel page by page each time costs 15 to 20 % of a step on the CPU. Does nothing with other allocators.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)


def resident_gib() -> float:
    """Resident memory of this process now, in GiB; 0.0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * resource.getpagesize() / 2**30


def give_back_memory() -> None:
    """Hands the free parts of glibc's heap back to the kernel: what a step left in pieces would only grow."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if malloc_trim is not None:
        malloc_trim(0)


def give_back_trainer() -> None:
    """Once a run is over: its gigabytes, held in cycles of TRL's objects, are the server's from now on."""
    gc.collect()
    give_back_memory()


def check_trained_layers(model_dir: Path, layers: int) -> None:
    """Raises TrainingError if a directory's model has fewer than `layers` layers; reads its configuration alone."""
    if layers == 0:
        return
    text = AutoConfig.from_pretrained(model_dir, local_files_only=True).get_text_config()
    found = getattr(text, "num_hidden_layers", None)
    if found is not None and found < layers:
        raise _too_few(layers, f"{found} layers")


def _too_few(layers: int, has: str) -> TrainingError:
    return TrainingError(f"grpo.trained_layers = {layers}, but the model has {has}: set it to 0 to train everything")


def freeze_all_but(model: PreTrainedModel, layers: int) -> None:
    """Let only the last `layers` transformer layers and the final norm learn; with 0, everything.

    Raises TrainingError if the model has fewer layers, or keeps them elsewhere than transformers' decoders do.
    """
    if layers == 0:
        return
    found = getattr(model.base_model, "layers", None)
    if found is None or len(found) < layers:
        raise _too_few(layers, "no list of layers" if found is None else f"{len(found)} layers")
    model.requires_grad_(False)
    found[-layers:].requires_grad_(True)
    if (norm := getattr(model.base_model, "norm", None)) is not None:
        norm.requires_grad_(True)


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep one activation a transformer layer and compute the rest again in the backward pass (the same gradient).

    Only the layers' own switch is turned: the model need not be in training mode, whose dropout would move the ratios.
    Raises TrainingError for a model that cannot.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not (model.supports_gradient_checkpointing and layers):
        raise TrainingError(
            f"{type(model).__name__} has no gradient checkpointing: set gradient_checkpointing to false"
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    # Only reentrant checkpoints need gradients below the first layer that learns.
    model.disable_input_require_grads()
    for layer in layers:
        layer.training = True


class StepReport(TrainerCallback):  # type: ignore[misc]
    """Hands every optimizer step's metrics to `on_step`; stops the run at the first loss that is not a number."""

    def __init__(self, on_step: OnStep, extra: Callable[[], dict[str, float]]) -> None:
        self._on_step = on_step
        self._extra = extra
        self._began = time.monotonic()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        metrics: dict[str, float] = {
            name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate") if name in logs
        }
        if resident_gib() > RESIDENT_LIMIT_GIB:
            give_back_memory()
        seconds = time.monotonic() - self._began
        metrics |= self._extra()
        metrics |= {"seconds": seconds, "tokens_per_s": metrics.get("tokens", 0.0) / max(seconds, 1e-9)}
        metrics["peak_rss_gib"] = peak_rss_gib()
        if torch.cuda.is_available():
            metrics["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics.get("grad_norm", 0.0))):
            raise TrainingError(
                f"step {state.global_step}: loss {metrics['loss']}, gradient norm {metrics.get('grad_norm')}: "
                "the run is stopped and nothing is saved; lower the learning rate or look at the data"
            )
        self._on_step(state.global_step, state.max_steps, metrics)


def quiet(trainer: Trainer) -> None:
    """Nothing on standard output: progress goes through StepReport."""
    trainer.remove_callback(PrinterCallback)


def last_epoch_loss(trainer: Trainer, epochs: int) -> float | None:
    """Mean over the last epoch's steps, also of those before a kill: the trainer's own history goes with its
    checkpoints. None if no step's is known."""
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, trainer.state.global_step // epochs) :]
    return sum(last) / len(last) if last else None


def peak_rss_gib() -> float:
    """Greatest resident memory of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
