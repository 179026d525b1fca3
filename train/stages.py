"""Named stages of a run over the log: each is done once, with its result in the log, and shown as it goes on."""

import time
from collections.abc import Callable
from typing import Any

from store.database import Log
from store.stages import fail_stage, finish_stage, stage_result, start_stage
from train.progress import Stage, StageProgress


class Stages:
    """Stages of the loop `name`, which `open_loop` has opened. Several may run at once, each in a thread of its own."""

    def __init__(self, log: Log, name: str, progress: StageProgress) -> None:
        self._log = log
        self._name = name
        self._progress = progress
        self.seconds: dict[str, float] = {}
        """Of the stages that are done, by key, with what earlier tries took that were not killed."""

    def result(self, key: str) -> dict[str, Any] | None:
        """What a stage came to; None if it is not done."""
        return stage_result(self._log, self._name, key)

    def leave_out(self, *keys: str) -> None:
        """These stages do not come this time."""
        self._progress.leave_out(*keys)

    def run(self, key: str, title: str, work: Callable[[Stage], dict[str, Any]]) -> dict[str, Any]:
        """The result of the stage: from the log if it was done before, else of `work`, which is stored.

        What `work` raises is raised; the stage is recorded as failed and starts anew next time.
        """
        done = self.result(key)
        if done is not None:
            self.seconds[key] = float(done.get("seconds", 0.0))
            self._progress.skip(key, title)
            return done
        earlier = start_stage(self._log, self._name, key)
        began = time.monotonic() - (earlier or 0.0)
        try:
            with self._progress.stage(key, title) as stage:
                if earlier is not None:
                    stage.not_whole()
                result = work(stage)
        except BaseException as error:
            fail_stage(self._log, self._name, key, f"{type(error).__name__}: {error}", time.monotonic() - began)
            raise
        self.seconds[key] = time.monotonic() - began
        finish_stage(self._log, self._name, key, result | {"seconds": self.seconds[key]}, self.seconds[key])
        return result
