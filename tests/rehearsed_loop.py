"""A loop without model, servers or training: what plays which round, what gates are asked, what a stop leaves."""

from pathlib import Path
from typing import Any

from rich.console import Console

from store.database import Log
from store.settings import Settings
from train.evaluation import Outcome
from train.loop import ScenarioSets, TrainingLoop
from train.progress import Stage, StageProgress

BETTER = {"passed": True, "reason": "", "high": 0.3}
UNSURE = {"passed": False, "reason": "", "high": 0.1}
WORSE = {"passed": False, "reason": "", "high": -0.1}


class Rehearsal(TrainingLoop):
    """A loop whose stages only say what they were asked to do; round n makes version v<n + 1>."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        verdicts: list[dict[str, Any]],
        barren: set[int],
        progress: StageProgress | None = None,
    ) -> None:
        quiet = StageProgress({}, Console(quiet=True))
        sets = ScenarioSets([], [], [], [])
        super().__init__(log, settings, sets, name="rehearsal", seed=1, progress=progress or quiet)
        self.did: list[str] = []
        self._verdicts = verdicts
        self._barren = barren

    def _prepare_model(self, stage: Stage) -> dict[str, Any]:
        return {"path": "."}

    def _cold_start(self, stage: Stage, model: Path) -> dict[str, Any]:
        return {"version": "v1"}

    def _go_live(self, version: str) -> None:
        return None

    def _evaluation(self, key: str, title: str, scenarios: Any, version: str) -> dict[str, list[Outcome]]:
        return {}

    def _play_groups(self, stage: Stage, n: int, scenarios: Any, version: str) -> dict[str, Any]:
        self.did.append(f"play {version}")
        return {}

    def _train(self, stage: Stage, n: int, current: str) -> dict[str, Any]:
        return {"version": None if n in self._barren else f"v{n + 1}"}

    def _load(self, stage: Stage, candidate: str) -> dict[str, Any]:
        return {"accepted": True}

    def _gate(self, stage: Stage, n: int, current: str, candidate: str) -> dict[str, Any]:
        self.did.append(f"gate {candidate} against {current}")
        return self._verdicts.pop(0)

    def _swap(self, stage: Stage, candidate: str, decision: Any) -> dict[str, Any]:
        return {"accepted": True}

    def _prune(self, stage: Stage) -> dict[str, Any]:
        return {}
