"""Several judges, or several draws of one, on the same items: who is asked, and how votes become one verdict. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reward.llm_judge import LlmJudge
from store.verdicts import Verdict, Vote
from store.vocabulary import Combination, Outcome, VerdictSource

_NAME_LENGTH = 128
"""Of a judge, in the log."""


@dataclass(frozen=True)
class Panel:
    """Who is asked: every judge, so many times each. One judge and one draw is a judge by itself."""

    judges: tuple[LlmJudge, ...]
    draws: int = 1
    combination: Combination = Combination.MAJORITY

    @property
    def members(self) -> list[tuple[LlmJudge, int]]:
        return [(judge, draw) for judge in self.judges for draw in range(self.draws)]

    @property
    def alone(self) -> bool:
        return len(self.judges) == 1 and self.draws == 1

    @property
    def name(self) -> str:
        """Of the verdicts that count."""
        if self.alone:
            return self.judges[0].name
        names = ", ".join(judge.name for judge in self.judges)
        times = f" x {self.draws}" if self.draws > 1 else ""
        return f"{self.combination.value} of {names}{times}"[:_NAME_LENGTH]


def combine(votes: Sequence[Verdict], combination: Combination, name: str) -> Verdict:
    """The verdict of a panel on one item of one turn from at least one vote.

    UNSCORED votes are left out; where all are, and where a majority ties, the verdict is UNSCORED. `mean` keeps the
    share of PASS votes and is PASS from one half on. A PASS holds from the step that most PASS votes name, the earliest
    of several.
    """
    scored = [vote for vote in votes if vote.outcome is not Outcome.UNSCORED]
    passes = [vote for vote in scored if vote.outcome is Outcome.PASS]
    fails = [vote for vote in scored if vote.outcome is Outcome.FAIL]
    tally = f"{len(passes)} of {len(scored)} votes are PASS"
    if not scored:
        outcome, speaker, reason = Outcome.UNSCORED, votes[0], f"every vote is UNSCORED: {votes[0].reason}"
    elif combination is Combination.MAJORITY and len(passes) == len(fails):
        outcome, speaker, reason = Outcome.UNSCORED, scored[0], f"a tie: {tally}"
    else:
        outcome = Outcome.PASS if len(passes) >= len(fails) else Outcome.FAIL
        speaker = _speaker(passes) if outcome is Outcome.PASS else fails[0]
        reason = f"{tally}: {speaker.reason}"
    return replace(
        speaker,
        outcome=outcome,
        step_index=speaker.step_index if outcome is Outcome.PASS else None,
        source=VerdictSource.LLM,
        judge=name,
        reason=reason,
        quote=speaker.quote if outcome is Outcome.PASS else "",
        counts=True,
        draw=0,
        share=len(passes) / len(scored) if scored and combination is Combination.MEAN else None,
        votes=tuple(Vote(vote.judge, vote.draw, vote.outcome) for vote in votes),
        cache_key=None,
        created_at=None,
    )


def _speaker(passes: Sequence[Verdict]) -> Verdict:
    """The first vote for the step that most of them name."""
    named = Counter(vote.step_index for vote in passes)
    step = min(named, key=lambda index: (-named[index], -1 if index is None else index))
    return next(vote for vote in passes if vote.step_index == step)
