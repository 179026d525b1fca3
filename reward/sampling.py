"""Which turns a person should look at next, and in which order: a random share, disputed ones, uncertain ones. Pure.

Only the random share gives unbiased figures, so it is drawn from *all* judged turns, whoever has reviewed them already:
to leave those out would leave out what was uncertain or disputed enough to be reviewed before. A drawn turn that has
been reviewed is marked as random and costs nobody a second look.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from store.review_samples import ReviewSample
from store.review_signals import Turn, TurnSignals
from store.vocabulary import SampleReason

UNSCORED_UNCERTAINTY = 0.5
"""Of a turn in which the judge could not decide any item; a panel with a share of 1/4 or 3/4 is as uncertain."""
ASKED_AGAIN_UNCERTAINTY = 0.25
"""Of a turn in which the judge had to be asked again."""


def uncertainty(signals: TurnSignals) -> float:
    """In [0, 1]: 1 where a panel is split in halves, 0 where it is of one mind.

    Where no panel spoke, or it was sure, what is left is weak evidence, ranked below: an item that the judge could not
    decide, then one on which it had to be asked again. (A single judge at temperature 0 says nothing of how sure it
    is.)
    """
    fallback = 0.0
    if signals.unscored_items:
        fallback = UNSCORED_UNCERTAINTY
    elif signals.asked_again:
        fallback = ASKED_AGAIN_UNCERTAINTY
    return max([fallback, *(1 - 2 * abs(share - 0.5) for share in signals.panel_shares)])


def dispute(signals: TurnSignals) -> float:
    """In [0, 1]: the worst of how evenly judges and votes are split on an item, and of how much PASSes against a thumb
    that is down."""
    shares = (*signals.contested_shares, *signals.panel_shares)
    return max([signals.passed_against_thumbs_down, *(1 - 2 * abs(share - 0.5) for share in shares)])


def choose_batch(
    signals: Mapping[Turn, TurnSignals], *, randomly: int, disputed: int, uncertain: int, seed: str
) -> list[ReviewSample]:
    """At most so many turns of each kind, none twice, in the order in which to review them.

    The random ones are drawn first, with equal chance from the turns that were not drawn at random before. The others
    are the highest scores among turns that nobody reviewed and that were never put up; equal scores are drawn by lot.
    Kinds are interleaved evenly; drawn turns that are reviewed already come last.
    """
    rng = random.Random(seed)
    frame = [turn for turn, found in signals.items() if not found.drawn]
    drawn = rng.sample(frame, min(randomly, len(frame)))
    taken = set(drawn)
    fresh = [turn for turn, found in signals.items() if not (found.reviewed or found.put_up)]
    rng.shuffle(fresh)

    def highest(score: Callable[[TurnSignals], float], count: int, reason: SampleReason) -> list[ReviewSample]:
        scored = [(score(signals[turn]), turn) for turn in fresh if turn not in taken]
        best = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: -pair[0])[:count]
        taken.update(turn for _, turn in best)
        return [ReviewSample(*turn, reason, value) for value, turn in best]

    of_random = [ReviewSample(*turn, SampleReason.RANDOM) for turn in drawn]
    to_do = [sample for sample in of_random if not signals[sample.trajectory_id, sample.turn_index].reviewed]
    done = [sample for sample in of_random if sample not in to_do]
    most_disputed = highest(dispute, disputed, SampleReason.DISPUTED)
    most_uncertain = highest(uncertainty, uncertain, SampleReason.UNCERTAIN)
    return [*interleave(to_do, most_disputed, most_uncertain), *done]


def choose_anchors(signals: Mapping[Turn, TurnSignals], count: int, seed: str) -> list[ReviewSample]:
    """At most `count` turns, drawn with equal chance from all judged ones."""
    turns = random.Random(seed).sample(list(signals), min(count, len(signals)))
    return [ReviewSample(*turn, SampleReason.ANCHOR) for turn in turns]


def interleave(*kinds: Sequence[ReviewSample]) -> list[ReviewSample]:
    """All of them, each kind in its own order and spread evenly: wherever a reviewer stops, every kind has been
    reviewed in its share, give or take one turn."""
    places = [
        ((position + 0.5) / len(samples), number, sample)
        for number, samples in enumerate(kinds)
        for position, sample in enumerate(samples)
    ]
    return [sample for _, _, sample in sorted(places, key=lambda place: place[:2])]
