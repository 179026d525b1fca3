"""Plays scenarios with one version and judges them; what is there already is not played again."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from env_sim.llm_simulator import LlmSimulator
from env_sim.rollouts import Played, make_plans, play
from reward.judge import Judge
from reward.llm_judge import LlmJudge
from store.database import Log
from store.records import Scenario
from store.settings import Settings
from store.trajectories import list_trajectories
from store.vocabulary import Origin
from train.progress import Stage


@dataclass(frozen=True)
class Outcome:
    """Reward (equation 4) and whether every item passed; both None where it could not be judged."""

    reward: float | None
    fully_passed: bool | None


def play_batch(
    log: Log,
    scenarios: Sequence[Scenario],
    *,
    batch: str,
    version: str,
    seed: int,
    group_size: int,
    origin: Origin,
    temperature: float,
    settings: Settings,
    stage: Stage,
    before_playing: Callable[[], object],
) -> dict[str, list[Outcome]]:
    """Plays `group_size` dialogues of each scenario with `version`; outcomes by scenario hash.

    Trajectories of `batch` that ended in an earlier try are kept, so a killed stage goes on where it was.
    `before_playing` is called when there is something to play (it brings the servers up).
    """
    plans = make_plans(
        scenarios,
        group_size=group_size,
        batch=batch,
        seed=seed,
        origin=origin,
        version=version,
        log=log,
        replay_failed=True,
    )
    done = 0

    def count(_: Played) -> None:
        nonlocal done
        done += 1
        stage.advance(0.95 * done / len(plans), f"{done} of {len(plans)} dialogues")

    if plans:
        before_playing()

    async def work() -> dict[str, list[Outcome]]:
        judge = Judge(log, LlmJudge(settings.judge) if settings.judge else None)
        simulator = LlmSimulator(settings.simulator) if settings.simulator else None
        if plans:
            await play(
                log,
                plans,
                gateway_url=settings.gateway_url,
                judge_turn=judge.judge_turn,
                settings=settings.rollout,
                simulator_llm=simulator,
                model=f"policy@{version}",
                temperature=temperature,
                on_done=count,
            )
        return await _outcomes(log, judge, batch)

    return asyncio.run(work())


def read_batch(log: Log, batch: str) -> dict[str, list[Outcome]]:
    """Outcomes of a batch that was played, by scenario hash; plays nothing."""
    return asyncio.run(_outcomes(log, Judge(log), batch))


async def _outcomes(log: Log, judge: Judge, batch: str) -> dict[str, list[Outcome]]:
    summaries = [s for s in list_trajectories(log, batch=batch, limit=None) if s.stop_reason is not None]
    rewards = await judge.judge_trajectories([s.id for s in summaries])
    outcomes: dict[str, list[Outcome]] = {}
    for summary in summaries:
        reward = rewards[summary.id]
        outcomes.setdefault(str(summary.scenario_hash), []).append(Outcome(reward.value, reward.fully_passed))
    return outcomes


def mean_reward(outcomes: dict[str, list[Outcome]]) -> float:
    values = [o.reward for many in outcomes.values() for o in many if o.reward is not None]
    return sum(values) / len(values) if values else float("nan")


def one_each(outcomes: dict[str, list[Outcome]]) -> dict[str, float | None]:
    """Reward by scenario, of the first dialogue that could be judged (a failed one was played again)."""
    return {s: next((o.reward for o in many if o.reward is not None), None) for s, many in outcomes.items()}
