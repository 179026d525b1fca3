"""Small scenarios and steps for the store's tests."""

from collections.abc import Sequence
from typing import Any

from store.database import Log
from store.records import Called, Item, ReferenceStep, Scenario, ScenarioTurn, ToolSpec
from store.scenarios import add_scenarios
from store.trajectories import NewTrajectory, StepToRecord, create_trajectories, record_step
from store.vocabulary import FocusOn, Origin, Split

WEATHER = ToolSpec(
    name="get_weather",
    description="The weather of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def a_scenario(name: str = "rain", **changes: Any) -> Scenario:
    """Two turns; the first has a checked strict item and one for the LLM judge that depends on it."""
    called = Item(
        id="asks-weather",
        focus_on=FocusOn.TOOL_CALLS,
        question="Is the weather of Oslo asked for?",
        required_for_next_turn=True,
        weight=0.75,
        check=Called(tool="get_weather", arguments={"city": "Oslo"}),
    )
    polite = Item(
        id="umbrella", focus_on=FocusOn.REPLY, question="Umbrella?", weight=0.25, depends_on=("asks-weather",)
    )
    thanks = Item(id="answers-thanks", focus_on=FocusOn.REPLY, question="Is the thanks answered?", weight=1.0)
    fields: dict[str, Any] = {
        "name": name,
        "domain": "weather",
        "source": "bundled",
        "split": Split.TRAIN,
        "seed": 7,
        "system": "You are a helpful assistant.",
        "tools": (WEATHER,),
        "turns": (
            ScenarioTurn(
                user="Do I need an umbrella in Oslo — ☂?",
                reference=(ReferenceStep(reply="Yes."),),
                checklist=(called, polite),
            ),
            ScenarioTurn(user="Thanks", checklist=(thanks,)),
        ),
    }
    return Scenario(**fields | changes)


def a_step(trajectory_id: str = "t1", **changes: Any) -> StepToRecord:
    """A first step that replies at once: a prompt of three ids, two sampled ones."""
    fields: dict[str, Any] = {
        "trajectory_id": trajectory_id,
        "turn_index": 0,
        "index": 0,
        "parent_id": None,
        "user": "hello",
        "version": "v0001",
        "new_messages": [{"role": "user", "content": "hello"}],
        "tools_hash": None,
        "message": {"content": "hi", "reasoning": None, "tool_calls": []},
        "delta_ids": [1, 2, 3],
        "sampled_ids": [10, 11],
        "logprobs": [-0.5, -0.25],
        "context_tokens": 3,
        "finish_reason": "stop",
        "latency_ms": 12.5,
        "sampling": {"temperature": 1.0, "seed": 3},
    }
    return StepToRecord(**fields | changes)


def a_call(call_id: str, arguments: str = '{"city":"Oslo"}', name: str = "get_weather") -> dict[str, str]:
    return {"id": call_id, "name": name, "arguments": arguments}


def start(log: Log, *ids: str, scenario: Scenario | None = None, **fields: Any) -> None:
    """Trajectories with these ids, of origin rollout unless said otherwise."""
    if scenario is not None:
        add_scenarios(log, [scenario])
        fields["scenario_hash"] = scenario.hash
    origin = fields.pop("origin", Origin.ROLLOUT)
    create_trajectories(log, [NewTrajectory(id=i, origin=origin, member=n, **fields) for n, i in enumerate(ids)])


def record_chain(log: Log, trajectory_id: str, pairs: Sequence[tuple[list[int], list[int]]]) -> list[int]:
    """Steps of one turn, each a (delta ids, sampled ids) that goes on from the one before; their ids in the log."""
    ids: list[int] = []
    length = 0
    for index, (delta, sampled) in enumerate(pairs):
        ids.append(
            record_step(
                log,
                a_step(
                    trajectory_id,
                    index=index,
                    parent_id=ids[-1] if ids else None,
                    delta_ids=delta,
                    sampled_ids=sampled,
                    logprobs=[-1.0 / (1 + i) for i in range(len(sampled))],
                    context_tokens=length + len(delta),
                ),
            )
        )
        length += len(delta) + len(sampled)
    return ids
