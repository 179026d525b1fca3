"""Judges turns of the log: code checks, then rules, then what was said before, then an LLM judge or a panel of them.

Reads scenarios, turns and verdicts; writes verdict and reward rows, append-only. Where nobody can decide an item its
verdict is UNSCORED and says why (invariant 3). What a spending limit keeps from being asked gets no verdict, and its
dialogue no reward.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

from agent.role_endpoint import RoleEndpoint
from agent.role_errors import LimitReached
from reward.code_judge import CODE_JUDGE, RULE_JUDGE, make_verdict
from reward.judge_cache import cache_keys, look_up, shown_hash
from reward.judge_modes import judge_in_mode
from reward.judging_plan import UNJUDGED, JudgingOptions, TurnWork, plan_chunk, plan_turn
from reward.judging_report import JudgingReport
from reward.llm_judge import Dialogue, LlmJudge, LlmVerdict
from reward.outcomes import strict_items_hold
from reward.panel import Panel, combine
from reward.scoring import Played, items_of, read_played, write_rewards
from store.checklists import current_checklists
from store.database import Log
from store.records import Item, Scenario, TurnRecord
from store.scenarios import item_ids
from store.settings import Settings
from store.turns import turns_of
from store.verdicts import Reward, Verdict, add_verdicts
from store.vocabulary import JudgeMode, ModelRole, VerdictSource

_CHUNK = 200
"""Trajectories that are read, judged by code and written in one go."""
_OPEN_CHUNKS = 4
"""Chunks that are judged at once, so that slow answers of one do not leave the judge idle."""


@dataclass(frozen=True)
class TurnJudgement:
    verdicts: list[Verdict]
    strict_ok: bool | None
    """Whether the turn's strict items hold; None where that is UNSCORED."""


@dataclass
class _Asked:
    """What an LLM judge or the cache said about items of one turn in one draw."""

    verdicts: dict[str, Verdict]
    """By item key."""
    new: list[Verdict]
    """Of them those that the log does not hold about this turn."""
    cached: set[str]
    stopped: str | None


def make_judge(log: Log, settings: Settings, prompt: Path | None = None) -> "Judge":
    """The judge that the settings ask for; without `[judge]` one that leaves items without a check UNSCORED.

    `prompt`: a file instead of the mode's own prompt. Serves one event loop. Raises OSError for a missing file.
    """
    return Judge(log, make_panel(log, settings, prompt))


def make_panel(log: Log, settings: Settings, prompt: Path | None = None) -> Panel | None:
    """`[judge]` with `[judging]`; None without a `[judge]`."""
    if settings.judge is None:
        return None
    judging = settings.judging
    endpoints = [
        RoleEndpoint(ModelRole.JUDGE, endpoint, log=log, price=settings.prices.get(endpoint.model))
        for endpoint in (settings.judge, *judging.panel)
    ]
    judges = tuple(LlmJudge(endpoint, judging.mode, prompt) for endpoint in endpoints)
    return Panel(judges, judging.draws, judging.combination)


