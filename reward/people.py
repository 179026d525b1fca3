"""What people say of judged turns: a verdict on an item, "this item is bad", and taking either back.

Writes verdict, item_objection, checklist and reward rows, append-only. Commands and pages call the same functions; a
person's word counts from the moment it is written, so the rewards that it concerns are computed again at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reward.checks import quote_call
from reward.scoring import score_trajectories
from store.checklists import Checklist, current_checklists
from store.database import Log, LogError, in_chunks
from store.objections import objections_of, restore_item, retire_item, rewarded_trajectories
from store.records import Item, Scenario, StepRecord, TurnRecord
from store.scenarios import get_scenario, item_ids
from store.trajectories import get_trajectory
from store.turns import get_turns
from store.verdicts import Reward, Verdict, add_verdicts, rewards_of
from store.vocabulary import Outcome, VerdictSource

_CHUNK = 200
"""Trajectories whose rewards are computed and written in one go."""


@dataclass(frozen=True)
class Said:
    """A person's verdict as written, and what it did to the reward."""

    verdict: Verdict
    before: Reward | None
    """None where the trajectory had no reward yet."""
    after: Reward


@dataclass(frozen=True)
class Word:
    """What a person says of an item of a turn."""

    item_key: str
    outcome: Outcome | str
    reason: str
    step: int | None = None
    quote: str = ""


@dataclass(frozen=True)
class Revised:
    """Checklists that changed because of what a person said of an item, and the rewards that were computed again."""

    checklists: list[Checklist]
    rescored: int
    changed: int
    """Of the rescored ones, those whose value is another one now."""
    waiting: int = 0
    """Rewards that are being computed again beside the caller."""


Later = Callable[[Callable[[], object]], object]
"""Takes work that may be done after the call, and has it done; one piece after the other."""


def say(
    log: Log,
    trajectory_id: str,
    turn_index: int,
    item_key: str,
    outcome: Outcome | str,
    *,
    person: str,
    reason: str,
    step: int | None = None,
    quote: str = "",
) -> Said:
    """A person's verdict: a new row that wins for rewards from now on; the trajectory's reward is computed again.

    `step` is where a PASS first held (without one: as early as its dependencies allow), `quote` a piece of the turn, of
    that step if one is named. Another verdict of a person takes this one back. Raises LogError for an unknown
    trajectory, a turn that was not reached, an item that its current checklists lack, an outcome other than PASS or
    FAIL, a step that does not exist or stands beside a FAIL, a quote that does not occur, no name, no reason.
    """
    (said,) = say_together(
        log, trajectory_id, turn_index, [Word(item_key, outcome, reason, step, quote)], person=person
    )
    return said


def say_together(log: Log, trajectory_id: str, turn_index: int, words: Sequence[Word], *, person: str) -> list[Said]:
    """`say` of several items of a turn: all of it or, on LogError, nothing. It bears one moment, so that it is taken
    back together, too (`store.withdrawals.said_last`)."""
    moment = datetime.now(UTC)
    verdicts = [_verdict(log, trajectory_id, turn_index, word, person, moment) for word in words]
    if not verdicts:
        return []
    before = rewards_of(log, [trajectory_id]).get(trajectory_id)
    add_verdicts(log, verdicts)
    after = score_trajectories(log, [trajectory_id])[trajectory_id]
    return [Said(verdict, before, after) for verdict in verdicts]


def call_bad(
    log: Log,
    trajectory_id: str,
    turn_index: int,
    item_key: str,
    *,
    person: str,
    reason: str,
    later: Later | None = None,
) -> Revised:
    """An item, seen in a trajectory, is bad: it leaves the checklist's next revision, and every reward that was
    computed with it is computed again. What was said about it stays in the log.

    Where that is more than one can wait for, `later` is given what is beyond the first of them, among which is this
    trajectory. Raises LogError as `say` does.
    """
    person, reason = _said_by(person, reason)
    scenario, _ = _reached(log, trajectory_id, turn_index)
    _current_item(log, scenario, turn_index, item_key)
    revisions = retire_item(
        log, scenario.hash, turn_index, item_key, person=person, reason=reason, seen_in=trajectory_id
    )
    return _rescored(log, scenario.hash, revisions, trajectory_id, later)


def restore(
    log: Log,
    trajectory_id: str,
    turn_index: int,
    item_key: str,
    *,
    person: str,
    reason: str,
    later: Later | None = None,
) -> Revised:
    """Takes "this item is bad" back: the item is in the checklist's next revision, its weight as before.

    Raises LogError where it cannot be put back (`store.objections.restore_item`), and as `say` does.
    """
    person, reason = _said_by(person, reason)
    scenario, _ = _reached(log, trajectory_id, turn_index)
    revisions = restore_item(log, scenario.hash, turn_index, item_key, person=person, reason=reason)
    return _rescored(log, scenario.hash, revisions, trajectory_id, later)


def take_objection_back(
    log: Log,
    scenario_hash: str,
    turn_index: int,
    item_key: str,
    *,
    person: str,
    reason: str,
    seen_in: str,
    later: Later | None = None,
) -> Revised:
    """As `restore`, though the trajectory may be gone. Where the item is back already or cannot be put back, only the
    word is taken back: no checklist changes."""
    person, reason = _said_by(person, reason)
    revisions = restore_item(log, scenario_hash, turn_index, item_key, person=person, reason=reason, if_possible=True)
    return _rescored(log, scenario_hash, revisions, seen_in, later) if revisions else Revised([], 0, 0)


