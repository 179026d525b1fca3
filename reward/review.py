"""Going through judged turns: the next one of a queue, what is to be said of it, agreeing, and undoing.

Reads the log; writes claims (store/review_claims.py), verdicts and what takes them back. The page Review and the
commands `checkloop judge next, agree, undo` call these functions, and `say`, `call_bad` of reward/people.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from reward.people import Later, Revised, Said, Word, quote_occurs, say_together, take_objection_back
from reward.scoring import items_of, score_trajectories
from store.checklists import current_checklists
from store.database import Log, LogError
from store.records import Item, Scenario, TurnRecord
from store.review_claims import Claim, claim_turn, place_of
from store.review_queues import QueueFilter, Turn, find_turn
from store.scenarios import get_scenario
from store.trajectories import TrajectorySummary, get_trajectory
from store.turns import get_turns
from store.verdicts import Reward, Verdict, rewards_of, verdicts_of, winning
from store.vocabulary import Outcome, VerdictSource
from store.withdrawals import SaidLast, said_last, withdraw_verdicts

EVERYTHING = QueueFilter()
UNDONE = "undone in review"
_TRIES = 20
"""Turns that others took in the moment between finding and claiming them, before giving up."""


@dataclass(frozen=True)
class ItemToReview:
    """An item of the turn's current checklists, and what was said of it."""

    item: Item
    judged: Verdict | None
    """A judge's newest verdict that counts."""
    said: Verdict | None
    """A person's newest verdict that stands."""
    verdicts: int
    """How many were given in all."""

    @property
    def is_open(self) -> bool:
        return self.judged is not None and self.said is None

    @property
    def shown(self) -> Verdict | None:
        """The one that counts."""
        return self.said or self.judged

    def asked_for(self, wanted: QueueFilter) -> bool:
        """The queue's filter speaks of this item."""
        judged = self.judged
        kind = self.item.check.kind if self.item.check else "llm"
        return (
            judged is not None
            and wanted.item_id in (None, judged.item_id)
            and wanted.outcome in (None, judged.outcome)
            and wanted.kind in (None, kind)
        )


@dataclass(frozen=True)
class TurnToReview:
    """A turn as a reviewer needs it: the dialogue up to it, and its items."""

    summary: TrajectorySummary
    scenario: Scenario | None
    earlier: tuple[TurnRecord, ...]
    turn: TurnRecord
    items: tuple[ItemToReview, ...]
    reward: Reward | None

    @property
    def key(self) -> Turn:
        return self.turn.trajectory_id, self.turn.index

    def open_items(self, wanted: QueueFilter = EVERYTHING) -> list[ItemToReview]:
        """Those that the queue asks for."""
        return [one for one in self.items if one.is_open and one.asked_for(wanted)]

    def agreeable(self, wanted: QueueFilter = EVERYTHING) -> list[ItemToReview]:
        """Those of them that a judge decided."""
        open_ones = self.open_items(wanted)
        return [one for one in open_ones if one.judged is not None and one.judged.outcome is not Outcome.UNSCORED]


@dataclass(frozen=True)
class Undone:
    """What was taken back: all that was said at one moment, in its order; `revised` where that was "this item is
    bad"."""

    together: tuple[SaidLast, ...]
    revised: Revised | None = None

    @property
    def said(self) -> SaidLast:
        """The last of it."""
        return self.together[-1]


def take_turn(
    log: Log,
    wanted: QueueFilter,
    *,
    person: str,
    at: datetime,
    after: Turn | None = None,
    backwards: bool = False,
) -> Turn | None:
    """The next open turn of the queue after `after`, claimed for `person`; from the queue's beginning when its end is
    reached. None when nothing is open that nobody else has. `backwards`: the one before, open or not; None before the
    first.
    """
    start, wrapped = after, after is None
    for _ in range(_TRIES):
        found = find_turn(log, wanted, person=person, at=at, after=start, backwards=backwards, only_open=not backwards)
        if found is None:
            if wrapped or backwards:
                return None
            start, wrapped = None, True
            continue
        if claim_turn(log, found, person=person, at=at, queue=wanted.name).person == person:
            return found
        start = found
    raise LogError(f"{_TRIES} turns in a row were taken by others in the same moment: try again")


def resume_turn(log: Log, wanted: QueueFilter, *, person: str, at: datetime) -> Turn | None:
    """Where `person` stood in this queue, if that turn is free and something that the queue asks for is open there;
    else as `take_turn`."""
    place = place_of(log, person, wanted.name)
    if place is None:
        return take_turn(log, wanted, person=person, at=at)
    turn = read_turn(log, place.turn)
    has_open = turn is not None and bool(turn.open_items(wanted))
    if has_open and claim_turn(log, place.turn, person=person, at=at, queue=wanted.name).person == person:
        return place.turn
    return take_turn(log, wanted, person=person, at=at, after=place.turn)


