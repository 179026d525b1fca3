"""Plays scenarios through the agent, many at a time; reads the log's turns, writes trajectories and tool answers.

The gateway records the steps; this module adds the trajectory, the answers of the simulated tools and why each
dialogue ended. It is handed the judge that it asks for strict items (the judge stands to the right of this room).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import RetryPolicy

from agent.graph import build_graph
from agent.policy import PolicyChat, connect_policy, open_connections
from agent.role_errors import LimitReached
from agent.tools import ToolOutage, make_tools
from env_sim.rollout_plans import RolloutPlan, derive_seed, make_plans
from env_sim.simulator import Simulator, SimulatorLlm
from store.database import Log
from store.records import Scenario, TurnRecord
from store.training_settings import RolloutSettings
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    create_trajectories,
    end_trajectory,
    record_tool_answers,
)
from store.turns import get_turns
from store.vocabulary import StopReason

__all__ = ["JudgeTurn", "Played", "RolloutPlan", "derive_seed", "make_plans", "play"]


@dataclass(frozen=True)
class Played:
    trajectory_id: str
    stop_reason: StopReason
    error: str | None


class TurnJudgement(Protocol):
    """What the judge hands back for a turn."""

    @property
    def strict_ok(self) -> bool | None:
        """Whether every strict item holds; None where that could not be judged."""
        ...


JudgeTurn = Callable[[Scenario, TurnRecord], Awaitable[TurnJudgement]]


async def play(
    log: Log,
    plans: Sequence[RolloutPlan],
    *,
    gateway_url: str,
    judge_turn: JudgeTurn,
    settings: RolloutSettings,
    model: str = "policy",
    temperature: float | None = None,
    on_done: Callable[[Played], None] | None = None,
    simulator_llm: SimulatorLlm | None = None,
    request_timeout_s: float = 180.0,
    http_client: openai.DefaultAsyncHttpxClient | None = None,
) -> list[Played]:
    """Play the plans, `settings.concurrency` at a time; the results stand in the plans' order.

    `temperature` None takes the settings'. `on_done` is called as each dialogue ends. What goes wrong at the gateway,
    the simulator or the judge ends that dialogue as FAILED (invariant 3); LogError and mistakes in the program end
    all. A cancelled dialogue stays unfinished in the log, and `make_plans` plans it again.
    """
    chosen = settings.temperature if temperature is None else temperature
    connections = http_client or open_connections(request_timeout_s)
    slots = asyncio.Semaphore(settings.concurrency)

    async def play_one(plan: RolloutPlan) -> Played:
        async with slots:
            policy = connect_policy(
                gateway_url,
                plan.trajectory_id,
                connections,
                model=model,
                temperature=chosen,
                max_tokens=settings.max_tokens_per_step,
                timeout_s=request_timeout_s,
            )
            dialogue = _Dialogue(log, plan, policy, chosen, settings, judge_turn, simulator_llm)
            played = await dialogue.play()
        if on_done is not None:
            on_done(played)
        return played

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(play_one(plan)) for plan in plans]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        if http_client is None:
            await connections.aclose()
    return [task.result() for task in tasks]


class _Dialogue:
    """One dialogue from its first user turn to its stop reason."""

    def __init__(
        self,
        log: Log,
        plan: RolloutPlan,
        policy: PolicyChat,
        temperature: float,
        settings: RolloutSettings,
        judge_turn: JudgeTurn,
        llm: SimulatorLlm | None,
    ) -> None:
        self._log = log
        self._plan = plan
        self._policy = policy
        self._settings = settings
        self._judge_turn = judge_turn
        self._llm = llm
        self._sampling: dict[str, Any] = {
            "temperature": temperature,
            "max_tokens": settings.max_tokens_per_step,
            "max_steps_per_turn": settings.max_steps_per_turn,
            "model": policy.model_name,
        }
        if llm is not None:
            self._sampling["simulator"] = llm.provenance

    async def play(self) -> Played:
        plan = self._plan
        row = NewTrajectory(
            id=plan.trajectory_id,
            origin=plan.origin,
            scenario_hash=plan.scenario.hash,
            group_id=plan.group_id,
            batch=plan.batch,
            member=plan.member,
            version=plan.version,
            seed=plan.seed,
            sampling=self._sampling,
            title=plan.scenario.name,
        )
        await asyncio.to_thread(create_trajectories, self._log, [row])
        try:
            stop, error = await self._turns()
        except (openai.APIError, ToolOutage) as trouble:
            stop, error = StopReason.FAILED, _said(trouble)
        await asyncio.to_thread(end_trajectory, self._log, plan.trajectory_id, stop, error)
        return Played(trajectory_id=plan.trajectory_id, stop_reason=stop, error=error)

    async def _turns(self) -> tuple[StopReason, str | None]:
        scenario = self._plan.scenario
        world_seed = self._plan.seed if self._plan.world_seed is None else self._plan.world_seed
        self._simulator = Simulator(scenario, world_seed, self._llm)
        tools = make_tools(scenario.tools, self._answer)
        graph = build_graph(self._policy, tools, on_refusal=self._record, retry_policy=RETRY_POLICY)
        seed = self._plan.seed if self._settings.seeded else None
        config: RunnableConfig = {"configurable": {"max_steps": self._settings.max_steps_per_turn, "seed": seed}}
        messages: list[AnyMessage] = [SystemMessage(scenario.system)] if scenario.system else []
        for index, turn in enumerate(scenario.turns):
            messages.append(HumanMessage(turn.user))
            try:
                state = await graph.ainvoke({"messages": messages}, config)
            except ContextOverflowError:
                stop: str | None = StopReason.CONTEXT_FULL
            else:
                messages, stop = state["messages"], state.get("stop_reason")
            strict_ok, trouble = await self._judge(index)
            if stop is not None:
                return StopReason(stop), None
            if index == len(scenario.turns) - 1:
                break
            if strict_ok is None:
                return StopReason.FAILED, trouble or f"judge: a strict item of turn {index} could not be judged"
            if not strict_ok:
                return StopReason.STRICT_ITEM, None
        return StopReason.COMPLETED, None

    async def _judge(self, index: int) -> tuple[bool | None, str | None]:
        """(strict_ok, what went wrong in judging)."""
        turns = await asyncio.to_thread(get_turns, self._log, self._plan.trajectory_id)
        # A context that was full before the turn's first step leaves no turn in the log.
        empty = TurnRecord(
            trajectory_id=self._plan.trajectory_id, index=index, user=self._plan.scenario.turns[index].user, steps=()
        )
        turn = next((one for one in turns if one.index == index), empty)
        try:
            return (await self._judge_turn(self._plan.scenario, turn)).strict_ok, None
        except LimitReached:
            raise  # nobody's failure: the batch ends here, and goes on once more may be spent
        except Exception as error:  # the judge's boundary: whatever it raises is its failure, not the policy's
            return None, f"judge: {type(error).__name__}: {error}"

    async def _answer(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        answer = await self._simulator.answer(name, arguments, call_id)
        await self._record(answer)
        return answer

    async def _record(self, answer: ToolAnswer) -> None:
        await asyncio.to_thread(record_tool_answers, self._log, self._plan.trajectory_id, [answer])


def is_safe_to_repeat(error: Exception) -> bool:
    """Whether a failed request surely left no step in the log, so that asking again cannot fork the trajectory.

    The gateway records a step before it answers: a connection that was never made, or a refusal (429), or trouble of
    the server behind it (502, 503), comes before that. A timeout or a broken connection may come after.
    """
    if isinstance(error, openai.APIStatusError):
        return error.status_code in {429, 502, 503}
    cause: BaseException | None = error
    while cause is not None:
        # By name: the OpenAI client runs on httpx or on httpx2, depending on its version.
        if type(cause).__name__ in {"ConnectError", "ConnectTimeout"}:
            return True
        cause = cause.__cause__
    return False


RETRY_POLICY = RetryPolicy(initial_interval=0.5, backoff_factor=4.0, max_attempts=3, retry_on=is_safe_to_repeat)


def _said(trouble: Exception) -> str:
    return f"{type(trouble).__name__}: {trouble}"
