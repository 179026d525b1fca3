"""How votes become a verdict."""

import pytest

from reward.panel import combine
from store.verdicts import Verdict, Vote
from store.vocabulary import Combination, Outcome, VerdictSource

PASS, FAIL, UNSCORED = Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED


def vote(judge: str, outcome: Outcome, step: int | None = None, draw: int = 0) -> Verdict:
    where = step if outcome is PASS else None
    said = f"{judge} says so"
    return Verdict("t", 0, 1, "c", outcome, where, VerdictSource.LLM, judge, "p", said, "q", counts=False, draw=draw)


@pytest.mark.parametrize(
    ("outcomes", "majority", "mean", "share"),
    [
        ([PASS, PASS, FAIL], PASS, PASS, 2 / 3),
        ([PASS, FAIL, FAIL], FAIL, FAIL, 1 / 3),
        ([PASS, FAIL], UNSCORED, PASS, 0.5),
        ([PASS, UNSCORED, UNSCORED], PASS, PASS, 1.0),
        ([UNSCORED, FAIL], FAIL, FAIL, 0.0),
        ([UNSCORED, UNSCORED], UNSCORED, UNSCORED, None),
    ],
)
def test_majority_and_mean(outcomes: list[Outcome], majority: Outcome, mean: Outcome, share: float | None) -> None:
    votes = [vote(f"j{n}", outcome, 1) for n, outcome in enumerate(outcomes)]
    by_majority = combine(votes, Combination.MAJORITY, "majority of them")
    by_mean = combine(votes, Combination.MEAN, "mean of them")
    assert (by_majority.outcome, by_majority.share) == (majority, None)
    assert (by_mean.outcome, by_mean.share) == (mean, share)
    assert by_mean.votes == tuple(Vote(f"j{n}", 0, outcome) for n, outcome in enumerate(outcomes))
    assert (by_mean.judge, by_mean.counts, by_mean.cache_key) == ("mean of them", True, None)


def test_a_panel_s_step_is_what_most_passes_name_and_the_earliest_of_several() -> None:
    votes = [vote("a", PASS, 2), vote("b", PASS, 0), vote("c", PASS, 2), vote("d", FAIL)]
    assert combine(votes, Combination.MAJORITY, "m").step_index == 2
    tied = combine(votes[1:], Combination.MAJORITY, "m")
    assert (tied.step_index, tied.quote, tied.reason) == (0, "q", "2 of 3 votes are PASS: b says so")
