"""Reference dialogues of the bundled worlds as they would have been logged, for the judge's bench."""

import json
from collections.abc import Sequence
from typing import Any

from env_sim.scenario_generator import generate_scenarios
from store.database import Log
from store.records import ReferenceStep, Scenario, ScenarioTurn
from store.scenarios import add_scenarios
from store.trajectories import (
    NewTrajectory,
    StepToRecord,
    ToolAnswer,
    create_trajectories,
    end_trajectory,
    record_step,
    record_tool_answers,
)
from store.vocabulary import Origin, Split, StopReason, ToolSource

POOL, SCENARIOS = 400, 1
AS_THEY_COME = 4
"""Scenarios of which every turn is judged, whatever its length."""
PAIRS = 12
"""Steps times items of a turn, at least."""
OTHER_REPLY = "I have looked into it and all of it is settled now. Is there anything else that I can do for you?"


def fill(log: Log, scenarios: Sequence[Scenario]) -> list[str]:
    """A group of two dialogues for each scenario; returns their ids."""
    names = []
    for scenario in scenarios:
        add_scenarios(log, [scenario])
        for member, reply in enumerate((None, OTHER_REPLY)):
            names.append(f"{scenario.name}-{member}")
            create_trajectories(log, [NewTrajectory(names[-1], Origin.IMPORT, scenario_hash=scenario.hash)])
            _record(log, scenario, names[-1], reply)
            end_trajectory(log, names[-1], StopReason.COMPLETED)
    return names


def long_dialogues(length: int) -> list[Scenario]:
    """Long dialogues: `length` turns of a domain's scenarios, one after the other, their items without checks."""
    turns: dict[str, list[ScenarioTurn]] = {}
    first: dict[str, Scenario] = {}
    for scenario in generate_scenarios(Split.TRAIN, POOL, 7):
        first.setdefault(scenario.domain, scenario)
        turns.setdefault(scenario.domain, []).extend(
            turn for turn in scenario.turns if len(turn.reference) * len(turn.checklist) >= PAIRS
        )
    chosen = sorted(turns, key=lambda domain: -len(turns[domain]))[:SCENARIOS]
    return [
        first[domain].model_copy(
            update={"name": f"{domain}-{length}", "turns": tuple(map(_unchecked, turns[domain][:length]))}
        )
        for domain in chosen
    ]


def as_they_come(*, checked: bool = False) -> list[Scenario]:
    """Dialogues as the worlds make them; their items with or without their checks."""
    made = generate_scenarios(Split.TRAIN, AS_THEY_COME, 8)
    if checked:
        return made
    return [
        scenario.model_copy(update={"name": f"{scenario.name}-whole", "turns": tuple(map(_unchecked, scenario.turns))})
        for scenario in made
    ]


def _unchecked(turn: ScenarioTurn) -> ScenarioTurn:
    items = tuple(item.model_copy(update={"check": None}) for item in turn.checklist)
    return turn.model_copy(update={"checklist": items})


def _record(log: Log, scenario: Scenario, name: str, reply: str | None) -> None:
    """The reference dialogue as it would have been logged, its replies replaced by `reply`; the ids do not matter."""
    parent, tokens = None, 0
    for turn_index, turn in enumerate(scenario.turns):
        for index, step in enumerate(turn.reference):
            ids = [f"{name}-{turn_index}-{index}-{n}" for n in range(len(step.calls))]
            recorded = StepToRecord(
                trajectory_id=name,
                turn_index=turn_index,
                index=index,
                parent_id=parent,
                user=turn.user,
                version="v0001",
                new_messages=[],
                tools_hash=None,
                message=_message(step, ids, reply),
                delta_ids=[1],
                sampled_ids=[2],
                logprobs=[0.0],
                context_tokens=tokens + 1,
                finish_reason="stop" if step.reply is not None else "tool_calls",
                latency_ms=1.0,
                sampling={},
            )
            parent, tokens = record_step(log, recorded), tokens + 2
            answers = [
                ToolAnswer(call_id, call.response, call.is_error, ToolSource.RECORDED)
                for call_id, call in zip(ids, step.calls, strict=True)
            ]
            record_tool_answers(log, name, answers)


def _message(step: ReferenceStep, ids: list[str], reply: str | None) -> dict[str, Any]:
    calls = [
        {"id": call_id, "name": call.name, "arguments": json.dumps(call.arguments)}
        for call_id, call in zip(ids, step.calls, strict=True)
    ]
    content = "" if step.reply is None else reply or step.reply
    return {"content": content, "reasoning": step.thinking, "tool_calls": calls}
