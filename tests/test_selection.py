"""Which groups a GRPO run takes of a log, and what it says of the others; the command that trains on them."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from checkloop import app
from store.database import Log
from store.groups import list_groups
from store.jobs import cancel_job
from store.leases import put_back
from store.runs import add_run_trajectories, finish_run, get_run, groups_of_run, run_trajectories, start_run
from store.settings import Settings, SettingsError, load_settings
from store.trajectories import create_group, end_trajectory, record_step
from store.verdicts import Reward, add_rewards
from store.versions import add_version, get_version, set_version_state
from store.vocabulary import ExitReason, JobStatus, RunKind, Split, StopReason, VersionState
from tests.job_examples import START, submit, take
from tests.store_examples import WEATHER, a_scenario, a_step, start
from tests.tiny_model import write_tiny_model
from train.candidates import run_settings
from train.groups import RunRefused
from train.grpo_run import GrpoPlan, plan_grpo, run_grpo
from train.progress import StageProgress
from train.run_directory import only_here
from train.selection import NOT_NEEDED, ages_before, choice_lines, choose_groups
from train.training_run import TrainingError


def a_group(
    log: Log,
    name: str,
    rewards: tuple[float | None, ...] = (1.0, 0.0),
    *,
    version: str = "v0003",
    ended: bool = True,
    **scenario: Any,
) -> int:
    """A group called `name`, its batch too; a reward None: not judged, NaN: not to be scored."""
    played = a_scenario(name, **scenario)
    start(log, scenario=played)
    group = create_group(log, played.hash, name, version, 1)
    names = [f"{name}-{n}" for n in range(len(rewards))]
    start(log, *names, scenario_hash=played.hash, group_id=group, batch=name, version=version)
    torch.manual_seed(group)
    for one, reward in zip(names, rewards, strict=True):
        ids = torch.randint(7, 90, (8,)).tolist()
        record_step(log, a_step(one, delta_ids=ids[:3], sampled_ids=ids[3:], logprobs=[-4.5] * 5, context_tokens=3))
        if ended:
            end_trajectory(log, one, StopReason.COMPLETED)
        if reward is not None:
            scored = reward == reward
            value = reward if scored else None
            add_rewards(log, [Reward(one, value, (value,), None, 0 if scored else 1, None if scored else "no judge")])
    return group


@pytest.fixture
def family(log: Log) -> Log:
    """v0003 comes from v0002, that from v0001; v0004 is a brother of v0003."""
    for name, parent in (("v0001", None), ("v0002", "v0001"), ("v0003", "v0002"), ("v0004", "v0002")):
        add_version(log, name, parent=parent, path=f"/nowhere/{name}", files={})
    return log


def selecting(max_excluded: float = 1.0, **selection: Any) -> Settings:
    return load_settings(selection=selection, grpo={"max_excluded": max_excluded})


def chosen(log: Log, settings: Settings | None = None, max_groups: int = 99) -> tuple[set[str], dict[str, str]]:
    choice = choose_groups(log, settings or selecting(), base="v0003", max_groups=max_groups)
    assert sorted(choice.looked_at) == list(choice.looked_at)
    return {g.batch for g in choice.taken}, {left.group.batch: left.reason for left in choice.left_out}


def test_conditions_on_scenarios_versions_and_uses(family: Log) -> None:
    other_tool = WEATHER.model_copy(update={"name": "book"})
    a_group(family, "plain")
    a_group(family, "chat", source="chat", tools=(WEATHER, other_tool))
    a_group(family, "travel", domain="travel")
    a_group(family, "validation", split=Split.VALIDATION)
    a_group(family, "parent", version="v0002")
    a_group(family, "brother", version="v0004")
    a_group(family, "running", ended=False)
    used = {name: a_group(family, name) for name in ("used", "failed", "twice")}
    for run, names, status in (("r1", ("used", "twice"), JobStatus.DONE), ("r2", ("twice",), None),
                               ("r3", ("failed",), JobStatus.FAILED)):  # fmt: skip
        run_id = start_run(family, run, RunKind.GRPO, "v0002", 1, {})
        add_run_trajectories(family, run_id, {f"{name}-{n}": 0.5 for name in names for n in (0, 1)})
        assert groups_of_run(family, run_id) == sorted(used[name] for name in names)
        if status is not None:
            finish_run(family, run_id, status)
    assert {g.batch: g.uses for g in list_groups(family, batches=list(used))} == {"used": 1, "failed": 0, "twice": 2}

    taken, why = chosen(family)
    assert taken == {"plain", "chat", "travel", "failed"}
    assert why == {
        "validation": "its scenario is of split validation (selection.split = train)",
        "parent": "it was played by v0002, 1 before v0003 (selection.max_age = 0)",
        "brother": "it was played by v0004, which v0003 does not descend from",
        "running": "some of its trajectories have not ended",
        "used": "1 runs have trained on it (selection.max_uses = 1)",
        "twice": "2 runs have trained on it (selection.max_uses = 1)",
    }
    assert chosen(family, selecting(max_age=1))[0] == {"plain", "chat", "travel", "failed", "parent"}
    assert chosen(family, selecting(max_uses=2))[0] == {"plain", "chat", "travel", "failed", "used"}
    assert chosen(family, selecting(sources=["chat"]))[0] == {"chat"}
    assert chosen(family, selecting(tools=["book"]))[0] == {"chat"}
    assert chosen(family, selecting(domains=["travel"]))[0] == {"travel"}
    assert chosen(family, selecting(split="validation"))[0] == {"validation"}
    assert ages_before(family, "v0004") == {"v0004": 0, "v0002": 1, "v0001": 2}


def test_a_run_that_its_job_goes_on_with_keeps_its_groups(family: Log) -> None:
    """It was put back after a failure: another run that took them now would train on them a second time."""
    a_group(family, "wanted")
    (job_id,) = submit(family, "train")
    job = take(family)
    run_id = start_run(family, job.name, RunKind.GRPO, "v0003", 1, {})
    add_run_trajectories(family, run_id, {"wanted-0": 0.5, "wanted-1": -0.5})
    finish_run(family, run_id, JobStatus.FAILED, "the disk was full")
    assert chosen(family)[1] == {"wanted": "1 runs have trained on it (selection.max_uses = 1)"}, "it runs"
    put_back(family, job, ExitReason.MACHINE, run_after=START, error="the disk was full")
    assert chosen(family)[0] == set(), "it waits"
    cancel_job(family, job_id)
    assert chosen(family)[0] == {"wanted"}


def test_conditions_on_verdicts_and_rewards(family: Log) -> None:
    nan = float("nan")
    for number in range(12):
        a_group(family, f"good-{number:02d}")
    a_group(family, "equal", (0.5, 0.5))
    a_group(family, "half-judged", (1.0, 0.0, None, None))
    a_group(family, "one-unscored", (1.0, 0.0, 0.0, nan))
    a_group(family, "mostly-unscored", (1.0, 0.0, nan, nan, nan))
    a_group(family, "narrow", (0.5, 0.6))
    taken, why = chosen(family, selecting(min_spread=0.1))
    assert taken == {f"good-{number:02d}" for number in range(12)} | {"one-unscored"}
    assert why == {
        "equal": "all rewards are 0.5",
        "half-judged": "2 of 4 members were judged (selection.min_judged = 1)",
        "mostly-unscored": "3 of 5 members are excluded (selection.max_excluded = 0.5)",
        "narrow": "the standard deviation of its rewards is 0.05 (selection.min_spread = 0.1)",
    }
    taken, why = chosen(family, max_groups=3)
    assert taken == {"good-11", "one-unscored", "narrow"}, "the newest that can be learnt from"
    assert [name for name in why if why[name] == NOT_NEEDED] == [f"good-{number:02d}" for number in range(10, -1, -1)]
    lines = choice_lines(choose_groups(family, selecting(), base="v0003", max_groups=3))
    assert lines[0] == "3 groups, 7 trajectories to train on; 27 % of those looked at are excluded"
    assert f"  11: {NOT_NEEDED}" in lines


def test_a_group_with_a_trajectory_that_is_too_long_is_left_out(family: Log) -> None:
    a_group(family, "eight-tokens")
    assert chosen(family, load_settings(grpo={"max_tokens": 8}))[0] == {"eight-tokens"}
    taken, why = chosen(family, load_settings(grpo={"max_tokens": 7}))
    assert (taken, why) == (set(), {"eight-tokens": "a trajectory of it is longer than grpo.max_tokens = 7"})


def test_too_much_that_could_not_be_judged_refuses_but_what_waits_for_the_judge_does_not(family: Log) -> None:
    a_group(family, "good")
    a_group(family, "waits", (None, None, None, None))
    assert chosen(family)[0] == {"good"}
    a_group(family, "broken", (float("nan"), float("nan"), 1.0, 0.0))
    with pytest.raises(RunRefused, match=r"2 of 6 trajectories \(33 %\).*no judge"):
        chosen(family, selecting(max_excluded=0.2))


def test_the_test_split_is_never_trained_on() -> None:
    with pytest.raises(SettingsError, match="what versions are measured on"):
        load_settings(selection={"split": "test"})


def test_the_command_says_what_it_would_take_trains_and_takes_no_group_twice(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    add_version(sqlite_log, "v0001", parent=None, path=str(write_tiny_model(tmp_path / "tiny")), files={})
    set_version_state(sqlite_log, "v0001", VersionState.LIVE, "test")
    a_group(sqlite_log, "a", version="v0001")
    a_group(sqlite_log, "b", (0.5, 0.5), version="v0001")
    for name, value in (("HOME", tmp_path / "home"), ("DATABASE_URL", sqlite_log.url), ("GRPO__TRAINED_LAYERS", 0)):
        monkeypatch.setenv(f"CHECKLOOP_{name}", str(value))
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # else the command would start this process again
    runner = CliRunner()

    shown = runner.invoke(app, ["train", "grpo", "--dry-run"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "1 groups, 2 trajectories to train on" in shown.output
    assert "  1 of a (played by v0001)\n1 groups are left out:\n  1: all rewards are 0.5" in shown.output
    assert "nothing was trained: run grpo-0001 would start from v0001" in shown.output

    made = runner.invoke(app, ["train", "grpo"], catch_exceptions=False)
    assert "v0002 is a candidate" in made.output
    assert get_version(sqlite_log, "v0002").parent == "v0001"
    run = get_run(sqlite_log, "grpo-0001")
    assert run.status is JobStatus.DONE and run.settings["selection.max_uses"] == 1
    assert run_trajectories(sqlite_log, run.id) == {"a-0": 0.5, "a-1": -0.5}

    again = runner.invoke(app, ["train", "grpo"], catch_exceptions=False)
    assert again.exit_code == 1
    assert "0 groups" in again.output and "1: 1 runs have trained on it" in again.output


def test_what_is_trained_already_is_not_trained_beside_it_and_what_an_alert_stopped_not_again(
    sqlite_log: Log, tmp_path: Path
) -> None:
    add_version(sqlite_log, "v0001", parent=None, path="/nowhere/v0001", files={})
    set_version_state(sqlite_log, "v0001", VersionState.LIVE, "test")
    a_group(sqlite_log, "a", version="v0001")
    settings = load_settings(home=tmp_path / "home")

    def plan() -> GrpoPlan:
        return plan_grpo(sqlite_log, settings, seed=1, max_groups=9)

    first = plan()
    run_id = start_run(sqlite_log, first.name, RunKind.GRPO, "v0001", 1, run_settings(settings))
    add_run_trajectories(sqlite_log, run_id, {"a-0": 0.5, "a-1": -0.5})
    folder = tmp_path / "home" / "runs" / first.name
    second = plan()
    assert (second.name, second.choice) == (first.name, None), "nobody can tell from the log whether it was killed"
    with only_here(folder), pytest.raises(TrainingError, match=rf"process {os.getpid()} on .* trains in .*grpo-0001"):
        run_grpo(sqlite_log, settings, second, seed=1, checkpoint_every=1, progress=StageProgress({}))
    assert get_run(sqlite_log, first.name).status is JobStatus.RUNNING, "the other one's run goes on"

    finish_run(sqlite_log, run_id, JobStatus.FAILED, "OSError: the disk was full")
    assert plan().name == first.name
    start_run(sqlite_log, first.name, RunKind.GRPO, "v0001", 1, run_settings(settings))
    finish_run(sqlite_log, run_id, JobStatus.FAILED, "RunStopped: step 9: entropy collapsed")
    assert plan().name == "grpo-0002"
    assert plan_grpo(sqlite_log, settings, name=first.name, seed=1, max_groups=9).name == first.name
