"""Groups as they come out of a log, and which of them a run takes."""

from dataclasses import replace

import pytest

from store.database import Log
from store.training_settings import GrpoSettings
from store.trajectories import NewTrajectory, create_group, create_trajectories, end_trajectory, record_step
from store.verdicts import Reward, add_rewards
from store.vocabulary import StopReason, Untrainable
from tests.store_examples import a_scenario, a_step, record_chain, start
from tests.training_groups import some_groups
from train.batches import make_step
from train.groups import RunRefused, TrainingGroup, load_groups, select_groups, token_advantages

SETTINGS = GrpoSettings(max_excluded=0.5, baseline="state")


def reward(name: str, value: float | None, turns: tuple[float | None, ...] = (), why: str | None = None) -> Reward:
    return Reward(name, value, turns or (value,), None, 0 if value is not None else 1, why)


def play_group(log: Log, batch: str, names: list[str]) -> int:
    """A group of finished trajectories of two steps each; the second step's delta is a tool response."""
    scenario = a_scenario()
    start(log, scenario=scenario)
    group = create_group(log, scenario.hash, batch, "v0001", 1)
    start(log, *names, scenario_hash=scenario.hash, group_id=group, batch=batch, version="v0001")
    for name in names:
        record_chain(log, name, [([1, 2, 3], [10, 11]), ([4], [12, 13, 14])])
        end_trajectory(log, name, StopReason.COMPLETED)
    return group


def test_members_carry_exact_tokens_logprobs_and_what_was_sampled(sqlite_log: Log) -> None:
    group_id = play_group(sqlite_log, "demo/round-1", ["a", "b"])
    play_group(sqlite_log, "demo/round-2", ["other"])
    add_rewards(sqlite_log, [reward("a", 1.0), reward("b", 0.25), reward("other", 1.0)])
    (group,) = load_groups(sqlite_log, "demo/round-1")
    assert group.group_id == group_id
    assert [(m.trajectory_id, m.reward) for m in group.members] == [("a", 1.0), ("b", 0.25)]
    member = group.members[0]
    assert member.prompt_ids == (1, 2, 3)
    assert member.completion_ids == (10, 11, 4, 12, 13, 14)
    assert member.in_loss == (1, 1, 0, 1, 1, 1)
    assert member.logprobs == pytest.approx((-1, -1 / 2, 0, -1, -1 / 2, -1 / 3))
    assert member.turn_of_token == (0, 0, -1, 0, 0, 0)
    assert member.step_of_token == (0, 0, -1, 1, 1, 1)
    assert member.versions == ("v0001",)
    assert member.excluded_reason is None


def test_untrainable_steps_are_context_but_not_in_the_loss(sqlite_log: Log) -> None:
    play_group(sqlite_log, "batch", ["a"])
    scenario = a_scenario()
    group = create_group(sqlite_log, scenario.hash, "swap", "v0001", 1)
    start(sqlite_log, "s", scenario_hash=scenario.hash, group_id=group, batch="swap", version="v0001")
    first = record_step(sqlite_log, a_step("s"))
    second = a_step(
        "s", index=1, parent_id=first, version="v0002", delta_ids=[7], sampled_ids=[8], logprobs=[-1.0],
        context_tokens=6, trainable=False, untrainable_reason="the client rewrote it",
    )  # fmt: skip
    record_step(sqlite_log, second)
    end_trajectory(sqlite_log, "s", StopReason.MAX_STEPS)
    add_rewards(sqlite_log, [reward("s", 0.5)])
    (member,) = load_groups(sqlite_log, "swap")[0].members
    assert member.completion_ids == (10, 11, 7, 8)
    assert member.in_loss == (1, 1, 0, 0)
    assert member.versions == ("v0001", "v0002")
    assert member.excluded_reason is None


