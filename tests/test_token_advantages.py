"""Advantages of turns and steps down to the token, by hand: one group in the log, from its verdicts to the batch."""

from dataclasses import replace

import pytest

from reward.scoring import score_trajectories
from store.checklists import Checklist, add_checklists
from store.database import Log
from store.records import Item
from store.scenarios import item_ids
from store.training_settings import GrpoSettings
from store.trajectories import create_group, end_trajectory, record_step
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import AdvantageLevel, FocusOn, Outcome, StopReason, TurnBaseline, VerdictSource
from tests.store_examples import a_scenario, a_step, start
from train.batches import make_step
from train.groups import (
    RunRefused,
    TrainingGroup,
    advantages_by_step,
    level_of,
    load_groups,
    select_groups,
    token_advantages,
)

SCENARIO = a_scenario()
"""Turn 0: asks-weather 0.75, umbrella 0.25 which depends on it; turn 1: answers-thanks 1."""
STEP = GrpoSettings(advantage="step", max_excluded=0.5)
TURN = STEP.model_copy(update={"advantage": "turn"})
P, F, U = Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED

Said = dict[tuple[int, str], tuple[Outcome, int | None]]
GOOD: Said = {(0, "asks-weather"): (P, 0), (0, "umbrella"): (P, 1), (1, "answers-thanks"): (P, 0)}
HALF: Said = {(0, "asks-weather"): (P, 0), (0, "umbrella"): (F, None), (1, "answers-thanks"): (F, None)}
LOST: Said = {(0, "asks-weather"): (F, None), (0, "umbrella"): (F, None)}
DOWN: Said = {(0, "asks-weather"): (P, 0), (0, "umbrella"): (U, None), (1, "answers-thanks"): (P, 0)}
PLAYED = {"good": GOOD, "half": HALF, "lost": LOST, "down": DOWN}


def said(log: Log, name: str, verdicts: Said) -> None:
    ids = item_ids(log, SCENARIO.hash)
    add_verdicts(
        log,
        [
            Verdict(name, turn, ids[turn, key], key, outcome, step, VerdictSource.LLM, "judge", None, "because", "")
            for (turn, key), (outcome, step) in verdicts.items()
        ],
    )


@pytest.fixture
def log(sqlite_log: Log) -> Log:
    """A group of four, judged and scored. Turn 0 has a call (2 ids), its answer (1) and a reply (2), turn 1 the user's
    message (1) and a reply (1); the one that is lost stops after its first step."""
    start(sqlite_log, scenario=SCENARIO)
    group = create_group(sqlite_log, SCENARIO.hash, "b", "v0001", 1)
    start(sqlite_log, *PLAYED, scenario_hash=SCENARIO.hash, group_id=group, batch="b", version="v0001")
    steps = [((0, 0), [1, 2, 3], 2), ((0, 1), [4], 2), ((1, 0), [5], 1)]
    for name, verdicts in PLAYED.items():
        parent, context = None, 0
        for (turn, index), delta, sampled in steps[: 1 if name == "lost" else 3]:
            context += len(delta)
            step = a_step(
                name, turn_index=turn, index=index, parent_id=parent, delta_ids=delta, context_tokens=context,
                sampled_ids=[9] * sampled, logprobs=[-1.0] * sampled,
            )  # fmt: skip
            parent = record_step(sqlite_log, step)
            context += sampled
        end_trajectory(sqlite_log, name, StopReason.STRICT_ITEM if name == "lost" else StopReason.COMPLETED)
        said(sqlite_log, name, verdicts)
    score_trajectories(sqlite_log, PLAYED)
    return sqlite_log


def by_name(group: TrainingGroup, settings: GrpoSettings) -> dict[str, list[float] | None]:
    rows = token_advantages(group, settings)
    return {member.trajectory_id: row for member, row in zip(group.members, rows, strict=True)}


def test_step_advantages_of_a_group_token_by_token(log: Log) -> None:
    """Turn 0, b over the three that are scored: asks 2/3, umbrella 1/3. At step 0 only asks is open: good and half
    1 − 2/3, lost −2/3. At step 1 only the umbrella: good 1 − 1/3, half −1/3.
    Turn 1, b over the two that reached it: 1/2: good 0.5, half −0.5. The tool's and the user's tokens get 0."""
    (group,) = load_groups(log, "b", step_level=True)
    found = by_name(group, STEP)
    assert found["good"] == pytest.approx([1 / 3, 1 / 3, 0, 2 / 3, 2 / 3, 0, 0.5])
    assert found["half"] == pytest.approx([1 / 3, 1 / 3, 0, -1 / 3, -1 / 3, 0, -0.5])
    assert found["lost"] == pytest.approx([-2 / 3, -2 / 3])
    assert found["down"] is None


