"""Behaviour-policy corrections: the trainer's losses and gradients against ones worked out by hand for each setting."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from store.training_settings import GrpoSettings
from tests.hand_losses import SETTINGS, assert_same, one_step
from tests.tiny_model import load_tiny_model, write_moved_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train.corrections import correct
from train.groups import TrainingGroup, token_advantages

torch.set_num_threads(1)

Weigh = Callable[[Tensor], Tensor]
"""Ratios (T,) of a trajectory's tokens in the loss, without gradient -> each token's weight (T,)."""


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def stale_groups(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> list[TrainingGroup]:
    """Sampled by another version than the one that is trained."""
    older = write_moved_model(model_dir, tmp_path_factory.mktemp("models") / "older")
    return sampled_by(load_tiny_model(older), some_groups(3))


def gradient_by_hand(
    model: LlamaForCausalLM,
    groups: list[TrainingGroup],
    settings: GrpoSettings,
    weigh: Weigh,
    reference: LlamaForCausalLM | None = None,
) -> dict[str, Tensor]:
    """-Σ w A ∇ log π / tokens, w as `weigh` says, one plain forward pass a member; with a reference + kl Σ ∇ (w k3)."""
    model.zero_grad()
    total, tokens = torch.zeros(()), 0
    for group in groups:
        for member, advantages in zip(group.members, token_advantages(group, settings), strict=True):
            assert advantages is not None
            sequence = [*member.prompt_ids, *member.completion_ids]
            table = model(torch.tensor([sequence])).logits[0].log_softmax(-1)
            start, places = len(member.prompt_ids), [i for i, kept in enumerate(member.in_loss) if kept]
            own = torch.stack([table[start + i - 1, sequence[start + i]] for i in places])
            behaviour = torch.tensor([member.logprobs[i] for i in places])
            weights = weigh((own.detach() - behaviour).exp())
            total = total - (weights * torch.tensor([advantages[i] for i in places]) * own).sum()
            tokens += len(places)
            if reference is not None:
                theirs = reference(torch.tensor([sequence])).logits[0].log_softmax(-1).detach()
                apart = torch.stack([theirs[start + i - 1, sequence[start + i]] for i in places]) - own
                growing = weights * (own - own.detach()).exp()
                total = total + settings.kl * (growing * (apart.exp() - apart - 1)).sum()
    (total / tokens).backward()
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def inside(ratio: Tensor, low: float, cap: float) -> Tensor:
    return ((ratio >= low) & (ratio <= cap)).float()


def product(ratios: Tensor) -> Tensor:
    return ratios.prod().expand_as(ratios)


def root(ratios: Tensor) -> Tensor:
    return ratios.log().mean().exp().expand_as(ratios)


OPEN: dict[str, Any] = {"clip_low": 0.999, "clip_high": 1e6, "importance_veto": 0.0}
"""Nothing clipped or vetoed: what is left is the correction alone."""

CASES: dict[str, tuple[dict[str, Any], Weigh]] = {
    "token_truncate": ({"correction": "token_truncate", "importance_cap": 1.3}, lambda r: r.clamp(max=1.3)),
    "token_mask": (
        {"correction": "token_mask", "importance_low": 0.8, "importance_cap": 1.3},
        lambda r: r * inside(r, 0.8, 1.3),
    ),
    "sequence_truncate": (
        {"correction": "sequence_truncate", "importance_cap": 1.3},
        lambda r: product(r).clamp(max=1.3),
    ),
    "sequence_mask": (
        {"correction": "sequence_mask", "importance_low": 0.5, "importance_cap": 1.5},
        lambda r: product(r) * inside(product(r), 0.5, 1.5),
    ),
    "sequence_truncate, geometric": (
        {"correction": "sequence_truncate", "sequence_ratio": "geometric", "importance_cap": 1.02},
        lambda r: root(r).clamp(max=1.02),
    ),
    "sequence_mask, geometric": (
        {"correction": "sequence_mask", "sequence_ratio": "geometric", "importance_low": 0.95, "importance_cap": 1.05},
        lambda r: root(r) * inside(root(r), 0.95, 1.05),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_older_versions_group_gets_the_gradient_that_the_setting_says(
    name: str, model_dir: Path, stale_groups: list[TrainingGroup], tmp_path: Path
) -> None:
    chosen, weigh = CASES[name]
    settings = SETTINGS.model_validate(SETTINGS.model_dump() | OPEN | chosen)
    _, gradients, metrics = one_step(model_dir, tmp_path, stale_groups, settings)
    assert_same(gradients, gradient_by_hand(load_tiny_model(model_dir), stale_groups, settings, weigh))
    touched = metrics["masked_share" if "mask" in name else "truncated_share"]
    assert 0 < touched < 1, "the bound has to matter for this test, and not for every token"
    at_one = gradient_by_hand(load_tiny_model(model_dir), stale_groups, settings, torch.ones_like)
    head = "model.embed_tokens.weight"
    assert (at_one[head] - gradients[head]).norm() > 0.02 * gradients[head].norm()


@pytest.mark.parametrize("name", ["token_truncate", "token_mask"])
def test_the_kl_penalty_is_bounded_as_the_loss_is(
    name: str, model_dir: Path, stale_groups: list[TrainingGroup], tmp_path: Path
) -> None:
    """One trajectory is vetoed, in another one a token is said a hundred times as often as when it was sampled."""
    chosen, weigh = CASES[name]
    first, second, *rest = stale_groups[0].members
    vetoed = replace(first, logprobs=(first.logprobs[0] + 14.0, *first.logprobs[1:]))
    far_off = replace(second, logprobs=(second.logprobs[0] - 4.6, *second.logprobs[1:]))
    group = replace(stale_groups[0], members=(vetoed, far_off, *rest))
    wanted = OPEN | chosen | {"importance_veto": 1e-4, "kl": 0.5}
    settings = SETTINGS.model_validate(SETTINGS.model_dump() | wanted)
    reference = write_moved_model(model_dir, tmp_path / "reference", seed=9)
    _, gradients, metrics = one_step(model_dir, tmp_path, [group], settings, reference=reference)
    assert metrics["vetoed"] == 1 and metrics["ratio_max"] > 30

    def kept(ratios: Tensor) -> Tensor:
        return weigh(ratios) * float(bool((ratios >= 1e-4).all()))

    models = load_tiny_model(model_dir), load_tiny_model(reference)
    assert_same(gradients, gradient_by_hand(models[0], [group], settings, kept, models[1]))


def test_a_sequence_is_clipped_as_a_whole(model_dir: Path, stale_groups: list[TrainingGroup], tmp_path: Path) -> None:
    """GSPO: a trajectory whose ratio left the interval on the side of its advantage has no gradient at all."""
    group = stale_groups[0]
    wanted: dict[str, Any] = {"correction": "sequence_truncate", "sequence_ratio": "geometric", "baseline": "group"}
    settings = SETTINGS.model_validate(
        SETTINGS.model_dump() | wanted | {"clip_low": 0.01, "clip_high": 0.01, "importance_veto": 0.0}
    )
    _, gradients, metrics = one_step(model_dir, tmp_path, [group], settings)
    model = load_tiny_model(model_dir)
    fresh = sampled_by(model, [group])[0]
    kept, advantages = [], token_advantages(group, settings)
    for member, now, advantage in zip(group.members, fresh.members, advantages, strict=True):
        assert advantage is not None
        moved = [b - a for a, b, scored in zip(member.logprobs, now.logprobs, member.in_loss, strict=True) if scored]
        ratio, sign = float(torch.tensor(moved).mean().exp()), max(advantage, key=abs)
        kept.append(not (ratio > 1.01 and sign > 0) and not (ratio < 0.99 and sign < 0))
    assert 0 < sum(kept) < len(kept)

    number = iter(kept)
    expected = gradient_by_hand(model, [group], settings, lambda r: root(r).clamp(max=2) * float(next(number)))
    assert_same(gradients, expected)
    assert 0 < metrics["clipped_share"] < 1


def test_a_veto_counts_by_token_whatever_the_correction() -> None:
    """One token that the policy would hardly say any more: the sequence's mean ratio does not show it."""
    behaviour = torch.log(torch.full((1, 40), 0.5))
    logprobs = behaviour.clone()
    logprobs[0, 7] -= 12.0
    settings = SETTINGS.model_copy(update={"correction": "sequence_mask", "sequence_ratio": "geometric"})
    found = correct(logprobs, behaviour, torch.ones(1, 40, dtype=torch.bool), settings)
    assert found.vetoed.tolist() == [True]
    assert not found.factor.any()
    assert not found.masked.any(), "a vetoed token is counted once"


