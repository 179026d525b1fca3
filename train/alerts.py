"""What stops a GRPO run by itself: its entropy collapsed, or it is too far from who sampled.

A run that is stopped makes no version and is recorded as failed with the reason. Its last checkpoint from before the
alert stays: while an alert is pending none is written over it. What the alerts know is in each checkpoint, so a run
that goes on stops where an undisturbed one would.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from store.training_settings import AlertSettings
from train.training_run import TrainingError

ALERTS_FILE = "alerts.json"


class RunStopped(TrainingError):
    """An alert stopped the run: says which, at which step, and what to do."""


@dataclass
class Alerts:
    """Looks at every step's metrics, in order."""

    settings: AlertSettings
    first_entropy: float | None = None
    """Nats a token at the run's first step."""
    in_a_row: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, settings: AlertSettings, checkpoint: Path | None) -> "Alerts":
        """As they stood when a checkpoint was written; new ones without it."""
        file = checkpoint / ALERTS_FILE if checkpoint is not None else None
        return cls(settings, **json.loads(file.read_text())) if file is not None and file.is_file() else cls(settings)

    def write(self, checkpoint: Path) -> None:
        known = asdict(self)
        del known["settings"]
        (checkpoint / ALERTS_FILE).write_text(json.dumps(known))

    def look(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether all is well; False while an alert is pending. RunStopped after `patience` bad steps in a row."""
        if self.first_entropy is None:
            self.first_entropy = metrics["entropy"]
        floor, limit = self.settings.entropy_share * self.first_entropy, self.settings.mismatch_kl
        found = {
            f"entropy collapsed: {metrics['entropy']:.3g} nats a token, under grpo.alerts.entropy_share = "
            f"{self.settings.entropy_share:g} of the first step's {self.first_entropy:.3g}": (
                "entropy",
                metrics["entropy"] < floor,
            ),
            f"mismatch: the policy is {metrics['mismatch_kl_k3']:.3g} nats a token away from who sampled, over "
            f"grpo.alerts.mismatch_kl = {limit:g}": ("mismatch", 0 < limit < metrics["mismatch_kl_k3"]),
        }
        for reason, (name, bad) in found.items():
            self.in_a_row[name] = self.in_a_row.get(name, 0) + 1 if bad else 0
            if self.in_a_row[name] >= self.settings.patience:
                raise RunStopped(
                    f"step {step}: {reason}, {self.in_a_row[name]} steps in a row: the run is stopped and makes no "
                    "version; lower the learning rate, take fresher groups, or set the alert to 0"
                )
        return not any(self.in_a_row.values())


class AlertWatch(TrainerCallback):  # type: ignore[misc]
    """Shows the alerts each optimizer step, and writes them into each checkpoint; stands before MarkComplete."""

    def __init__(self, alerts: Alerts, metrics: Callable[[], Mapping[str, float]]) -> None:
        self._alerts = alerts
        self._metrics = metrics

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        if logs and "loss" in logs and not self._alerts.look(state.global_step, self._metrics()):
            control.should_save = False
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self._alerts.write(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")
