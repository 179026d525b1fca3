"""From the log to what a GRPO run trains on: groups with rewards, exact tokens and the behaviour policy's logprobs.

Reads trajectories, token sequences and rewards; for step-level advantages also verdicts and checklists. Nothing here
tokenizes text or invents a reward: what could not be judged stays out of the baseline (invariant 3), what the policy
did not sample stays out of the loss.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from reward.advantages import (
    EPSILON,
    TurnStates,
    dialogue_step_advantages,
    state_advantages,
    trajectory_advantages,
    turn_advantages,
)
from reward.outcomes import mean_turn_reward
from reward.scoring import states_of
from store.database import Log, in_chunks
from store.tokens import TokenSequence, token_sequences
from store.training_settings import GrpoSettings, SelectionSettings
from store.trajectories import TrajectorySummary, list_trajectories
from store.verdicts import Reward, passes_by_kind, rewards_of
from store.vocabulary import AdvantageLevel, StopReason
from train.errors import TrainingFailed

NOT_JUDGED = "it was not judged"


class RunRefused(TrainingFailed):
    """A run does not start: too much is excluded, or settings ask for what these groups cannot give."""


@dataclass(frozen=True)
class TrainingMember:
    """One trajectory of a group. T = len(completion_ids), also of the four sequences below it."""

    trajectory_id: str
    reward: float | None
    """Equation 4; None where it is excluded."""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    in_loss: tuple[int, ...]
    """1 where the policy sampled the id in a step that may be trained on."""
    logprobs: tuple[float, ...]
    """The behaviour policy's; 0.0 where it did not sample."""
    turn_of_token: tuple[int, ...]
    """-1 where the policy did not sample."""
    step_of_token: tuple[int, ...]
    """The step's number in the trajectory; -1 where the policy did not sample."""
    versions: tuple[str, ...]
    """Which versions sampled it, in order of first appearance; more than one if a swap came in between."""
    turn_values: tuple[float | None, ...]
    """Equation 6, one for each turn reached."""
    excluded_reason: str | None = None
    places: tuple[tuple[int, int], ...] = ()
    """For each number in `step_of_token` the step's turn and its index there."""
    passes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By kind of item: how many passed, how many passed or failed."""
    states_T_V: tuple[tuple[TurnStates, ...], ...] | None = None
    """For each turn reached the items of each of its checklists, for step-level advantages; None: not loaded."""


@dataclass(frozen=True)
class TrainingGroup:
    """The trajectories of one scenario that share one baseline."""

    group_id: int
    scenario_hash: str
    members: tuple[TrainingMember, ...]


@dataclass(frozen=True)
class Selection:
    """`taken` in order of group id; `left_out` as (group id, reason)."""

    taken: tuple[TrainingGroup, ...]
    left_out: tuple[tuple[int, str], ...]
    excluded_share: float
    """Of all trajectories, those without a reward or without tokens."""
    advantages: dict[str, float]
    """Trajectory id -> equation 5 with the group's baseline, for the members that are trained on."""


def load_groups(log: Log, batch: str, *, step_level: bool = False) -> list[TrainingGroup]:
    """All groups that were played under `batch`, members in their order. Raises LogError if the log's ids are damaged.

    Trajectories that are still running, that failed or that have no reward count as excluded members; what failed and
    was played again is left out. `step_level` also loads what `grpo.advantage = "step"` needs: which item first held at
    which step, by the verdicts and checklists that count now. A member whose reward does not follow from these any more
    is excluded.
    """
    return _groups_of(log, list_trajectories(log, batch=batch, limit=None), step_level)


def load_groups_by_id(log: Log, group_ids: Sequence[int], *, step_level: bool = False) -> list[TrainingGroup]:
    """These groups in order of id, as `load_groups` gives them."""
    summaries = [s for chunk in in_chunks(list(group_ids)) for s in list_trajectories(log, groups=chunk, limit=None)]
    return _groups_of(log, summaries, step_level)


