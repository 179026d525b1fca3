"""What judging would take, without asking anybody: items by who would decide them, calls, tokens, price."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from reward.code_judge import CODE_JUDGE
from reward.judge import Judge
from reward.judge_cache import cache_keys, look_up
from reward.judge_modes import count_questions
from reward.judging_plan import UNJUDGED, JudgingOptions, TurnWork
from reward.judging_report import By
from reward.llm_judge import Dialogue, LlmJudge
from reward.paper_question import paper_prompt
from reward.small_judge import small_question
from store.database import Log
from store.endpoint_settings import Price
from store.records import Item
from store.vocabulary import JudgeMode

CHARACTERS_PER_TOKEN = 3.5
"""About what tokenizers of today need for dialogues with JSON in them."""
TOKENS_PER_ANSWER = {
    JudgeMode.TURN: 70,
    JudgeMode.ITEM: 70,
    JudgeMode.STEP: 70,
    JudgeMode.PAPER: 250,
    JudgeMode.SMALL: 40,
}
"""About what a judge says on one item."""
_CHUNK = 200


@dataclass
class Estimate:
    """Calls are those at most, quotes that are asked for again aside; tokens are about right."""

    trajectories: int = 0
    turns: int = 0
    by: Counter[By] = field(default_factory=Counter)
    """Items by who would decide them; of a panel, by the cache if it knows all votes."""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    """Without the prefix cache; None where a model's price is not known."""


def estimate(
    log: Log,
    judge: Judge,
    prices: Mapping[str, Price],
    trajectory_ids: Iterable[str],
    options: JudgingOptions = UNJUDGED,
    on_progress: Callable[[Estimate], object] | None = None,
) -> Estimate:
    """Reads the log, writes nothing. Raises LogError for an id that is not in the log."""
    total = Estimate()
    left = iter(trajectory_ids)
    while chunk := list(islice(left, _CHUNK)):
        _, work = judge.plan(chunk, options)
        for turn in work:
            total.turns += 1
            for verdict in turn.decided:
                total.by["check" if verdict.judge == CODE_JUDGE else "rule"] += 1
            _add_llm(log, judge, prices, turn, options, total)
        total.trajectories += len(chunk)
        if on_progress is not None:
            on_progress(total)
    return total


def with_work(judge: Judge, trajectory_ids: Iterable[str], options: JudgingOptions, limit: int) -> list[str]:
    """The first `limit` of the trajectories that have something to judge."""
    found: list[str] = []
    left = iter(trajectory_ids)
    while len(found) < limit and (chunk := list(islice(left, _CHUNK))):
        _, work = judge.plan(chunk, options)
        found += dict.fromkeys(turn.dialogue.turn.trajectory_id for turn in work)
    return found[:limit]


def _add_llm(
    log: Log, judge: Judge, prices: Mapping[str, Price], work: TurnWork, options: JudgingOptions, total: Estimate
) -> None:
    if judge.panel is None or not work.pending:
        return
    unknown: set[str] = set()
    for llm, draw in judge.panel.members:
        keys = cache_keys(llm, work.dialogue, work.pending, draw, work.held)
        known = {} if options.fresh else look_up(log, work.dialogue, keys)
        left = [item for item in work.pending if item.id not in known]
        unknown |= {item.id for item in left}
        calls, sent, said = _sizes(llm, work.dialogue, left)
        total.calls += calls
        total.prompt_tokens += sent
        total.completion_tokens += said
        price = prices.get(llm.endpoint.settings.model)
        if calls and price is None:
            total.usd = None
        if price is not None and total.usd is not None:
            total.usd += price.usd(sent, said)
    total.by["llm"] += len(unknown)
    total.by["cache"] += len(work.pending) - len(unknown)


def _sizes(llm: LlmJudge, dialogue: Dialogue, items: Sequence[Item]) -> tuple[int, int, int]:
    """(calls, prompt tokens, completion tokens) of a judge's questions about these items."""
    questions = count_questions(llm.mode, dialogue.turn, items)
    characters = answers = 0
    for view, asked in questions:
        shown = replace(dialogue, turn=view)
        if llm.mode is JudgeMode.PAPER:
            characters += len(paper_prompt(llm.prompt, shown, asked[0]))
        elif llm.mode is JudgeMode.SMALL:
            characters += len(small_question(view, asked[0], dialogue.earlier, "", llm.prompt))
        else:
            characters += len(llm.prompt) + len(llm.question(shown, asked))
        answers += len(asked) * TOKENS_PER_ANSWER[llm.mode]
    return len(questions), int(characters / CHARACTERS_PER_TOKEN), answers
