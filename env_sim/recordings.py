"""Recordings out of the log: a dialogue as it happened, as the reference turns of a scenario; and the way back.

Reads the log, writes nothing. What its tools answered then, real ones included, is what `env_sim.simulator` answers to
equal calls; nothing has to be there any more that answered the first time.
"""

from store.database import Log
from store.records import CallRecord, RecordedCall, ReferenceStep, ScenarioTurn, StepRecord, TurnRecord
from store.turns import get_turns
from store.vocabulary import ToolSource


def recorded_turns(log: Log, trajectory_id: str) -> tuple[ScenarioTurn, ...]:
    """The turns of a dialogue up to the last one that ended with a reply, with empty checklists.

    A turn without a reply in between has an empty reference: a reference ends with its reply.
    """
    turns = get_turns(log, trajectory_id)
    while turns and not turns[-1].reply.strip():
        turns.pop()
    return tuple(ScenarioTurn(user=turn.user, reference=recorded_steps(turn), checklist=()) for turn in turns)


def recorded_steps(turn: TurnRecord) -> tuple[ReferenceStep, ...]:
    """The steps of a turn; empty for one without a reply.

    Left out is what no tool said: calls that nobody answered or that were refused before they reached a tool (the
    simulator refuses them itself), and text that stood beside calls.
    """
    if not turn.reply.strip():
        return ()
    steps = [ReferenceStep(thinking=step.thinking, calls=calls) for step in turn.steps if (calls := _calls(step))]
    return (*steps, ReferenceStep(thinking=turn.steps[-1].thinking, reply=turn.reply))


def played_reference(spoken: ScenarioTurn, index: int) -> TurnRecord:
    """The reference of turn `index` as if somebody had played it; without a step if there is none."""
    steps = []
    for position, step in enumerate(spoken.reference):
        calls = tuple(
            CallRecord(
                call_id=f"call_{index}_{position}_{place}",
                name=call.name,
                arguments=call.arguments,
                response=call.response,
                is_error=call.is_error,
                source=ToolSource.RECORDED,
            )
            for place, call in enumerate(step.calls)
        )
        ending = "tool_calls" if calls else "stop"
        steps.append(
            StepRecord(
                index=position, thinking=step.thinking, content=step.reply or "", calls=calls, finish_reason=ending
            )
        )
    return TurnRecord(trajectory_id="reference", index=index, user=spoken.user, steps=tuple(steps))


def _calls(step: StepRecord) -> tuple[RecordedCall, ...]:
    return tuple(
        RecordedCall(name=call.name, arguments=dict(call.arguments), response=call.response, is_error=call.is_error)
        for call in step.calls
        if call.arguments is not None and call.response is not None and call.source != ToolSource.VALIDATION
    )
