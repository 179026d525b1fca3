"""Where else a run's metrics go: transformers' own reporting to trackers that are installed. To SQL they always go.

Writes `home`/tracking/RUN (TensorBoard); the others write where their environment variables say.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from store.training_settings import TrackingSettings
from train.training_run import TrainingError


def check_trackers(settings: TrackingSettings) -> None:
    """Raises TrainingError that names the trackers which are not installed, and how to install them, or one that is
    damaged."""
    if missing := [name for name in settings.report_to if find_spec(name) is None]:
        install = f"pip install {' '.join(missing)}"
        raise TrainingError(
            f"tracking.report_to names {', '.join(missing)}, which is not installed: `{install}`, or leave it out"
        )
    for name in settings.report_to:
        try:
            import_module(_MODULES.get(name, name))
        except ImportError as error:
            raise TrainingError(
                f"tracking.report_to names {name}, which is installed but cannot be imported: {error}"
            ) from error


_MODULES = {"tensorboard": "torch.utils.tensorboard"}
"""What is imported where it is not the package itself."""


def tracking_arguments(settings: TrackingSettings, home: Path, run: str) -> dict[str, Any]:
    """For TrainingArguments; tells TensorBoard and MLflow by their environment variables. Empty without a tracker.

    Raises what `check_trackers` raises.
    """
    check_trackers(settings)
    if not settings.report_to:
        return {}
    # Each run has its own; the projects are the user's to override.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str((home / "tracking" / run).resolve())
    os.environ.setdefault("WANDB_PROJECT", settings.project)
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", settings.project)
    return {"report_to": list(settings.report_to), "run_name": run, "project": settings.project}


def end_tracking(arguments: Mapping[str, Any]) -> None:
    """Ends what the tracker would leave open for the next run of this process to write into."""
    if "wandb" in arguments.get("report_to", ()):
        import_module("wandb").finish()
