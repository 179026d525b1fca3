"""Rewards that are computed again beside the pages, one piece after the other: a key is answered before they are done.

Writes reward rows in a thread of the dashboard. If that goes away first, the rest stay as they were until `checkloop
reward` or the job `reward`; whoever looks at one of them is told that it is out of date.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

logger = logging.getLogger(__name__)
_pool = ThreadPoolExecutor(1, "rescoring")


def later(work: Callable[[], object]) -> Future[None]:
    """Has it done after what was given before."""
    return _pool.submit(_run, work)


def _run(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:  # the named boundary of the thread: recorded here
        logger.exception("rewards could not be computed again: `checkloop reward --all` does it")
