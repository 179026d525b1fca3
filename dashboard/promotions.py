"""The promotion that is going on right now, of all browser windows: in a thread of the dashboard, for it takes a while.

A page only looks at it. So it survives a reload, and two windows see the same one. The gateway writes the log.
"""

import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from agent.promotion import promote_version
from agent.vllm_client import ServerError
from store.schema import now
from store.settings import Settings

logger = logging.getLogger(__name__)


@dataclass
class RunningPromotion:
    """Written by its thread, read by pages."""

    version: str
    since: datetime
    said: str = ""
    """How it ended well."""
    problem: str = ""
    """Why it did not."""
    over: threading.Event = field(default_factory=threading.Event)


class Promotions:
    """The newest promotion."""

    def __init__(self) -> None:
        self.newest: RunningPromotion | None = None
        self._lock = threading.Lock()

    def start(self, settings: Settings, version: str, reason: str) -> RunningPromotion:
        """Raises ServerError while another one goes on."""
        with self._lock:
            if self.newest is not None and not self.newest.over.is_set():
                raise ServerError(f"{self.newest.version} is being made live right now: wait until that has ended")
            running = self.newest = RunningPromotion(version, now())
        threading.Thread(target=self._run, args=(running, settings, reason), daemon=True).start()
        return running

    def _run(self, running: RunningPromotion, settings: Settings, reason: str) -> None:
        try:
            done = promote_version(settings, running.version, reason)
            running.said = f"{done.version} is live after {done.seconds:.1f} s (before: {done.before})"
        except ServerError as error:
            running.problem = str(error)
        except Exception as error:  # the named boundary of the thread: recorded here, shown as a message
            logger.exception("promotion of %s failed", running.version)
            running.problem = f"{type(error).__name__}: {error}"
        finally:
            running.over.set()


@cache
def promotions() -> Promotions:
    return Promotions()
