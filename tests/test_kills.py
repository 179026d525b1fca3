"""A training run that is killed again and again gives the weights of one that nobody disturbed."""

import multiprocessing
import random
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.hand_losses import SETTINGS
from tests.killed_training import Moment, train
from tests.tiny_model import load_tiny_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train.checkpoints import newest_checkpoint

torch.set_num_threads(1)
KILLS, EVERY = 10, 2


def test_a_run_killed_at_ten_random_moments_ends_with_the_undisturbed_weights(tmp_path: Path) -> None:
    """Five times in or after a random step, five times while a random file of a checkpoint is written or removed."""
    model_dir = write_tiny_model(tmp_path / "tiny")
    groups = sampled_by(load_tiny_model(model_dir), some_groups(20))
    settings = SETTINGS.model_copy(update={"scenarios_per_step": 1, "epochs": 2, "learning_rate": 3e-4})
    train(model_dir, tmp_path / "whole", groups, settings, EVERY)

    chance = random.Random(11)
    moments = [Moment(chance.randrange(3), chance.uniform(0, 0.03)) for _ in range(KILLS // 2)]
    moments += [Moment(file=chance.randrange(1, 27)) for _ in range(KILLS - KILLS // 2)]
    chance.shuffle(moments)
    # The libraries are imported once, by the server that the processes are forked from.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.killed_training"])
    stood = []
    for dies in moments:
        killed = processes.Process(target=train, args=(model_dir, tmp_path, groups, settings, EVERY, dies))
        killed.start()
        killed.join(120)
        assert killed.exitcode == -signal.SIGKILL, f"{dies}: {killed.exitcode}"
        assert not (tmp_path / "made").exists()
        newest = newest_checkpoint(tmp_path / "run")
        stood.append(int(newest.name.rpartition("-")[2]) if newest is not None else 0)
    assert stood == sorted(stood), "no kill loses what a checkpoint held"
    assert stood[-1] > 0
    train(model_dir, tmp_path, groups, settings, EVERY)
    whole, killed_ten_times = (load_file(d / "made" / "model.safetensors") for d in (tmp_path / "whole", tmp_path))
    for name, weight in whole.items():
        assert torch.equal(killed_ten_times[name], weight), name
