"""One try of a job, from its process's start to what the log says of its end.

Keeps the lease, writes the lines, passes on the wish to stop, and decides with train/retries.py what comes next.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from store.database import Log, LogError
from store.job_log import add_lines
from store.jobs import JobRecord
from store.leases import Lease, end_job, look_at_lease, put_back, renew_lease
from store.settings import WorkerSettings
from store.vocabulary import ExitReason
from train.job_child import MAX_WAITING_LINES, JobChild, Outcome
from train.retries import retry_delay

TICK_S = 0.1
WRITE_EVERY_S = 0.5
LOOK_EVERY_S = 1.0


@dataclass
class Every:
    """Says when so many seconds have passed since it last said so; the first time at once."""

    seconds: float
    _last: float = field(default=float("-inf"))

    def due(self) -> bool:
        if time.monotonic() - self._last < self.seconds:
            return False
        self._last = time.monotonic()
        return True


def write_failure(log: Log, job: JobRecord, reason: ExitReason, error: str | None, at: datetime) -> bool:
    """Puts a job that failed back for later, or ends it, as train/retries.py has it. False if the lease was lost."""
    delay = retry_delay(reason, job.attempts, job.max_attempts)
    if delay is None:
        return end_job(log, job, reason, error=error)
    return put_back(log, job, reason, run_after=at + delay, error=error)


class JobWatch:
    """`meanwhile` is called every now and then, for what the worker does whether a job runs or not."""

    def __init__(
        self,
        log: Log,
        settings: WorkerSettings,
        job: JobRecord,
        child: JobChild,
        *,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
        meanwhile: Callable[[], object],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._log = log
        self._settings = settings
        self._job = job
        self._child = child
        self._clock = clock
        self._say = say
        self._meanwhile = meanwhile
        self._is_stopping = is_stopping
        self._held_until = time.monotonic() + settings.lease_s
        self._unwritten: list[tuple[datetime, str]] = []
        self._why: ExitReason | None = None
        """CANCELLED or STOPPED, once it is to stop."""
        self._stop_since = 0.0
        self._interrupted = False
        self._ran_out = False

    def run(self) -> bool:
        """Returns when the job's process has ended; False if that did not end in order (killed, crashed, lost)."""
        over = threading.Event()
        threading.Thread(target=self._end_with_lease, args=(over,), daemon=True).start()
        try:
            return self._watch()
        finally:
            over.set()

    def _end_with_lease(self, over: threading.Event) -> None:
        """In a thread: the job's process ends with its lease, also while a database that does not answer is waited
        for."""
        while not over.wait(TICK_S) and not self._child.ended:
            if time.monotonic() > self._held_until:
                self._ran_out = True
                self._child.kill()
                return

    def _watch(self) -> bool:
        begun = f"-- try {self._job.attempts} of {self._job.max_attempts}, worker {self._job.lease_owner}"
        self._note(begun, after_its_lines=False)
        write, look = Every(WRITE_EVERY_S), Every(LOOK_EVERY_S)
        renew = Every(self._settings.lease_s / 3)
        while not self._child.wait(TICK_S):
            if write.due():
                self._write_lines()
            lease = self._lease(renew=True) if renew.due() else self._lease() if look.due() else Lease.KEPT
            if lease is Lease.LOST or time.monotonic() > self._held_until:
                return self._give_up()
            self._stop_if_wanted(lease)
            self._meanwhile()
        if self._ran_out:
            self._say(f"job {self._job.id}: its lease is lost, its process was ended here")
            return False
        self._child.drain()
        outcome = self._child.outcome()
        self._end(outcome)
        return outcome.reason not in (ExitReason.CRASHED, ExitReason.MEMORY) and not self._child.was_killed

    def _lease(self, renew: bool = False) -> Lease:
        try:
            if not renew:
                return look_at_lease(self._log, self._job)
            began = time.monotonic()
            until = self._clock() + timedelta(seconds=self._settings.lease_s)
            lease = renew_lease(self._log, self._job, until)
        except LogError as error:
            self._say(f"job {self._job.id}: the lease could not be renewed: {error}")
            return Lease.KEPT  # until it has run out
        if lease is not Lease.LOST:
            self._held_until = began + self._settings.lease_s
        return lease

    def _give_up(self) -> bool:
        """Somebody else may have the job by now: nothing more is done or said in its name."""
        self._say(f"job {self._job.id}: its lease is lost, its process is ended here")
        self._child.kill()
        return False

    def _stop_if_wanted(self, lease: Lease) -> None:
        """A wish to stop, then an interruption, then the end."""
        wish = ExitReason.CANCELLED if lease is Lease.CANCEL else ExitReason.STOPPED if self._is_stopping() else None
        if self._why is None and wish is not None:
            self._note(f"-- {'cancelled' if wish is ExitReason.CANCELLED else 'the worker was told to stop'}")
            self._why, self._stop_since = wish, time.monotonic()
            self._child.terminate()
        elif wish is ExitReason.CANCELLED:
            self._why = wish
        waited = time.monotonic() - self._stop_since
        if self._why is not None and waited > self._settings.kill_after_s:
            self._child.kill()
        elif self._why is not None and waited > self._settings.interrupt_after_s and not self._interrupted:
            self._interrupted = True
            self._child.terminate()

    def _end(self, outcome: Outcome) -> None:
        job = self._job
        if outcome.reason is ExitReason.DONE:
            self._note("-- done")
            self._insist(lambda: end_job(self._log, job, ExitReason.DONE, result=outcome.result))
        elif self._why is ExitReason.CANCELLED:
            self._insist(lambda: end_job(self._log, job, ExitReason.CANCELLED, error=outcome.error))
        elif self._why is ExitReason.STOPPED:
            stopped = ExitReason.STOPPED
            self._insist(
                lambda: put_back(self._log, job, stopped, run_after=self._clock(), error=outcome.error, counts=False)
            )
        else:
            # SIGTERM that did not come from here ends a job as any other signal does.
            reason = ExitReason.CRASHED if outcome.reason is ExitReason.STOPPED else outcome.reason
            delay = retry_delay(reason, job.attempts, job.max_attempts)
            again = "" if delay is None else f"; again at {self._clock() + delay:%Y-%m-%d %H:%M:%S} UTC"
            self._note(f"-- {f'failed ({reason})' if delay is None else reason}: {outcome.error}{again}")
            self._insist(lambda: write_failure(self._log, job, reason, outcome.error, self._clock()))

    def _insist(self, write: Callable[[], bool]) -> None:
        """Lines and end are written as soon as the database takes them, as long as the lease lasts."""
        while True:
            try:
                self._write_lines(strict=True)
                if not write():
                    self._say(f"job {self._job.id}: its lease was lost before its end could be written")
                return
            except LogError as error:
                self._say(f"job {self._job.id}: its end could not be written yet: {error}")
                if time.monotonic() > self._held_until:
                    return
                time.sleep(LOOK_EVERY_S)

    def _note(self, text: str, *, after_its_lines: bool = True) -> None:
        """Behind what the process wrote before; it runs already when its try is noted, which is said first."""
        self._unwritten += [*(self._child.lines() if after_its_lines else ()), (self._clock(), text)]
        self._say(f"job {self._job.id} {text}")

    def _write_lines(self, strict: bool = False) -> None:
        if len(self._unwritten) < MAX_WAITING_LINES:
            self._unwritten += self._child.lines()
        try:
            add_lines(self._log, self._job, self._unwritten)
        except LogError:
            if strict:
                raise
            return  # they are written later
        self._unwritten = []
