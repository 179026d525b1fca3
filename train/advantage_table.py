"""The advantages of a past dialogue, computed again: what `checkloop train advantages` prints.

Equations 5, 7 and 10 from the rewards, verdicts and checklists that count now, with the group that it was played in;
beside them what the runs that trained on it took, as they stored it.
"""

from collections.abc import Sequence

from store.database import Log, LogError
from store.runs import RunUse, uses_of
from store.training_settings import GrpoSettings
from store.trajectories import get_trajectory
from store.vocabulary import AdvantageLevel, TurnBaseline
from train.errors import TrainingFailed
from train.groups import TrainingGroup, TrainingMember, advantages_by_step, load_groups_by_id

Place = tuple[int, int]
"""Turn and step."""
Levels = dict[AdvantageLevel, dict[Place, float]]


def advantage_lines(log: Log, settings: GrpoSettings, trajectory_id: str) -> list[str]:
    """The group with its rewards, then the dialogue's steps with their advantage at each level.

    Raises LogError for an id that the log does not hold or that was not played in a group.
    """
    group_id = get_trajectory(log, trajectory_id).group_id
    if group_id is None:
        raise LogError(f"trajectory {trajectory_id!r} was not played in a group: it has no baseline, so no advantage")
    (group,) = load_groups_by_id(log, [group_id], step_level=True)
    member = next(one for one in group.members if one.trajectory_id == trajectory_id)
    said = [f"group {group_id}, {len(group.members)} members; F = {'std' if settings.divide_by_std else '1'}"]
    said += [f"  {_mark(one, member)} {one.trajectory_id}  {_reward(one)}" for one in group.members]
    levels, failed = _levels(group, settings, trajectory_id)
    baseline = f"turns and steps against {_baseline(settings.turn_baseline)}"
    said += [f"by the verdicts and checklists of now, {baseline}:", *_table(levels)]
    said += [f"{level}: {reason}" for level, reason in failed.items()]
    return said + [line for use in uses_of(log, trajectory_id) for line in _use_lines(use)]


def _levels(
    group: TrainingGroup, settings: GrpoSettings, trajectory_id: str
) -> tuple[Levels, dict[AdvantageLevel, str]]:
    """By level (turn, step) -> advantage, and why a level has none."""
    levels: Levels = {}
    failed: dict[AdvantageLevel, str] = {}
    for level in AdvantageLevel:
        try:
            of_step = advantages_by_step(group, _at(settings, level)).get(trajectory_id)
        except TrainingFailed as error:
            failed[level] = str(error)
            continue
        if of_step is None:
            failed[level] = "none, for the dialogue or all others of its group are excluded"
        else:
            levels[level] = {(turn, step): value for turn, step, value in of_step}
    return levels, failed


def _at(settings: GrpoSettings, level: AdvantageLevel) -> GrpoSettings:
    changes: dict[str, object] = {"advantage": "trajectory", "baseline": "group"}
    if level is AdvantageLevel.STATE:
        changes["baseline"] = "state"
    elif level is not AdvantageLevel.TRAJECTORY:
        changes["advantage"] = level.value
    return settings.model_copy(update=changes)


def _table(levels: Levels) -> list[str]:
    places = sorted({place for by_place in levels.values() for place in by_place})
    if not places:
        return ["  no step of it is trained on"]
    rows = [["turn.step", *map(str, levels)]]
    for place in places:
        rows.append([_named(place), *(_number(by_place.get(place)) for by_place in levels.values())])
    return ["  " + "".join(cell.rjust(width) for cell, width in zip(row, _widths(rows), strict=True)) for row in rows]


def _use_lines(use: RunUse) -> list[str]:
    if use.by_step is None:
        return [f"{use.run} trained on it: {use.advantage:+.3f} by equation 5; what it took is not recorded"]
    steps = ", ".join(f"{_named((turn, step))} {_number(value)}" for turn, step, value in use.by_step)
    return [f"{use.run} trained on it, of its {use.level}: {steps or 'no step'}"]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]


def _named(place: Place) -> str:
    return f"{place[0] + 1}.{place[1] + 1}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _mark(one: TrainingMember, chosen: TrainingMember) -> str:
    return "*" if one is chosen else " "


def _reward(member: TrainingMember) -> str:
    return f"excluded: {member.excluded_reason}" if member.reward is None else f"{member.reward:.4f}"


def _baseline(baseline: TurnBaseline) -> str:
    return "the members that reached the turn" if baseline is TurnBaseline.REACHED else "all members"