def _groups_of(log: Log, found: Sequence[TrajectorySummary], step_level: bool) -> list[TrainingGroup]:
    summaries = _not_replaced([summary for summary in found if summary.group_id is not None])
    names = [summary.id for summary in summaries]
    sequences, rewards = token_sequences(log, names), rewards_of(log, names)
    states = states_of(log, names) if step_level else {}
    passes = passes_by_kind(log, names)
    groups: dict[int, list[TrajectorySummary]] = {}
    for summary in summaries:
        groups.setdefault(summary.group_id or 0, []).append(summary)
    return [
        TrainingGroup(
            group_id,
            members[0].scenario_hash or "",
            tuple(
                replace(
                    _member(summary, sequences.get(summary.id), rewards.get(summary.id), states.get(summary.id)),
                    passes=passes.get(summary.id, {}),
                )
                for summary in sorted(members, key=lambda s: s.member)
            ),
        )
        for group_id, members in sorted(groups.items())
    ]


def _not_replaced(summaries: Sequence[TrajectorySummary]) -> list[TrajectorySummary]:
    """Without those that failed and whose place in the group another one has."""
    played = {(one.group_id, one.member) for one in summaries if one.stop_reason is not StopReason.FAILED}
    return [
        one for one in summaries if one.stop_reason is not StopReason.FAILED or (one.group_id, one.member) not in played
    ]


def select_groups(
    groups: Sequence[TrainingGroup], settings: GrpoSettings, wanted: SelectionSettings | None = None
) -> Selection:
    """The groups that carry a gradient and, with `wanted`, meet its conditions on verdicts and rewards.

    Left out: groups whose rewards are all equal (every advantage is 0), of which fewer than two members could be
    judged, or with a trajectory of more than `settings.max_tokens`. Raises RunRefused if a greater share of the
    trajectories than `settings.max_excluded` is excluded, with the commonest reason (groups that wait for the judge, by
    `wanted`, are not counted), or if step-level advantages are asked of groups that were loaded without what these
    need.
    """
    waiting = {group.group_id: reason for group in groups if wanted and (reason := _why_waiting(group, wanted))}
    members = [member for group in groups if group.group_id not in waiting for member in group.members]
    excluded = [member for member in members if member.excluded_reason is not None]
    share = len(excluded) / len(members) if members else 0.0
    if share > settings.max_excluded:
        reasons = [member.excluded_reason or "" for member in excluded]
        commonest = max(sorted(set(reasons)), key=reasons.count)
        raise RunRefused(
            f"{len(excluded)} of {len(members)} trajectories ({100 * share:.0f} %) are excluded, more than "
            f"grpo.max_excluded = {settings.max_excluded:g} allows; most often: {commonest}"
        )
    taken: list[TrainingGroup] = []
    left_out: list[tuple[int, str]] = []
    advantages: dict[str, float] = {}
    for group in groups:
        reason = waiting.get(group.group_id) or _too_long(group, settings) or _no_gradient(group, settings)
        if reason := reason or (_why_unwanted(group, wanted) if wanted else None):
            left_out.append((group.group_id, reason))
            continue
        taken.append(group)
        of_group = trajectory_advantages([m.reward for m in group.members], divide_by_std=settings.divide_by_std)
        advantages |= {
            member.trajectory_id: advantage
            for member, advantage in zip(group.members, of_group, strict=True)
            if advantage is not None
        }
    return Selection(tuple(taken), tuple(left_out), share, advantages)


def _why_waiting(group: TrainingGroup, wanted: SelectionSettings) -> str | None:
    judged = sum(member.excluded_reason != NOT_JUDGED for member in group.members)
    if judged >= wanted.min_judged * len(group.members):
        return None
    return f"{judged} of {len(group.members)} members were judged (selection.min_judged = {wanted.min_judged:g})"


def _why_unwanted(group: TrainingGroup, wanted: SelectionSettings) -> str | None:
    rewards = [member.reward for member in group.members if member.reward is not None]
    excluded = len(group.members) - len(rewards)
    if excluded > wanted.max_excluded * len(group.members):
        said = f"{excluded} of {len(group.members)} members are excluded"
        return f"{said} (selection.max_excluded = {wanted.max_excluded:g})"
    if wanted.min_spread and (spread := statistics.pstdev(rewards)) <= wanted.min_spread:
        return f"the standard deviation of its rewards is {spread:.3g} (selection.min_spread = {wanted.min_spread:g})"
    return None


