"""A `train` job whose worker dies in the middle of the run: another worker goes on from its last checkpoint, to the
weights that nobody would have told from an undisturbed run's."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from store.database import Log, open_log
from store.job_log import read_lines
from store.jobs import get_job, insert_pipeline
from store.runs import get_run, metrics_of
from store.settings import load_settings
from store.versions import add_version, get_version, set_version_state
from store.vocabulary import JobStatus, VersionState
from tests.logged_groups import logged_groups
from tests.tiny_model import write_tiny_model
from train.checkpoints import newest_checkpoint
from train.job_payloads import read_jobs

ROOT = Path(__file__).resolve().parent.parent
STEPS = 40
"""Of ten groups, four epochs: time enough to be killed in."""


def a_job(home: Path) -> tuple[Log, int]:
    """One `train` job on ten groups, with a checkpoint after every second step."""
    log = open_log(load_settings(home=home).url)
    model_dir = write_tiny_model(home / "tiny")
    add_version(log, "v0001", parent=None, path=str(model_dir), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "test")
    for batch in range(5):
        logged_groups(log, model_dir, f"played-{batch}", [1.0, 0.0, 0.5])
    with log.writing() as connection:  # under a name of ours: it seeds the order of the groups
        (job,) = insert_pipeline(connection, read_jobs(["train", "checkpoint_every=2"]), pipeline="nightly")
    (home / "checkloop.toml").write_text(
        f'home = "{home}"\n[worker]\nlease_s = 3\npoll_s = 0.2\n[grpo]\ntrained_layers = 0\nscenarios_per_step = 1\n'
        f"learning_rate = 1e-3\nepochs = {STEPS // 10}\n[grpo.alerts]\nentropy_share = 0\nmismatch_kl = 0\n"
    )
    return log, job


def worker(home: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "checkloop", "worker", "--once", "--accelerator", "cpu", "--name", name]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--config", str(home / "checkloop.toml")], env=environment, stdout=subprocess.DEVNULL
    )


def steps_of(log: Log, job: int) -> list[int]:
    """The optimizer steps that the job's log speaks of, in order."""
    said = (re.search(rf"step (\d+) of {STEPS}", line.text) for line in read_lines(log, job))
    return [int(found[1]) for found in said if found is not None]


def weights(log: Log, job: int) -> dict[str, torch.Tensor]:
    done = get_job(log, job)
    assert done.status is JobStatus.DONE, "\n".join(line.text for line in read_lines(log, job))
    return load_file(Path(get_version(log, (done.result or {})["version"]).path) / "model.safetensors")


@pytest.mark.timeout(900)
def test_another_worker_goes_on_where_a_killed_one_was(tmp_path: Path) -> None:
    calm, undisturbed = a_job(tmp_path / "calm")
    assert worker(tmp_path / "calm", "only").wait(300) == 0

    log, job = a_job(tmp_path / "killed")
    first = worker(tmp_path / "killed", "first")
    name = get_job(log, job).name
    checkpoints = tmp_path / "killed" / "jobs" / name.replace("/", "-") / "checkpoints"
    deadline = time.monotonic() + 300
    while newest_checkpoint(checkpoints) is None:
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    first.wait()
    for child in map(int, children):  # as if the machine had gone: it would end by itself otherwise
        os.kill(child, signal.SIGKILL)
    newest = newest_checkpoint(checkpoints)
    assert newest is not None
    reached, said = int(newest.name.rpartition("-")[2]), len(steps_of(log, job))
    assert 0 < reached < STEPS and get_job(log, job).status is JobStatus.RUNNING

    time.sleep(3.5)  # its lease
    assert worker(tmp_path / "killed", "second").wait(300) == 0
    done = get_job(log, job)
    assert (done.lease_owner, done.attempts) == ("second", 2)
    assert all(step > reached for step in steps_of(log, job)[said:]), "what a checkpoint held is not trained again"
    loss = metrics_of(log, get_run(log, name).id)["loss"]
    assert [step for step, _ in loss] == list(range(1, STEPS + 1))
    for key, weight in weights(calm, undisturbed).items():
        assert torch.equal(weights(log, job)[key], weight), key
    calm.close()
    log.close()
