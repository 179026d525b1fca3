"""LoRA adapters (peft) on a policy or a judge: put on for training, merged into the weights for a version."""

import copy
from typing import Any, Protocol

from accelerate.utils import is_peft_model
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from train.training_run import TrainingError


class LoraSettings(Protocol):
    @property
    def lora_rank(self) -> int: ...
    @property
    def lora_alpha(self) -> int: ...
    @property
    def lora_modules(self) -> tuple[str, ...]: ...


def adapted(model: PreTrainedModel, settings: LoraSettings, section: str, layers: int = 0) -> Any:
    """`model` with a fresh adapter in its last `layers` layers (0: all), which alone learns.

    `section` of the settings is named where they do not fit: raises TrainingError for layers that the model lacks.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := [name for name in settings.lora_modules if name not in names]:
        linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise TrainingError(
            f"{section}.lora_modules names {', '.join(missing)}, which {type(model).__name__} does not have: it has "
            f"{', '.join(linear)}"
        )
    there = model.config.get_text_config().num_hidden_layers
    if layers > there:
        raise TrainingError(
            f"{section}.lora_layers = {layers}, but {type(model).__name__} has {there} layers: set it to 0 "
            "for all of them"
        )
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.lora_modules),
        layers_to_transform=list(range(there - layers, there)) if layers else None,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def base_of(model: Any) -> PreTrainedModel:
    """The model itself, or the one that an adapter was put on: its layers hold the adapter's, and compute with them."""
    return model.get_base_model() if is_peft_model(model) else model


def merged(model: Any) -> PreTrainedModel:
    """Full weights: the model itself, or a copy with its adapter merged in, so that the adapter can learn on."""
    if not is_peft_model(model):
        return model
    return copy.deepcopy(model).merge_and_unload()
