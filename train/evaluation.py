"""Plays scenarios with one version and judges them; what is there already is not played again."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agent.vllm_client import ServerError
from env_sim.llm_simulator import make_simulator
from env_sim.rollouts import Played, RolloutPlan, make_plans, play
from reward.judge import make_judge
from reward.scoring import score_trajectories
from store.database import Log
from store.records import Scenario
from store.settings import Settings
from store.trajectories import list_trajectories
from store.verdicts import Reward
from store.vocabulary import Origin, StopReason
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
    Of these, failed ones are played again and UNSCORED items are asked again, if there is a judge to ask. What fails
    now, while others do not (a deadline, a tool that is out), is played once more at the end, under a new id.
    `before_playing` is called when there is something to play (it brings the servers up). Raises ServerError with the
    commonest reason if not one dialogue could be played and judged.
    """
    earlier = _ended(log, batch)
    plan = partial(
        make_plans,
        scenarios,
        group_size=group_size,
        batch=batch,
        seed=seed,
        origin=origin,
        version=version,
        log=log,
        replay_failed=True,
    )
    plans = plan()
    done, planned = 0, len(plans)

    def count(_: Played) -> None:
        nonlocal done
        done += 1
        stage.advance(0.95 * done / planned, f"{done} of {planned} dialogues")

    if plans:
        before_playing()

    async def work() -> dict[str, list[Outcome]]:
        nonlocal planned
        judge = make_judge(log, settings)
        simulator = make_simulator(settings)

        async def failures(wanted: Sequence[RolloutPlan]) -> int:
            played = await play(
                log,
                wanted,
                gateway_url=settings.gateway_url,
                judge_turn=judge.judge_turn,
                settings=settings.rollout,
                simulator_llm=simulator,
                model=f"policy@{version}",
                temperature=temperature,
                on_done=count,
            )
            return sum(one.stop_reason is StopReason.FAILED for one in played)

        if plans and 0 < await failures(plans) < len(plans):
            again = plan()
            planned += len(again)
            await failures(again)
        names = _ended(log, batch)
        rewards = await judge.judge_trajectories(earlier, retry_unscored=judge.panel is not None)
        rewards |= await judge.judge_trajectories(names.keys() - earlier.keys())
        if names and all(reward.value is None for reward in rewards.values()):
            raise ServerError(_why_nothing_counts(batch, list(rewards.values())))
        return _by_scenario(names, rewards)

    return asyncio.run(work())


def _why_nothing_counts(batch: str, rewards: Sequence[Reward]) -> str:
    reasons = Counter(reward.excluded_reason or "no reason recorded" for reward in rewards)
    (reason, count) = reasons.most_common(1)[0]
    return (
        f"not one of the {len(rewards)} dialogues of {batch} could be played and judged; "
        f"most often ({count} times): {reason}"
    )


def read_batch(log: Log, batch: str) -> dict[str, list[Outcome]]:
    """Outcomes of a batch that was played, by scenario hash; plays and judges nothing."""
    names = _ended(log, batch)
    return _by_scenario(names, score_trajectories(log, names))


def _ended(log: Log, batch: str) -> dict[str, str]:
    """The scenario hash of each trajectory of the batch that ended."""
    summaries = list_trajectories(log, batch=batch, limit=None)
    return {summary.id: str(summary.scenario_hash) for summary in summaries if summary.stop_reason is not None}


def _by_scenario(names: Mapping[str, str], rewards: Mapping[str, Reward]) -> dict[str, list[Outcome]]:
    outcomes: dict[str, list[Outcome]] = {}
    for name, digest in names.items():
        reward = rewards[name]
        outcomes.setdefault(digest, []).append(Outcome(reward.value, reward.fully_passed))
    return outcomes


def mean_reward(outcomes: dict[str, list[Outcome]]) -> float:
    values = [o.reward for many in outcomes.values() for o in many if o.reward is not None]
    return sum(values) / len(values) if values else float("nan")


def one_each(outcomes: dict[str, list[Outcome]]) -> dict[str, float | None]:
    """Reward by scenario, of the first dialogue that could be judged (a failed one was played again)."""
    return {s: next((o.reward for o in many if o.reward is not None), None) for s, many in outcomes.items()}
