"""What is happening and how long is left, for a person at a terminal or a log file.

The time left is estimated from the stages' usual durations, scaled by how this machine did so far. Only whole stages
say how fast it is: not one that found its work done, nor the rest of one that was begun in an earlier try.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class StageProgress:
    """Stages in order with their expected seconds. Not a terminal: one line a stage and a line now and then."""

    def __init__(
        self,
        expected_s: Mapping[str, float],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = dict(expected_s)
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._now = clock
        self._began = clock()
        self._ended: set[str] = set()
        self._spent: dict[str, float] = {}
        """Of whole stages, by key; what ran inside of one counts there alone."""
        self._bar: Progress | None = None
        self._running = threading.local()

    @contextmanager
    def shown(self) -> Iterator["StageProgress"]:
        columns = (
            TextColumn("[bold]{task.fields[stage]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("about {task.fields[left]} left"),
        )
        if self._console.is_terminal:
            with Progress(*columns, console=self._console, refresh_per_second=4) as bar:
                self._bar = bar
                self._task = bar.add_task("", total=1.0, stage="starting", detail="", left=self._left_text())
                yield self
            self._bar = None
        else:
            yield self

    @contextmanager
    def stage(self, key: str, title: str) -> Iterator["Stage"]:
        stage = Stage(self, key, title)
        outer: list[Stage] = self._running.__dict__.setdefault("stages", [])  # of this thread
        if self._bar is None:
            self._console.print(f"{self._clock()} {title} (about {self._left_text()} left in all)", soft_wrap=True)
        began = self._now()
        self.update(stage, 0.0, "")
        outer.append(stage)
        try:
            yield stage
        finally:
            outer.pop()
            took = self._now() - began
            if outer:
                outer[-1].inside_s += took
        self._ended.add(key)
        if stage.is_whole:
            self._spent[key] = took - stage.inside_s
        said = f"{title}: {stage.detail or 'ok'} ({took:.0f} s)"
        self._console.print(f"{self._clock()} [green]done[/] {said}", soft_wrap=True)

    def leave_out(self, *keys: str) -> None:
        """These stages do not come."""
        for key in keys:
            self._expected.pop(key, None)

    def skip(self, key: str, title: str) -> None:
        """The stage was done in an earlier run."""
        self.leave_out(key)
        self._console.print(f"{self._clock()} [dim]was done before: {title}[/]", soft_wrap=True)

    def update(self, stage: "Stage", share: float, detail: str) -> None:
        stage.detail = detail or stage.detail
        if self._bar is not None:
            left = self._left_text(stage.key, share)
            self._bar.update(self._task, completed=share, stage=stage.title, detail=stage.detail, left=left)
        elif share - stage.printed >= 0.25 and share < 1:
            stage.printed = share
            self._console.print(f"{self._clock()}   {100 * share:.0f} % {detail}", soft_wrap=True)

    def left_s(self, key: str = "", share: float = 0.0) -> float:
        """Seconds that all stages together may still take, while `share` of the stage `key` is done."""
        known = [k for k in self._spent if self._expected.get(k)]
        usual = sum(self._expected[k] for k in known)
        # A few seconds of small stages say nothing about how fast this machine trains.
        speed = sum(self._spent[k] for k in known) / usual if usual >= 60 else 1.0
        waiting = sum(s for k, s in self._expected.items() if k not in self._ended and k != key)
        return speed * (waiting + self._expected.get(key, 0.0) * (1 - share))

    def _left_text(self, key: str = "", share: float = 0.0) -> str:
        left = self.left_s(key, share)
        return f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"

    def _clock(self) -> str:
        seconds = int(self._now() - self._began)
        return f"[dim]{seconds // 60:02d}:{seconds % 60:02d}[/]"


class Stage:
    """Handed to the work of a stage, to say how far it is."""

    def __init__(self, owner: StageProgress, key: str, title: str) -> None:
        self._owner = owner
        self.key = key
        self.title = title
        self.detail = ""
        self.printed = 0.0
        self.is_whole = True
        """Whether its time says how fast this machine is."""
        self.inside_s = 0.0
        """Of stages that ran inside of this one."""

    def not_whole(self) -> None:
        """What it was to make is there already, or part of it."""
        self.is_whole = False

    def advance(self, share: float, detail: str = "") -> None:
        """`share` in [0, 1] of the stage is done."""
        self._owner.update(self, min(share, 1.0), detail)
