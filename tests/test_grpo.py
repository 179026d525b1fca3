"""GRPO from logged groups against losses and gradients worked out by hand on a tiny model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from store.training_settings import AlertSettings
from tests.hand_losses import SETTINGS, assert_same, by_hand, one_step, ppo
from tests.tiny_model import load_tiny_model, write_moved_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train.batches import DrawnSteps, make_step, order_groups
from train.checkpoints import COMPLETE, CheckpointError, check_files
from train.corrections import correct
from train.groups import select_groups, token_advantages
from train.grpo import train_grpo
from train.training_run import TrainingError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def older_dir(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """An earlier version: the same model, every weight a little elsewhere."""
    return write_moved_model(model_dir, tmp_path_factory.mktemp("models") / "older")


def test_a_group_sampled_by_an_older_version_gets_the_corrected_gradient(
    model_dir: Path, older_dir: Path, tmp_path: Path
) -> None:
    """The trap of training from a log: at ratio 1 the same groups give another loss and another gradient."""
    groups = sampled_by(load_tiny_model(older_dir), some_groups(3))
    loss, gradients, metrics = one_step(model_dir, tmp_path, groups, SETTINGS)
    expected_loss, expected = by_hand(load_tiny_model(model_dir), groups, SETTINGS, ppo(SETTINGS))
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert_same(gradients, expected)
    assert metrics["ratio_max"] > 1.5
    assert metrics["clipped_share"] > 0.1

    def at_ratio_one(log_ratio: Tensor, advantage: float) -> Tensor:
        return (log_ratio - log_ratio.detach()).exp() * advantage

    uncorrected_loss, uncorrected = by_hand(load_tiny_model(model_dir), groups, SETTINGS, at_ratio_one)
    assert abs(uncorrected_loss - loss) > 1e-3
    head = "model.embed_tokens.weight"
    distance = (uncorrected[head] - gradients[head]).norm() / gradients[head].norm()
    assert distance > 0.2


def test_fresh_groups_give_the_plain_policy_gradient(model_dir: Path, tmp_path: Path) -> None:
    model = load_tiny_model(model_dir)
    groups = sampled_by(model, some_groups(2))
    _, gradients, metrics = one_step(model_dir, tmp_path, groups, SETTINGS)
    _, expected = by_hand(model, groups, SETTINGS, lambda log_ratio, advantage: log_ratio * advantage)
    assert_same(gradients, expected)
    assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert metrics["mismatch_kl"] == pytest.approx(0, abs=1e-4)
    assert metrics["effective_sample_share"] == pytest.approx(1, abs=1e-4)


def test_weights_are_truncated_at_the_cap(model_dir: Path, tmp_path: Path) -> None:
    """Behaviour logprobs a constant too low: every ratio is e^1.5, the weight of a negative advantage the cap."""
    model = load_tiny_model(model_dir)
    groups = [
        replace(g, members=tuple(replace(m, logprobs=tuple(x - 1.5 for x in m.logprobs)) for m in g.members))
        for g in sampled_by(model, some_groups(2))
    ]

    def capped(log_ratio: Tensor, advantage: float) -> Tensor:
        return SETTINGS.importance_cap * log_ratio * min(advantage, 0.0)  # positive ones are clipped

    _, gradients, metrics = one_step(model_dir, tmp_path, groups, SETTINGS)
    _, expected = by_hand(model, groups, SETTINGS, capped)
    assert_same(gradients, expected)
    assert metrics["truncated_share"] == 1
    assert metrics["mismatch_kl"] == pytest.approx(-1.5, abs=1e-3)


def test_a_trajectory_with_a_ratio_below_the_veto_has_no_gradient(model_dir: Path, tmp_path: Path) -> None:
    model = load_tiny_model(model_dir)
    group = sampled_by(model, some_groups(1))[0]
    victim = group.members[3]
    damaged = replace(victim, logprobs=(victim.logprobs[0] + 12.0, *victim.logprobs[1:]))
    vetoed = replace(group, members=(*group.members[:3], damaged))
    _, gradients, metrics = one_step(model_dir, tmp_path, [vetoed], SETTINGS)
    assert metrics["vetoed"] == 1

    spared = replace(group, members=(*group.members[:3], replace(victim, in_loss=(0,) * len(victim.in_loss))))
    with_its_tokens = sum(map(sum, (m.in_loss for m in group.members)))
    without = with_its_tokens - sum(victim.in_loss)
    _, expected = by_hand(model, [spared], SETTINGS, lambda log_ratio, advantage: log_ratio * advantage)
    assert_same(gradients, {name: g * without / with_its_tokens for name, g in expected.items()})


def test_correction_by_numbers() -> None:
    behaviour = torch.log(torch.tensor([[0.5, 0.1, 0.5], [0.9, 0.9, 0.9]]))
    logprobs = torch.log(torch.tensor([[0.5, 0.4, 0.5], [0.9, 0.9e-5, 0.9]]))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = correct(logprobs, behaviour, mask, SETTINGS)
    assert found.vetoed.tolist() == [False, True]
    assert torch.allclose(found.factor, torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_excluded_members_touch_neither_baseline_nor_loss(model_dir: Path, tmp_path: Path) -> None:
    model = load_tiny_model(model_dir)
    group = sampled_by(model, some_groups(1))[0]
    excluded = replace(group.members[3], reward=None, excluded_reason="the judge was down")
    with_excluded = replace(group, members=(*group.members[:3], excluded))
    without = replace(group, members=group.members[:3])
    found = [one_step(model_dir, tmp_path, [g], SETTINGS) for g in (with_excluded, without)]
    assert found[0][0] == found[1][0]
    assert_same(found[0][1], found[1][1])


def test_the_step_does_not_depend_on_micro_batches(model_dir: Path, older_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(older_dir), some_groups(4, size=40))
    small = SETTINGS.model_copy(update={"micro_batch_tokens": 256})
    counts = [len(make_step(groups, settings).micro_batches) for settings in (SETTINGS, small)]
    assert counts[0] == 1
    assert counts[1] > 4
    assert max(m.row.ids.numel() for m in make_step(groups, small).micro_batches) <= 256
    whole, cut = (one_step(model_dir, tmp_path, groups, settings) for settings in (SETTINGS, small))
    assert cut[0] == pytest.approx(whole[0], abs=1e-6)
    assert_same(cut[1], whole[1])
    for name in ("ratio_mean", "ratio_max", "entropy", "tokens_in_loss", "effective_sample_share", "vetoed"):
        assert cut[2][name] == pytest.approx(whole[2][name], rel=1e-4), name


def test_sampling_temperature_is_the_trainers(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(1), temperature=0.6)
    _, _, metrics = one_step(model_dir, tmp_path, groups, SETTINGS, temperature=0.6)
    assert metrics["ratio_max"] == pytest.approx(1, abs=1e-3)


def test_advantages_of_turns_reach_their_own_tokens(model_dir: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"advantage": "turn"})
    model = load_tiny_model(model_dir)
    group = sampled_by(model, some_groups(1))[0]
    values = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]
    members = []
    for member, of_turns in zip(group.members, values, strict=True):
        second = [i for i, kept in enumerate(member.in_loss) if kept][-2:]
        turns = tuple(1 if i in second else turn for i, turn in enumerate(member.turn_of_token))
        members.append(replace(member, turn_of_token=turns, turn_values=of_turns, reward=sum(of_turns) / 2))
    turned = replace(group, members=tuple(members))
    advantages = token_advantages(turned, settings)[0]
    assert advantages is not None
    assert sorted(set(advantages)) == [-0.5, 0.0, 0.5]
    _, gradients, _ = one_step(model_dir, tmp_path, [turned], settings)
    _, expected = by_hand(model, [turned], settings, lambda log_ratio, advantage: log_ratio * advantage)
    assert_same(gradients, expected)


def test_kl_is_held_against_the_reference(model_dir: Path, older_dir: Path, tmp_path: Path) -> None:
    """k3 of the tokens in the loss, times their ratio (TRL's unbiased form), on top of the policy's loss."""
    settings = SETTINGS.model_copy(update={"kl": 0.5})
    groups = sampled_by(load_tiny_model(model_dir), some_groups(2))
    loss, gradients, _ = one_step(model_dir, tmp_path, groups, settings, reference=older_dir)
    without, _, _ = one_step(model_dir, tmp_path, groups, SETTINGS)

    model, reference = load_tiny_model(model_dir), load_tiny_model(older_dir)
    terms = []
    for group in groups:
        for member in group.members:
            ids = torch.tensor([[*member.prompt_ids, *member.completion_ids]])
            pair = [m(ids).logits[0].log_softmax(-1) for m in (model, reference)]
            start = len(member.prompt_ids)
            for i, kept in enumerate(member.in_loss):
                if kept:
                    own, theirs = (table[start + i - 1, ids[0, start + i]] for table in pair)
                    ratio = (own - member.logprobs[i]).exp()
                    terms.append(ratio * ((theirs - own).exp() - (theirs - own) - 1))
    penalty = torch.stack(terms).mean()
    assert float(penalty.detach()) > 0.01
    assert loss - without == pytest.approx(0.5 * float(penalty.detach()), rel=1e-3)
    penalty.backward()
    _, plain, _ = one_step(model_dir, tmp_path, groups, SETTINGS)
    assert_same(gradients, {n: plain[n] + 0.5 * w.grad for n, w in model.named_parameters() if n in plain})


def test_training_makes_rewarded_completions_likelier(model_dir: Path, tmp_path: Path) -> None:
    groups = list(select_groups(sampled_by(load_tiny_model(model_dir), some_groups(6)), SETTINGS).taken)
    seen: list[tuple[int, int, dict[str, float]]] = []
    result = train_grpo(model_dir, tmp_path / "v2", groups, SETTINGS, 3, lambda *args: seen.append(args))
    assert [(step, steps) for step, steps, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert result.steps == 3
    assert result.tokens == sum(len(m.prompt_ids) + len(m.completion_ids) for g in groups for m in g.members)
    check_files(tmp_path / "v2", result.files)
    before, after = (sampled_by(load_tiny_model(place), groups) for place in (model_dir, tmp_path / "v2"))
    gains = {1: 0.0, -1: 0.0}
    for old, new in zip(before, after, strict=True):
        mean = sum(m.reward or 0.0 for m in old.members) / len(old.members)
        for a, b in zip(old.members, new.members, strict=True):
            gains[1 if (a.reward or 0.0) > mean else -1] += sum(b.logprobs) - sum(a.logprobs)
    assert gains[1] > 0 > gains[-1]
    wanted = {"reward_mean", "loss", "grad_norm", "entropy", "mismatch_kl", "ratio_max", "clipped_share"}
    wanted |= {"truncated_share", "vetoed", "effective_sample_share", "advantage_std", "tokens", "tokens_in_loss"}
    assert wanted | {"tokens_per_s", "seconds", "peak_rss_gib"} <= seen[0][2].keys()


class Killed(BaseException):
    """Stands for the process dying: nothing catches it."""


def test_a_killed_run_goes_on_where_it_stood_with_the_same_result(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(8))
    whole: list[dict[str, float]] = []
    train_grpo(model_dir, tmp_path / "whole", groups, SETTINGS, 1, lambda a, b, m: whole.append(m))

    def kill_after_two(step: int, steps: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise Killed

    options: dict[str, Any] = {"run_dir": tmp_path / "run", "checkpoint_every": 2}
    with pytest.raises(Killed):
        train_grpo(model_dir, tmp_path / "resumed", groups, SETTINGS, 1, kill_after_two, **options)
    assert not (tmp_path / "resumed").exists()
    assert (tmp_path / "run" / "checkpoint-2" / COMPLETE).is_file()

    seen: list[int] = []
    resumed = train_grpo(
        model_dir, tmp_path / "resumed", groups, SETTINGS, 1, lambda step, _, __: seen.append(step), **options
    )
    assert seen == [3, 4]
    assert resumed.steps == 4
    assert (tmp_path / "run" / "checkpoint-4" / COMPLETE).is_file(), "it stays until the version is registered"
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_checkpoints_of_another_run_are_refused(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(2))
    run = tmp_path / "run"

    def kill(step: int, steps: int, metrics: dict[str, float]) -> None:
        raise Killed

    with pytest.raises(Killed):
        train_grpo(model_dir, tmp_path / "a", groups, SETTINGS, 1, kill, run_dir=run)
    with pytest.raises(TrainingError, match="other data, settings, seed or start"):
        train_grpo(model_dir, tmp_path / "a", groups, SETTINGS, 2, run_dir=run)


def test_moments_are_carried_over_with_the_new_learning_rate(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(4))
    train_grpo(model_dir, tmp_path / "v2", groups, SETTINGS, 0, optimizer_out=tmp_path / "moments.pt")
    slow = SETTINGS.model_copy(update={"learning_rate": 1e-9})
    rates: list[float] = []
    for name, moments in (("cold", None), ("warm", tmp_path / "moments.pt")):
        train_grpo(
            tmp_path / "v2", tmp_path / name, groups, SETTINGS, 0, optimizer_in=moments,
        )  # fmt: skip
    train_grpo(
        tmp_path / "v2", tmp_path / "slow", groups, slow, 0,
        lambda a, b, m: rates.append(m["learning_rate"]), optimizer_in=tmp_path / "moments.pt",
    )  # fmt: skip
    weights = {n: load_file(tmp_path / n / "model.safetensors")["model.norm.weight"] for n in ("v2", "cold", "warm")}
    assert not torch.equal(weights["cold"], weights["warm"])
    assert rates == [1e-9, 1e-9]
    (tmp_path / "moments.pt").write_bytes(b"no state")
    with pytest.raises(CheckpointError, match=r"moments\.pt"):
        train_grpo(model_dir, tmp_path / "v3", groups, SETTINGS, 0, optimizer_in=tmp_path / "moments.pt")


def test_order_is_seeded_and_steps_are_even() -> None:
    groups = some_groups(22)
    steps = order_groups(groups, 4, seed=1)
    assert sorted(len(step) for step in steps) == [3, 3, 4, 4, 4, 4]
    assert sorted(g.group_id for step in steps for g in step) == list(range(22))
    assert steps == order_groups(groups[::-1], 4, seed=1)
    assert steps != order_groups(groups, 4, seed=2)


def test_every_epoch_has_all_groups_in_another_order_and_the_logged_logprobs(model_dir: Path, tmp_path: Path) -> None:
    """The second time the policy has moved, and its distance from the logged logprobs says so."""
    groups = sampled_by(load_tiny_model(model_dir), some_groups(4))
    settings = SETTINGS.model_copy(update={"epochs": 3, "alerts": AlertSettings(mismatch_kl=0)})
    steps = DrawnSteps(groups, settings, 7)
    assert len(steps) == 6
    rewards = [[steps[2 * epoch + i].rewards for i in range(2)] for epoch in range(3)]
    assert len({tuple(of_epoch) for of_epoch in rewards}) > 1
    assert all(sorted(a + b) == sorted(rewards[0][0] + rewards[0][1]) for a, b in rewards)
    seen: list[dict[str, float]] = []
    result = train_grpo(model_dir, tmp_path / "v2", groups, settings, 7, lambda a, b, m: seen.append(m))
    assert (result.steps, len(seen)) == (6, 6)
    assert result.tokens == 3 * sum(len(m.prompt_ids) + len(m.completion_ids) for g in groups for m in g.members)
    assert seen[0]["mismatch_kl_k3"] < 0.05, "nothing was learned yet: only rounding lies between"
    assert seen[4]["mismatch_kl_k3"] > 10 * seen[0]["mismatch_kl_k3"]


def test_a_step_says_how_often_items_of_each_kind_passed(model_dir: Path, tmp_path: Path) -> None:
    """Of its own members; a kind that none of them has is no metric."""
    (group,) = sampled_by(load_tiny_model(model_dir), some_groups(1))
    passes = [{"called": (1, 2), "llm": (1, 1)}, {"called": (2, 2)}, {}, {"called": (0, 1)}]
    members = tuple(replace(m, passes=of_member) for m, of_member in zip(group.members, passes, strict=True))
    seen: list[dict[str, float]] = []
    train_grpo(
        model_dir, tmp_path / "v2", [replace(group, members=members)], SETTINGS, 0, lambda a, b, m: seen.append(m)
    )
    rates = {name: value for name, value in seen[0].items() if name.startswith("pass_rate/")}
    assert rates == {"pass_rate/called": 0.6, "pass_rate/llm": 1.0}


def test_nothing_to_train_on_is_said(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train_grpo(model_dir, tmp_path / "v2", [], SETTINGS, 0)


def test_only_the_last_layers_learn_and_get_the_gradient_they_would_get_anyway(model_dir: Path, tmp_path: Path) -> None:
    groups = list(select_groups(sampled_by(load_tiny_model(model_dir), some_groups(2)), SETTINGS).taken)
    settings = SETTINGS.model_copy(update={"trained_layers": 1})
    train_grpo(model_dir, tmp_path / "all", groups, SETTINGS, 0)
    train_grpo(model_dir, tmp_path / "last", groups, settings, 0)
    before, everything, last = (
        load_tiny_model(d).state_dict() for d in (model_dir, tmp_path / "all", tmp_path / "last")
    )
    for name, weight in before.items():
        learns = name.startswith(("model.layers.1.", "model.norm."))
        assert torch.equal(weight, last[name]) != learns, name
        if learns:  # Adam's first step has the size of the learning rate: only the sign of the gradient is in it
            same = torch.sign(last[name] - weight) == torch.sign(everything[name] - weight)
            assert same.float().mean() > 0.95, name


def test_more_layers_than_there_are_are_refused(model_dir: Path, tmp_path: Path) -> None:
    groups = list(select_groups(sampled_by(load_tiny_model(model_dir), some_groups(2)), SETTINGS).taken)
    with pytest.raises(TrainingError, match="trained_layers = 3, but the model has 2 layers"):
        train_grpo(model_dir, tmp_path / "x", groups, SETTINGS.model_copy(update={"trained_layers": 3}), 0)
    assert not (tmp_path / "x").exists()


def test_trl_comes_without_vllm() -> None:
    """It would import all of it into every training process."""
    from trl.generation import vllm_generation

    assert not hasattr(vllm_generation, "LLM")
