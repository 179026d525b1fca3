"""A run in two processes is the run of one, cut in two."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agent.ports import free_port
from store.training_settings import GrpoSettings
from tests.launched_training import run, run_sharded
from tests.tiny_model import load_tiny_model, write_moved_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train import processes
from train.batches import make_step
from train.grpo import train_grpo
from train.processes import fill, refuse_several, share_of
from train.training_run import TrainingError

torch.set_num_threads(1)
SETTINGS = GrpoSettings(learning_rate=1e-3, scenarios_per_step=4, micro_batch_tokens=256, kl=0.1, trained_layers=0)


def in_two_processes(function: Callable[..., None], *arguments: Any) -> None:
    """`function(rank, 2, port, *arguments)` in both; each must end well."""
    port = free_port()
    # The libraries are imported once, by the server that the processes are forked from.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.launched_training"])
    started = [context.Process(target=function, args=(rank, 2, port, *arguments)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0, 0]


def test_two_processes_make_the_version_that_one_makes(tmp_path: Path) -> None:
    """Also where a step has an odd number of micro-batches, or fewer than processes; ratios and penalty are not trivial
    because an older version sampled."""
    model_dir = write_tiny_model(tmp_path / "tiny")
    older = load_tiny_model(write_moved_model(model_dir, tmp_path / "older"))
    groups = sampled_by(older, [*some_groups(5, size=24), *some_groups(4, seed=3)])
    alone: list[dict[str, float]] = []
    train_grpo(model_dir, tmp_path / "alone", groups, SETTINGS, 1, lambda step, steps, metrics: alone.append(metrics))
    in_two_processes(run, tmp_path, model_dir, groups, SETTINGS)
    together = json.loads((tmp_path / "metrics.json").read_text())
    assert len(together) == len(alone) == 3
    for two, one in zip(together, alone, strict=True):
        for name in ("loss", "grad_norm", "entropy", "mismatch_kl", "kl", "ratio_max", "effective_sample_share"):
            assert two[name] == pytest.approx(one[name], rel=0.02, abs=1e-3), name
        assert (two["members"], two["tokens_in_loss"], two["vetoed"]) == (
            one["members"], one["tokens_in_loss"], one["vetoed"],
        )  # fmt: skip
    start, one, two = (load_file(d / "model.safetensors") for d in (model_dir, tmp_path / "alone", tmp_path / "made"))
    for name, weight in start.items():
        learnt, apart = (one[name] - weight).abs().mean(), (two[name] - one[name]).abs().mean()
        assert apart < 0.1 * learnt, f"{name}: bfloat16 rounds sums of another order otherwise, no more"


def test_sharded_weights_give_the_same_gradients_and_come_back_whole(tmp_path: Path) -> None:
    """FSDP2 itself, on the CPU; accelerate takes it on GPUs only. The gradients are compared in the processes."""
    model_dir = write_tiny_model(tmp_path / "tiny")
    in_two_processes(run_sharded, tmp_path, model_dir)
    before, after = (load_file(d / "model.safetensors") for d in (model_dir, tmp_path / "whole"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.allclose(after[name], weight + 1), name


def test_weights_of_another_model_do_not_fill_it(tmp_path: Path) -> None:
    model = load_tiny_model(write_tiny_model(tmp_path / "tiny"))
    weights = model.state_dict()
    tied = {name: weight for name, weight in weights.items() if name != "lm_head.weight"}
    fill(model, tied)
    del tied["model.norm.weight"]
    with pytest.raises(TrainingError, match=r"model\.norm\.weight"):
        fill(model, tied)


def test_shares_are_even_and_hold_every_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step = make_step(some_groups(3, size=24), SETTINGS)
    count = len(step.micro_batches)
    assert count >= 3
    for processes_started in (2, count + 2):
        monkeypatch.setenv("WORLD_SIZE", str(processes_started))
        shares = []
        for rank in range(processes_started):
            monkeypatch.setenv("RANK", str(rank))
            shares.append(share_of(step.micro_batches))
        assert len({len(share) for share in shares}) == 1, "all gather what is sharded equally often"
        counted = sum(int(micro.loss_mask.sum()) for share in shares for micro in share)
        assert counted == step.tokens_in_loss
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert share_of(step.micro_batches) == list(step.micro_batches)


def test_what_only_one_process_can_do_is_refused_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_several("a cold start")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(TrainingError, match="4 were started"):
        refuse_several("a cold start")


def test_a_lead_that_fails_tells_nobody_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be in the middle of a step: only the launcher can end them."""
    said: list[object] = []
    monkeypatch.setattr(processes, "from_first", said.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError), processes.leading():
        raise TrainingError("the disk is full")
    assert said == []
    with processes.leading():
        pass
    assert said == [None]