def test_a_truncated_answer_counts_in_the_baseline_but_is_not_trained_on(sqlite_log: Log) -> None:
    """Rambling is the policy's own doing: rewards 1 and 0 give advantages 0.5 and -0.5."""
    scenario = a_scenario()
    start(sqlite_log, scenario=scenario)
    group = create_group(sqlite_log, scenario.hash, "cut", "v0001", 1)
    start(sqlite_log, "good", "cut", scenario_hash=scenario.hash, group_id=group, batch="cut", version="v0001")
    record_step(sqlite_log, a_step("good"))
    record_step(sqlite_log, a_step("cut", trainable=False, untrainable_reason=Untrainable.TRUNCATED))
    for name in ("good", "cut"):
        end_trajectory(sqlite_log, name, StopReason.COMPLETED if name == "good" else StopReason.MAX_TOKENS)
    add_rewards(sqlite_log, [reward("good", 1.0), reward("cut", 0.0)])
    groups = load_groups(sqlite_log, "cut")
    cut = groups[0].members[1]
    assert (cut.reward, cut.excluded_reason, set(cut.in_loss)) == (0.0, None, {0})
    selection = select_groups(groups, GrpoSettings(baseline="group"))
    assert selection.advantages == {"good": 0.5, "cut": -0.5}
    step = make_step(selection.taken, GrpoSettings(baseline="group"))
    assert step.tokens_in_loss == sum(groups[0].members[0].in_loss)


def test_a_step_across_a_swap_names_both_versions(sqlite_log: Log) -> None:
    scenario = a_scenario()
    start(sqlite_log, scenario=scenario)
    group = create_group(sqlite_log, scenario.hash, "swap", "v0001", 1)
    start(sqlite_log, "s", scenario_hash=scenario.hash, group_id=group, batch="swap", version="v0001")
    record_step(sqlite_log, a_step("s", version_spans=[("v0001", 1), ("v0002", 1)]))
    end_trajectory(sqlite_log, "s", StopReason.COMPLETED)
    assert load_groups(sqlite_log, "swap")[0].members[0].versions == ("v0001", "v0002")


def test_what_was_not_scored_is_excluded_with_its_reason(sqlite_log: Log) -> None:
    names = ["fine", "failed", "unjudged", "unscored", "running", "empty"]
    scenario = a_scenario()
    start(sqlite_log, scenario=scenario)
    group = create_group(sqlite_log, scenario.hash, "batch", "v0001", 1)
    start(sqlite_log, *names, scenario_hash=scenario.hash, group_id=group, batch="batch", version="v0001")
    for name in names:
        if name != "empty":
            record_chain(sqlite_log, name, [([1], [2])])
        if name != "running":
            stop = StopReason.FAILED if name == "failed" else StopReason.COMPLETED
            end_trajectory(sqlite_log, name, stop, "the server was gone" if name == "failed" else None)
    add_rewards(sqlite_log, [reward(n, 1.0) for n in ("fine", "failed", "running", "empty")])
    add_rewards(sqlite_log, [reward("unscored", None, why="turn 0, item 'x' is UNSCORED: judge timed out")])
    (found,) = load_groups(sqlite_log, "batch")
    reasons = {m.trajectory_id: m.excluded_reason for m in found.members}
    assert reasons == {
        "fine": None,
        "failed": "it failed: the server was gone",
        "unjudged": "it was not judged",
        "unscored": "turn 0, item 'x' is UNSCORED: judge timed out",
        "running": "it has not ended",
        "empty": "it has no step",
    }
    assert [m.reward for m in found.members] == [1.0, None, None, None, None, None]


def test_what_failed_and_was_played_again_is_no_member(sqlite_log: Log) -> None:
    group_id = play_group(sqlite_log, "batch", ["a", "b"])
    of_b = {"member": 1, "group_id": group_id, "batch": "batch", "version": "v0001"}
    never = {**of_b, "member": 2}
    scenario_hash = a_scenario().hash
    create_trajectories(
        sqlite_log,
        [
            NewTrajectory(id=i, origin="rollout", scenario_hash=scenario_hash, **f)
            for i, f in (("b1", of_b), ("c", never))
        ],
    )
    for name in ("b1", "c"):
        end_trajectory(sqlite_log, name, StopReason.FAILED, "the server was gone")
    add_rewards(sqlite_log, [reward("a", 1.0), reward("b", 0.0)])
    (group,) = load_groups(sqlite_log, "batch")
    assert [m.trajectory_id for m in group.members] == ["a", "b", "c"]


