"""A log with dialogues, checklists and verdicts to distil from, and a model small enough to train in a second."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import agent
from reward.code_judge import judge_by_code
from reward.small_judge import RULES, small_answer
from store.database import Log
from store.records import Called, Item, ReplyMentions, Scenario, ScenarioTurn, TurnRecord
from store.scenarios import add_scenarios, item_ids
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    create_trajectories,
    end_trajectory,
    record_step,
    record_tool_answers,
)
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import FocusOn, Origin, Outcome, Split, StopReason, ToolSource, VerdictSource
from tests.store_examples import a_step
from tests.turn_records import call, turn
from train.judge_files import Card, weight_hashes

WORDS = 800
CITIES = ("Oslo", "Rome", "Lima", "Bonn", "Kyiv", "Nice", "Bari", "Graz", "Linz", "Metz")


def city_scenario(city: str, name: str = "") -> Scenario:
    """One turn: a call and a reply that a check decides, and politeness, which somebody has to judge."""
    items = (
        Item(
            id="call",
            focus_on=FocusOn.TOOL_CALLS,
            question=f"Is the weather of {city} asked for?",
            weight=0.4,
            check=Called(tool="weather", arguments={"city": city}),
        ),
        Item(
            id="reply",
            focus_on=FocusOn.REPLY,
            question="Does the reply say rain?",
            weight=0.4,
            check=ReplyMentions(all_of=(("rain",),)),
        ),
        Item(id="polite", focus_on=FocusOn.REPLY, question="Is the reply polite?", weight=0.2),
    )
    return Scenario(
        name=name or city,
        domain="weather",
        source="test",
        split=Split.TRAIN,
        seed=1,
        system="",
        tools=(),
        turns=(ScenarioTurn(user=f"Weather in {city}?", checklist=items),),
    )


def record_dialogue(log: Log, scenario: Scenario, turns: Sequence[TurnRecord], *, chat: bool = False) -> str:
    """Writes the turns as an ended trajectory of the scenario, or as a chat that is open; its id, which is the
    turns'."""
    name = turns[0].trajectory_id
    add_scenarios(log, [scenario])
    origin = Origin.CHAT if chat else Origin.ROLLOUT
    create_trajectories(log, [NewTrajectory(id=name, origin=origin, scenario_hash=scenario.hash)])
    parent, tokens = None, 0
    for happened in turns:
        for step in happened.steps:
            calls = [{"id": c.call_id, "name": c.name, "arguments": json.dumps(c.arguments)} for c in step.calls]
            said = {"content": step.content, "reasoning": step.thinking, "tool_calls": calls}
            place = {"turn_index": happened.index, "index": step.index, "parent_id": parent, "user": happened.user}
            ids = {"delta_ids": [1], "sampled_ids": [2], "logprobs": [0.0], "context_tokens": tokens + 1}
            why = {"finish_reason": step.finish_reason, "new_messages": []}
            parent = record_step(log, a_step(name, message=said, **place, **ids, **why))
            tokens += 2
            answers = [ToolAnswer(c.call_id, c.response or "", c.is_error, ToolSource.WORLD) for c in step.calls]
            record_tool_answers(log, name, answers)
    if not chat:
        end_trajectory(log, name, StopReason.COMPLETED)
    return name


def judged_dialogue(log: Log, city: str, *, called: str, reply: str, name: str = "") -> str:
    """A dialogue about `city` that asked for the weather of `called`, with the verdicts of its checks."""
    scenario = city_scenario(city)
    happened = turn(
        [call("weather", {"city": called}, {"weather": "rain", "city": called})],
        reply,
        trajectory_id=name or f"about-{city}-{called}",
        user=f"Weather in {city}?",
    )
    record_dialogue(log, scenario, [happened])
    judged = judge_by_code(scenario.turns[0].checklist, happened, item_ids(log, scenario.hash))
    add_verdicts(log, judged.verdicts)
    return happened.trajectory_id


def city_log(log: Log, cities: Sequence[str] = CITIES) -> None:
    """Two dialogues a city: one right, one with another city and a useless reply."""
    for n, city in enumerate(cities):
        judged_dialogue(log, city, called=city, reply=f"There is rain in {city}.")
        judged_dialogue(log, city, called=cities[n - 1], reply="I do not know.")


def say(
    log: Log,
    trajectory_id: str,
    city: str,
    key: str,
    outcome: Outcome,
    source: VerdictSource,
    judge: str,
    *,
    step: int | None = None,
    quote: str = "",
    counts: bool = True,
) -> None:
    item_id = item_ids(log, city_scenario(city).hash)[0, key]
    verdict = Verdict(trajectory_id, 0, item_id, key, outcome, step, source, judge, None, "", quote, counts=counts)
    add_verdicts(log, [verdict])


def write_small_model(directory: Path, seed: int = 0) -> Path:
    """A random two-layer Llama, 800 words that it can say anything with, and the bundled model's chat template."""
    torch.manual_seed(seed)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    said = [RULES, small_answer('{"arguments":{"city":"Oslo"},"name":"weather"}', 0, Outcome.PASS)]
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(said * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=special[0], eos_token=special[2])
    tokenizer.chat_template = (Path(agent.__file__).parent / "templates" / "compact.jinja").read_text()
    tokenizer.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def a_card(name: str, base: Path, *, rank: int, modules: Sequence[str]) -> Card:
    """Of a judge that was trained on the weights in `base`."""
    return Card(
        name=name,
        base=str(base.resolve()),
        base_files=weight_hashes(base),
        files={},
        prompt_hash="",
        rank=rank,
        modules=tuple(modules),
        seed=1,
        settings={},
        data={},
        against="",
        figures={},
    )
