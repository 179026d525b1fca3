"""Groups in a log, sampled by a tiny model, for runs to train on."""

from collections.abc import Sequence
from pathlib import Path

import torch

from store.database import Log
from store.scenarios import add_scenarios
from store.trajectories import create_group, end_trajectory, record_step
from store.verdicts import Reward, add_rewards
from store.vocabulary import StopReason
from tests.store_examples import a_scenario, a_step, start
from tests.tiny_model import load_tiny_model


def logged_groups(log: Log, model_dir: Path, batch: str, rewards: Sequence[float]) -> None:
    """Two groups as the tiny model's server would have logged them: one step each."""
    model = load_tiny_model(model_dir)
    torch.manual_seed(0)
    for number in range(2):
        scenario = a_scenario(f"{batch}-{number}")
        add_scenarios(log, [scenario])
        group = create_group(log, scenario.hash, batch, "v0001", 1)
        names = [f"{batch}-{number}-{member}" for member in range(len(rewards))]
        start(log, *names, scenario=scenario, group_id=group, batch=batch, version="v0001")
        for name, reward in zip(names, rewards, strict=True):
            ids = [4 + number, 5, 6, *torch.randint(7, 90, (5,)).tolist()]
            with torch.no_grad():
                table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            logprobs = [float(table[place - 1, ids[place]]) for place in range(3, 8)]
            record_step(log, a_step(name, delta_ids=ids[:3], sampled_ids=ids[3:], logprobs=logprobs))
            end_trajectory(log, name, StopReason.COMPLETED)
            add_rewards(log, [Reward(name, reward, (reward,), None, 0)])
