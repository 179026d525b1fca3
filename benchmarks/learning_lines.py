"""What the arms of `benchmarks.learning` have learned: over the cold start, and one level over another. Pure.

Differences are of the same scenarios. Intervals are bootstrapped over scenarios, seeds averaged before: what another
three seeds would give is not in them.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.line import Line
from reward.intervals import PairedInterval, bootstrap_difference, paired_bootstrap

Rounds = Mapping[int, Mapping[str, float]]
"""By round, counted from 1, what each scenario earned; empty where it was not played."""
Played = Mapping[str, Mapping[int, Rounds]]
"""By arm and seed."""

AGAINST = (("step", "trajectory"), ("turn", "trajectory"), ("step", "turn"))


def learning_lines(played: Played, untrained: str) -> list[Line]:
    """`untrained`: the arm that the others are held against; its first seed stands for all.

    In round n an arm plays what it learned in n - 1 rounds. Of two levels, what is between them in the first half of
    the rounds after something was learned and in the second.
    """
    base = _averaged(played[untrained])
    scores = [f"{100 * mean(rewards.values()):.1f}" for rewards in base.values() if rewards]
    found = [Line(f"learning: {untrained}", f"{' '.join(scores)} points", "", "", "")]
    arms = {name: of_seeds for name, of_seeds in played.items() if name != untrained}
    for name, of_seeds in arms.items():
        found += _over(name, of_seeds, base)
    for finer, coarser in AGAINST:
        if finer in arms and coarser in arms:
            found += _between(finer, _averaged(arms[finer]), coarser, _averaged(arms[coarser]))
    return found


def _over(name: str, of_seeds: Mapping[int, Rounds], base: Rounds) -> Iterator[Line]:
    for n, rewards in _averaged(of_seeds).items():
        known = [scenario for scenario in rewards if scenario in base.get(n, {})]
        if not known:
            continue
        before, after = [base[n][scenario] for scenario in known], [rewards[scenario] for scenario in known]
        gains = [
            100 * mean(rounds[n][scenario] - base[n][scenario] for scenario in known)
            for rounds in of_seeds.values()
            if rounds[n]
        ]
        yield Line(
            f"learning: {name}, round {n}",
            f"{100 * mean(after):.1f} points; by seed {' '.join(f'{gain:+.1f}' for gain in gains)}",
            f"the cold start {100 * mean(before):.1f}",
            paired_bootstrap(before, after, seed=1).in_points(),
            "",
        )


def _between(finer: str, finer_n: Rounds, coarser: str, coarser_n: Rounds) -> Iterator[Line]:
    later = sorted(n for n in finer_n.keys() & coarser_n.keys() if n > 1 and finer_n[n] and coarser_n[n])
    if len(later) < 2:
        return
    half = len(later) // 2
    early, late = (_differences(finer_n, coarser_n, rounds) for rounds in (later[:half], later[half:]))
    yield Line(
        f"learning: {finer} over {coarser}, rounds {later[0]} to {later[half - 1]} / {later[half]} to {later[-1]}",
        f"{_of(early).in_points()} / {_of(late).in_points()} points",
        coarser,
        f"less by {bootstrap_difference(late, early, seed=1).in_points()}",
        "",
    )


def _differences(finer_n: Rounds, coarser_n: Rounds, rounds: Sequence[int]) -> list[float]:
    return [
        finer_n[n][scenario] - coarser_n[n][scenario]
        for n in rounds
        for scenario in finer_n[n]
        if scenario in coarser_n[n]
    ]


def _of(differences: Sequence[float]) -> PairedInterval:
    return paired_bootstrap([0.0] * len(differences), differences, seed=1)


def _averaged(of_seeds: Mapping[int, Rounds]) -> dict[int, dict[str, float]]:
    """Over the seeds that played the round, by scenario; without the scenarios that one of them lacks."""
    found: dict[int, dict[str, float]] = {}
    for n in sorted({n for rounds in of_seeds.values() for n in rounds}):
        told = [rounds[n] for rounds in of_seeds.values() if rounds.get(n)]
        shared = [scenario for scenario in (told[0] if told else ()) if all(scenario in rewards for rewards in told)]
        found[n] = {scenario: mean(rewards[scenario] for rewards in told) for scenario in shared}
    return found