def _rescored(log: Log, scenario_hash: str, revisions: list[Checklist], first: str, later: Later | None) -> Revised:
    """Computes the scenario's rewards again, `first` first. A kill in between leaves the rest as they were, made of the
    older revision, until `checkloop reward`."""
    names = sorted(rewarded_trajectories(log, scenario_hash), key=lambda name: name != first)
    at_once = names if later is None else names[:_CHUNK]
    changed = 0
    for chunk in in_chunks(at_once, _CHUNK):
        before = rewards_of(log, chunk)
        after = score_trajectories(log, chunk)
        changed += sum(before[name].value != after[name].value for name in chunk)
    rest = names[len(at_once) :]
    if later is not None and rest:
        later(lambda: score_trajectories(log, rest))
    return Revised(revisions, len(at_once), changed, len(rest))


def _verdict(log: Log, trajectory_id: str, turn_index: int, word: Word, person: str, moment: datetime) -> Verdict:
    person, reason = _said_by(person, word.reason)
    if word.outcome not in (Outcome.PASS, Outcome.FAIL):
        raise LogError(f"a person says PASS or FAIL, not {str(word.outcome)!r}; an item that cannot be decided is bad")
    scenario, turn = _reached(log, trajectory_id, turn_index)
    item = _current_item(log, scenario, turn_index, word.item_key)
    steps = {record.index: record for record in turn.steps}
    if word.step is not None:
        if word.outcome == Outcome.FAIL:
            raise LogError(f"a FAIL holds at no step: leave step {word.step} out, or say PASS")
        if word.step not in steps:
            only = _listed(list(steps))
            raise LogError(f"turn {turn_index} of trajectory {trajectory_id!r} has no step {word.step}, only {only}")
    _check_quote(word.quote, turn.steps if word.step is None else (steps[word.step],), turn_index, word.step)
    return Verdict(
        trajectory_id=trajectory_id,
        turn_index=turn_index,
        item_id=item_ids(log, scenario.hash)[turn_index, item.id],
        item_key=item.id,
        outcome=Outcome(word.outcome),
        step_index=word.step,
        source=VerdictSource.HUMAN,
        judge=person,
        prompt_hash=None,
        reason=reason,
        quote=word.quote.strip(),
        created_at=moment,
    )


def _said_by(person: str, reason: str) -> tuple[str, str]:
    person, reason = person.strip(), reason.strip()
    if not person:
        raise LogError("a verdict without a name is nobody's: say who the person is")
    if len(person) > 128:
        raise LogError(f"a person's name has at most 128 characters, not {len(person)}: {person[:40]!r}…")
    if not reason:
        raise LogError("a person's word needs a reason: say in a sentence why")
    return person, reason


def _reached(log: Log, trajectory_id: str, turn_index: int) -> tuple[Scenario, TurnRecord]:
    summary = get_trajectory(log, trajectory_id)
    if summary.scenario_hash is None:
        raise LogError(
            f"trajectory {trajectory_id!r} has no scenario, so no checklist to speak about: promote it with "
            f"`checkloop annotate --chat {trajectory_id}`"
        )
    turns = {turn.index: turn for turn in get_turns(log, trajectory_id)}
    if turn_index not in turns:
        raise LogError(f"trajectory {trajectory_id!r} did not reach a turn {turn_index}, only {_listed(list(turns))}")
    return get_scenario(log, summary.scenario_hash), turns[turn_index]


def _current_item(log: Log, scenario: Scenario, turn_index: int, item_key: str) -> Item:
    if turn_index >= len(scenario.turns):
        raise LogError(f"scenario {scenario.name!r} has no turn {turn_index}, so no checklist for it")
    items = {
        item.id: item
        for checklist in current_checklists(log, [scenario])[scenario.hash][turn_index]
        for item in checklist.items
    }
    if item_key in items:
        return items[item_key]
    for objection in reversed(objections_of(log, [scenario.hash]).get(scenario.hash, [])):
        if (objection.turn_index, objection.item_key) == (turn_index, item_key):
            did = "left it out" if objection.seen_in is None else "called it bad"
            raise LogError(
                f"item {item_key!r} of turn {turn_index} left the checklist on {objection.created_at:%Y-%m-%d}, for "
                f"{objection.person} {did} ({objection.reason}): `checkloop judge restore` brings it back"
            )
    raise LogError(
        f"turn {turn_index} of scenario {scenario.name!r} has no item {item_key!r}, only {_listed(sorted(items))}"
    )


def _check_quote(quote: str, steps: tuple[StepRecord, ...], turn_index: int, step: int | None) -> None:
    if not quote_occurs(quote, steps):
        where = f"turn {turn_index}" if step is None else f"step {step} of turn {turn_index}"
        raise LogError(f"the quote {quote[:80]!r} does not occur in {where}: copy it from there, or leave it out")


def quote_occurs(quote: str, steps: Iterable[StepRecord]) -> bool:
    """In one text of one step, white space aside; an empty quote does."""
    words = " ".join(quote.split())
    return not words or any(words in " ".join(text.split()) for record in steps for text in _texts(record))


def _texts(step: StepRecord) -> list[str]:
    responses = [call.response for call in step.calls if call.response is not None]
    return [step.thinking, step.content, *map(quote_call, step.calls), *responses]


def _listed(names: list[str] | list[int]) -> str:
    return ", ".join(map(str, names)) or "none"
