"""A large log: 1,000,000 verdicts on 100,000 dialogues of two turns, seeded, written through the store's own functions
where those keep sums, and in bulk elsewhere; around them what `benchmarks.large_work` adds.

`python -m benchmarks.large_log URL [DIALOGUES]` writes it into an empty database; about ten minutes for the whole.
"""

import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from benchmarks.large_work import add_words_of_people, add_work
from store.database import Log, open_log
from store.records import Called, Item, ReferenceStep, ReplyMentions, Scenario, ScenarioTurn, ToolSpec
from store.scenarios import add_scenarios, item_ids
from store.schema import RewardRow, StepRow, ToolCallRow, ToolResponseRow, TrajectoryRow, TurnRow
from store.tokens import pack_ids, pack_logprobs
from store.verdicts import Verdict, add_verdicts
from store.versions import add_version
from store.vocabulary import FocusOn, Outcome, Split, VerdictSource

DIALOGUES = 100_000
DOMAINS = ("travel", "shop", "banking", "music", "homes", "tickets", "news", "health")
SCENARIOS, VERSIONS = 400, 10
VERDICTS = 10
"""A dialogue: two of code, the rest votes of a panel and repeats."""
AT_ONCE = 2_000
START = datetime(2026, 8, 1, tzinfo=UTC)


def build_large_log(url: str, dialogues: int = DIALOGUES, seed: int = 1) -> Log:
    """Writes it. The same seed and size make the same log. Raises LogError if the database cannot be opened."""
    log, rng = open_log(url), random.Random(seed)
    scenarios = [a_scenario(n) for n in range(SCENARIOS)]
    add_scenarios(log, scenarios)
    items = [item_ids(log, scenario.hash) for scenario in scenarios]
    for n in range(VERSIONS):
        parent = f"v{n:04d}" if n else None
        add_version(log, f"v{n + 1:04d}", parent=parent, path=f"versions/v{n + 1:04d}", files={})
    for first in range(0, dialogues, AT_ONCE):
        numbers = range(first, min(dialogues, first + AT_ONCE))
        play(log, numbers, dialogues, scenarios, rng)
        add_verdicts(log, [one for n in numbers for one in verdicts_on(n, dialogues, items[n % SCENARIOS], rng)])
    names, moments = [name_of(n) for n in range(dialogues)], [began(n, dialogues) for n in range(dialogues)]
    add_work(log, names, moments, versions=VERSIONS, first_step=3 * dialogues + 10, seed=seed)
    add_words_of_people(log, names, moments, items, seed)
    return log


def a_scenario(n: int) -> Scenario:
    """Two turns with three items: a call, what the reply mentions, and one for an LLM judge."""
    domain = DOMAINS[n % len(DOMAINS)]
    tool = ToolSpec(name=f"find_{domain}", description="Find", parameters={"type": "object", "properties": {}})
    called = Item(
        id="called",
        focus_on=FocusOn.TOOL_CALLS,
        question=f"Is {tool.name} called?",
        weight=0.5,
        check=Called(tool=tool.name),
    )
    mentions = Item(
        id="mentions",
        focus_on=FocusOn.REPLY,
        question="Is the price said?",
        weight=0.5,
        check=ReplyMentions(all_of=(("42",),)),
    )
    polite = Item(id="polite", focus_on=FocusOn.REPLY, question="Is the thanks answered politely?", weight=1.0)
    reference = (ReferenceStep(reply="It costs 42."),)
    return Scenario(
        name=f"{domain}-{n}",
        domain=domain,
        source="bench",
        split=(Split.TRAIN, Split.TRAIN, Split.VALIDATION, Split.TEST)[n % 4],
        seed=n,
        system="You help.",
        tools=(tool,),
        turns=(
            ScenarioTurn(user=f"What does number {n} cost?", reference=reference, checklist=(called, mentions)),
            ScenarioTurn(user="Thank you", reference=reference, checklist=(polite,)),
        ),
    )


def name_of(n: int) -> str:
    return f"big-{n:07d}"


def version_of(n: int, dialogues: int) -> str:
    return f"v{1 + n * VERSIONS // dialogues:04d}"


def began(n: int, dialogues: int) -> datetime:
    """Spread over a hundred days."""
    return START + timedelta(seconds=n * 100 * 86_400 // dialogues)


def play(log: Log, numbers: range, dialogues: int, scenarios: list[Scenario], rng: random.Random) -> None:
    """Trajectories with their turns, steps, calls, answers and rewards; every tenth one is an evaluation."""
    tables: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (TrajectoryRow, TurnRow, StepRow, ToolCallRow, ToolResponseRow, RewardRow)
    }
    for n in numbers:
        for table, row in rows_of(n, dialogues, scenarios[n % SCENARIOS], rng):
            tables[table].append(row)
    with log.writing() as connection:
        for table, rows in tables.items():
            connection.execute(insert(table.__table__), rows)


