"""Counts what pages show, once for each state of the log, beside the requests.

A page waits a moment for a count; on a log of any usual size it is there by then. Where it is not, the page shows the
last one with the time it was made, or says that it is being counted, and goes on. At most two first counts run at a
time and one that is made again, beside which pages have something to show; one that takes long is not begun again at
once: on a log that is written to all the time a page costs a bounded share of a core, however many people look. A count
that fails is told to who looks next, also where nobody had waited for it.
"""

import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

FIRST_COUNT = "being counted for the first time"
"""What a page says in the place of figures that are not there yet."""
PATIENCE_S = 0.2
"""How long one request waits for counts, all of them together."""
LONGEST_LIST = 256
"""Counts kept; the one not asked for the longest goes first."""
LARGEST_LIST = 64 * 2**20
"""Bytes, as pickled, that all counts together come to; again the one not asked for the longest goes first."""
UNKNOWN_SIZE = 2**20
"""Taken for the size of what cannot be pickled."""
REST = 4.0
"""A count is made again no sooner than after so many times what the last one took."""
T = TypeVar("T", bound=Hashable)


class StillCounting(Exception):
    """There is no figure yet; `done` says when there is."""

    def __init__(self, done: Callable[[], bool]) -> None:
        super().__init__("being counted")
        self.done = done


@dataclass
class _Entry:
    state: Hashable = None
    value: Any = None
    made_at: datetime | None = None
    """None: never."""
    took_s: float = 0.0
    finished: float = 0.0
    running: Future[None] | None = None
    size: int = 0
    """Bytes of the value."""
    error: Exception | None = None
    """What the last count raised; None where it gave a value."""
    told: bool = False
    """Some request was given that error."""


@dataclass
class _Request:
    """What one script run has waited for and shown."""

    deadline: float
    oldest: datetime | None = None
    states: dict[Hashable, Hashable] = field(default_factory=dict)
    later: list[Callable[[], None]] = field(default_factory=list)
    """Counts that begin when it has ended: beside it they would take the time that it does not wait for them."""


_request: ContextVar[_Request | None] = ContextVar("request", default=None)


@contextmanager
def one_request() -> Iterator[Callable[[], datetime | None]]:
    """Within it all counts share one patience. Gives a function: when the oldest figure shown was made, None: now."""
    before = _request.get()
    request = before or _Request(time.monotonic() + PATIENCE_S)
    token = _request.set(request)
    try:
        yield lambda: None if before else request.oldest
    finally:
        _request.reset(token)
        if before is None:
            for begin in request.later:
                begin()


def once_a_request(key: Hashable, state: Callable[[], T]) -> T:
    """`state()`, asked once in a request: all that it shows is of one state of the log."""
    request = _request.get()
    if request is None:
        return state()
    if key not in request.states:
        request.states[key] = state()
    return cast(T, request.states[key])


@dataclass
class Counts:
    """The counts of one server process. Threads share it."""

    longest: int = LONGEST_LIST
    """Counts kept."""
    largest: int = LARGEST_LIST
    """Bytes kept; what was counted last stays however large it is."""
    _entries: OrderedDict[Hashable, _Entry] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _first: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "counting"))
    _again: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "counting-again"))

    def get(self, key: Hashable, state: Hashable, count: Callable[[], Any]) -> Any:
        """What `count` gave for this state of the log, or for an older one. Raises what it raised, or StillCounting.

        What it raised after the request had gone on is raised to who asks while it rests, and to one request at least
        (though it is being tried again by then): else nobody would ever hear of it.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self.longest:
                self._entries.popitem(last=False)
            if entry.made_at is not None and entry.state == state:
                return entry.value
            rests = time.monotonic() - entry.finished < REST * entry.took_s
            if entry.running is None and rests:
                self._raise_error(entry)
            request = _request.get()
            left = PATIENCE_S if request is None else request.deadline - time.monotonic()
            if entry.made_at is not None:  # there is a figure to show meanwhile
                left -= PATIENCE_S / 2
            if entry.running is None and not (entry.made_at and rests and entry.took_s > PATIENCE_S):
                if request is not None and entry.made_at is not None and left <= 0:
                    request.later.append(lambda: self._count_later(entry, state, count))
                    if not entry.told:
                        self._raise_error(entry)
                else:
                    self._begin(entry, state, count)
            running = entry.running
        if running is not None:
            ended = bool(wait([running], max(0.0, left)).done)
            with self._lock:
                if ended or not entry.told:
                    self._raise_error(entry)
            if ended:
                running.result()
            elif entry.made_at is None:
                raise StillCounting(running.done)
        return self._shown(entry, state)

    def _begin(self, entry: _Entry, state: Hashable, count: Callable[[], Any]) -> None:
        pool = self._first if entry.made_at is None else self._again
        entry.running = pool.submit(self._count, entry, state, count)

    def _count_later(self, entry: _Entry, state: Hashable, count: Callable[[], Any]) -> None:
        with self._lock:
            if entry.running is None and entry.state != state:
                self._begin(entry, state, count)

    def kept(self, key: Hashable) -> Any:
        """What was counted last; None if nothing is kept."""
        with self._lock:
            entry = self._entries.get(key)
            return entry.value if entry is not None and entry.made_at is not None else None

    def _raise_error(self, entry: _Entry) -> None:
        """Of the last count, if it failed; with its traceback the first time, so that it grows no longer."""
        if entry.error is not None:
            error = entry.error.with_traceback(None) if entry.told else entry.error
            entry.told = True
            raise error

    def _shown(self, entry: _Entry, state: Hashable) -> Any:
        request = _request.get()
        if entry.state != state and request is not None and entry.made_at is not None:
            request.oldest = min(request.oldest or entry.made_at, entry.made_at)
        return entry.value

    def _count(self, entry: _Entry, state: Hashable, count: Callable[[], Any]) -> None:
        began, at = time.monotonic(), datetime.now(UTC)
        try:
            value = count()
            size = _size(value)
            with self._lock:
                entry.state, entry.value, entry.made_at, entry.size = state, value, at, size
                entry.error = None
                self._make_room(entry)
        except Exception as error:  # told by `get`
            with self._lock:
                entry.error, entry.told = error, False
        finally:
            with self._lock:
                entry.finished = time.monotonic()
                entry.took_s = entry.finished - began
                entry.running = None

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        with self._lock:
            return sum(entry.size for entry in self._entries.values())

    def finish(self) -> None:
        """Waits until nothing is being counted."""
        with self._lock:
            running = [entry.running for entry in self._entries.values() if entry.running is not None]
        wait(running)

    def forget(self) -> None:
        """Drops all that is kept; what is being counted is counted to its end."""
        with self._lock:
            self._entries.clear()

    def _make_room(self, newest: _Entry) -> None:
        total = sum(entry.size for entry in self._entries.values())
        for key, entry in list(self._entries.items()):
            if total <= self.largest:
                return
            if entry is not newest and entry.running is None:
                del self._entries[key]
                total -= entry.size


def _size(value: Any) -> int:
    try:
        return len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError):
        return UNKNOWN_SIZE


COUNTS = Counts()
