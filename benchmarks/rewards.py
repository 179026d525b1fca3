"""Trajectories a second whose reward is computed again from the log, against only reading their verdicts' rows."""

import shutil
import sqlite3
import time
from pathlib import Path

from benchmarks.line import Line
from env_sim.scenario_generator import generate_scenarios
from reward.scoring import score_trajectories
from store.database import Log, open_log
from store.records import Scenario
from store.scenarios import add_scenarios, item_ids
from store.steps import StepToRecord, record_steps
from store.trajectories import NewTrajectory, create_trajectories, end_trajectory
from store.verdicts import Verdict, add_verdicts, judged_trajectories
from store.vocabulary import Origin, Outcome, Split, StopReason, VerdictSource

TRAJECTORIES, SCENARIOS = 10_000, 500


def measure(home: Path) -> list[Line]:
    folder = home / "rewards"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "log.db"
    log = open_log(f"sqlite:///{file}")
    _fill(log)
    names = judged_trajectories(log)
    began = time.perf_counter()
    rewards = score_trajectories(log, names)
    first = time.perf_counter() - began
    assert all(reward.value is not None for reward in rewards.values())
    began = time.perf_counter()
    score_trajectories(log, names)
    again = time.perf_counter() - began
    log.close()
    bare = _read_rows(file)
    return [
        Line(
            f"rewards of {TRAJECTORIES} trajectories, written",
            f"{first:.1f} s, {TRAJECTORIES / first:.0f}/s",
            "10 s",
            f"{first / 10:.2f}",
            "≤ 1",
        ),
        Line(
            "the same again, nothing changed",
            f"{again:.1f} s, {TRAJECTORIES / again:.0f}/s",
            f"reading the verdicts' rows {bare:.1f} s",
            f"{again / bare:.1f}",
            "–",
        ),
    ]


def _fill(log: Log) -> None:
    """Every turn of a scenario in two steps, every other item of the log satisfied."""
    scenarios = generate_scenarios(Split.TRAIN, SCENARIOS, 1)
    add_scenarios(log, scenarios)
    names = [f"t{n}" for n in range(TRAJECTORIES)]
    played = [scenarios[n % SCENARIOS] for n in range(TRAJECTORIES)]
    create_trajectories(
        log,
        [NewTrajectory(name, Origin.ROLLOUT, scenario.hash) for name, scenario in zip(names, played, strict=True)],
    )
    parents: list[int | None] = [None] * TRAJECTORIES
    for number in range(2 * max(len(scenario.turns) for scenario in scenarios)):
        members = [n for n, scenario in enumerate(played) if number < 2 * len(scenario.turns)]
        for start in range(0, len(members), 500):
            chunk = members[start : start + 500]
            steps = [_step(names[n], number, parents[n]) for n in chunk]
            for n, step_id in zip(chunk, record_steps(log, steps), strict=True):
                assert isinstance(step_id, int)
                parents[n] = step_id
    for start in range(0, TRAJECTORIES, 500):
        chunk = range(start, start + 500)
        add_verdicts(log, [verdict for n in chunk for verdict in _verdicts(log, names[n], played[n], n)])
    for name in names:
        end_trajectory(log, name, StopReason.COMPLETED)


def _step(name: str, number: int, parent: int | None) -> StepToRecord:
    turn, index = divmod(number, 2)
    return StepToRecord(
        trajectory_id=name, turn_index=turn, index=index, parent_id=parent, user="?", version="v0001",
        new_messages=[{"role": "user", "content": "?"}], tools_hash=None,
        message={"content": "hi", "reasoning": None, "tool_calls": []},
        delta_ids=[1], sampled_ids=[2], logprobs=[-1.0], context_tokens=2 * number + 1,
        finish_reason="stop", latency_ms=1.0, sampling={},
    )  # fmt: skip


def _verdicts(log: Log, name: str, scenario: Scenario, n: int) -> list[Verdict]:
    ids = item_ids(log, scenario.hash)
    verdicts = []
    for (turn, key), item_id in ids.items():
        passes = (item_id + n) % 2 == 0
        verdicts.append(
            Verdict(
                name, turn, item_id, key, Outcome.PASS if passes else Outcome.FAIL, item_id % 2 if passes else None,
                VerdictSource.CODE, "checks", None, "as asked", "a quote of some length",
            )
        )  # fmt: skip
    return verdicts


def _read_rows(file: Path) -> float:
    began = time.perf_counter()
    with sqlite3.connect(file) as connection:
        connection.execute("SELECT * FROM verdict").fetchall()
    return time.perf_counter() - began
