"""What surrounds the dialogues of a large log: runs, gates, loops, jobs, calls to models, chats, reviews, people.

Written in bulk, in proportion to the dialogues: the whole log (100,000) gets the numbers named below. The same seed and
size make the same rows.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert

from store.database import Log
from store.schema import (
    FiringRow,
    GateRow,
    JobLogRow,
    JobRow,
    LoopRow,
    MetricRow,
    ModelCallRow,
    RatingRow,
    ReviewSampleRow,
    RoleChangeRow,
    RunRow,
    RunTrajectoryRow,
    ScheduleRow,
    StageRow,
    StepRow,
    TrajectoryRow,
    TurnRow,
    VersionStateRow,
    WorkerRow,
)
from store.tokens import pack_ids, pack_logprobs
from store.verdicts import Verdict, add_verdicts
from store.versions import add_version
from store.vocabulary import JobKind, Outcome, VerdictSource

WHOLE = 100_000
"""Dialogues of a log that gets the numbers below."""
RUNS, STEPS, TRAINED_ON = 200, 40, 300
METRICS = ("reward_mean", "loss", "entropy", "mismatch_kl", "effective_sample_share", "clipped_share", "tokens_per_s",
           "grad_norm", "learning_rate", "advantage_std", "turns_mean", "step_s")  # fmt: skip
GATES, LOOPS, STAGES = 60, 12, 40
SCHEDULES, FIRINGS, JOBS, LINES = 20, 50, 3_000, 30
MODEL_CALLS, CHATS, SAMPLES, PEOPLE = 50_000, 5_000, 2_000, 100
AT_ONCE = 5_000
CHAT_SAID = ("What is 17 * 23?", "Find me a train to Porto on Friday", "Cancel the order, please")
Row = dict[str, Any]


def add_work(
    log: Log, names: Sequence[str], moments: Sequence[datetime], *, versions: int, first_step: int, seed: int
) -> None:
    """`names` and `moments`: the log's trajectories and when each began, oldest first; `versions`: how many there are;
    `first_step`: an id from which on there is no step."""
    rng = random.Random(f"work {seed}")
    share = len(names) / WHOLE
    _add_versions(log, versions, _scaled(GATES, share, 4), moments)
    _add_runs(log, _scaled(RUNS, share, 6), names, moments, versions, rng)
    _add_loops(log, moments)
    _add_jobs(log, _scaled(JOBS, share, 60), moments, rng)
    _write(log, ModelCallRow, _model_calls(_scaled(MODEL_CALLS, share, 200), names, moments, rng))
    _add_chats(log, _scaled(CHATS, share, 30), moments, versions, first_step, rng)
    _write(log, ReviewSampleRow, _samples(_sampled(names, seed), names, moments, rng))
    _write(log, RoleChangeRow, _people(moments[0]))


def add_words_of_people(
    log: Log,
    names: Sequence[str],
    moments: Sequence[datetime],
    items: Sequence[dict[tuple[int, str], int]],
    seed: int,
) -> None:
    """A person's verdict on every item of every second dialogue that was put up for review; `items`: those of each
    scenario, which were played in turn."""
    chosen, rng = _sampled(names, seed)[::2], random.Random(f"people {seed}")
    said = [
        Verdict(
            names[n], turn, item, key, Outcome.PASS if rng.random() < 0.7 else Outcome.FAIL, None,
            VerdictSource.HUMAN, ("ada", "bob")[n % 2], None, "I read it", "", moments[n],
        )
        for n in chosen
        for (turn, key), item in items[n % len(items)].items()
    ]  # fmt: skip
    for start in range(0, len(said), AT_ONCE):
        add_verdicts(log, said[start : start + AT_ONCE])


def _scaled(count: int, share: float, least: int) -> int:
    return max(least, round(count * share))


def _write(log: Log, table: Any, rows: Iterator[Row]) -> None:
    """In parts, each in a transaction of its own."""
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == AT_ONCE:
            _insert(log, table, part)
            part = []
    if part:
        _insert(log, table, part)


def _insert(log: Log, table: Any, rows: list[Row]) -> None:
    with log.writing() as connection:
        connection.execute(insert(table.__table__), rows)


def _spread(moments: Sequence[datetime], n: int, count: int) -> datetime:
    return moments[n * (len(moments) - 1) // max(count, 1)]


def _add_versions(log: Log, versions: int, gates: int, moments: Sequence[datetime]) -> None:
    """The last version that played is live, those before it were; every gate more has refused a candidate."""
    refused = [f"v{versions + 1 + n:04d}" for n in range(max(0, gates - versions + 1))]
    for n, name in enumerate(refused):
        add_version(log, name, parent=f"v{1 + n * versions // len(refused):04d}", path=f"versions/{name}", files={})
    states, decisions = [], []
    for n in range(1, versions + 1):
        at, name = _spread(moments, n - 1, versions), f"v{n:04d}"
        states.append({"version": name, "state": "live", "reason": "passed its gate", "created_at": at})
        if n > 1:
            before = f"v{n - 1:04d}"
            states.append({"version": before, "state": "retired", "reason": f"{name} is live", "created_at": at})
            decisions.append(_decision(name, before, True, at))
    for n, name in enumerate(refused):
        at = _spread(moments, n, len(refused))
        states.append({"version": name, "state": "refused", "reason": "not better", "created_at": at})
        decisions.append(_decision(name, f"v{1 + n * versions // len(refused):04d}", False, at))
    _write(log, VersionStateRow, iter(states))
    _write(log, GateRow, iter(decisions))


def _decision(candidate: str, live: str, passed: bool, at: datetime) -> Row:
    figures = {"pairs": 64, "difference": 0.04 if passed else -0.01, "low": 0.01, "high": 0.07, "seed": 1}
    reason = "better by +4.0 points" if passed else "not better than the live one"
    return {
        "candidate": candidate,
        "live": live,
        "passed": passed,
        "figures": figures,
        "reason": reason,
        "created_at": at,
    }


def _add_runs(
    log: Log, runs: int, names: Sequence[str], moments: Sequence[datetime], versions: int, rng: random.Random
) -> None:
    """Every twentieth failed, the newest one runs."""
    settings = {f"grpo.setting_{n}": n / 7 for n in range(40)}
    rows, used = [], []
    for n in range(1, runs + 1):
        at = _spread(moments, n - 1, runs)
        status = "running" if n == runs else "failed" if n % 20 == 0 else "done"
        rows.append(
            {
                "id": n,
                "name": f"bench-{n:04d}/1",
                "kind": "sft" if n == 1 else "grpo",
                "base_version": f"v{1 + (n - 1) * versions // runs:04d}",
                "seed": n,
                "settings": settings | {"grpo.learning_rate": 1e-5 * (1 + n % 3)},
                "status": status,
                "error": "the advantages were all 0" if status == "failed" else None,
                "created_at": at,
                "ended_at": None if status == "running" else at + timedelta(minutes=40),
            }
        )
        first = (n - 1) * (len(names) - min(TRAINED_ON, len(names))) // runs
        used += [
            {"run_id": n, "trajectory_id": name, "advantage": round(rng.uniform(-1, 1), 3)}
            for name in names[first : first + TRAINED_ON]
        ]
    _write(log, RunRow, iter(rows))
    _write(log, RunTrajectoryRow, iter(used))
    _write(log, MetricRow, _metrics(rows, rng))


def _metrics(runs: Sequence[Row], rng: random.Random) -> Iterator[Row]:
    for run in runs:
        for step in range(STEPS):
            for name in METRICS:
                value = {"run_id": run["id"], "step": step, "name": name, "value": rng.random()}
                yield value | {"created_at": run["created_at"] + timedelta(minutes=step)}


def _add_loops(log: Log, moments: Sequence[datetime]) -> None:
    loops, stages = [], []
    for n in range(LOOPS):
        at = _spread(moments, n, LOOPS)
        loops.append({"name": f"loop-{n:02d}", "seed": n, "settings": {}, "created_at": at})
        for number in range(STAGES):
            stages.append(
                {
                    "loop": f"loop-{n:02d}",
                    "key": f"round {number // 4 + 1}: {('play', 'judge', 'train', 'gate')[number % 4]}",
                    "status": "done",
                    "result": {"dialogues": 64, "reward": 0.5},
                    "seconds": 60.0 + number,
                    "started_at": at,
                    "ended_at": at,
                }
            )
    _write(log, LoopRow, iter(loops))
    _write(log, StageRow, iter(stages))


def _add_jobs(log: Log, jobs: int, moments: Sequence[datetime], rng: random.Random) -> None:
    """Pipelines of three from twenty schedules, with their logs; the last ones wait, one runs, one in thirty failed."""
    chain = (JobKind.ROLLOUT, JobKind.JUDGE, JobKind.TRAIN)
    schedules = [
        {
            "id": n,
            "name": f"schedule-{n:02d}",
            "trigger": {"kind": "cron", "expression": f"{n} 3 * * *"},
            "jobs": [{"kind": kind.value, "payload": {}, "priority": 0, "max_attempts": 3} for kind in chain],
            "zone": "UTC",
            "missed": "once",
            "overlap": "skip",
            "paused": n % 5 == 0,
            "armed_at": moments[0],
            "mark": 0,
            "last_fired": moments[-1],
            "next_due": moments[-1] + timedelta(days=1),
            "created_at": moments[0],
        }
        for n in range(1, SCHEDULES + 1)
    ]
    _write(log, ScheduleRow, iter(schedules))
    rows, firings = [], []
    for n in range(1, jobs + 1):
        pipeline, position = divmod(n - 1, len(chain))
        schedule = 1 + pipeline % SCHEDULES
        at, left = _spread(moments, n - 1, jobs), jobs - n
        status = "queued" if left < 3 else "running" if left == 3 else "failed" if n % 30 == 0 else "done"
        ended = status in ("done", "failed")
        rows.append(
            {
                "id": n,
                "kind": chain[position].value,
                "payload": {},
                "status": status,
                "priority": 0,
                "run_after": at,
                "pipeline": f"schedule-{schedule:02d}-{pipeline:06d}",
                "position": position,
                "schedule_id": schedule,
                "attempts": int(status != "queued"),
                "max_attempts": 3,
                "claims": int(status != "queued"),
                "lease_owner": "anna" if status == "running" else None,
                "lease_until": at + timedelta(days=900) if status == "running" else None,
                "host": "anna",
                "cancel_requested": False,
                "notes": {"version": "v0001", "scenarios": [f"{rng.getrandbits(128):032x}" for _ in range(16)]},
                "result": {"reward": rng.random(), "dialogues": 64} if ended else None,
                "error": "the gateway did not answer" if status == "failed" else None,
                "exit_reason": {"failed": "server", "done": "done"}.get(status),
                "created_at": at,
                "started_at": None if status == "queued" else at,
                "ended_at": at + timedelta(minutes=9) if ended else None,
            }
        )
    for schedule in range(1, SCHEDULES + 1):
        for n in range(FIRINGS):
            fired = {"schedule_id": schedule, "due": f"due {n}", "outcome": "queued", "reason": "on time"}
            firings.append(fired | {"pipeline": None, "created_at": _spread(moments, n, FIRINGS)})
    _write(log, JobRow, iter(rows))
    _write(log, FiringRow, iter(firings))
    _write(
        log,
        JobLogRow,
        (
            {
                "job_id": row["id"],
                "number": line,
                "text": f"{100 * line // LINES:3.0f} %  {line} of {LINES} dialogues",
                "created_at": row["created_at"] + timedelta(seconds=10 * line),
            }
            for row in rows
            if row["status"] != "queued"
            for line in range(1, LINES + 1)
        ),
    )
    worker = {"name": "anna", "host": "anna", "pid": 1, "accelerators": ["cuda:0"], "kinds": list(JobKind)}
    _insert(log, WorkerRow, [worker | {"started_at": moments[0], "heartbeat_at": moments[-1], "stopped_at": None}])


def _model_calls(calls: int, names: Sequence[str], moments: Sequence[datetime], rng: random.Random) -> Iterator[Row]:
    for n in range(calls):
        place = n * (len(names) - 1) // calls
        yield {
            "role": ("judge", "judge", "judge", "annotator", "simulator")[n % 5],
            "model": ("big-judge", "other-judge", "big-judge", "large", "medium")[n % 5],
            "prompt_hash": "a" * 64,
            "scenario_hash": None,
            "trajectory_id": names[place],
            "turn_index": n % 2,
            "items": 3,
            "prompt_tokens": rng.randrange(500, 3000),
            "cached_tokens": rng.randrange(500),
            "completion_tokens": rng.randrange(20, 300),
            "usd": 0.0007,
            "latency_ms": rng.uniform(200, 4000),
            "error": "HTTP 500" if n % 100 == 99 else None,
            "created_at": moments[place],
        }


def _add_chats(
    log: Log, chats: int, moments: Sequence[datetime], versions: int, first_step: int, rng: random.Random
) -> None:
    """Two turns of a step each; a thumb on the first one."""
    trajectories, turns, steps, ratings = [], [], [], []
    for n in range(chats):
        name, at, version = f"chat-{n:06d}", _spread(moments, n, chats), f"v{1 + n * versions // chats:04d}"
        setup = {"tools": "world", "domain": "travel", "ask_first": []}
        trajectories.append(
            {
                "id": name,
                "origin": "chat",
                "version": version,
                "seed": n,
                "title": f"Chat number {n}" if n % 3 == 0 else None,
                "chat": setup,
                "created_at": at,
            }
        )
        for turn in (0, 1):
            said = CHAT_SAID[(n + turn) % len(CHAT_SAID)]
            turns.append({"trajectory_id": name, "index": turn, "user": said, "created_at": at})
            ids = [rng.randrange(40_000) for _ in range(40)]
            steps.append(
                {
                    "id": first_step + 2 * n + turn,
                    "trajectory_id": name,
                    "turn_index": turn,
                    "index": 0,
                    "parent_id": first_step + 2 * n if turn else None,
                    "version": version,
                    "new_messages": [{"role": "user", "content": said}],
                    "message": {"content": "It costs 42.", "reasoning": None, "tool_calls": []},
                    "delta_ids": pack_ids(ids),
                    "sampled_ids": pack_ids(ids[:20]),
                    "logprobs": pack_logprobs([-0.5] * 20),
                    "context_tokens": 40,
                    "sampled_tokens": 20,
                    "finish_reason": "stop",
                    "latency_ms": 12.0,
                    "sampling": {"temperature": 1.0},
                    "trainable": True,
                    "created_at": at,
                }
            )
        thumb = {"trajectory_id": name, "turn_index": 0, "value": 1 if rng.random() < 0.7 else -1}
        ratings.append(thumb | {"comment": "", "person": "ada", "created_at": at})
    _write(log, TrajectoryRow, iter(trajectories))
    _write(log, TurnRow, iter(turns))
    _write(log, StepRow, iter(steps))
    _write(log, RatingRow, iter(ratings))


def _sampled(names: Sequence[str], seed: int) -> list[int]:
    """Places of the dialogues of which a turn was put up for review, in order."""
    count = min(len(names), _scaled(SAMPLES, len(names) / WHOLE, 40))
    return sorted(random.Random(f"samples {seed}").sample(range(len(names)), count))


def _samples(
    places: Sequence[int], names: Sequence[str], moments: Sequence[datetime], rng: random.Random
) -> Iterator[Row]:
    """In batches of fifty, half of them at random; the first batch is the anchor set."""
    for n, place in enumerate(places):
        batch, reason = n // 50, ("random", "random", "disputed", "uncertain")[n % 4]
        yield {
            "trajectory_id": names[place],
            "turn_index": n % 2,
            "reason": "anchor" if batch == 0 else reason,
            "batch": "anchors" if batch == 0 else f"batch-{batch:03d}",
            "score": None if batch == 0 or reason == "random" else round(rng.random(), 3),
            "created_at": moments[place],
        }


def _people(at: datetime) -> Iterator[Row]:
    for n in range(PEOPLE):
        role = ("viewer", "reviewer", "operator")[n % 3]
        yield {"person": f"person{n:03d}@example.org", "role": role, "given_by": "root", "created_at": at}
