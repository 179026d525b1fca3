"""The judge of the settings as the self-test asks it: in its mode, by all of its panel, as `checkloop judge` would.

Each item is judged by itself: a damaged turn in which what it depends on fails would otherwise say nothing of it.
Writes nothing but the calls that the endpoints record; the cache of verdicts is about logged turns, so it is not asked.
"""

import asyncio
from collections.abc import Sequence

from agent.role_errors import LimitReached
from reward.code_judge import decide_by_rule
from reward.judge_modes import judge_in_mode
from reward.llm_judge import Dialogue, LlmJudge, LlmVerdict
from reward.panel import Panel, combine
from reward.self_test import JudgeItems
from store.records import Item
from store.verdicts import Verdict
from store.vocabulary import JudgeMode, Outcome, VerdictSource


def judge_items_with(panel: Panel) -> JudgeItems:
    """What `run_self_test_with` asks. It raises LimitReached where a judge's limit kept an item from being decided."""
    rules = all(judge.mode is not JudgeMode.PAPER for judge in panel.judges)

    async def judge_items(dialogue: Dialogue, items: Sequence[Item]) -> Sequence[Outcome]:
        apart = [item.model_copy(update={"depends_on": ()}) for item in items]
        ruled = {item.id: found for item in apart if rules and (found := decide_by_rule(item, dialogue.turn, {}))}
        asked = [item for item in apart if item.id not in ruled]
        votes = await asyncio.gather(*(_votes(llm, dialogue, asked, draw) for llm, draw in panel.members))
        said = {item.id: _combined([of[item.id] for of in votes], panel) for item in asked}
        return [said[item.id] if item.id in said else ruled[item.id][0] for item in items]

    return judge_items


async def _votes(llm: LlmJudge, dialogue: Dialogue, items: Sequence[Item], draw: int) -> dict[str, Verdict]:
    answers = await judge_in_mode(llm, dialogue, items, {}, draw)
    if answers.stopped is not None:
        raise LimitReached(answers.stopped)
    return {answer.key: _as_vote(answer, dialogue, llm, draw) for answer in answers.verdicts}


def _as_vote(answer: LlmVerdict, dialogue: Dialogue, llm: LlmJudge, draw: int) -> Verdict:
    turn = dialogue.turn
    return Verdict(
        trajectory_id=turn.trajectory_id,
        turn_index=turn.index,
        item_id=0,  # of no log: a vote is counted here and forgotten
        item_key=answer.key,
        outcome=answer.outcome,
        step_index=answer.step_index,
        source=VerdictSource.LLM,
        judge=llm.name,
        prompt_hash=llm.prompt_hash,
        reason=answer.reason,
        quote=answer.quote,
        draw=draw,
    )


def _combined(votes: Sequence[Verdict], panel: Panel) -> Outcome:
    return votes[0].outcome if panel.alone else combine(votes, panel.combination, panel.name).outcome
