"""From groups to optimizer steps: which groups a step takes, and how their tokens are laid out in micro-batches.

Pure. A group's members share their first prompt, so it is computed once for those of them that lie in the same
micro-batch (train/packed.py).
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import Tensor

from store.training_settings import GrpoSettings
from train.groups import TrainingGroup, TrainingMember, token_advantages
from train.packed import Family, PackedRow, pack


@dataclass(frozen=True)
class Sample:
    """A member with its advantages, one for each completion token."""

    member: TrainingMember
    advantages: tuple[float, ...]


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass takes. B members, T the longest completion, N tokens in the loss."""

    row: PackedRow
    sources: Tensor
    """(N,) positions in the row whose next token is in the loss."""
    targets: Tensor
    """(N,) those tokens."""
    places: tuple[Tensor, Tensor]
    """(N,) each: which member and which completion token they are."""
    completion_ids: Tensor
    """(B, T), padded with 0"""
    completion_mask: Tensor
    """(B, T), 1 on completion tokens"""
    loss_mask: Tensor
    """(B, T), 1 on tokens in the loss"""
    advantages: Tensor
    """(B, T)"""
    behaviour_logprobs: Tensor
    """(B, T)"""


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step."""

    micro_batches: tuple[MicroBatch, ...]
    tokens: int
    """Of all members, shared prompts counted once for each member: what a padded trainer would process."""
    tokens_computed: int
    tokens_in_loss: int
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    """The mean advantage of each member's tokens in the loss."""
    pass_rates: Mapping[str, float] = field(default_factory=dict)
    """By kind of item, over the members."""


