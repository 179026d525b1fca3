"""A run's folder: whose checkpoints are in it, and that one process at a time trains there."""

import threading
from pathlib import Path
from typing import Any

import pytest

from store.vocabulary import ExitReason
from train.job_process import reason_of
from train.run_directory import LOCK, only_here, open_run_dir
from train.training_run import TrainingError


def test_whose_checkpoints_they_are_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle of the writing: the next try begins as the first one did."""

    def killed(place: Path, text: str, *_: Any, **__: Any) -> int:
        with place.open("w") as file:
            file.write(text[:5])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "write_text", killed)
        open_run_dir(tmp_path / "run", "ours")
    assert open_run_dir(tmp_path / "run", "ours") is None
    with pytest.raises(TrainingError, match="other data, settings, seed or start"):
        open_run_dir(tmp_path / "run", "another's")


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "grpo-0001"
    with only_here(folder):
        said = "already: wait for it, end it, or give this run another name"
        with pytest.raises(TrainingError, match=said) as error, only_here(folder):
            pass
        assert reason_of(error.value) is ExitReason.MACHINE, "a job is tried again"
        assert (folder / LOCK).is_file()
    assert not folder.exists(), "nothing is left of a folder that held nothing"
    with only_here(folder):
        (folder / "checkpoint").touch()
    assert [file.name for file in folder.iterdir()] == ["checkpoint"]


def test_a_folder_that_is_removed_and_made_anew_has_one_holder(tmp_path: Path) -> None:
    """Those who wait for the end of a run, and come in the moment in which its folder goes."""
    inside, most, done = 0, 0, 0
    counting = threading.Lock()

    def train() -> None:
        nonlocal inside, most, done
        while True:
            try:
                with only_here(tmp_path / "run"):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    with counting:
                        inside -= 1
                        done += 1
                return
            except TrainingError:
                continue

    threads = [threading.Thread(target=train) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (done, most) == (8, 1)
