"""One thread that writes the steps of many sessions: what waits together is committed together.

SQLite takes one writer at a time, and a commit costs more than the rows in it. A hundred answers that end in the same
moment are one transaction; a lone answer is written at once.
"""

import queue
import threading
from concurrent.futures import Future

from store.database import Log, LogError
from store.steps import StepToRecord, record_steps

MAX_BATCH = 128


class StepWriter:
    """`submit` from any thread; the future ends when the step is committed. `close` writes what waits and stops."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: queue.SimpleQueue[tuple[StepToRecord, Future[int]] | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="step-writer", daemon=True)
        self._thread.start()

    def submit(self, step: StepToRecord) -> "Future[int]":
        """The step's id once it is committed; LogError if nothing of it was written."""
        future: Future[int] = Future()
        with self._lock:
            if self._closed:
                raise LogError("the log is being closed: the step was not recorded")
            self._waiting.put((step, future))
        return future

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            entry = self._waiting.get()
            batch: list[tuple[StepToRecord, Future[int]]] = []
            while entry is not None:
                batch.append(entry)
                if len(batch) >= MAX_BATCH:
                    break
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
            last = entry is None
            if batch:
                self._write(batch)

    def _write(self, batch: "list[tuple[StepToRecord, Future[int]]]") -> None:
        try:
            outcomes: list[int | LogError] = record_steps(self._log, [step for step, _ in batch])
        except Exception as error:
            failure = error if isinstance(error, LogError) else LogError(f"{type(error).__name__}: {error}")
            outcomes = [failure] * len(batch)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, LogError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