class Judge:
    """Judges with `panel` for the items that carry no check; without one those are UNSCORED."""

    def __init__(self, log: Log, panel: Panel | None = None) -> None:
        self.panel = panel
        self._log = log
        self._rules = panel is None or all(judge.mode is not JudgeMode.PAPER for judge in panel.judges)
        self._same_question: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def judge_turn(self, scenario: Scenario, turn: TurnRecord) -> TurnJudgement:
        """Judges one turn by the checklists that count for it and writes its verdicts.

        Raises ValueError if the scenario has no such turn, LogError if the log does not hold scenario and trajectory,
        LimitReached if what the settings allow is spent; what was said until then is written.
        """
        work = await asyncio.to_thread(self._work_on, scenario, turn)
        report = JudgingReport()
        verdicts = await self._judge_turn(work, UNJUDGED, report)
        if report.stopped is not None:
            raise LimitReached(report.stopped)
        return TurnJudgement(verdicts, strict_items_hold(work.items, {v.item_key: v for v in verdicts}))

    async def judge_trajectories(
        self, trajectory_ids: Iterable[str], *, retry_unscored: bool = False
    ) -> dict[str, Reward]:
        """The reward of each trajectory by the verdicts that win in the log; writes reward rows where they changed.

        Items without a verdict are judged first; with `retry_unscored` those that are UNSCORED are, too. A trajectory
        that failed, still runs, or has no scenario is not judged: its value is None and `excluded_reason` says why.
        Raises LogError for an id that is not in the log, LimitReached if what the settings allow is spent; what was
        said until then is kept.
        """
        report = JudgingReport()
        rewards: dict[str, Reward] = {}
        wanted = list(dict.fromkeys(trajectory_ids))
        async for _, judged in self._chunks(wanted, JudgingOptions(retry_unscored=retry_unscored), report):
            rewards |= judged
        if report.stopped is not None:
            raise LimitReached(report.stopped)
        return {name: rewards[name] for name in wanted}

    async def judge_log(
        self,
        trajectory_ids: Iterable[str],
        options: JudgingOptions = UNJUDGED,
        on_progress: Callable[[JudgingReport], object] | None = None,
    ) -> JudgingReport:
        """Judges any number of trajectories, of which only a bounded number is in memory; writes their rewards.

        A limit ends it: `stopped` then says which, and what was not asked has no verdict. Raises LogError for an id
        that is not in the log.
        """
        report = JudgingReport()
        async for seen, _ in self._chunks(trajectory_ids, options, report):
            report.trajectories += seen
            if on_progress is not None:
                on_progress(report)
        if self.panel is not None:
            report.spent = [(judge.name, judge.endpoint.spent) for judge in self.panel.judges]
        return report

    def plan(self, trajectory_ids: Sequence[str], options: JudgingOptions) -> tuple[Played, list[TurnWork]]:
        """What there is to judge of these trajectories. Raises LogError for an id that is not in the log."""
        played = read_played(self._log, trajectory_ids)
        llm = self.panel is not None
        return played, plan_chunk(self._log, played, options, llm=llm, rules=self._rules)

    async def _chunks(
        self, trajectory_ids: Iterable[str], options: JudgingOptions, report: JudgingReport
    ) -> AsyncIterator[tuple[int, dict[str, Reward]]]:
        """(trajectories, their rewards) of each chunk that is done."""
        chunks = _batched(trajectory_ids, _CHUNK)
        running: set[asyncio.Task[tuple[int, dict[str, Reward]]]] = set()
        try:
            while True:
                while len(running) < _OPEN_CHUNKS and report.stopped is None:
                    chunk = next(chunks, None)
                    if chunk is None:
                        break
                    running.add(asyncio.create_task(self._judge_chunk(chunk, options, report)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _judge_chunk(
        self, chunk: Sequence[str], options: JudgingOptions, report: JudgingReport
    ) -> tuple[int, dict[str, Reward]]:
        played, work = await asyncio.to_thread(self.plan, chunk, options)
        by_code = [verdict for turn in work for verdict in turn.decided]
        await asyncio.to_thread(add_verdicts, self._log, by_code)
        for verdict in by_code:
            report.count(verdict, "check" if verdict.judge == CODE_JUDGE else "rule")
        report.turns += len(work)
        try:
            async with asyncio.TaskGroup() as group:
                for turn in work:
                    if turn.pending:
                        group.create_task(self._judge_pending(turn, options, report))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        if not options.counts:
            return len(chunk), {}
        # What a limit kept from being asked waits for the next run: a reward would say that it was judged.
        whole = report.stopped is None
        return len(chunk), await asyncio.to_thread(write_rewards, self._log, played, unfinished=whole)

    async def _judge_turn(self, work: TurnWork, options: JudgingOptions, report: JudgingReport) -> list[Verdict]:
        await asyncio.to_thread(add_verdicts, self._log, work.decided)
        return work.decided + (await self._judge_pending(work, options, report) if work.pending else [])

    async def _judge_pending(self, work: TurnWork, options: JudgingOptions, report: JudgingReport) -> list[Verdict]:
        """The verdicts of the LLM judges on what is pending; written."""
        panel = self.panel
        assert panel is not None
        if report.stopped is not None:
            return []
        # Dialogues of a group often say the same: whoever comes second waits and finds the answer in the log.
        same = "" if options.fresh else shown_hash(panel.judges[0], work.dialogue)
        async with self._same_question.setdefault(same, asyncio.Lock()) if same else asyncio.Lock():
            asked = await asyncio.gather(*(self._ask_member(llm, draw, work, options) for llm, draw in panel.members))
            said = self._settle(panel, work, asked, options)
            rows = [replace(v, counts=options.counts and panel.alone) for one in asked for v in one.new]
            await asyncio.to_thread(add_verdicts, self._log, rows if panel.alone else rows + said)
        for verdict in said:
            cached = all(verdict.item_key in one.cached for one in asked)
            report.count(verdict, "rule" if verdict.judge == RULE_JUDGE else "cache" if cached else "llm")
        report.stopped = report.stopped or next((one.stopped for one in asked if one.stopped), None)
        return said

    def _settle(self, panel: Panel, work: TurnWork, asked: Sequence[_Asked], options: JudgingOptions) -> list[Verdict]:
        """One verdict an item of which every member has spoken."""
        whole = [item.id for item in work.pending if all(item.id in one.verdicts for one in asked)]
        if panel.alone:
            return [replace(asked[0].verdicts[key], counts=options.counts) for key in whole]
        votes_N = [[one.verdicts[key] for one in asked] for key in whole]
        combined = [
            # What failed by rule for everyone is nobody's opinion, and follows a person's word on what it depends on.
            replace(votes[0], draw=0)
            if all(vote.judge == RULE_JUDGE for vote in votes)
            else combine(votes, panel.combination, panel.name)
            for votes in votes_N
        ]
        return [replace(verdict, counts=options.counts) for verdict in combined]

    async def _ask_member(self, llm: LlmJudge, draw: int, work: TurnWork, options: JudgingOptions) -> _Asked:
        keys = cache_keys(llm, work.dialogue, work.pending, draw, work.held)
        known = {} if options.fresh else await asyncio.to_thread(look_up, self._log, work.dialogue, keys)
        verdicts: dict[str, Verdict] = {}
        new = []
        for item in work.pending:
            if item.id in known:
                before, own = known[item.id]
                verdicts[item.id] = _about(work, item, before)
                # A vote, or a verdict beside others, stands in the log already; one that counts is said anew.
                if not own or (options.counts and self.panel is not None and self.panel.alone):
                    new.append(verdicts[item.id])
        cached = set(verdicts)
        answers = await judge_in_mode(
            llm, work.dialogue, [item for item in work.pending if item.id not in cached], work.held, draw
        )
        items = {item.id: item for item in work.pending}
        for answer in answers.verdicts:
            verdicts[answer.key] = _spoken(work, items[answer.key], llm, draw, keys, answer)
            new.append(verdicts[answer.key])
        return _Asked(verdicts, new, cached, answers.stopped)

    def _work_on(self, scenario: Scenario, turn: TurnRecord) -> TurnWork:
        checklists = current_checklists(self._log, [scenario])[scenario.hash]
        items = items_of(scenario, checklists, turn)
        ids = item_ids(self._log, scenario.hash)
        earlier: list[TurnRecord] = []
        if self.panel is not None and any(item.check is None for item in items):
            turns = turns_of(self._log, [turn.trajectory_id]).get(turn.trajectory_id, [])
            earlier = [other for other in turns if other.index < turn.index]
        dialogue = Dialogue(turn, tuple(earlier), scenario.hash)
        llm = self.panel is not None
        return plan_turn(dialogue, items, {}, ids, UNJUDGED, llm=llm, rules=self._rules)


def _spoken(work: TurnWork, item: Item, llm: LlmJudge, draw: int, keys: dict[str, str], answer: LlmVerdict) -> Verdict:
    turn = work.dialogue.turn
    if answer.by_rule:
        ruled = make_verdict(item, turn, work.ids, answer.outcome, judge=RULE_JUDGE, reason=answer.reason)
        return replace(ruled, draw=draw)
    return Verdict(
        trajectory_id=turn.trajectory_id,
        turn_index=turn.index,
        item_id=work.ids[turn.index, item.id],
        item_key=item.id,
        outcome=answer.outcome,
        step_index=answer.step_index,
        source=VerdictSource.LLM,
        judge=llm.name,
        prompt_hash=llm.prompt_hash,
        reason=answer.reason,
        quote=answer.quote,
        draw=draw,
        cache_key=keys[item.id] if answer.asked else None,
    )


def _about(work: TurnWork, item: Item, before: Verdict) -> Verdict:
    """What was said to the same question, as a verdict on this turn."""
    turn = work.dialogue.turn
    return replace(
        before,
        trajectory_id=turn.trajectory_id,
        turn_index=turn.index,
        item_id=work.ids[turn.index, item.id],
        item_key=item.id,
        created_at=None,
    )


def _batched(names: Iterable[str], size: int) -> Iterator[list[str]]:
    left: Iterator[str] = iter(names)
    while chunk := list(islice(left, size)):
        yield chunk