def token_advantages(group: TrainingGroup, settings: GrpoSettings) -> list[list[float] | None]:
    """For every member an advantage for each completion token, 0 where it is not in the loss; None if excluded.

    Equation 5, with the group's baseline or one for each state; with `settings.advantage = "turn"` equation 7, with
    "step" equation 10, both with the baseline that `settings.turn_baseline` names.
    """
    rewards_G = [member.reward for member in group.members]
    if settings.advantage == "turn":
        values_G_T = [None if m.reward is None else list(m.turn_values) for m in group.members]
        turns_G = turn_advantages(values_G_T, baseline=settings.turn_baseline, divide_by_std=settings.divide_by_std)
        return [_spread(m, m.turn_of_token, by_turn) for m, by_turn in zip(group.members, turns_G, strict=True)]
    if settings.advantage == "step":
        return _step_token_advantages(group, settings)
    if settings.baseline == "state":
        observations_G = [_observations(member) for member in group.members]
        steps_G = state_advantages(rewards_G, observations_G, divide_by_std=settings.divide_by_std)
        return [_spread(m, m.step_of_token, by_step) for m, by_step in zip(group.members, steps_G, strict=True)]
    flat_G = trajectory_advantages(rewards_G, divide_by_std=settings.divide_by_std)
    return [
        None if advantage is None else [advantage if scored else 0.0 for scored in member.in_loss]
        for member, advantage in zip(group.members, flat_G, strict=True)
    ]


def advantages_by_step(group: TrainingGroup, settings: GrpoSettings) -> dict[str, list[tuple[int, int, float]]]:
    """Trajectory id -> (turn, step, advantage) of its steps in the loss, as `token_advantages` gives them to the loss.

    Without the excluded members.
    """
    found = {}
    for member, advantages in zip(group.members, token_advantages(group, settings), strict=True):
        if advantages is None:
            continue
        tokens = zip(member.step_of_token, member.in_loss, advantages, strict=True)
        by_step = {step: advantage for step, scored, advantage in tokens if scored}
        found[member.trajectory_id] = [(*member.places[step], value) for step, value in sorted(by_step.items())]
    return found


def level_of(settings: GrpoSettings) -> AdvantageLevel:
    if settings.advantage == "trajectory":
        return AdvantageLevel.STATE if settings.baseline == "state" else AdvantageLevel.TRAJECTORY
    return AdvantageLevel(settings.advantage)


def _step_token_advantages(group: TrainingGroup, settings: GrpoSettings) -> list[list[float] | None]:
    for member in group.members:
        if member.reward is not None and member.states_T_V is None:
            raise RunRefused(
                f'grpo.advantage = "step" needs the items of trajectory {member.trajectory_id!r}, which were not '
                "loaded: load its group with step_level=True"
            )
    advantages_G = dialogue_step_advantages(
        [None if m.reward is None else m.states_T_V for m in group.members],
        baseline=settings.turn_baseline,
        divide_by_std=settings.divide_by_std,
    )
    return [
        None if turns is None else _spread(m, m.step_of_token, [turns[turn][step] for turn, step in m.places])
        for m, turns in zip(group.members, advantages_G, strict=True)
    ]


def _spread(
    member: TrainingMember, part_of_token: Sequence[int], by_part: Sequence[float | None] | None
) -> list[float] | None:
    """The advantage of each token's turn or step, 0 where it is not in the loss."""
    if by_part is None:
        return None
    return [
        (by_part[part] or 0.0) if scored and 0 <= part < len(by_part) else 0.0
        for scored, part in zip(member.in_loss, part_of_token, strict=True)
    ]


