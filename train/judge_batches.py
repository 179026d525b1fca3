"""Examples as token ids, laid out for training: the items of a turn share its tokens, which are computed once.

A turn is one family (train/packed.py): what all its questions begin with, then for each item the rest of its question
and the answer. The loss is on the answer alone. Pure but for the tokenizer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from reward.small_judge import ANSWER_TOKENS
from store.vocabulary import Outcome
from train.judge_examples import JudgeExample
from train.packed import Family, pack
from train.sft import MICRO_BATCH_TOKENS, MicroBatch

VERDICT_WEIGHT = 8.0
"""What the verdict weighs; any other token of an answer weighs 1. The same in short and long answers: with shares of an
answer's weight, whatever makes answers short would be the safe thing to say."""


@dataclass(frozen=True)
class TokenizedExample:
    """One example. `weights` are those of the answer's ids in the loss."""

    question: list[int]
    answer: list[int]
    weights: list[float]

    @property
    def length(self) -> int:
        return len(self.question) + len(self.answer)


@dataclass(frozen=True)
class TurnFamily:
    """The examples of one turn: `prefix` is what all of their questions begin with."""

    prefix: list[int]
    examples: tuple[tuple[TokenizedExample, float], ...]
    """With what each weighs."""

    @property
    def tokens(self) -> int:
        return len(self.prefix) + sum(example.length - len(self.prefix) for example, _ in self.examples)


def question_ids(question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that a server makes of the one user message: its chat template, then its tokenizer."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def tokenize_example(example: JudgeExample, tokenizer: PreTrainedTokenizerBase) -> TokenizedExample:
    """The end of the turn is part of the answer."""
    encoded = tokenizer(example.answer, add_special_tokens=False, return_offsets_mapping=True)
    weights = [1.0] * (len(encoded.input_ids) + 1)
    verdict = example.answer.rindex(example.outcome.value)
    for i, (start, stop) in enumerate(encoded.offset_mapping):
        if stop > verdict and start < verdict + len(example.outcome.value):
            weights[i] = VERDICT_WEIGHT
    answer = [*encoded.input_ids, tokenizer.eos_token_id]
    return TokenizedExample(question_ids(example.question, tokenizer), answer, weights)


def make_families(
    examples: Sequence[JudgeExample],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    weights: Mapping[Outcome, float],
) -> tuple[list[TurnFamily], int]:
    """The turns in order, and how many examples were left out: longer than `max_tokens`, or than an answer may be."""
    by_turn: dict[tuple[str, int], list[tuple[TokenizedExample, float]]] = {}
    too_long = 0
    for example in examples:
        tokenized = tokenize_example(example, tokenizer)
        if tokenized.length > max_tokens or len(tokenized.answer) > ANSWER_TOKENS:
            too_long += 1
            continue
        by_turn.setdefault(example.turn_key, []).append((tokenized, weights[example.outcome]))
    families = []
    for of_turn in by_turn.values():
        families.append(TurnFamily(_common_start([tokenized.question for tokenized, _ in of_turn]), tuple(of_turn)))
    return families, too_long


def order_steps(families: Sequence[TurnFamily], turns_a_step: int, epochs: int, seed: int) -> list[list[TurnFamily]]:
    """The turns of every optimizer step, all epochs, each in an order of its own."""
    steps = []
    for epoch in range(epochs):
        order = list(families)
        Random(f"{seed} {epoch}").shuffle(order)
        steps += [order[start : start + turns_a_step] for start in range(0, len(order), turns_a_step)]
    return steps


def collate(families: Sequence[TurnFamily]) -> dict[str, Any]:
    """One optimizer step as micro-batches of at most MICRO_BATCH_TOKENS tokens (or one turn)."""
    micro_batches: list[list[TurnFamily]] = []
    room = 0
    for family in sorted(families, key=lambda family: family.tokens, reverse=True):
        if not micro_batches or family.tokens > room:
            micro_batches.append([])
            room = MICRO_BATCH_TOKENS
        micro_batches[-1].append(family)
        room -= family.tokens
    tokens = sum(family.tokens for family in families)
    return {"input_ids": torch.zeros(1, tokens), "micro_batches": [_micro_batch(chosen) for chosen in micro_batches]}


def _common_start(questions: Sequence[list[int]]) -> list[int]:
    shared = 0
    for column in zip(*questions, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return questions[0][:shared]


def _micro_batch(families: Sequence[TurnFamily]) -> MicroBatch:
    sources: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    laid, start = [], 0
    for family in families:
        shared = len(family.prefix)
        last_of_prefix = start + shared - 1
        start += shared
        continuations = []
        for example, weight in family.examples:
            rest = [*example.question[shared:], *example.answer]
            first = len(rest) - len(example.answer)
            places = [start + place - 1 if place else last_of_prefix for place in range(first, len(rest))]
            sources += places
            targets += example.answer
            weights += [weight * of_token for of_token in example.weights]
            continuations.append(rest)
            start += len(rest)
        laid.append(Family(family.prefix, tuple(continuations)))
    return MicroBatch(pack(laid), torch.tensor(sources), torch.tensor(targets), torch.tensor(weights))
