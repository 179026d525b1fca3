"""Metrics of a run also go to trackers that are installed; one that is not is named before anything begins."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from store.settings import load_settings
from store.training_settings import SftSettings, TrackingSettings
from tests.hand_losses import SETTINGS
from tests.test_sft import dialogues
from tests.tiny_model import load_tiny_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train import tracking
from train.grpo import train_grpo
from train.sft import train_sft
from train.tracking import check_trackers, tracking_arguments
from train.training_run import TrainingError

torch.set_num_threads(1)

TRACKER = """
from contextvars import ContextVar
class _Variables:
    current_space_id = ContextVar("space", default=None)
context_vars = _Variables
__version__ = "0.0.0"
runs = []
class _Config(dict):
    def update(self, other, allow_val_change=False):
        super().update(other)
config = _Config()
def init(**given):
    runs.append({"given": given, "logged": [], "finished": False})
def log(values, **_):
    runs[-1]["logged"].append(values)
def finish():
    runs[-1]["finished"] = True
"""


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A tracker by the name of trackio, as transformers calls it, which notes what it is given."""
    place = tmp_path / "packages"
    place.mkdir()
    (place / "trackio.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    for name in ("TENSORBOARD_LOGGING_DIR", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "the user's")
    import trackio

    return trackio


def test_every_metric_of_every_step_reaches_the_tracker(tracker: Any, tmp_path: Path) -> None:
    model_dir = write_tiny_model(tmp_path / "tiny")
    groups = sampled_by(load_tiny_model(model_dir), some_groups(4))
    wanted = TrackingSettings(report_to=("trackio",), project="shop")
    seen: list[dict[str, float]] = []
    train_grpo(
        model_dir, tmp_path / "v2", groups, SETTINGS, 1, lambda step, steps, metrics: seen.append(metrics),
        tracking=tracking_arguments(wanted, tmp_path, "grpo-0007"),
    )  # fmt: skip
    train_sft(
        model_dir, tmp_path / "v1", dialogues(8), SftSettings(epochs=1), 0,
        tracking=tracking_arguments(wanted, tmp_path, "sft-0002"),
    )  # fmt: skip
    grpo, sft = tracker.runs
    assert (grpo["given"]["project"], grpo["given"]["name"], sft["given"]["name"]) == ("shop", "grpo-0007", "sft-0002")
    assert grpo["finished"] and sft["finished"]
    steps = [values for values in grpo["logged"] if "train/loss" in values]
    assert len(steps) == len(seen) == 2
    for told, noted in zip(steps, seen, strict=True):
        for name in ("loss", "reward_mean", "entropy", "mismatch_kl", "clipped_share", "tokens_in_loss"):
            assert told[f"train/{name}"] == pytest.approx(noted[name]), name
    assert any("train/tokens_in_loss" in values for values in sft["logged"])


def test_nothing_is_told_to_anybody_unless_asked(tracker: Any, tmp_path: Path) -> None:
    assert tracking_arguments(TrackingSettings(), tmp_path, "grpo-0001") == {}
    model_dir = write_tiny_model(tmp_path / "tiny")
    groups = sampled_by(load_tiny_model(model_dir), some_groups(2))
    train_grpo(model_dir, tmp_path / "v2", groups, SETTINGS, 1)
    assert tracker.runs == []


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else object())
    monkeypatch.setattr(tracking, "import_module", half_installed)
    check_trackers(TrackingSettings(report_to=("mlflow",)))
    with pytest.raises(TrainingError, match=r"names wandb, which is not installed: `pip install wandb`"):
        check_trackers(TrackingSettings(report_to=("mlflow", "wandb")))

    with pytest.raises(TrainingError, match="tensorboard, which is installed but cannot be imported: no protobuf"):
        check_trackers(TrackingSettings(report_to=("tensorboard",)))


def half_installed(name: str) -> None:
    if name == "torch.utils.tensorboard":
        raise ImportError("no protobuf")


def test_unknown_and_repeated_trackers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="tensorboard"):
        TrackingSettings(report_to=("excel",))  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="more than once"):
        TrackingSettings(report_to=("mlflow", "mlflow"))
    file = tmp_path / "checkloop.toml"
    file.write_text('[tracking]\nreport_to = ["tensorboard"]\n')
    assert load_settings(file).tracking.report_to == ("tensorboard",)


def test_each_run_has_its_own_place_and_projects_are_the_users_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    monkeypatch.setattr(tracking, "import_module", lambda name: None)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "left by the run before")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    tracking_arguments(TrackingSettings(report_to=("tensorboard", "wandb", "mlflow")), tmp_path, "demo/round-1")
    assert Path(tracking.os.environ["TENSORBOARD_LOGGING_DIR"]) == tmp_path / "tracking" / "demo" / "round-1"
    assert tracking.os.environ["WANDB_PROJECT"] == "theirs"
    assert tracking.os.environ["MLFLOW_EXPERIMENT_NAME"] == "checkloop"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
