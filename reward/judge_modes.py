"""How an LLM judge is asked about a turn (JudgeMode): which questions, and how their answers become verdicts.

In `step` and `paper` an item holds from the first step at which the judge says so. What needs no question is left out:
in `step` an item that holds, one whose channel the step lacks, one that cannot pay because what it depends on does
not hold yet, and before the turn's end one that says what must not happen. `paper` asks everything, as CM2's procedure
does.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reward.checks import has_reply
from reward.code_judge import decide_by_rule
from reward.evidence import evidence_texts
from reward.llm_judge import Answers, Dialogue, LlmJudge, LlmVerdict
from reward.outcomes import dependencies_first
from reward.paper_question import ask_as_paper
from reward.small_judge import ask_small
from reward.transcripts import up_to_step
from store.records import Item, TurnRecord
from store.vocabulary import JudgeMode, Outcome


async def judge_in_mode(
    llm: LlmJudge, dialogue: Dialogue, items: Sequence[Item], held: Mapping[str, int], draw: int = 0
) -> Answers:
    """Verdicts on `items` in the judge's mode. `held`: since which step other items of the turn hold."""
    if not items:
        return Answers([])
    if llm.mode is JudgeMode.TURN:
        return await llm.ask(dialogue, items, draw)
    if llm.mode is JudgeMode.ITEM:
        return _joined(await asyncio.gather(*(llm.ask(dialogue, [item], draw) for item in items)))
    if llm.mode is JudgeMode.SMALL:
        return _joined(await asyncio.gather(*(ask_small(llm, dialogue, item, draw) for item in items)))
    if llm.mode is JudgeMode.STEP:
        return await _step_by_step(llm, dialogue, items, held, draw)
    return _joined(await asyncio.gather(*(_every_step(llm, dialogue, item, draw) for item in items)))


def count_questions(mode: JudgeMode, turn: TurnRecord, items: Sequence[Item]) -> list[tuple[TurnRecord, list[Item]]]:
    """The questions at most, quotes asked for again aside: the turn as it is shown, and the items asked about."""
    if mode is JudgeMode.TURN:
        return [(turn, list(items))] if items else []
    if mode in (JudgeMode.ITEM, JudgeMode.SMALL):
        return [(turn, [item]) for item in items]
    views = [up_to_step(turn, position) for position in range(len(turn.steps))]
    if mode is JudgeMode.PAPER:
        return [(view, [item]) for view in views for item in items]
    asked = [(view, [item for item in items if _can_show(item, view)]) for view in views]
    return [(view, chosen) for view, chosen in asked if chosen]


async def _step_by_step(
    llm: LlmJudge, dialogue: Dialogue, items: Sequence[Item], held: Mapping[str, int], draw: int
) -> Answers:
    said: dict[str, LlmVerdict] = {}
    stopped = None
    for position in range(len(dialogue.turn.steps)):
        view = up_to_step(dialogue.turn, position)
        asked = _to_ask(items, view, said, held)
        if not asked:
            continue
        answers = await llm.ask(replace(dialogue, turn=view), asked, draw)
        for verdict in answers.verdicts:
            said[verdict.key] = _later(said.get(verdict.key), _since(verdict, view))
        stopped = answers.stopped
        if stopped is not None:
            break
    if stopped is not None:
        # What did not hold so far may yet have held: only what did is settled.
        return Answers([said[item.id] for item in items if _holds(said.get(item.id))], stopped)
    for item in _dependencies_first(items):
        if item.id not in said:
            said[item.id] = _never_asked(item, dialogue.turn, said)
    return Answers([said[item.id] for item in items])


def _never_asked(item: Item, turn: TurnRecord, said: Mapping[str, LlmVerdict]) -> LlmVerdict:
    """It fails: by rule where what it depends on does (until a person says otherwise), else because it cannot pay."""
    ruled = decide_by_rule(item, turn, {key: verdict.outcome for key, verdict in said.items()})
    if ruled is not None:
        return LlmVerdict(item.id, Outcome.FAIL, None, ruled[1], asked=False, by_rule=True)
    never = "no step showed anything of its channel while what it depends on held"
    return LlmVerdict(item.id, Outcome.FAIL, None, never, asked=False)


def _to_ask(
    items: Sequence[Item], view: TurnRecord, said: Mapping[str, LlmVerdict], held: Mapping[str, int]
) -> list[Item]:
    """The items of a step's question.

    One that depends on something that neither holds nor is asked now cannot pay at this step, nor at the next one
    (equation 2), whatever the answer is.
    """
    own = {item.id for item in items}
    asked: dict[str, Item] = {}
    for item in _dependencies_first(items):
        if _holds(said.get(item.id)) or not _can_show(item, view):
            continue
        if all(_may_hold(key, view, own, asked, said, held) for key in item.depends_on):
            asked[item.id] = item
    return list(asked.values())


def _may_hold(
    key: str,
    view: TurnRecord,
    own: set[str],
    asked: Mapping[str, Item],
    said: Mapping[str, LlmVerdict],
    held: Mapping[str, int],
) -> bool:
    """Whether a dependency holds at this step, may come to hold by this question's answer, or cannot be known."""
    if key in held:
        return held[key] <= view.steps[-1].index
    if key not in own or key in asked:
        return True
    return key in said and said[key].outcome is not Outcome.FAIL


async def _every_step(llm: LlmJudge, dialogue: Dialogue, item: Item, draw: int) -> Answers:
    views = [up_to_step(dialogue.turn, position) for position in range(len(dialogue.turn.steps))]
    answers = await asyncio.gather(*(ask_as_paper(llm, replace(dialogue, turn=view), item, draw) for view in views))
    stopped = next((answer.stopped for answer in answers if answer.stopped is not None), None)
    if stopped is not None:
        return Answers([], stopped)
    verdict: LlmVerdict | None = None
    for answer in answers:
        verdict = _later(verdict, answer.verdicts[0])
    never = LlmVerdict(item.id, Outcome.FAIL, None, "the turn has no step", asked=False)
    return Answers([verdict or never])


def _dependencies_first(items: Sequence[Item]) -> list[Item]:
    """`dependencies_first` for some of a turn's items: what they depend on beside these does not matter."""
    own = {item.id for item in items}
    inner = [
        item.model_copy(update={"depends_on": tuple(key for key in item.depends_on if key in own)}) for item in items
    ]
    by_id = {item.id: item for item in items}
    return [by_id[item.id] for item in dependencies_first(inner)]


def _can_show(item: Item, view: TurnRecord) -> bool:
    """Whether the last step of `view` can decide the item: it has something that can prove it, or ends the turn."""
    if item.forbids:
        return has_reply(view)
    return bool(evidence_texts(view, view.steps[-1], item.focus_on))


def _since(verdict: LlmVerdict, view: TurnRecord) -> LlmVerdict:
    return replace(verdict, step_index=view.steps[-1].index) if verdict.outcome is Outcome.PASS else verdict


def _later(before: LlmVerdict | None, now: LlmVerdict) -> LlmVerdict:
    """What stands after another step: the first PASS; else UNSCORED if any step could not be judged; else FAIL."""
    if before is None or now.outcome is Outcome.PASS:
        return before if _holds(before) and before is not None else now
    return before if before.outcome is not Outcome.FAIL else now


def _holds(verdict: LlmVerdict | None) -> bool:
    return verdict is not None and verdict.outcome is Outcome.PASS


def _joined(many: Sequence[Answers]) -> Answers:
    stopped = next((answers.stopped for answers in many if answers.stopped is not None), None)
    return Answers([verdict for answers in many for verdict in answers.verdicts], stopped)
