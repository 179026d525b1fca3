"""What a small judge learns from: a question about one item of a logged turn, and the answer that a verdict makes it.

Reads trajectories, turns, checklists and verdicts; writes nothing. Of all that was said about an item in a turn, people
count before checks, and checks before the LLM judges that were asked for. UNSCORED is never learnt. Scenarios are split
by hash, so that no scenario is on both sides.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from reward.checks import quote_call, succeeded
from reward.code_judge import RULE_JUDGE
from reward.evidence import decide_forbidding, find_evidence, find_forbidden, lacking_channel
from reward.mentions import find_mention, tokenize
from reward.scoring import promoted_turns
from reward.small_judge import QUOTE_CHARACTERS, draw_boundary, small_answer, small_question
from reward.transcripts import strip_tags
from store.checklists import current_checklists
from store.database import Log
from store.records import Item, TurnRecord
from store.scenarios import get_scenario
from store.trajectories import TrajectorySummary, list_trajectories
from store.turns import turns_of
from store.verdicts import Verdict, verdicts_of
from store.vocabulary import FocusOn, Origin, Outcome, VerdictSource
from train.errors import TrainingFailed

PEOPLE, CHECKS = "people", "checks"

NO_EVIDENCE = "a PASS without a quote that is in the turn, or a FAIL that does not show what must not happen"
NO_MODEL = "decided without a model: the turn lacks the channel"
UNSCORED = "nobody who counts could decide it"
RETIRED = "the item is in no current checklist"
NO_TURN = "the dialogue has no such turn any more: a chat was said anew"
_CHUNK = 40
"""Scenarios that are read at once."""


@dataclass(frozen=True)
class Sources:
    """Whose verdicts are learnt, in this order: people, checks, LLM judges by name."""

    people: bool = True
    checks: bool = True
    teachers: tuple[str, ...] = ()


@dataclass(frozen=True)
class JudgeExample:
    """A question and its answer. `turn`, `item` and `earlier` are what they were made of."""

    scenario_hash: str
    turn: TurnRecord
    item: Item
    earlier: tuple[TurnRecord, ...]
    source: VerdictSource
    judge: str
    """Whose verdict it is."""
    outcome: Outcome
    question: str
    """The one user message."""
    answer: str
    teachers: Mapping[str, Outcome] = field(default_factory=dict)
    """What each LLM judge asked for said of it: beside what counts, for the report."""

    @property
    def turn_key(self) -> tuple[str, int]:
        return self.turn.trajectory_id, self.turn.index


@dataclass(frozen=True)
class JudgeData:
    train: list[JudgeExample]
    held_out: list[JudgeExample]
    left_out: Counter[str]
    """Reason -> (turn, item) pairs that are not learnt."""

    def digest(self) -> str:
        """SHA-256 of every question and answer in order."""
        found = hashlib.sha256()
        for example in (*self.train, *self.held_out):
            found.update(example.question.encode())
            found.update(example.answer.encode())
        return found.hexdigest()


def gather_examples(
    log: Log, sources: Sources, *, seed: int, max_train: int, max_held_out: int, held_out_share: float
) -> JudgeData:
    """Examples from whole turns, scenarios in seeded order, until both sides have as many as asked for.

    Raises TrainingFailed if no source is named, or where a side has no PASS or no FAIL.
    """
    if not (sources.people or sources.checks or sources.teachers):
        raise TrainingFailed("nobody is named to learn from: --people, --checks or --teacher NAME")
    data = JudgeData([], [], Counter())
    by_scenario: dict[str, list[TrajectorySummary]] = {}
    for summary in list_trajectories(log, limit=None):
        # An open chat is learnt from as it is judged: the turns that became its scenario are over.
        ended = summary.stop_reason is not None or summary.origin is Origin.CHAT
        if summary.scenario_hash is not None and ended:
            by_scenario.setdefault(summary.scenario_hash, []).append(summary)
    order = sorted(by_scenario, key=lambda digest: _hash_share(seed, "order", digest))
    for start in range(0, len(order), _CHUNK):
        wanted = []
        for digest in order[start : start + _CHUNK]:
            held_out = is_held_out(digest, seed, held_out_share)
            side, most = (data.held_out, max_held_out) if held_out else (data.train, max_train)
            if len(side) < most:
                wanted.append(digest)
        for example in _examples_of(log, {digest: by_scenario[digest] for digest in wanted}, sources, seed, data):
            side = data.held_out if is_held_out(example.scenario_hash, seed, held_out_share) else data.train
            side.append(example)
        if len(data.train) >= max_train and len(data.held_out) >= max_held_out:
            break
    del data.train[max_train:], data.held_out[max_held_out:]
    _check_sides(data, sources)
    return data


def is_held_out(scenario_hash: str, seed: int, share: float) -> bool:
    return _hash_share(seed, "split", scenario_hash) < share


def base_rate(examples: Sequence[JudgeExample]) -> float:
    """Share of PASS."""
    return sum(example.outcome is Outcome.PASS for example in examples) / len(examples)


def class_weights(examples: Sequence[JudgeExample]) -> dict[Outcome, float]:
    """Weights under which PASS and FAIL weigh the same in all, and an example weighs 1 on average."""
    counts = Counter(example.outcome for example in examples)
    return {outcome: len(examples) / (len(counts) * count) for outcome, count in counts.items()}


def choose_verdict(rows: Iterable[Verdict], sources: Sources) -> Verdict | None:
    """Of all rows on one item in one turn, in the order they were said, the one to learn; None if none counts.

    The newest of the first source that decided it. Verdicts by rule are no judge's: no model is asked there.
    """
    newest: dict[str, Verdict] = {}
    for row in rows:
        name = _source_name(row)
        if name is not None and row.draw == 0:
            newest[name] = row
    wanted = [PEOPLE] * sources.people + [CHECKS] * sources.checks + [f"llm {name}" for name in sources.teachers]
    decided = (newest[name] for name in wanted if name in newest and newest[name].outcome is not Outcome.UNSCORED)
    return next(decided, None)


def answer_of(verdict: Verdict, turn: TurnRecord, item: Item, rows: Sequence[Verdict]) -> str | None:
    """The answer that the verdict makes; None for a PASS that has no evidence in the turn, and where the item says what
    must not happen for a FAIL that has none.

    It quotes the whole passage that decides, for PASS and for FAIL: which one that is a small model can find, and the
    verdict is then a comparison of two texts that stand side by side. A person often quotes nothing: then the quote of
    another PASS on the item says which passage.
    """
    if item.forbids:
        return _forbidden_answer(verdict, turn, item, rows)
    if verdict.outcome is Outcome.FAIL:
        quote, step = _against(turn, item.focus_on, strip_tags(verdict.quote))
        return small_answer(quote, step, Outcome.FAIL)
    said_pass = [row for row in reversed(rows) if row.outcome is Outcome.PASS]
    for row in (verdict, *said_pass):
        found = None
        if row.step_index is not None:
            found = find_evidence(turn, item.focus_on, row.step_index, strip_tags(row.quote))
        if found is None or row.step_index is None:
            continue
        texts = [text for step, text in passages(turn, item.focus_on) if step == row.step_index and found in text]
        quote = excerpt(texts[0], found) if texts else ""
        if find_evidence(turn, item.focus_on, row.step_index, quote) is not None:
            return small_answer(quote, row.step_index, Outcome.PASS)
    return None


def _forbidden_answer(verdict: Verdict, turn: TurnRecord, item: Item, rows: Sequence[Verdict]) -> str | None:
    if verdict.outcome is Outcome.PASS:
        return small_answer("", -1, Outcome.PASS)
    for row in (verdict, *(row for row in reversed(rows) if row.outcome is Outcome.FAIL)):
        said = strip_tags(row.quote)
        for step, text in passages(turn, item.focus_on) if tokenize(said).spans else ():
            found = find_mention(text, said)
            quote = "" if found is None else excerpt(text, found)
            if find_forbidden(turn, item.focus_on, step, quote) is not None:
                return small_answer(quote, step, Outcome.FAIL)
    return None


def passages(turn: TurnRecord, channel: FocusOn) -> list[tuple[int, str]]:
    """Step and text of all that a channel shows, as it is shown; failed calls included, but before the others."""
    failed: list[tuple[int, str]] = []
    sound: list[tuple[int, str]] = []
    for step in turn.steps:
        if channel in (FocusOn.TOOL_CALLS, FocusOn.TOOL_RESPONSE):
            for call in step.calls:
                text = quote_call(call) if channel is FocusOn.TOOL_CALLS else call.response
                (sound if succeeded(call) else failed).append((step.index, strip_tags(text or "")))
        else:
            text = step.thinking if channel is FocusOn.THINKING else step.content
            sound.append((step.index, strip_tags(text)))
    return [(index, text) for index, text in (*failed, *sound) if text.strip()]


def excerpt(text: str, around: str = "") -> str:
    """At most QUOTE_CHARACTERS of the text, whole words and numbers, with `around` in it where that is no longer."""
    if len(text) <= QUOTE_CHARACTERS:
        return text
    at = max(0, text.find(around))
    start = max(0, min(at + len(around) // 2 - QUOTE_CHARACTERS // 2, at, len(text) - QUOTE_CHARACTERS))
    words = [(a, b) for a, b in tokenize(text).spans if a >= start and b <= start + QUOTE_CHARACTERS]
    return text[words[0][0] : words[-1][1]] if words else ""


def _examples_of(
    log: Log, by_scenario: Mapping[str, Sequence[TrajectorySummary]], sources: Sources, seed: int, data: JudgeData
) -> Iterator[JudgeExample]:
    scenarios = {digest: get_scenario(log, digest) for digest in by_scenario}
    current = current_checklists(log, scenarios.values())
    names = [summary.id for of_scenario in by_scenario.values() for summary in of_scenario]
    turns, said = turns_of(log, names), verdicts_of(log, names, all_rows=True)
    for digest, of_scenario in by_scenario.items():
        items = {
            (index, item.id): item
            for index, variants in enumerate(current[digest])
            for checklist in variants
            for item in checklist.items
        }
        for summary in of_scenario:
            name = summary.id
            by_item: dict[tuple[int, str], list[Verdict]] = {}
            for row in said.get(name, []):
                by_item.setdefault((row.turn_index, row.item_key), []).append(row)
            played = turns.get(name, [])
            if summary.origin is Origin.CHAT:
                played = promoted_turns(scenarios[digest], played)
            reached = {turn.index for turn in played}
            if gone := sum(index not in reached for index, _ in by_item):
                data.left_out[NO_TURN] += gone
            for position, turn in enumerate(played):
                boundary = draw_boundary(Random(f"{seed} {name} {turn.index}"))
                for (index, key), rows in sorted(by_item.items()):
                    if index != turn.index:
                        continue
                    item = items.get((index, key))
                    verdict = choose_verdict(rows, sources)
                    reason = _why_not(item, verdict, turn)
                    answer = None
                    if reason is None and item is not None and verdict is not None:
                        answer = answer_of(verdict, turn, item, rows)
                    if item is None or verdict is None or answer is None:
                        data.left_out[reason or NO_EVIDENCE] += 1
                        continue
                    earlier = tuple(played[:position])
                    yield JudgeExample(
                        scenario_hash=digest,
                        turn=turn,
                        item=item,
                        earlier=earlier,
                        source=verdict.source,
                        judge=verdict.judge,
                        outcome=verdict.outcome,
                        question=small_question(turn, item, earlier, boundary),
                        answer=answer,
                        teachers=_teachers(rows, sources),
                    )


def _why_not(item: Item | None, verdict: Verdict | None, turn: TurnRecord) -> str | None:
    if item is None:
        return RETIRED
    decide = decide_forbidding if item.forbids else lacking_channel
    if decide(item.focus_on, turn) is not None:
        return NO_MODEL
    return UNSCORED if verdict is None else None


def _teachers(rows: Iterable[Verdict], sources: Sources) -> dict[str, Outcome]:
    said = {row.judge: row.outcome for row in rows if row.source is VerdictSource.LLM and row.draw == 0}
    return {name: said[name] for name in sources.teachers if name in said}


def _source_name(row: Verdict) -> str | None:
    if row.source is VerdictSource.HUMAN:
        return PEOPLE
    if row.source is VerdictSource.LLM:
        return f"llm {row.judge}"
    return None if row.judge == RULE_JUDGE else CHECKS


def _against(turn: TurnRecord, channel: FocusOn, quote: str) -> tuple[str, int]:
    """What a FAIL quotes: the passage that its own quote stands in, else the channel's last one; step -1 if none."""
    shown = passages(turn, channel)
    if tokenize(quote).spans:
        for index, text in shown:
            if (found := find_mention(text, quote)) is not None:
                return excerpt(text, found), index
    return (excerpt(shown[-1][1]), shown[-1][0]) if shown else ("", -1)


def _hash_share(seed: int, what: str, digest: str) -> float:
    """A number in [0, 1) that follows from all three."""
    drawn = hashlib.sha256(f"{seed}\n{what}\n{digest}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") / 2**64


def _check_sides(data: JudgeData, sources: Sources) -> None:
    for side, examples in (("training", data.train), ("held-out", data.held_out)):
        found = Counter(example.outcome.value for example in examples)
        if found["PASS"] and found["FAIL"]:
            continue
        who = [PEOPLE] * sources.people + [CHECKS] * sources.checks + list(sources.teachers)
        left = "; ".join(f"{reason}: {count}" for reason, count in data.left_out.most_common())
        raise TrainingFailed(
            f"of what {', '.join(who)} said, {found['PASS']} PASS and {found['FAIL']} FAIL are on the {side} side, and "
            f"both are needed (left out: {left or 'nothing'}): judge more of the log first, or name other sources"
        )
