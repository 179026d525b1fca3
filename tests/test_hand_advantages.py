"""Losses and gradients from advantages that are numbers here: step level, F = the standard deviation, epochs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reward.advantages import TurnStates
from reward.rewards import ItemState
from store.training_settings import AlertSettings
from tests.hand_losses import SETTINGS, assert_same, by_hand, one_step, ppo
from tests.tiny_model import load_tiny_model, write_moved_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train.groups import TrainingGroup
from train.grpo import train_grpo

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> TrainingGroup:
    """Four members of two steps each, sampled by an older version; rewards 0, 0.25, 0.5, 0.75."""
    older = write_moved_model(model_dir, tmp_path_factory.mktemp("models") / "older")
    return sampled_by(load_tiny_model(older), some_groups(1))[0]


def of_items(group: TrainingGroup) -> TrainingGroup:
    """Its first two members in one turn of two items: `a` (0.75) holds from step 0 on in the first one and never in the
    other, `b` (0.25) from step 1 on in both."""
    firsts = ((0, 1), (None, 1))
    members = [
        replace(
            member,
            places=((0, 0), (0, 1)),
            reward=1.0 if a == 0 else 0.25,
            states_T_V=((TurnStates((item("a", 0.75, a), item("b", 0.25, b)), 2),),),
        )
        for member, (a, b) in zip(group.members, firsts, strict=False)
    ]
    return replace(group, members=tuple(members))


def item(key: str, weight: float, first: int | None) -> ItemState:
    return ItemState(key=key, weight=weight, depends_on=(), first_satisfied=first)


DEVIATION = math.sqrt((0.375**2 + 0.125**2) / 2)
"""Of the rewards, whose mean is 0.375."""
PLACES = [(reward - 0.375) / DEVIATION for reward in (0.0, 0.25, 0.5, 0.75)]

CASES: dict[str, tuple[dict[str, Any], list[tuple[float, float]]]] = {
    # b_a = 1/2 and b_b = 1. At step 0 both items are open to both members: 0.75 · ±1/2 + 0.25 · 0. At step 1 the first
    # member has only `b` left, the other one both.
    "step": ({"advantage": "step"}, [(0.375, 0.0), (-0.375, -0.375)]),
    # F is 1/2 for `a`; the outcomes of `b` are equal, so it gives nothing.
    "step, divided": ({"advantage": "step", "divide_by_std": True}, [(0.75, 0.0), (-0.75, -0.75)]),
    "trajectory, divided": ({"baseline": "group", "divide_by_std": True}, [(place, place) for place in PLACES]),
    # Each heard something of its own after the first step: b = (R + the group's mean) / 2 from there.
    "state, divided": ({"baseline": "state", "divide_by_std": True}, [(place, place / 2) for place in PLACES]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_advantages_worked_out_by_hand(
    name: str, model_dir: Path, group: TrainingGroup, tmp_path: Path
) -> None:
    chosen, steps = CASES[name]
    used = of_items(group) if name.startswith("step") else group
    settings = SETTINGS.model_validate(SETTINGS.model_dump() | chosen)
    numbers = {member.trajectory_id: of_steps for member, of_steps in zip(used.members, steps, strict=True)}
    loss, gradients, _ = one_step(model_dir, tmp_path, [used], settings)
    model = load_tiny_model(model_dir)
    expected_loss, expected = by_hand(model, [used], settings, ppo(settings), numbers=numbers)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert_same(gradients, expected)


def test_a_second_epoch_is_held_against_the_logged_policy_not_the_first_one(
    model_dir: Path, group: TrainingGroup, tmp_path: Path
) -> None:
    """Its loss and gradient are those of the weights after the first epoch, with the ratio to who sampled."""
    wanted = {"precision": "float32", "alerts": AlertSettings(mismatch_kl=0, entropy_share=0)}
    once = SETTINGS.model_copy(update=wanted | {"epochs": 1, "learning_rate": 1e-2})
    train_grpo(model_dir, tmp_path / "once", [group], once, 3)
    seen: list[dict[str, float]] = []
    twice = once.model_copy(update={"epochs": 2})
    train_grpo(model_dir, tmp_path / "twice", [group], twice, 3, lambda step, steps, metrics: seen.append(metrics))
    assert len(seen) == 2

    def at_ratio_one(log_ratio: Tensor, advantage: float) -> Tensor:
        return (log_ratio - log_ratio.detach()).exp() * advantage

    after_once = load_tiny_model(tmp_path / "once")
    losses = [by_hand(after_once, [group], twice, weight) for weight in (ppo(twice), at_ratio_one)]
    norms = [math.sqrt(sum(float(g.square().sum()) for g in gradients.values())) for _, gradients in losses]
    assert seen[1]["loss"] == pytest.approx(losses[0][0], abs=1e-4)
    assert seen[1]["grad_norm"] == pytest.approx(norms[0], rel=1e-3)
    assert abs(norms[1] - norms[0]) > 0.05 * norms[0], "the ratio has to matter for this test"
