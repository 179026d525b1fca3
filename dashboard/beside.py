"""Work that takes a while, in a thread of the dashboard: of all browser windows, one piece of a kind at a time.

A page only looks at it. So it survives a reload, and two windows see the same one.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import streamlit as st

from dashboard.boundary import guard
from dashboard.text import escape, escape_markdown, show
from store.schema import now

POLL = "1s"
SHOWN_FOR = timedelta(minutes=10)
"""How long its outcome stands on the page."""
logger = logging.getLogger(__name__)


class AlreadyRunning(RuntimeError):
    """Another piece of this work goes on."""


@dataclass
class RunningWork:
    """Written by its thread, read by pages."""

    name: str
    """What goes on: "v0002 is being loaded and proved"."""
    since: datetime
    said: str = ""
    """How it ended well."""
    problem: str = ""
    """Why it did not."""
    over: threading.Event = field(default_factory=threading.Event)


class OneAtATime:
    """The newest piece of one kind of work."""

    def __init__(self) -> None:
        self.newest: RunningWork | None = None
        self._lock = threading.Lock()

    def begin(self, name: str, work: Callable[[], str], *refusals: type[Exception]) -> RunningWork:
        """`work` returns how it ended; `refusals` are what it may raise with words for a person. Raises AlreadyRunning
        while another one goes on."""
        with self._lock:
            if self.newest is not None and not self.newest.over.is_set():
                raise AlreadyRunning(f"{self.newest.name} right now: wait until that has ended")
            running = self.newest = RunningWork(name, now())
        threading.Thread(target=self._run, args=(running, work, refusals), daemon=True).start()
        return running

    def _run(self, running: RunningWork, work: Callable[[], str], refusals: tuple[type[Exception], ...]) -> None:
        try:
            running.said = work()
        except refusals as error:
            running.problem = str(error)
        except Exception as error:  # the named boundary of the thread: recorded here, shown as a message
            logger.exception("%s: failed", running.name)
            running.problem = f"{type(error).__name__}: {error}"
        finally:
            running.over.set()


def follow_newest(title: str, work: OneAtATime) -> None:
    """How the newest piece stands, nothing if there was none lately; while it goes on asked again every second, and the
    whole page is drawn anew when it has ended, for it has changed something."""
    if work.newest is None or work.newest.over.is_set():
        show_newest(work)
        return

    @st.fragment(run_every=POLL)
    def follow() -> None:
        guard(title, lambda: show_newest(work))
        if work.newest is None or work.newest.over.is_set():
            st.rerun()

    follow()


def show_newest(work: OneAtATime) -> None:
    newest = work.newest
    if newest is None:
        return
    age = now() - newest.since
    if not newest.over.is_set():
        show(f'<div class="cl-busy">{escape(newest.name)}, {age.total_seconds():.0f} s</div>')
    elif age < SHOWN_FOR and newest.problem:
        st.error(escape_markdown(newest.problem), icon=":material/error:")
    elif age < SHOWN_FOR:
        st.success(escape_markdown(newest.said), icon=":material/check:")
