"""Groups for trainer tests: tokens sampled at random, logprobs as some behaviour policy would have given them."""

import random
from dataclasses import replace

import torch
from transformers import LlamaForCausalLM

from tests.tiny_model import VOCABULARY
from train.groups import TrainingGroup, TrainingMember


def a_member(name: str, prompt: tuple[int, ...], reward: float | None, rng: random.Random) -> TrainingMember:
    """Two steps with a tool response of two tokens between them, which the policy did not sample."""
    first, second = rng.randrange(2, 5), rng.randrange(2, 5)
    sampled = [1] * first + [0] * 2 + [1] * second
    return TrainingMember(
        trajectory_id=name,
        reward=reward,
        prompt_ids=prompt,
        completion_ids=tuple(rng.randrange(VOCABULARY) for _ in sampled),
        in_loss=tuple(sampled),
        logprobs=(0.0,) * len(sampled),
        turn_of_token=tuple(0 if kept else -1 for kept in sampled),
        step_of_token=(0,) * first + (-1,) * 2 + (1,) * second,
        versions=("v0001",),
        turn_values=(reward,),
        places=((0, 0), (0, 1)),
        excluded_reason=None if reward is not None else "UNSCORED",
    )


def some_groups(count: int, size: int = 4, seed: int = 0) -> list[TrainingGroup]:
    rng = random.Random(seed)
    groups = []
    for number in range(count):
        prompt = tuple(rng.randrange(VOCABULARY) for _ in range(rng.randrange(4, 9)))
        rewards = [(n + number) % size / size for n in range(size)]
        members = tuple(a_member(f"t{number}-{n}", prompt, reward, rng) for n, reward in enumerate(rewards))
        groups.append(TrainingGroup(number, f"scenario-{number}", members))
    return groups


def sampled_by(model: LlamaForCausalLM, groups: list[TrainingGroup], temperature: float = 1.0) -> list[TrainingGroup]:
    """The same groups with the logprobs of `model`, as a server with its weights would have returned them."""
    return [
        replace(group, members=tuple(replace(m, logprobs=logprobs_of(model, m, temperature)) for m in group.members))
        for group in groups
    ]


def logprobs_of(model: LlamaForCausalLM, member: TrainingMember, temperature: float = 1.0) -> tuple[float, ...]:
    sequence = [*member.prompt_ids, *member.completion_ids]
    with torch.no_grad():
        table = model(torch.tensor([sequence])).logits[0].div(temperature).log_softmax(-1)
    start = len(member.prompt_ids)
    return tuple(
        float(table[start + i - 1, token]) if kept else 0.0
        for i, (token, kept) in enumerate(zip(member.completion_ids, member.in_loss, strict=True))
    )
