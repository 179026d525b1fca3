"""What code decides of a turn: checks, and items that no model needs to look at. Pure; writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward.checks import decide_check
from reward.evidence import decide_forbidding, lacking_channel
from reward.outcomes import dependencies_first
from store.records import Item, TurnRecord
from store.verdicts import Verdict
from store.vocabulary import Outcome, VerdictSource

CODE_JUDGE = "checks"
RULE_JUDGE = "rules"
"""Items without a check that need no model: an unmet dependency, or nothing there to look at."""

ItemIds = dict[tuple[int, str], int]
"""The log's id of an item, by turn index and key."""


@dataclass(frozen=True)
class CodeJudgement:
    """What code could decide of a turn, and the items that are left for a model."""

    verdicts: list[Verdict]
    pending: list[Item]


def judge_by_code(
    items: Sequence[Item],
    turn: TurnRecord,
    ids: ItemIds,
    said: Mapping[str, Outcome] | None = None,
    *,
    rules: bool = True,
) -> CodeJudgement:
    """Verdicts of the checks, and verdicts by rule on items that no model needs to look at.

    By rule fails an item without a check whose dependency fails, or whose channel the turn lacks: a reply item without
    a reply, a thinking item without thinking, a tool item without a call that succeeded. One that says what must *not*
    happen holds there, from the end of the turn on, and fails where the turn never ended. `said`: outcomes that stand
    whatever a check says here (a person's, another judge's); dependencies are held against them. `rules` False:
    everything without a check is left for a model. Raises ValueError for an item that `ids` does not know.
    """
    verdicts: dict[str, Verdict] = {}
    pending = []
    outcomes = dict(said or {})
    for item in dependencies_first(items):
        if item.check is not None:
            verdicts[item.id] = _by_check(item, turn, ids)
            outcomes.setdefault(item.id, verdicts[item.id].outcome)
            continue
        ruled = decide_by_rule(item, turn, outcomes) if rules else None
        if ruled is None:
            pending.append(item)
        else:
            outcome, reason = ruled
            step = turn.steps[-1].index if outcome is Outcome.PASS else None
            verdicts[item.id] = make_verdict(item, turn, ids, outcome, judge=RULE_JUDGE, reason=reason, step_index=step)
            outcomes.setdefault(item.id, outcome)
    return CodeJudgement(list(verdicts.values()), pending)


def decide_by_rule(item: Item, turn: TurnRecord, outcomes: Mapping[str, Outcome]) -> tuple[Outcome, str] | None:
    """What an item comes to whatever a model would say, and why; None if a model has to look."""
    failed = [key for key in item.depends_on if outcomes.get(key) is Outcome.FAIL]
    if failed:
        return Outcome.FAIL, f"it depends on {failed[0]!r}, which fails"
    if item.must_not:
        return decide_forbidding(item.focus_on, turn)
    lacking = lacking_channel(item.focus_on, turn)
    return None if lacking is None else (Outcome.FAIL, lacking)


def unjustified(items: Sequence[Item], turn: TurnRecord, said: Mapping[str, Verdict]) -> set[str]:
    """The items whose verdict by rule does not follow from what is said now: they failed because something else did,
    and a person has said since that this does hold, or it has left the checklist."""
    found: set[str] = set()
    outcomes: dict[str, Outcome] = {}
    for item in dependencies_first(items):
        verdict = said.get(item.id)
        if verdict is None:
            continue
        if verdict.judge == RULE_JUDGE and verdict.outcome is not Outcome.UNSCORED and item.check is None:
            ruled = decide_by_rule(item, turn, outcomes)
            if ruled is None or ruled[0] is not verdict.outcome:
                found.add(item.id)
                continue
        outcomes[item.id] = verdict.outcome
    return found


def make_verdict(
    item: Item,
    turn: TurnRecord,
    ids: ItemIds,
    outcome: Outcome,
    *,
    judge: str,
    reason: str,
    step_index: int | None = None,
    quote: str = "",
) -> Verdict:
    """A verdict of code. Raises ValueError for an item that `ids` does not know."""
    key = (turn.index, item.id)
    if key not in ids:
        raise ValueError(f"item {item.id!r} of turn {turn.index} is not in the log: add the scenario first")
    return Verdict(
        trajectory_id=turn.trajectory_id,
        turn_index=turn.index,
        item_id=ids[key],
        item_key=item.id,
        outcome=outcome,
        step_index=step_index,
        source=VerdictSource.CODE,
        judge=judge,
        prompt_hash=None,
        reason=reason,
        quote=quote,
    )


def _by_check(item: Item, turn: TurnRecord, ids: ItemIds) -> Verdict:
    assert item.check is not None
    try:
        result = decide_check(item.check, turn)
    except ValueError as error:
        # The check itself is unsound; that is the checklist's fault and not the policy's.
        reason = f"the check cannot be decided: {error}"
        return make_verdict(item, turn, ids, Outcome.UNSCORED, judge=CODE_JUDGE, reason=reason)
    return make_verdict(
        item,
        turn,
        ids,
        Outcome.PASS if result.satisfied else Outcome.FAIL,
        judge=CODE_JUDGE,
        reason=result.reason,
        step_index=result.step_index,
        quote=result.quote,
    )
