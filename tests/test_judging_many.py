"""Many dialogues judged at once: how many are open, and how much memory that takes."""

import asyncio
import tracemalloc
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

import pytest

from reward.judge import Judge
from store.database import Log
from store.records import Scenario
from store.scenarios import add_scenarios
from store.steps import record_steps
from store.trajectories import NewTrajectory, ToolAnswer, create_trajectories, end_trajectory, record_tool_answers
from store.vocabulary import JudgeMode, Origin, Outcome, StopReason, ToolSource
from tests.judged_log import LLM_ITEMS, all_pass, alone, polite_turn, record, scenario
from tests.store_examples import a_step


def test_any_number_of_turns_needs_a_bounded_number_of_tasks(sqlite_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward.judge._CHUNK", 3)
    played = scenario(LLM_ITEMS)
    names = [record(sqlite_log, played, [polite_turn(f"t{n}", f"Question {n}")]) for n in range(40)]
    most = 0
    read: list[int] = []

    async def answer(request: dict[str, Any]) -> str:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        return all_pass(request)

    def streamed() -> Any:
        for n, name in enumerate(names):
            read.append(n)
            yield name

    seen: list[int] = []
    judged = Judge(sqlite_log, alone(answer, max_concurrency=500))
    report = asyncio.run(
        judged.judge_log(streamed(), on_progress=lambda so_far: seen.append(len(read) - so_far.trajectories))
    )
    assert (report.trajectories, report.turns, report.outcomes[Outcome.PASS]) == (40, 40, 80)
    assert max(seen) <= 4 * 3, "never more than the open chunks are read ahead"
    assert most < 60


def record_many(log: Log, played: Scenario, count: int, words: int) -> list[str]:
    """Dialogues of one turn; each one's response and reply have so many words that no other has."""
    add_scenarios(log, [played])
    names = [f"t{n}" for n in range(count)]
    create_trajectories(log, [NewTrajectory(name, Origin.ROLLOUT, played.hash) for name in names])
    texts = [" ".join(f"{n}-{word}" for word in range(words)) for n in range(count)]
    calls = [{"id": "c", "name": "find", "arguments": '{"city": "Paris"}'}]
    messages = [
        [{"content": "", "reasoning": "", "tool_calls": calls} for _ in names],
        [{"content": f"{text} It is 1200, my pleasure.", "reasoning": "", "tool_calls": []} for text in texts],
    ]
    parents: list[int | None] = [None] * count
    for index, said in enumerate(messages):
        steps = [
            a_step(name, user=f"Question {name}", index=index, parent_id=parent, message=message, new_messages=[])
            for name, message, parent in zip(names, said, parents, strict=True)
        ]
        if index:
            steps = [replace(step, context_tokens=step.context_tokens + 5) for step in steps]
        else:
            steps = [replace(step, finish_reason="tool_calls") for step in steps]
        parents = [made if isinstance(made, int) else None for made in record_steps(log, steps)]
    for name, text in zip(names, texts, strict=True):
        record_tool_answers(log, name, [ToolAnswer("c", text, False, ToolSource.WORLD)])
        end_trajectory(log, name, StopReason.COMPLETED)
    return names


def test_500_dialogues_at_once_in_bounded_memory(sqlite_log: Log) -> None:
    """500 questions are open at once, never more; their dialogues, requests and connections hold some 36 MB."""
    names = record_many(sqlite_log, scenario(LLM_ITEMS), 520, words=160)
    running = most = 0
    all_open = asyncio.Event()

    async def answer(request: dict[str, Any]) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 500:
            all_open.set()
        await all_open.wait()
        running -= 1
        return all_pass(request)

    judged = Judge(sqlite_log, alone(answer, max_concurrency=500, timeout_s=120.0))
    tracemalloc.start()
    try:
        report = asyncio.run(judged.judge_log(names))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (most, report.outcomes) == (500, {Outcome.PASS: 1040})
    assert peak < 70e6


@pytest.mark.parametrize(
    ("mode", "written_by"),
    [
        (JudgeMode.TURN, "reward.llm_judge.LlmJudge.question"),
        (JudgeMode.ITEM, "reward.llm_judge.LlmJudge.question"),
        (JudgeMode.STEP, "reward.llm_judge.LlmJudge.question"),
        (JudgeMode.PAPER, "reward.paper_question.paper_prompt"),
        (JudgeMode.SMALL, "reward.small_judge.small_question"),
    ],
)
def test_questions_are_written_no_further_ahead_than_they_are_answered(
    sqlite_log: Log, monkeypatch: pytest.MonkeyPatch, mode: JudgeMode, written_by: str
) -> None:
    """40 dialogues of two steps and two items, two answered at once: their prompts are not all in memory."""
    names = record_many(sqlite_log, scenario(LLM_ITEMS), 40, words=2)
    write = resolve_name(written_by)
    open_questions = most = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal open_questions, most
        open_questions += 1
        most = max(most, open_questions)
        return write(*arguments, **named)

    async def answer(request: dict[str, Any]) -> str:
        nonlocal open_questions
        await asyncio.sleep(0)
        open_questions -= 1
        return "no JSON"

    monkeypatch.setattr(written_by, counted)
    report = asyncio.run(Judge(sqlite_log, alone(answer, mode, max_concurrency=2)).judge_log(names))
    assert report.turns == 40 and open_questions == 0
    assert most == 4
