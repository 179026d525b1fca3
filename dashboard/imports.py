"""The import of a scenario file that is going on right now: a large file takes a while to write."""

from collections.abc import Callable
from functools import cache

from dashboard.beside import OneAtATime, RunningWork
from dashboard.format import plural
from store.database import Log, LogError
from store.records import Scenario
from store.scenarios import add_scenarios


class Imports(OneAtATime):
    """The newest import."""

    def start(self, log: Log, name: str, read: Callable[[], list[Scenario]]) -> RunningWork:
        """`read` gives the scenarios, or raises LogError. Raises AlreadyRunning while another one goes on."""

        def write() -> str:
            return f"{name}: {plural(add_scenarios(log, read()), 'new scenario')} imported"

        return self.begin(f"{name} is being imported", write, LogError)


@cache
def imports() -> Imports:
    return Imports()
