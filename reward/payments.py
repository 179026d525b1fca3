"""What each item of a trajectory pays and why, by the verdicts and checklists that count now; writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward.outcomes import item_states, mean_turn_reward
from reward.rewards import ItemState, paid_share
from reward.scoring import compute_rewards, read_played, standing_verdicts
from store.database import Log
from store.verdicts import Reward, Verdict, rewards_of
from store.vocabulary import Outcome


@dataclass(frozen=True)
class Payment:
    """One item of one checklist."""

    variant: int
    key: str
    weight: float
    outcome: Outcome | None
    """None: it has no verdict."""
    judge: str | None
    share: float | None
    """Of averaged votes."""
    step: int | None
    """The step from which it holds."""
    pays: float
    """Of the turn's reward by this checklist, in [0, 1]."""
    note: str
    """Why it does not pay; the verdict's reason where that is the why."""


@dataclass(frozen=True)
class TurnPayments:
    turn_index: int
    reward: float | None
    """Equation 6, the mean over the checklists; None if it could not be scored."""
    payments: tuple[Payment, ...]


@dataclass(frozen=True)
class Payslip:
    """A trajectory's reward, item by item."""

    reward: Reward
    """As it stands now."""
    stored: Reward | None
    """The newest in the log."""
    turn_count: int
    """L: the turns that the scenario has; 0 without a scenario."""
    turns: tuple[TurnPayments, ...]
    """Those that were reached; none where the trajectory is not judged at all."""


def payslip(log: Log, trajectory_id: str) -> Payslip:
    """Raises LogError if there is no such trajectory."""
    played = read_played(log, [trajectory_id], with_turns=False)
    (summary,) = played.summaries
    reward = compute_rewards(log, played)[trajectory_id]
    turns = []
    if played.why_not_scored(summary) is None:
        variants_T = played.checklists[str(summary.scenario_hash)]
        verdicts = standing_verdicts(log, played).get(trajectory_id, [])
        for turn, step_count in enumerate(played.step_counts.get(trajectory_id, [])):
            said = {verdict.item_key: verdict for verdict in verdicts if verdict.turn_index == turn}
            checklists = [checklist for checklist in variants_T[turn] if checklist.items]
            states_V = [item_states(checklist.items, said, step_count) for checklist in checklists]
            payments = [
                _payment(checklist.variant, state, states, said)
                for checklist, states in zip(checklists, states_V, strict=True)
                for state in states
            ]
            turns.append(TurnPayments(turn, mean_turn_reward(states_V), tuple(payments)))
    turn_count = len(played.scenarios[summary.scenario_hash].turns) if summary.scenario_hash else 0
    return Payslip(reward, rewards_of(log, [trajectory_id]).get(trajectory_id), turn_count, tuple(turns))


def _payment(variant: int, state: ItemState, states: Sequence[ItemState], said: Mapping[str, Verdict]) -> Payment:
    verdict = said.get(state.key)
    pays = state.weight * paid_share(state, states)
    note = ""
    if verdict is None:
        note = "it has no verdict"
    elif verdict.outcome is not Outcome.PASS:
        note = verdict.reason
    elif paid_share(state, states) == 0:
        note = _what_it_waits_for(state, states)
    step = state.first_satisfied if state.scored else None
    return Payment(
        variant=variant,
        key=state.key,
        weight=state.weight,
        outcome=None if verdict is None else verdict.outcome,
        judge=None if verdict is None else verdict.judge,
        share=None if verdict is None else verdict.share,
        step=step,
        pays=pays,
        note=note,
    )


def _what_it_waits_for(state: ItemState, states: Sequence[ItemState]) -> str:
    since = state.first_satisfied
    late = [
        other.key
        for other in states
        if other.key in state.depends_on
        and (not other.scored or since is None or other.first_satisfied is None or other.first_satisfied >= since)
    ]
    return f"{', '.join(late)} did not hold before step {since}" if late else "no vote says that it holds"
