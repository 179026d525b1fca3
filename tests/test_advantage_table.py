"""`checkloop train advantages`: a past dialogue's advantages again, against arithmetic and what its run took."""

import pytest

from store.database import Log, LogError
from store.runs import add_run_trajectories, start_run
from store.settings import load_settings
from store.training_settings import GrpoSettings
from store.trajectories import list_trajectories
from store.verdicts import rewards_of
from store.vocabulary import AdvantageLevel, Origin, RunKind
from tests.sample_log import CHAT_ID
from train.advantage_table import advantage_lines
from train.train_commands import advantages


def a_group(log: Log) -> dict[str, float]:
    """Trajectory id -> reward, of a group whose members all have one and differ."""
    groups: dict[int, dict[str, float]] = {}
    for one in list_trajectories(log, origin=Origin.ROLLOUT, limit=None):
        value = rewards_of(log, [one.id])[one.id].value
        if one.group_id is not None and value is not None:
            groups.setdefault(one.group_id, {})[one.id] = value
    return next(group for group in groups.values() if len(set(group.values())) > 1 and len(group) > 2)


def rows_of(lines: list[str]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table by steps."""
    start = next(n for n, line in enumerate(lines) if "turn.step" in line)
    rows = [line.split() for line in lines[start:]]
    return rows[0], [row for row in rows[1:] if row[0].count(".") == 1 and row[0][0].isdigit()]


def test_the_trajectory_level_is_the_reward_less_the_groups_mean(sample: Log) -> None:
    group = a_group(sample)
    mean = sum(group.values()) / len(group)
    for name, reward in group.items():
        lines = advantage_lines(sample, GrpoSettings(), name)
        head, rows = rows_of(lines)
        assert head == ["turn.step", *map(str, AdvantageLevel)]
        assert rows and {row[1] for row in rows} == {f"{reward - mean:+.3f}"}
        assert f"  * {name}  {reward:.4f}" in lines and len([line for line in lines if line[:4] == "    "]) >= 2


def test_what_a_run_took_stands_beside_it(sample: Log) -> None:
    name = next(iter(a_group(sample)))
    run = start_run(sample, "by-hand", RunKind.GRPO, "v0001", 1, {})
    add_run_trajectories(sample, run, {name: 0.25}, {name: ((0, 0, 0.25),)}, AdvantageLevel.TURN)
    assert "by-hand trained on it, of its turn: 1.1 +0.250" in advantage_lines(sample, GrpoSettings(), name)


def test_a_chat_has_no_baseline(sample: Log) -> None:
    with pytest.raises(LogError, match="was not played in a group"):
        advantage_lines(sample, GrpoSettings(), CHAT_ID)


def test_the_command_prints_it(sample: Log, capsys: pytest.CaptureFixture[str]) -> None:
    name = next(iter(a_group(sample)))
    advantages(name)
    assert capsys.readouterr().out.splitlines() == advantage_lines(sample, load_settings().grpo, name)