def rows_of(n: int, dialogues: int, scenario: Scenario, rng: random.Random) -> Iterator[tuple[Any, dict[str, Any]]]:
    name, at, version = name_of(n), began(n, dialogues), version_of(n, dialogues)
    evaluation = n % 10 == 0
    yield (
        TrajectoryRow,
        {
            "id": name,
            "origin": "evaluation" if evaluation else "rollout",
            "scenario_hash": scenario.hash,
            "batch": f"{'evaluate' if evaluation else 'round'}/{version}/{n % 7}",
            "version": version,
            "seed": n // SCENARIOS,
            "stop_reason": "completed",
            "created_at": at,
            "ended_at": at,
        },
    )
    value = round(rng.random(), 3)
    yield (
        RewardRow,
        {
            "trajectory_id": name,
            "value": value,
            "turn_values": [value, value],
            "fully_passed": value > 0.7,
            "unscored": 0,
            "created_at": at,
        },
    )
    ids = [rng.randrange(40_000) for _ in range(40)]
    for turn in (0, 1):
        yield (
            TurnRow,
            {"trajectory_id": name, "index": turn, "user": scenario.turns[turn].user, "created_at": at},
        )
        for index in range(2 if turn == 0 else 1):
            step, calls = 3 * n + turn * 2 + index + 1, turn == 0 and index == 0
            tool = scenario.tools[0].name
            call = {"id": "c0", "name": tool, "arguments": '{"id":"42"}'}
            content = "" if calls else "It costs 42."
            yield (
                StepRow,
                {
                    "id": step,
                    "trajectory_id": name,
                    "turn_index": turn,
                    "index": index,
                    "parent_id": step - 1 if turn or index else None,
                    "version": version,
                    "new_messages": [{"role": "user", "content": scenario.turns[turn].user}],
                    "message": {"content": content, "reasoning": None, "tool_calls": [call] if calls else []},
                    "delta_ids": pack_ids(ids),
                    "sampled_ids": pack_ids(ids[:20]),
                    "logprobs": pack_logprobs([-0.5] * 20),
                    "context_tokens": 40 + 60 * ((step - 1) % 3),
                    "sampled_tokens": 20,
                    "finish_reason": "tool_calls" if calls else "stop",
                    "latency_ms": 12.0,
                    "sampling": {"temperature": 1.0},
                    "trainable": True,
                    "created_at": at,
                },
            )
            if calls:
                made = {"trajectory_id": name, "step_id": step, "index": 0, "call_id": "c0"}
                yield ToolCallRow, made | {"name": tool, "arguments": call["arguments"]}
                answer = {"trajectory_id": name, "call_id": "c0", "response": '{"price": 42}', "is_error": False}
                yield ToolResponseRow, answer | {"source": "world", "latency_ms": 1.0, "created_at": at}


def verdicts_on(n: int, dialogues: int, items: dict[tuple[int, str], int], rng: random.Random) -> Iterator[Verdict]:
    """Ten verdicts: what counts on each item, then votes of two judges beside."""
    skill = 0.6 + 0.3 * n / dialogues
    at, said = began(n, dialogues), 0
    while said < VERDICTS:
        for (turn, key), item in items.items():
            if said == VERDICTS:
                return
            first = said < len(items)
            code = first and key != "polite"
            draw = rng.random()
            outcome = Outcome.PASS if draw < skill else Outcome.UNSCORED if draw > 0.995 else Outcome.FAIL
            yield Verdict(
                trajectory_id=name_of(n),
                turn_index=turn,
                item_id=item,
                item_key=key,
                outcome=outcome,
                step_index=0 if outcome is Outcome.PASS else None,
                source=VerdictSource.CODE if code else VerdictSource.LLM,
                judge="checks" if code else ("big-judge", "other-judge")[said % 2],
                prompt_hash=None if code else "a" * 64,
                reason="the reply says so, and the call before it answered with it " * 2,
                quote="It costs 42.",
                created_at=at,
                counts=first,
                draw=0 if first else said // len(items),
            )
            said += 1


if __name__ == "__main__":
    began_at = time.perf_counter()
    build_large_log(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else DIALOGUES).close()
    print(f"{time.perf_counter() - began_at:.0f} s")