def test_step_advantages_over_all_rollouts(log: Log) -> None:
    """Turn 1, over all three: b = 1/3: good 2/3, half −1/3. Turn 0 was reached by all, so nothing changes there."""
    (group,) = load_groups(log, "b", step_level=True)
    over_all = STEP.model_copy(update={"turn_baseline": TurnBaseline.ALL})
    assert by_name(group, over_all)["good"] == pytest.approx([1 / 3, 1 / 3, 0, 2 / 3, 2 / 3, 0, 2 / 3])
    assert by_name(group, over_all)["half"] == pytest.approx([1 / 3, 1 / 3, 0, -1 / 3, -1 / 3, 0, -1 / 3])


def test_step_advantages_divided_by_the_std_of_the_outcomes(log: Log) -> None:
    """Outcomes of asks 1, 1, 0: std sqrt(2/9) = 0.4714; of the umbrella 1, 0, 0: the same; of the thanks 1, 0: 0.5."""
    (group,) = load_groups(log, "b", step_level=True)
    divided = by_name(group, STEP.model_copy(update={"divide_by_std": True}))
    asks, umbrella = 1 / 3 / (2 / 9) ** 0.5, 2 / 3 / (2 / 9) ** 0.5
    assert divided["good"] == pytest.approx([asks, asks, 0, umbrella, umbrella, 0, 1.0])


def test_turn_advantages_with_both_baselines(log: Log) -> None:
    """R_0: good 1, half 0.75, lost 0: mean 7/12: A = 5/12, 1/6, −7/12. R_1: good 1, half 0: over the two that reached
    it mean 0.5, A = ±0.5; over all three mean 1/3, A = 2/3 and −1/3."""
    (group,) = load_groups(log, "b")
    reached = by_name(group, TURN)
    assert reached["good"] == pytest.approx([5 / 12, 5 / 12, 0, 5 / 12, 5 / 12, 0, 0.5])
    assert reached["half"] == pytest.approx([1 / 6, 1 / 6, 0, 1 / 6, 1 / 6, 0, -0.5])
    assert reached["lost"] == pytest.approx([-7 / 12, -7 / 12])
    over_all = by_name(group, TURN.model_copy(update={"turn_baseline": TurnBaseline.ALL}))
    assert over_all["good"] is not None and over_all["good"][-1] == pytest.approx(2 / 3)
    assert over_all["half"] is not None and over_all["half"][-1] == pytest.approx(-1 / 3)
    assert over_all["down"] is None


def test_a_second_checklist_counts_half_in_turns_and_steps(log: Log) -> None:
    """Turn 0 gets a second checklist of one item, "kind", which good and lost have at step 0 and half has not.
    Its b = 2/3; A: good 1/3, then 0 (nothing is open); half −2/3, −2/3; lost 1/3. Averaged with the first checklist:
    good (1/3 + 1/3) / 2, (2/3 + 0) / 2; half (1/3 − 2/3) / 2, (−1/3 − 2/3) / 2; lost (−2/3 + 1/3) / 2.
    R_0: good 1, half (0.75 + 0) / 2, lost (0 + 1) / 2: mean 0.625."""
    kind = Item(id="kind", focus_on=FocusOn.REPLY, question="Kind?", weight=1.0)
    add_checklists(log, [Checklist(SCENARIO.hash, 0, (kind,), variant=1, author="annotator")])
    for name, outcome in {"good": (P, 0), "half": (F, None), "lost": (P, 0), "down": (P, 0)}.items():
        said(log, name, {(0, "kind"): outcome})
    score_trajectories(log, PLAYED)
    (group,) = load_groups(log, "b", step_level=True)
    steps = by_name(group, STEP)
    assert steps["good"] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3, 1 / 3, 0, 0.5])
    assert steps["half"] == pytest.approx([-1 / 6, -1 / 6, 0, -1 / 2, -1 / 2, 0, -0.5])
    assert steps["lost"] == pytest.approx([-1 / 6, -1 / 6])
    assert [m.turn_values for m in group.members[:3]] == [(1.0, 1.0), (0.375, 0.0), (0.5,)]
    turns = by_name(group, TURN)
    assert turns["half"] == pytest.approx([-0.25, -0.25, 0, -0.25, -0.25, 0, -0.5])


