"""The metrics of runs that somebody looks at, kept between two looks: each look reads only what is newer.

A run's metrics are append-only, so what was read stays true. Reads store.runs; of a bounded number of runs.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from store.database import Log
from store.runs import metrics_after

LONGEST = 24
"""Runs kept, of all browser windows; the one not looked at for the longest goes first."""
Metrics = dict[str, list[tuple[int, float]]]
"""Name to (step, value) in order of step."""


@dataclass
class _Kept:
    last: int = 0
    """The newest row that was read."""
    by_name: dict[str, dict[int, float]] = field(default_factory=dict)


@dataclass
class RunCurves:
    """Threads share it."""

    longest: int = LONGEST
    _runs: OrderedDict[tuple[str, int], _Kept] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, log: Log, run_id: int) -> Metrics:
        """As `store.runs.metrics_of`: a step that was measured again counts as last measured."""
        with self._lock:
            kept = self._runs.setdefault((log.url, run_id), _Kept())
            self._runs.move_to_end((log.url, run_id))
            while len(self._runs) > self.longest:
                self._runs.popitem(last=False)
            for row in metrics_after(log, run_id, kept.last):
                kept.by_name.setdefault(row.name, {})[row.step] = row.value
                kept.last = row.id
            return {name: sorted(values.items()) for name, values in sorted(kept.by_name.items())}


CURVES = RunCurves()
