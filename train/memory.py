"""How much memory this process and all that it started hold at most."""

import threading
from collections.abc import Callable

import psutil


def tree_rss() -> int:
    """Bytes resident of this process and its descendants; pages that several share count for each of them."""
    this = psutil.Process()
    total = 0
    for process in [this, *this.children(recursive=True)]:
        try:
            total += int(process.memory_info().rss)
        except psutil.Error:
            continue  # it ended meanwhile
    return total


class PeakMemory:
    """Looks every few seconds, in a thread of its own, while the context lasts; `peak` is the most that it saw."""

    def __init__(self, every_s: float = 2.0, look: Callable[[], int] = tree_rss) -> None:
        self.peak = 0
        self._every_s = every_s
        self._look = look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._look())
            if self._ended.wait(self._every_s):
                return
