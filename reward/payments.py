"""What each item of a trajectory pays and why, and what each step earns, by the verdicts and checklists that count now;
writes nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward.outcomes import item_states, mean_turn_reward
from reward.rewards import ItemState, backfilled_rewards, eligible_items, paid_share, step_rewards
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
class StepEarnings:
    """What one step earned, the mean over the turn's checklists; None where the turn could not be scored."""

    earned: float | None
    """Equation 2: Σ_c w r of this step."""
    ahead: float | None
    """Equation 3: Σ_{c∈E} w r̃ / Σ_{c∈E} w over the items that are eligible at this step, which equation 10 holds
    against the group's; a checklist with none counts 0."""
    running: float | None
    """The trajectory's reward by the end of this step: all earned so far over its turns; None once a turn could not be
    scored."""


@dataclass(frozen=True)
class TurnPayments:
    turn_index: int
    reward: float | None
    """Equation 6, the mean over the checklists; None if it could not be scored."""
    payments: tuple[Payment, ...]
    steps: tuple[StepEarnings, ...]


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
    turn_count = len(played.scenarios[summary.scenario_hash].turns) if summary.scenario_hash else 0
    turns: list[TurnPayments] = []
    earlier: float | None = 0.0
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
            reward_of_turn = mean_turn_reward(states_V)
            if reward_of_turn is None:
                earlier = None
            steps = step_earnings(states_V, step_count, earlier, turn_count)
            turns.append(TurnPayments(turn, reward_of_turn, tuple(payments), steps))
            earlier = None if earlier is None or reward_of_turn is None else earlier + reward_of_turn
    return Payslip(reward, rewards_of(log, [trajectory_id]).get(trajectory_id), turn_count, tuple(turns))


def step_earnings(
    states_V: Sequence[Sequence[ItemState]], step_count: int, earlier: float | None, turn_count: int
) -> tuple[StepEarnings, ...]:
    """Of the steps of one turn by its V checklists. `earlier`: Σ of the rewards of the turns before it; None where one
    of them could not be scored."""
    if not states_V or not all(state.scored for states in states_V for state in states):
        return (StepEarnings(None, None, None),) * step_count
    earned_S = [0.0] * step_count
    ahead_S = [0.0] * step_count
    for states in states_V:
        rewards_S_N, backfilled_S_N = step_rewards(states, step_count), backfilled_rewards(states, step_count)
        for step, eligible_N in enumerate(eligible_items(states, step_count)):
            paid = math.fsum(state.weight * r for state, r in zip(states, rewards_S_N[step], strict=True))
            earned_S[step] += paid / len(states_V)
            weight = math.fsum(state.weight for state, chosen in zip(states, eligible_N, strict=True) if chosen)
            coming = math.fsum(state.weight * r for state, r in zip(states, backfilled_S_N[step], strict=True))
            ahead_S[step] += coming / weight / len(states_V) if weight > 0 else 0.0
    steps = []
    for step in range(step_count):
        running = None if earlier is None else (earlier + math.fsum(earned_S[: step + 1])) / turn_count
        steps.append(StepEarnings(earned_S[step], ahead_S[step], running))
    return tuple(steps)


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
