"""Plays scenarios through the agent, many at a time; reads the log's turns, writes trajectories and tool answers.

The gateway records the steps; this module adds the trajectory, the answers of the simulated tools and why each
dialogue ended. It is handed the judge that it asks for strict items (the judge stands to the right of this room).
"""

import asyncio
import hashlib
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
from agent.tools import ToolOutage, make_tools
from env_sim.simulator import Simulator, SimulatorLlm
from store.database import Log
from store.records import Scenario, TurnRecord
from store.settings import RolloutSettings
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    TrajectorySummary,
    create_group,
    create_trajectories,
    delete_trajectories,
    end_trajectory,
    list_trajectories,
    record_tool_answers,
)
from store.turns import get_turns
from store.vocabulary import Origin, StopReason


@dataclass(frozen=True)
class RolloutPlan:
    """One dialogue to play."""

    scenario: Scenario
    trajectory_id: str
    seed: int
    """Of the policy's sampling; another one for each member."""
    origin: Origin
    batch: str | None
    group_id: int | None
    member: int
    version: str | None
    world_seed: int | None = None
    """Of the simulated tools, shared by a group; None: `seed`."""


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


def make_plans(
    scenarios: Sequence[Scenario],
    *,
    group_size: int,
    batch: str,
    seed: int,
    origin: Origin,
    version: str,
    log: Log,
    replay_failed: bool = False,
) -> list[RolloutPlan]:
    """What is still to be played of `batch`: `group_size` dialogues of each scenario, in the scenarios' order.

    Trajectory ids follow from (batch, scenario, member), so that a stage which was killed and starts again plays only
    what is missing; what the kill left unfinished is deleted and played anew. With Origin.ROLLOUT each scenario gets
    a group. `replay_failed` also plans dialogues that FAILED, under new ids in the same group (the failed ones stay in
    the log). Raises ValueError for a scenario given twice, or when the batch was played with another version or seed.
    """
    hashes = [scenario.hash for scenario in scenarios]
    if len(set(hashes)) != len(hashes):
        raise ValueError(f"batch {batch!r} names a scenario twice: member numbers would not be unique")
    played = list_trajectories(log, batch=batch, limit=None)
    delete_trajectories(log, [one.id for one in played if one.stop_reason is None])
    ended = {one.id: one for one in played if one.stop_reason is not None}
    groups = {one.scenario_hash: one.group_id for one in ended.values()}
    plans = []
    for scenario, scenario_hash in zip(scenarios, hashes, strict=True):
        world_seed = derive_seed(seed, scenario_hash)
        missing = []
        for member in range(group_size):
            trajectory_id, attempt = trajectory_id_of(batch, scenario_hash, member), 0
            while (before := ended.get(trajectory_id)) is not None:
                _check_same(before, batch, version, derive_seed(seed, scenario_hash, member))
                if before.stop_reason != StopReason.FAILED or not replay_failed:
                    break
                attempt += 1
                trajectory_id = trajectory_id_of(batch, scenario_hash, member, attempt)
            if before is None:
                missing.append((member, trajectory_id))
        if not missing:
            continue
        group_id = groups.get(scenario_hash)
        if origin == Origin.ROLLOUT and group_id is None:
            group_id = create_group(log, scenario_hash, batch, version, world_seed)
        for member, trajectory_id in missing:
            plans.append(
                RolloutPlan(
                    scenario=scenario,
                    trajectory_id=trajectory_id,
                    seed=derive_seed(seed, scenario_hash, member),
                    origin=origin,
                    batch=batch,
                    group_id=group_id,
                    member=member,
                    version=version,
                    world_seed=world_seed,
                )
            )
    return plans


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
        config: RunnableConfig = {
            "configurable": {"max_steps": self._settings.max_steps_per_turn, "seed": self._plan.seed}
        }
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
        except Exception as error:  # the judge's boundary: whatever it raises is its failure, not the policy's
            return None, f"judge: {type(error).__name__}: {error}"

    async def _answer(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        answer = await self._simulator.answer(name, arguments, call_id)
        await self._record(answer)
        return answer

    async def _record(self, answer: ToolAnswer) -> None:
        await asyncio.to_thread(record_tool_answers, self._log, self._plan.trajectory_id, [answer])


def trajectory_id_of(batch: str, scenario_hash: str, member: int, attempt: int = 0) -> str:
    """The id of a planned trajectory: 32 hexadecimal digits, safe in a URL."""
    return hashlib.sha256(f"{batch}\n{scenario_hash}\n{member}\n{attempt}".encode()).hexdigest()[:32]


def derive_seed(seed: int, *parts: str | int) -> int:
    """A seed below 2**62 that follows from `seed` and what it is for: room to count up from it in 64 bits."""
    text = "\n".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


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


def _check_same(before: TrajectorySummary, batch: str, version: str, seed: int) -> None:
    if before.version != version or before.seed != seed:
        raise ValueError(
            f"batch {batch!r} was played before with version {before.version} and seed {before.seed}, "
            f"now asked for with version {version} and seed {seed}: use another batch name"
        )


def _said(trouble: Exception) -> str:
    return f"{type(trouble).__name__}: {trouble}"