def test_step_advantages_arrive_in_the_batch(log: Log) -> None:
    selection = select_groups(load_groups(log, "b", step_level=True), STEP)
    assert [group.group_id for group in selection.taken] == [1]
    step = make_step(selection.taken, STEP)
    (micro,) = step.micro_batches
    rows = {tuple(round(a, 4) for a in row) for row in micro.advantages.tolist()}
    assert (0.3333, 0.3333, 0.0, 0.6667, 0.6667, 0.0, 0.5) in rows
    assert (-0.6667, -0.6667, 0.0, 0.0, 0.0, 0.0, 0.0) in rows
    assert step.tokens_in_loss == 5 + 5 + 2


def test_a_reward_that_its_verdicts_do_not_give_any_more_is_excluded_until_it_is_computed_again(log: Log) -> None:
    item = item_ids(log, SCENARIO.hash)[0, "umbrella"]
    human = Verdict("half", 0, item, "umbrella", P, None, VerdictSource.HUMAN, "ada", None, "it does say so", "")
    add_verdicts(log, [human])
    (group,) = load_groups(log, "b", step_level=True)
    assert "run `checkloop reward`" in str(group.members[1].excluded_reason)
    score_trajectories(log, PLAYED)
    (group,) = load_groups(log, "b", step_level=True)
    assert group.members[1].excluded_reason is None
    assert by_name(group, STEP)["half"] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3, 1 / 3, 0, -0.5])


def test_a_group_whose_steps_do_not_differ_is_left_out(log: Log) -> None:
    (group,) = load_groups(log, "b", step_level=True)
    good = group.members[0]
    alike = replace(group, members=(good, replace(good, trajectory_id="again")))
    assert select_groups([alike], STEP).left_out == ((1, "in every step all rewards are equal"),)


def test_step_advantages_need_the_items(log: Log) -> None:
    with pytest.raises(RunRefused, match=r"needs the items of trajectory 'good'.*step_level=True"):
        select_groups(load_groups(log, "b"), STEP)


@pytest.mark.parametrize("settings", [STEP, TURN, GrpoSettings(max_excluded=0.5, baseline="state")])
def test_what_a_run_stores_is_what_its_loss_takes(log: Log, settings: GrpoSettings) -> None:
    (group,) = load_groups(log, "b", step_level=settings.advantage == "step")
    stored, rows = advantages_by_step(group, settings), by_name(group, settings)
    assert stored.keys() == {"good", "half", "lost"}, "the excluded one is in no loss"
    places = {"good": [(0, 0, 2), (0, 1, 2), (1, 0, 1)], "lost": [(0, 0, 2)]}
    for name, steps in stored.items():
        of_tokens = [value for value, scored in zip(rows[name] or (), in_loss(group, name), strict=True) if scored]
        expected = [value for _, _, value in steps]
        assert [(turn, step) for turn, step, _ in steps] == [p[:2] for p in places.get(name, places["good"])]
        counts = [count for _, _, count in places.get(name, places["good"])]
        assert of_tokens == [v for v, count in zip(expected, counts, strict=True) for _ in range(count)]
    levels = {"step": AdvantageLevel.STEP, "turn": AdvantageLevel.TURN, "trajectory": AdvantageLevel.STATE}
    assert level_of(settings) is levels[settings.advantage]


def test_a_baseline_of_trajectories_is_refused_where_there_are_no_advantages_of_trajectories() -> None:
    with pytest.raises(ValueError, match=r'baseline = "state" is for .* of trajectories, but advantage is "step"'):
        GrpoSettings(advantage="step", baseline="state")
    assert GrpoSettings(advantage="trajectory", baseline="state").baseline == "state"


def in_loss(group: TrainingGroup, name: str) -> tuple[int, ...]:
    return next(member.in_loss for member in group.members if member.trajectory_id == name)


def test_a_baseline_of_turns_is_refused_where_there_are_no_advantages_of_turns() -> None:
    with pytest.raises(ValueError, match='turn_baseline = "all" is for advantages of turns and steps'):
        GrpoSettings(turn_baseline=TurnBaseline.ALL)
    assert GrpoSettings(turn_baseline=TurnBaseline.ALL, advantage="turn").turn_baseline is TurnBaseline.ALL
