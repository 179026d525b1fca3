"""Which turns are put up for review: the random share is fair, scores rank, nothing stands twice, order is even."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.sampling import choose_anchors, choose_batch, dispute, interleave, uncertainty
from store.review_samples import ReviewSample
from store.review_signals import Turn, TurnSignals
from store.vocabulary import SampleReason


def turns(count: int, **every: bool) -> dict[Turn, TurnSignals]:
    return {(f"t{n:03}", n % 2): TurnSignals(**every) for n in range(count)}


def of_reason(samples: list[ReviewSample], reason: SampleReason) -> list[tuple[str, int]]:
    return [(sample.trajectory_id, sample.turn_index) for sample in samples if sample.reason is reason]


@pytest.mark.parametrize(
    ("signals", "score"),
    [
        (TurnSignals(), 0.0),
        (TurnSignals(panel_shares=[1.0, 0.5, 0.0]), 1.0),
        (TurnSignals(panel_shares=[2 / 3]), 2 / 3),
        (TurnSignals(panel_shares=[0.9], unscored_items=1), 0.5),
        (TurnSignals(asked_again=3), 0.25),
        (TurnSignals(contested_shares=[0.5], passed_against_thumbs_down=1.0), 0.0),
    ],
)
def test_uncertainty(signals: TurnSignals, score: float) -> None:
    """A panel of 2 to 1: 1 − 2 · |2/3 − 1/2| = 2/3."""
    assert uncertainty(signals) == pytest.approx(score)


@pytest.mark.parametrize(
    ("signals", "score"),
    [
        (TurnSignals(unscored_items=2, asked_again=1), 0.0),
        (TurnSignals(contested_shares=[0.25, 0.9]), 0.5),
        (TurnSignals(contested_shares=[0.25], passed_against_thumbs_down=0.75), 0.75),
        (TurnSignals(panel_shares=[0.5]), 1.0),
    ],
)
def test_dispute(signals: TurnSignals, score: float) -> None:
    """One PASS of four verdicts: 1 − 2 · |1/4 − 1/2| = 1/2."""
    assert dispute(signals) == pytest.approx(score)


def test_a_batch_has_the_highest_scores_and_no_turn_twice() -> None:
    signals = turns(40)
    signals["t003", 1].panel_shares = [0.5]
    signals["t005", 1].panel_shares = [0.6]
    signals["t007", 1].unscored_items = 1
    signals["t009", 1].contested_shares = [0.3]
    chosen = choose_batch(signals, randomly=0, disputed=2, uncertain=5, seed="a")
    assert of_reason(chosen, SampleReason.DISPUTED) == [("t003", 1), ("t005", 1)]
    assert of_reason(chosen, SampleReason.UNCERTAIN) == [("t007", 1)]
    assert [s.score for s in chosen if s.reason is SampleReason.DISPUTED] == pytest.approx([1.0, 0.8])


def test_what_was_reviewed_or_put_up_is_left_out_but_not_of_the_random_share() -> None:
    signals = turns(10)
    for n, found in enumerate(signals.values()):
        found.panel_shares = [0.5]
        found.reviewed, found.put_up = n < 4, 2 <= n < 8
    chosen = choose_batch(signals, randomly=0, disputed=20, uncertain=0, seed="a")
    assert sorted(of_reason(chosen, SampleReason.DISPUTED)) == [("t008", 0), ("t009", 1)]
    everything = choose_batch(signals, randomly=20, disputed=20, uncertain=20, seed="a")
    assert len(of_reason(everything, SampleReason.RANDOM)) == len(everything) == 10
    assert {s.trajectory_id for s in everything[-4:]} == {"t000", "t001", "t002", "t003"}


def test_the_random_share_is_drawn_once() -> None:
    signals = turns(30)
    first = choose_batch(signals, randomly=20, disputed=0, uncertain=0, seed="a")
    for sample in first:
        signals[sample.trajectory_id, sample.turn_index].drawn = True
    second = choose_batch(signals, randomly=20, disputed=0, uncertain=0, seed="b")
    assert len(first) == 20 and len(second) == 10
    assert len({(s.trajectory_id, s.turn_index) for s in first + second}) == 30


def test_every_judged_turn_has_the_same_chance() -> None:
    """5 of 20 in 1,000 batches: each turn about 250 times, ± 4 · sqrt(1000 · 0.25 · 0.75) = 55. Half of the turns are
    reviewed and disputed, which must not matter."""
    signals = turns(20)
    for n, found in enumerate(signals.values()):
        if n % 2:
            found.reviewed, found.put_up, found.contested_shares = True, True, [0.5]
    drawn = Counter(
        sample.trajectory_id
        for n in range(1000)
        for sample in choose_batch(signals, randomly=5, disputed=0, uncertain=0, seed=f"batch {n}")
    )
    assert len(drawn) == 20 and all(195 <= count <= 305 for count in drawn.values())


def test_the_batch_name_is_the_seed() -> None:
    signals = turns(50)
    for found in signals.values():
        found.contested_shares = [0.5]
    chosen = [choose_batch(signals, randomly=9, disputed=9, uncertain=0, seed=seed) for seed in ("a", "a", "b")]
    assert chosen[0] == chosen[1] != chosen[2]
    lots = [of_reason(batch, SampleReason.DISPUTED) for batch in chosen]
    assert lots[0] != sorted(lots[0])
    assert choose_anchors(signals, 5, "anchors") == choose_anchors(signals, 5, "anchors")


def test_anchors_may_be_reviewed_ones() -> None:
    assert len(choose_anchors(turns(8, reviewed=True, drawn=True, put_up=True), 20, "anchors")) == 8


@given(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)))
@settings(max_examples=80, deadline=None)
def test_wherever_a_reviewer_stops_the_shares_are_right(counts: tuple[int, int, int]) -> None:
    reasons = (SampleReason.RANDOM, SampleReason.DISPUTED, SampleReason.UNCERTAIN)
    kinds = [
        [ReviewSample(f"{reason}-{n}", 0, reason) for n in range(count)]
        for reason, count in zip(reasons, counts, strict=True)
    ]
    order = interleave(*kinds)
    assert len(order) == sum(counts)
    for reason, kind in zip(reasons, kinds, strict=True):
        assert [sample for sample in order if sample.reason is reason] == kind
    for stop in range(1, len(order)):
        seen = Counter(sample.reason for sample in order[:stop])
        for reason, count in zip(reasons, counts, strict=True):
            assert abs(seen[reason] - count * stop / len(order)) <= 1