def order_groups(
    groups: Sequence[TrainingGroup], per_step: int, seed: int, epoch: int = 0
) -> list[list[TrainingGroup]]:
    """The groups of each step: shuffled by seed and epoch, cut into steps whose sizes differ by at most one."""
    shuffled = sorted(groups, key=lambda group: group.group_id)
    random.Random(f"{seed}/{epoch}" if epoch else seed).shuffle(shuffled)
    steps = -(-len(shuffled) // per_step)
    bounds = [round(i * len(shuffled) / steps) for i in range(steps + 1)] if steps else [0]
    return [shuffled[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False)]


class DrawnSteps(Sequence[StepBatch]):
    """The steps of a run, all epochs in order; each is made when it is asked for, so that one is in memory at a time.

    Groups without a token in the loss are in none.
    """

    def __init__(self, groups: Sequence[TrainingGroup], settings: GrpoSettings, seed: int) -> None:
        self._settings = settings
        self._groups = [group for group in groups if _samples(group, settings)]
        self._drawn = [
            chosen
            for epoch in range(settings.epochs)
            for chosen in order_groups(self._groups, settings.scenarios_per_step, seed, epoch)
        ]

    def __len__(self) -> int:
        return len(self._drawn)

    @overload
    def __getitem__(self, index: int) -> StepBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[StepBatch]: ...
    def __getitem__(self, index: int | slice) -> StepBatch | list[StepBatch]:
        if isinstance(index, slice):
            return [make_step(chosen, self._settings) for chosen in self._drawn[index]]
        return make_step(self._drawn[index], self._settings)

    @property
    def tokens(self) -> int:
        """Of all members trained on, each epoch; a prompt counts once for each."""
        samples = [sample for group in self._groups for sample in _samples(group, self._settings)]
        sizes = [len(sample.member.prompt_ids) + len(sample.member.completion_ids) for sample in samples]
        return self._settings.epochs * sum(sizes)


def make_step(groups: Sequence[TrainingGroup], settings: GrpoSettings) -> StepBatch:
    """The members of `groups` that have an advantage, in micro-batches of at most `micro_batch_tokens` tokens.

    A member that is longer than that has a micro-batch to itself.
    """
    packed: list[list[list[Sample]]] = []
    room = 0
    samples: list[Sample] = []
    for group in groups:
        fresh = True
        for sample in _samples(group, settings):
            samples.append(sample)
            prompt, completion = len(sample.member.prompt_ids), len(sample.member.completion_ids)
            shares = not fresh and packed[-1][-1][0].member.prompt_ids == sample.member.prompt_ids
            cost = completion if shares else prompt + completion
            if not packed or cost > room:
                packed.append([])
                room, shares, cost = settings.micro_batch_tokens, False, prompt + completion
            if shares:
                packed[-1][-1].append(sample)
            else:
                packed[-1].append([sample])
            room -= cost
            fresh = False
    micro_batches = tuple(_micro_batch(families) for families in packed)
    return StepBatch(
        micro_batches,
        tokens=sum(len(s.member.prompt_ids) + len(s.member.completion_ids) for s in samples),
        tokens_computed=sum(micro.row.ids.numel() for micro in micro_batches),
        tokens_in_loss=sum(len(micro.targets) for micro in micro_batches),
        rewards=tuple(s.member.reward for s in samples if s.member.reward is not None),
        advantages=tuple(sum(s.advantages) / max(1, sum(s.member.in_loss)) for s in samples),
        pass_rates=_pass_rates([s.member for s in samples]),
    )


def _pass_rates(members: Sequence[TrainingMember]) -> dict[str, float]:
    passed: Counter[str] = Counter()
    scored: Counter[str] = Counter()
    for member in members:
        for kind, (good, count) in member.passes.items():
            passed[kind] += good
            scored[kind] += count
    return {kind: passed[kind] / scored[kind] for kind in sorted(scored)}


def _samples(group: TrainingGroup, settings: GrpoSettings) -> list[Sample]:
    """Longest first, so that micro-batches fill evenly. What follows a member's last token in the loss is cut off."""
    samples = []
    for member, advantages in zip(group.members, token_advantages(group, settings), strict=True):
        if advantages is not None and any(member.in_loss):
            end = max(i for i, scored in enumerate(member.in_loss) if scored) + 1
            samples.append(Sample(_cut(member, end), tuple(advantages[:end])))
    return sorted(samples, key=lambda s: (s.member.prompt_ids, -len(s.member.completion_ids), s.member.trajectory_id))


def _cut(member: TrainingMember, end: int) -> TrainingMember:
    if end == len(member.completion_ids):
        return member
    return replace(
        member,
        completion_ids=member.completion_ids[:end],
        in_loss=member.in_loss[:end],
        logprobs=member.logprobs[:end],
        turn_of_token=member.turn_of_token[:end],
        step_of_token=member.step_of_token[:end],
    )


def _micro_batch(families: Sequence[Sequence[Sample]]) -> MicroBatch:
    row = pack([Family(f[0].member.prompt_ids, tuple(sample.member.completion_ids for sample in f)) for f in families])
    sources: list[int] = []
    targets: list[int] = []
    rows: list[int] = []
    columns: list[int] = []
    flat = [sample for family in families for sample in family]
    spans = [(stop, begin) for _, stop, children in row.layout.families for begin, _ in children]
    for index, (sample, (prompt_end, begin)) in enumerate(zip(flat, spans, strict=True)):
        for i, scored in enumerate(sample.member.in_loss):
            if scored:
                # The first completion token is predicted from the last one of the shared prompt.
                sources.append(begin + i - 1 if i else prompt_end - 1)
                targets.append(sample.member.completion_ids[i])
                rows.append(index)
                columns.append(i)
    width = max(len(sample.member.completion_ids) for sample in flat)
    return MicroBatch(
        row=row,
        sources=torch.tensor(sources),
        targets=torch.tensor(targets),
        places=(torch.tensor(rows), torch.tensor(columns)),
        completion_ids=_padded([s.member.completion_ids for s in flat], width, torch.long),
        completion_mask=_padded([[1] * len(s.member.completion_ids) for s in flat], width, torch.long),
        loss_mask=_padded([s.member.in_loss for s in flat], width, torch.long),
        advantages=_padded([s.advantages for s in flat], width, torch.float32),
        behaviour_logprobs=_padded([s.member.logprobs for s in flat], width, torch.float32),
    )


def _padded(rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)
