"""The judge of `benchmarks learning` that errs on purpose: its verdicts are the opposite, of so many as it is told;
and what it leaves of the advantages."""

from benchmarks.judge_noise import LEVELS, WRONG_JUDGE, noise_lines, turned_round
from benchmarks.learning_lines import learning_lines
from store.database import Log
from store.groups import list_groups
from store.turns import step_counts_of
from store.verdicts import add_verdicts, verdicts_of, winning
from store.vocabulary import Outcome
from tests.pages import ids


def test_drawn_verdicts_say_the_opposite_and_count(sample: Log) -> None:
    names = ids(sample)
    counts, before = step_counts_of(sample, names), verdicts_of(sample, names)
    decided = sum(one.outcome is not Outcome.UNSCORED for said in before.values() for one in said)
    wrong = [one for name, said in before.items() for one in turned_round(said, counts[name], 0.25)]
    assert 0.15 * decided < len(wrong) < 0.35 * decided
    add_verdicts(sample, wrong)
    after = verdicts_of(sample, names)
    opposite = {Outcome.PASS: Outcome.FAIL, Outcome.FAIL: Outcome.PASS}
    changed = 0
    for name, said in before.items():
        for old, new in zip(said, after[name], strict=True):
            if new.judge == WRONG_JUDGE:
                changed += 1
                assert new.outcome is opposite[old.outcome]
                inside = new.step_index is not None and 0 <= new.step_index < counts[name][new.turn_index]
                assert inside if new.outcome is Outcome.PASS else new.step_index is None
            else:
                assert new == old
        again = turned_round(winning(after[name]), counts[name], 0.25)
        assert again == [], "a stage that is done twice turns nothing back"
    assert changed == len(wrong)


def test_no_wrong_verdict_leaves_every_advantage_and_wrong_ones_turn_them(sample: Log) -> None:
    batches = sorted({group.batch for group in list_groups(sample)})
    lines = noise_lines(sample, batches, (0.0, 0.3, 1.0))
    cosines = [float(line.measured.removeprefix("cosine ")) for line in lines]
    assert cosines[: len(LEVELS)] == [1.0] * len(LEVELS)
    for some, all_of_them in zip(cosines[len(LEVELS) : 2 * len(LEVELS)], cosines[2 * len(LEVELS) :], strict=True):
        assert all_of_them < some < 1.0


def test_gains_are_of_the_same_scenarios_with_seeds_averaged() -> None:
    """a, b and c are scenarios; c was played by one seed only, so it counts for nobody."""
    cold = {1: {1: {"a": 0.2, "b": 0.4}, 2: {"a": 0.1, "b": 0.3}, 3: {"a": 0.5, "b": 0.5}}, 2: {1: {}, 2: {}, 3: {}}}
    step = {
        1: {1: {"a": 0.2, "b": 0.4}, 2: {"a": 0.6, "b": 0.8, "c": 1.0}, 3: {"a": 0.4, "b": 0.4}},
        2: {1: {"a": 0.4, "b": 0.4}, 2: {"a": 0.4, "b": 0.8}, 3: {"a": 0.4, "b": 0.6}},
    }
    trajectory = {
        1: {1: {"a": 0.2, "b": 0.4}, 2: {"a": 0.2, "b": 0.4}, 3: {"a": 0.6, "b": 0.7}},
        2: {1: {}, 2: {}, 3: {}},
    }
    lines = {line.what: line for line in learning_lines({"cold": cold, "trajectory": trajectory, "step": step}, "cold")}
    assert lines["learning: cold"].measured == "30.0 20.0 50.0 points"
    second = lines["learning: step, round 2"]
    assert second.measured == "65.0 points; by seed +50.0 +40.0" and second.peer == "the cold start 20.0"
    assert second.ratio == "+45.0 [+40.0, +50.0]"
    between = lines["learning: step over trajectory, rounds 2 to 2 / 3 to 3"]
    # a: 0.5 - 0.2, b: 0.8 - 0.4; then 0.4 - 0.6 and 0.5 - 0.7.
    assert between.measured == "+35.0 [+30.0, +40.0] / -20.0 [-20.0, -20.0] points"
    assert between.ratio == "less by +55.0 [+50.0, +60.0]"
    assert "learning: turn over trajectory, rounds 2 to 2 / 3 to 3" not in lines
