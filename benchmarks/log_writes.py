"""Bytes a step and step writes a second of the log, on SQLite, against bare inserts of the same blobs."""

import shutil
import sqlite3
import time
from pathlib import Path

from benchmarks.line import Line
from store.database import open_log
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
    log.close()
    size = (_bytes(file) - empty) / written
    bare = _bare_inserts(folder / "bare.db", written)
    return [
        Line("log: bytes a step", f"{size:.0f} B", "8,192 B", f"{size / 8192:.2f}", "≤ 1"),
        Line(
            "log: step writes a second (one transaction each)",
            f"{written / seconds:.0f}/s",
            f"bare SQLite inserts of the blobs {bare:.0f}/s",
            f"{written / seconds / bare:.2f}",
            "–",
        ),
    ]


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
