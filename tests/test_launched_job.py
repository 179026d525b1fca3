"""A `train` job that a launcher starts in two processes, by a real worker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from store.database import Log, open_log
from store.job_log import read_lines
from store.jobs import get_job, submit_pipeline
from store.runs import run_trajectories
from store.settings import load_settings
from store.versions import add_version, get_version, set_version_state
from store.vocabulary import ExitReason, JobStatus, VersionState
from tests.logged_groups import logged_groups
from tests.tiny_model import write_tiny_model
from train.job_payloads import read_jobs

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def do_jobs(home: Path, launcher: tuple[str, ...], **changed: str) -> tuple[Log, int, str]:
    """A worker with this launcher does one `train` job; the log, the job, what the worker said."""
    settings = load_settings(home=home)
    log = open_log(settings.url)
    model_dir = write_tiny_model(home / "tiny")
    add_version(log, "v0001", parent=None, path=str(model_dir), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "test")
    logged_groups(log, model_dir, "played", [1.0, 0.0, 0.5])
    (job,) = submit_pipeline(log, read_jobs(["train"]))
    words = ", ".join(f'"{word}"' for word in launcher)
    config = home / "checkloop.toml"
    config.write_text(
        f'home = "{home}"\n[worker]\nlauncher = [{words}]\n[grpo]\ntrained_layers = 0\nscenarios_per_step = 2\n'
        "learning_rate = 1e-3\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changed
    worker = [sys.executable, "-m", "checkloop", "worker", "--once", "--accelerator", "cpu", "--config", str(config)]
    said = subprocess.run(worker, env=environment, capture_output=True, text=True, timeout=800)
    assert said.returncode == 0, said.stderr + said.stdout
    return log, job, said.stdout


def words_of(log: Log, job: int) -> str:
    return "\n".join(line.text for line in read_lines(log, job))


@pytest.mark.timeout(900)
def test_two_processes_do_the_job(tmp_path: Path) -> None:
    """That they make what one makes is tests/test_processes.py's to show."""
    log, number, _ = do_jobs(tmp_path, TORCHRUN)
    job = get_job(log, number)
    assert job.status is JobStatus.DONE, words_of(log, number)
    assert job.result == {"version": "v0002", "base": "v0001"}
    version = get_version(log, "v0002")
    assert version.run_id is not None and len(run_trajectories(log, version.run_id)) == 6
    made, start = (load_file(Path(d) / "model.safetensors") for d in (version.path, tmp_path / "tiny"))
    assert any(not torch.equal(start[name], weight) for name, weight in made.items())
    log.close()


@pytest.mark.timeout(900)
def test_what_the_first_process_refuses_is_said_and_the_other_does_not_wait(tmp_path: Path) -> None:
    log, number, _ = do_jobs(tmp_path, TORCHRUN, CHECKLOOP_GRPO__TRAINED_LAYERS="10")
    job = get_job(log, number)
    assert (job.status, job.exit_reason) == (JobStatus.FAILED, ExitReason.REFUSED), words_of(log, number)
    assert "the model has 2 layers" in (job.error or "")
    log.close()