def test_a_corrected_reward_wins(sqlite_log: Log) -> None:
    play_group(sqlite_log, "batch", ["a", "b"])
    add_rewards(sqlite_log, [reward("a", 1.0), reward("b", 1.0)])
    assert select_groups(load_groups(sqlite_log, "batch"), SETTINGS).taken == ()
    add_rewards(sqlite_log, [reward("b", 0.0)])
    selection = select_groups(load_groups(sqlite_log, "batch"), SETTINGS)
    assert selection.advantages == {"a": 0.5, "b": -0.5}


def with_rewards(group: TrainingGroup, *values: float | None) -> TrainingGroup:
    members = tuple(
        replace(m, reward=v, turn_values=(v,), excluded_reason=None if v is not None else "UNSCORED")
        for m, v in zip(group.members, values, strict=True)
    )
    return replace(group, members=members)


def test_groups_without_a_gradient_are_left_out_with_the_reason() -> None:
    groups = some_groups(4)
    groups[0] = with_rewards(groups[0], 0.5, 0.5, 0.5, 0.5)
    groups[1] = with_rewards(groups[1], None, None, 1.0, None)
    groups[2] = with_rewards(groups[2], None, 1.0, 0.0, 0.5)
    selection = select_groups(groups, SETTINGS)
    assert [g.group_id for g in selection.taken] == [2, 3]
    assert [number for number, _ in selection.left_out] == [0, 1]
    assert selection.left_out[0][1] == "all rewards are 0.5"
    assert "1 of 4 members could be judged" in selection.left_out[1][1]
    assert selection.excluded_share == 4 / 16
    assert selection.advantages["t2-1"] == 0.5
    assert "t2-0" not in selection.advantages
    assert token_advantages(groups[2], SETTINGS)[0] is None


def test_too_many_exclusions_refuse_the_run_and_say_why() -> None:
    groups = [with_rewards(some_groups(1)[0], None, None, None, 1.0)]
    with pytest.raises(RunRefused, match=r"3 of 4 trajectories \(75 %\).*max_excluded = 0.5.*UNSCORED"):
        select_groups(groups, SETTINGS)


def test_division_by_the_standard_deviation_is_a_choice() -> None:
    group = with_rewards(some_groups(1)[0], 0.0, 0.0, 1.0, 1.0)
    plain = select_groups([group], SETTINGS).advantages
    divided = select_groups([group], SETTINGS.model_copy(update={"divide_by_std": True})).advantages
    assert sorted(plain.values()) == [-0.5, -0.5, 0.5, 0.5]
    assert sorted(divided.values()) == pytest.approx([-1, -1, 1, 1])


def test_advantages_lie_on_sampled_tokens_only() -> None:
    group = with_rewards(some_groups(1)[0], 0.0, 0.0, 1.0, 1.0)
    for member, advantages in zip(group.members, token_advantages(group, SETTINGS), strict=True):
        assert advantages is not None
        assert [a != 0 for a in advantages] == [bool(kept) for kept in member.in_loss]


def test_steps_after_different_answers_have_baselines_of_their_own() -> None:
    group = some_groups(1)[0]
    answers = [(7, 7), (7, 7), (9, 9), (9, 9)]
    members = []
    for member, answer, reward in zip(group.members, answers, (1.0, 0.0, 0.0, 0.0), strict=True):
        between = member.in_loss.index(0)
        ids = (*member.completion_ids[:between], *answer, *member.completion_ids[between + 2 :])
        members.append(replace(member, completion_ids=ids, reward=reward))
    group = replace(group, members=tuple(members))
    last = [row[-1] for row in token_advantages(group, SETTINGS) if row is not None]
    assert last == pytest.approx([7 / 12, -5 / 12, -1 / 12, -1 / 12])
    flat = SETTINGS.model_copy(update={"baseline": "group"})
    assert [row[-1] for row in token_advantages(group, flat) if row is not None] == [0.75, -0.25, -0.25, -0.25]


def test_an_unknown_batch_is_no_group(sqlite_log: Log) -> None:
    assert load_groups(sqlite_log, "nothing") == []