def _observations(member: TrainingMember) -> list[tuple[int, ...]]:
    """The ids that the world put between one step of the policy and the next."""
    places = zip(member.step_of_token, member.completion_ids, strict=True)
    runs = [(step, tuple(token for _, token in run)) for step, run in groupby(places, key=lambda place: place[0])]
    return [said for step, said in runs[:-1] if step < 0]


def _too_long(group: TrainingGroup, settings: GrpoSettings) -> str | None:
    longest = max((len(m.prompt_ids) + len(m.completion_ids) for m in group.members), default=0)
    if not settings.max_tokens or longest <= settings.max_tokens:
        return None
    return f"a trajectory of it is longer than grpo.max_tokens = {settings.max_tokens}"


def _no_gradient(group: TrainingGroup, settings: GrpoSettings) -> str | None:
    rewards = [member.reward for member in group.members if member.reward is not None]
    if len(rewards) < 2:
        return f"{len(rewards)} of {len(group.members)} members could be judged: there is nothing to compare"
    if settings.advantage != "trajectory":
        flat = [a for row in token_advantages(group, settings) if row is not None for a in row]
        if not any(abs(advantage) > EPSILON for advantage in flat):
            return f"in every {settings.advantage} all rewards are equal"
    elif max(rewards) - min(rewards) <= EPSILON:
        return f"all rewards are {rewards[0]:.3g}"
    return None


def _member(
    summary: TrajectorySummary,
    sequence: TokenSequence | None,
    reward: Reward | None,
    states_T_V: list[list[TurnStates]] | None,
) -> TrainingMember:
    reason = _exclusion(summary, sequence, reward) or _why_stale(reward, states_T_V)
    if sequence is None:
        return TrainingMember(summary.id, None, (), (), (), (), (), (), (), (), reason)
    steps = sequence.steps
    turns = tuple(steps[step].turn_index if step >= 0 else -1 for step in sequence.step_of_token)
    in_loss = tuple(
        int(bool(sampled) and steps[step].trainable)
        for sampled, step in zip(sequence.sampled, sequence.step_of_token, strict=True)
    )
    if reason is None and not any(in_loss) and not any(step.truncated for step in steps):
        reason = "no step of it may be trained on"
    return TrainingMember(
        trajectory_id=summary.id,
        reward=reward.value if reward is not None and reason is None else None,
        prompt_ids=tuple(sequence.prompt_ids),
        completion_ids=tuple(sequence.completion_ids),
        in_loss=in_loss,
        logprobs=tuple(sequence.logprobs),
        turn_of_token=turns,
        step_of_token=tuple(sequence.step_of_token),
        versions=tuple(dict.fromkeys(v for step in steps for v in (step.version, *step.later_versions))),
        turn_values=reward.turn_values if reward is not None else (),
        excluded_reason=reason,
        places=tuple((step.turn_index, step.step_index) for step in steps),
        states_T_V=None if states_T_V is None else tuple(tuple(variants) for variants in states_T_V),
    )


def _why_stale(reward: Reward | None, states_T_V: list[list[TurnStates]] | None) -> str | None:
    """Why the items do not give the reward that the log holds; None if they do, or were not loaded."""
    if reward is None or reward.value is None or states_T_V is None:
        return None
    now_T = [mean_turn_reward([states.items for states in variants]) for variants in states_T_V]
    same = len(now_T) == len(reward.turn_values) and all(
        now is not None and then is not None and abs(now - then) <= EPSILON
        for now, then in zip(now_T, reward.turn_values, strict=True)
    )
    return None if same else "its verdicts or checklists changed after its reward was computed: run `checkloop reward`"


def _exclusion(summary: TrajectorySummary, sequence: TokenSequence | None, reward: Reward | None) -> str | None:
    if summary.stop_reason is None:
        return "it has not ended"
    if summary.stop_reason is StopReason.FAILED:
        return f"it failed: {summary.error or 'no reason recorded'}"
    if sequence is None:
        return "it has no step"
    if not all(math.isfinite(logprob) for logprob in sequence.logprobs):
        return "a logprob of the behaviour policy is not a number"
    if reward is None:
        return NOT_JUDGED
    if reward.value is None:
        return reward.excluded_reason or "it has no reward"
    return None