def hold_turn(log: Log, turn: Turn, *, person: str, at: datetime, queue: str | None = None) -> Claim:
    """Takes the turn, or keeps it, for `person`. Raises LogError where somebody else has it."""
    claim = claim_turn(log, turn, person=person, at=at, queue=queue)
    if claim.person != person:
        raise LogError(f"{claim.name} has turn {turn[1]} of trajectory {turn[0]!r} until {claim.until:%H:%M:%S} UTC")
    return claim


def read_turn(log: Log, turn: Turn) -> TurnToReview | None:
    """None where the log has no such turn (any more)."""
    name, index = turn
    played = {one.index: one for one in get_turns(log, name)}
    if index not in played:
        return None
    summary = get_trajectory(log, name)
    scenario = get_scenario(log, summary.scenario_hash) if summary.scenario_hash else None
    items: Sequence[Item] = ()
    if scenario is not None and index < len(scenario.turns):
        items = items_of(scenario, current_checklists(log, [scenario])[scenario.hash], played[index])
    of_turn = [v for v in verdicts_of(log, [name], all_rows=True).get(name, []) if v.turn_index == index]
    judged = {v.item_key: v for v in winning(v for v in of_turn if v.source is not VerdictSource.HUMAN)}
    said = {v.item_key: v for v in of_turn if v.source is VerdictSource.HUMAN}
    times = {item.id: sum(v.item_key == item.id for v in of_turn) for item in items}
    return TurnToReview(
        summary=summary,
        scenario=scenario,
        earlier=tuple(played[i] for i in sorted(played) if i < index),
        turn=played[index],
        items=tuple(ItemToReview(i, judged.get(i.id), said.get(i.id), times[i.id]) for i in items),
        reward=rewards_of(log, [name]).get(name),
    )


def say_of(log: Log, turn: TurnToReview, item_key: str, outcome: Outcome, *, person: str, reason: str) -> Said:
    """A person's verdict on an item of the turn. Where they say what the judge said, its step and quote are theirs,
    too; without a reason the log says that none was given, and whether they agreed. Raises LogError as `say`."""
    (said,) = say_together(log, *turn.key, [_word(turn, item_key, outcome, reason)], person=person)
    return said


def agree(
    log: Log, turn: TurnToReview, *, person: str, reason: str = "", wanted: QueueFilter = EVERYTHING
) -> list[Said]:
    """Says of every open item that the queue asks for what the judge said of it; those that no judge could decide stay
    open. Of the others nothing is said: nobody has looked at them, and an agreement that nobody meant would count."""
    words = [
        _word(turn, one.item.id, one.judged.outcome, reason) for one in turn.agreeable(wanted) if one.judged is not None
    ]
    return say_together(log, *turn.key, words, person=person)


def _word(turn: TurnToReview, item_key: str, outcome: Outcome, reason: str) -> Word:
    one = next((one for one in turn.items if one.item.id == item_key), None)
    judged = one.judged if one else None
    step, quote = None, ""
    given = "no reason given"
    if judged is not None and judged.outcome is outcome:
        given = f"agrees with {judged.judge}"
        steps = {record.index: record for record in turn.turn.steps}
        step = judged.step_index if judged.step_index in steps else None
        near = turn.turn.steps if step is None else (steps[step],)
        quote = judged.quote if quote_occurs(judged.quote, near) else ""
    elif judged is not None:
        given = f"disagrees with {judged.judge}, no reason given"
    return Word(item_key, outcome, reason.strip() or given, step, quote)


def undo(log: Log, *, person: str, reason: str = UNDONE, later: Later | None = None) -> Undone | None:
    """Takes back the newest thing that `person` said and that stands, with all that they said in that turn at the same
    moment (`agree`): these verdicts count for nothing any more. Or an item that they called bad, which returns to its
    checklist; where that has been written anew since, or has it again, the checklist stays and the word alone is taken
    back. Rewards are computed again, with `later` as by `call_bad`. None if nothing of theirs stands.

    What was said stays in the log, with what took it back (invariant 2).
    """
    person = person.strip()
    together = tuple(said_last(log, person))
    if not together:
        return None
    last = together[-1]
    if last.verdict_id is None:
        assert last.scenario_hash is not None
        where = (last.scenario_hash, last.turn_index, last.item_key)
        revised = take_objection_back(
            log, *where, person=person, reason=reason, seen_in=last.trajectory_id, later=later
        )
        return Undone(together, revised)
    numbers = [one.verdict_id for one in together if one.verdict_id is not None]
    withdraw_verdicts(log, numbers, person=person, reason=reason)
    score_trajectories(log, [last.trajectory_id])
    return Undone(together)
