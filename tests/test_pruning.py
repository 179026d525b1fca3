"""Which weights are removed when they are old, and which never are."""

import shutil
from pathlib import Path

import pytest

from store.database import Log
from store.jobs import cancel_job
from store.leases import note_on_job, put_back
from store.runs import finish_run, start_run
from store.settings import Settings, load_settings
from store.traffic import pin_version
from store.versions import add_version, get_version, list_versions, set_version_state
from store.vocabulary import ExitReason, JobStatus, RunKind, VersionState
from tests.job_examples import START
from tests.job_stand_ins import pipeline, versions, work
from train.pruning import prunable, prune_versions


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def test_old_weights_go_but_never_those_that_may_be_needed(sqlite_log: Log, settings: Settings) -> None:
    folder = settings.home / "versions"
    versions(sqlite_log, folder, "LRLRLCLLR")  # v0008 is live, v0007 was before it, v0006 is a candidate
    pin_version(sqlite_log, "v0002", "for the paper")
    start_run(sqlite_log, "busy", RunKind.GRPO, "v0003", 1, {})
    elsewhere = settings.home / "model"
    elsewhere.mkdir()
    add_version(sqlite_log, "v0010", parent=None, path=str(elsewhere.resolve()), files={})
    set_version_state(sqlite_log, "v0010", VersionState.REFUSED, "test")
    pruned = prune_versions(sqlite_log, settings, keep=2)
    assert (pruned.versions, pruned.freed_bytes) == (("v0001", "v0004", "v0005"), 300)
    left = {path.name for path in folder.iterdir()}
    assert left == {"v0002", "v0003", "v0006", "v0007", "v0008", "v0009"} and elsewhere.is_dir()
    assert get_version(sqlite_log, "v0001").figures["pruned"]["bytes"] == 100
    assert prune_versions(sqlite_log, settings, keep=2).versions == ()


def test_what_waits_to_go_on_and_what_is_held_against_keep_their_weights(sqlite_log: Log, settings: Settings) -> None:
    folder = settings.home / "versions"
    versions(sqlite_log, folder, "RRRRRRRLL")
    settings = settings.model_copy(update={"grpo": settings.grpo.model_copy(update={"kl": 0.1, "reference": "v0001"})})
    pipeline(sqlite_log, ("train", {}))
    job = work(sqlite_log, settings, None).job
    note_on_job(sqlite_log, job, {"base": "v0002", "groups": []})
    run_id = start_run(sqlite_log, job.name, RunKind.GRPO, "v0002", 1, {"reference": "v0003"})
    finish_run(sqlite_log, run_id, JobStatus.FAILED, "the disk was full")
    put_back(sqlite_log, job, ExitReason.MACHINE, run_after=START, error="the disk was full")
    pipeline(sqlite_log, ("rollout", {"version": "v0004"}), ("sft", {"base": "v0005"}))
    assert prune_versions(sqlite_log, settings, keep=0).versions == ("v0006", "v0007")
    cancel_job(sqlite_log, job.id)
    assert prune_versions(sqlite_log, settings, keep=0).versions == ("v0002", "v0003")


def test_a_version_that_goes_live_again_while_others_are_removed_stays(
    sqlite_log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.home / "versions"
    versions(sqlite_log, folder, "LLLL")

    remove = shutil.rmtree

    def slow(directory: Path) -> None:
        if directory.name == "v0001":
            set_version_state(sqlite_log, "v0002", VersionState.LIVE, "rolled back by hand")
        remove(directory)

    monkeypatch.setattr(shutil, "rmtree", slow)
    assert prune_versions(sqlite_log, settings, keep=0).versions == ("v0001",)
    assert (folder / "v0002").is_dir()


def test_the_weights_below_an_adapter_stay(sqlite_log: Log, settings: Settings) -> None:
    folder = settings.home / "versions"
    versions(sqlite_log, folder, "LR")
    adapter = folder / "v0003"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    add_version(sqlite_log, "v0003", parent="v0001", path=str(adapter), files={})
    set_version_state(sqlite_log, "v0003", VersionState.LIVE, "test")
    found = prunable(list_versions(sqlite_log), keep=0, protected=(), folder=folder)
    assert [version.name for version in found] == ["v0002"]
