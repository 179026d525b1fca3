"""What stops a GRPO run by itself, what stays of it, and that it becomes nothing live."""

from pathlib import Path
from typing import Any

import pytest
import torch

from store.database import Log
from store.runs import get_run, metrics_of
from store.settings import Settings
from store.training_settings import AlertSettings
from store.trajectories import NewTrajectory, create_trajectories
from store.versions import add_version, list_versions, set_version_state
from store.vocabulary import JobStatus, Origin, VersionState
from tests.hand_losses import SETTINGS
from tests.tiny_model import load_tiny_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train.alerts import Alerts, RunStopped
from train.candidates import RunFiles, train_candidate
from train.checkpoints import newest_checkpoint
from train.groups import TrainingGroup
from train.grpo import train_grpo
from train.progress import Stage, StageProgress

torch.set_num_threads(1)

WELL = {"entropy": 2.0, "mismatch_kl_k3": 0.01}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_a_collapsed_entropy_stops_after_some_steps_in_a_row() -> None:
    alerts = Alerts(AlertSettings(entropy_share=0.1, patience=2))
    assert alerts.look(1, WELL)
    assert not alerts.look(2, WELL | {"entropy": 0.19})
    assert alerts.look(3, WELL | {"entropy": 0.21}), "one bad step is a bad step, not a collapse"
    assert not alerts.look(4, WELL | {"entropy": 0.19})
    with pytest.raises(RunStopped, match=r"step 5: entropy collapsed: 0\.18 nats a token"):
        alerts.look(5, WELL | {"entropy": 0.18})


def test_too_great_a_mismatch_stops_and_zero_turns_an_alert_off() -> None:
    far = WELL | {"mismatch_kl_k3": 1.5}
    with pytest.raises(RunStopped, match=r"mismatch: the policy is 1\.5 nats"):
        Alerts(AlertSettings(patience=1)).look(1, far)
    off = Alerts(AlertSettings(entropy_share=0, mismatch_kl=0, patience=1))
    assert off.look(1, far) and off.look(2, far | {"entropy": 0.0})


def test_what_the_alerts_know_survives_a_kill(tmp_path: Path) -> None:
    """A run that goes on after a kill holds its entropy against its own first step, not against the next one."""
    alerts = Alerts(AlertSettings(patience=2))
    alerts.look(1, WELL)
    alerts.write(tmp_path)
    again = Alerts.read(AlertSettings(patience=2), tmp_path)
    assert not again.look(2, WELL | {"entropy": 0.1})
    with pytest.raises(RunStopped):
        again.look(3, WELL | {"entropy": 0.1})


@pytest.fixture(scope="module")
def groups(model_dir: Path) -> list[TrainingGroup]:
    """Fresh ones, for eight steps of one group."""
    return sampled_by(load_tiny_model(model_dir), some_groups(8))


def test_a_stopped_run_keeps_its_last_good_checkpoint_and_makes_no_version(
    model_dir: Path, groups: list[TrainingGroup], tmp_path: Path, sqlite_log: Log
) -> None:
    """A learning rate that throws the policy far from who sampled: the first step is good, and what follows is not."""
    wild: dict[str, Any] = {"learning_rate": 0.05, "scenarios_per_step": 1}
    alerts = AlertSettings(entropy_share=0, mismatch_kl=0.3, patience=3)
    settings = Settings(home=tmp_path, grpo=SETTINGS.model_copy(update=wild | {"alerts": alerts}))
    add_version(sqlite_log, "v0001", parent=None, path=str(model_dir), files={})
    set_version_state(sqlite_log, "v0001", VersionState.LIVE, "first")
    members = [member.trajectory_id for group in groups for member in group.members]
    create_trajectories(sqlite_log, [NewTrajectory(name, Origin.ROLLOUT) for name in members])
    stage = Stage(StageProgress({}), "train", "train")
    files = RunFiles(tmp_path / "made", run_dir=tmp_path / "run", checkpoint_every=1)
    with pytest.raises(RunStopped, match="mismatch"):
        train_candidate(sqlite_log, settings, lambda: groups, files, stage, name="wild", base="v0001", seed=0)
    run = get_run(sqlite_log, "wild")
    assert run.status is JobStatus.FAILED
    assert run.error is not None and "grpo.alerts.mismatch_kl" in run.error
    mismatch = dict(metrics_of(sqlite_log, run.id)["mismatch_kl_k3"])
    stopped = max(mismatch)
    assert all(mismatch[step] > 0.3 for step in range(stopped - 2, stopped + 1)), "the bad steps are in the log too"
    kept = newest_checkpoint(tmp_path / "run")
    assert kept is not None and kept.name == f"checkpoint-{stopped - 3}", "nothing bad was written over the good one"
    assert not (tmp_path / "made").exists()
    assert [version.name for version in list_versions(sqlite_log)] == ["v0001"]
    with pytest.raises(RunStopped, match=f"step {stopped}:"):  # going on stops at the same place
        train_grpo(model_dir, tmp_path / "made", groups, settings.grpo, 0, run_dir=tmp_path / "run", checkpoint_every=1)
