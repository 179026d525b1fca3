"""Losses and gradients of GRPO worked out token by token, and what the trainer makes of the same groups."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from store.training_settings import GrpoSettings
from tests.tiny_model import load_tiny_model
from train.batches import make_step
from train.groups import TrainingGroup, token_advantages
from train.grpo import LoggedGroupsTrainer, grpo_arguments
from train.packed import use_packed_attention

SETTINGS = GrpoSettings(learning_rate=1e-3, scenarios_per_step=2, trained_layers=0, kl=0.0)


def one_step(
    model_dir: Path,
    tmp_path: Path,
    groups: list[TrainingGroup],
    settings: GrpoSettings,
    temperature: float = 1.0,
    reference: Path | None = None,
) -> tuple[float, dict[str, Tensor], dict[str, float]]:
    """Loss, gradients and metrics of one optimizer step over all groups, in float32."""
    model = load_tiny_model(model_dir)
    use_packed_attention(model)
    arguments = grpo_arguments(tmp_path, settings, 0, temperature) | {"bf16": False, "fp16": False}
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    steps = [make_step(groups, settings)]
    trainer = LoggedGroupsTrainer(model, tokenizer, steps, settings, arguments, reference or model_dir)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(model, {"step": make_step(groups, settings)})
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return float(loss), gradients, trainer.step_metrics()


def by_hand(
    model: LlamaForCausalLM,
    groups: list[TrainingGroup],
    settings: GrpoSettings,
    weight_of: Callable[[Tensor, float], Tensor],
    temperature: float = 1.0,
    numbers: Mapping[str, Sequence[float]] | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """-Σ weight(log ratio, advantage) / tokens, one plain forward pass a member, one token at a time.

    `numbers`: by trajectory id the advantage of each of its steps, instead of what the program makes of the rewards.
    """
    model.zero_grad()
    total = torch.zeros(())
    tokens = 0
    for group in groups:
        for member, advantages in zip(group.members, token_advantages(group, settings), strict=True):
            if advantages is None:
                continue
            sequence = [*member.prompt_ids, *member.completion_ids]
            table = model(torch.tensor([sequence])).logits[0].div(temperature).log_softmax(-1)
            for i, kept in enumerate(member.in_loss):
                if kept:
                    place = len(member.prompt_ids) + i
                    log_ratio = table[place - 1, sequence[place]] - member.logprobs[i]
                    by_step = numbers[member.trajectory_id] if numbers is not None else None
                    advantage = advantages[i] if by_step is None else by_step[member.step_of_token[i]]
                    total = total - weight_of(log_ratio, advantage)
                    tokens += 1
    loss = total / tokens
    loss.backward()
    return loss.item(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def ppo(settings: GrpoSettings) -> Callable[[Tensor, float], Tensor]:
    """min(r A, clip(r) A), truncated at the cap by a factor that carries no gradient."""

    def weight_of(log_ratio: Tensor, advantage: float) -> Tensor:
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        truncation = min(float(ratio.detach()), settings.importance_cap) / float(ratio.detach())
        return torch.min(ratio * advantage, clipped * advantage) * truncation

    return weight_of


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=2e-6, rtol=2e-3), name