def test_a_very_long_sequence_far_off_gives_a_number(model_dir: Path, tmp_path: Path) -> None:
    """The product of the ratios is e^-240 for one member and e^240 for the others: cut, not NaN."""
    groups = sampled_by(load_tiny_model(model_dir), some_groups(1))
    first, *rest = groups[0].members
    apart = [replace(first, logprobs=tuple(x + 60.0 for x in first.logprobs))]
    apart += [replace(m, logprobs=tuple(x - 60.0 for x in m.logprobs)) for m in rest]
    wanted = {"correction": "sequence_truncate", "importance_veto": 0.0}
    settings = SETTINGS.model_validate(SETTINGS.model_dump() | wanted)
    loss, gradients, _ = one_step(model_dir, tmp_path, [replace(groups[0], members=tuple(apart))], settings)
    assert loss == loss
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"importance_low": 0.5}, 'importance_low = 0.5 is where a mask begins, but correction is "token_truncate"'),
        ({"correction": "token_mask", "importance_low": 1.5}, "leaves out 1"),
        ({"correction": "token_mask", "importance_cap": 0.9}, "leaves out 1"),
        ({"sequence_ratio": "geometric"}, 'but correction is "token_truncate"'),
        ({"correction": "sequence_mask", "kl": 0.1}, "one for the whole trajectory"),
        ({"reference": "v0003", "kl": 0.0}, "but kl is 0"),
        ({"reference": "v0003", "correction": "sequence_mask"}, "but kl is 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GrpoSettings.model_validate(chosen)
