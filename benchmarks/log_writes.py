"""Bytes a step and step writes a second of the log, on SQLite, against bare inserts of the same blobs."""

import shutil
import sqlite3
import time
from pathlib import Path

from benchmarks.line import Line
from store.database import Log, open_log
from store.step_writer import StepWriter
from store.steps import StepToRecord, record_step
from store.trajectories import NewTrajectory, create_trajectories
from store.vocabulary import Origin

TRAJECTORIES, STEPS = 100, 10
DELTA, SAMPLED = 160, 40
"""Tokens that a step adds and samples: a context of 2,000 tokens after ten steps."""


def measure(home: Path) -> list[Line]:
    folder = home / "writes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "log.db"
    log = open_log(f"sqlite:///{file}")
    create_trajectories(log, [NewTrajectory(f"t{n}", Origin.CHAT) for n in range(TRAJECTORIES)])
    with log.writing() as connection:
        connection.exec_driver_sql("SELECT 1")
    empty = _bytes(file)
    began = time.perf_counter()
    for n in range(TRAJECTORIES):
        parent, context = None, 0
        for index in range(STEPS):
            context += DELTA
            parent = record_step(log, _step(f"t{n}", index, parent, context))
            context += SAMPLED
    seconds = time.perf_counter() - began
    written = TRAJECTORIES * STEPS
    size = (_bytes(file) - empty) / written
    together = _together(log)
    log.close()
    bare = _bare_inserts(folder / "bare.db", written)
    return [
        Line("log: bytes a step at 2,000 tokens of context", f"{size:.0f} B", "6,144 B", f"{size / 6144:.2f}", "≤ 1"),
        Line(
            "log: steps a second with turns, one transaction each",
            f"{written / seconds:.0f}/s",
            f"bare SQLite inserts of the blobs {bare:.0f}/s",
            f"{written / seconds / bare:.2f}",
            "–",
        ),
        Line(
            f"log: steps a second with turns, {TRAJECTORIES} sessions at once",
            f"{together:.0f}/s",
            "3,000/s",
            f"{together / 3000:.2f}",
            "≥ 1",
        ),
    ]


def _together(log: Log) -> float:
    """Steps a second through the gateway's writer: all sessions submit a step, wait for it, and submit the next."""
    create_trajectories(log, [NewTrajectory(f"u{n}", Origin.CHAT) for n in range(TRAJECTORIES)])
    writer = StepWriter(log)
    parents: list[int | None] = [None] * TRAJECTORIES
    context = 0
    began = time.perf_counter()
    for index in range(STEPS):
        context += DELTA
        waiting = [writer.submit(_step(f"u{n}", index, parents[n], context)) for n in range(TRAJECTORIES)]
        parents = [future.result() for future in waiting]
        context += SAMPLED
    seconds = time.perf_counter() - began
    writer.close()
    return TRAJECTORIES * STEPS / seconds


def _step(trajectory: str, index: int, parent: int | None, context: int) -> StepToRecord:
    text = "Find a flight from Oslo to Rome on May 4 and book it for Erik. " * 3
    return StepToRecord(
        trajectory_id=trajectory,
        turn_index=index // 3,
        index=index % 3,
        parent_id=parent,
        user=text,
        version="v0001",
        new_messages=[{"role": "user", "content": text}],
        tools_hash="0" * 64,
        message={"content": "F27 is booked for Erik.", "reasoning": "tell seat and booking", "tool_calls": []},
        delta_ids=list(range(DELTA)),
        sampled_ids=list(range(SAMPLED)),
        logprobs=[-0.5] * SAMPLED,
        context_tokens=context,
        finish_reason="stop",
        latency_ms=12.0,
        sampling={"temperature": 1.0},
    )


def _bare_inserts(file: Path, count: int) -> float:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE step (id INTEGER PRIMARY KEY, ids BLOB)")
    blob = bytes(4 * (DELTA + 2 * SAMPLED))
    began = time.perf_counter()
    for _ in range(count):
        with connection:
            connection.execute("INSERT INTO step (ids) VALUES (?)", (blob,))
    seconds = time.perf_counter() - began
    connection.close()
    return count / seconds


def _bytes(file: Path) -> int:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size
