"""Judges turns of the log: code checks first, then the LLM judge for what code cannot decide.

Reads scenarios, turns and verdicts; writes verdict and reward rows, append-only. Where nobody can decide an item its
verdict is UNSCORED and says why (invariant 3).
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reward.checks import decide_check, has_reply, succeeded
from reward.llm_judge import LlmJudge
from reward.outcomes import dependencies_first, strict_items_hold
from reward.scoring import Played, items_of, read_played, why_not_judged, write_rewards
from store.checklists import current_checklists
from store.database import Log
from store.records import Item, Scenario, TurnRecord
from store.scenarios import item_ids
from store.turns import turns_of
from store.verdicts import Reward, Verdict, add_verdicts, verdicts_of
from store.vocabulary import FocusOn, Outcome, VerdictSource

CODE_JUDGE = "checks"
RULE_JUDGE = "rules"
"""Items without a check that need no model: an unmet dependency, or nothing there to look at."""
NO_JUDGE = "no judge is configured for items without a check"

_CHUNK = 200
"""Trajectories that are read, judged by code and written in one go."""

ItemIds = dict[tuple[int, str], int]


@dataclass(frozen=True)
class TurnJudgement:
    verdicts: list[Verdict]
    strict_ok: bool | None
    """Whether the turn's strict items hold; None where that is UNSCORED."""


@dataclass(frozen=True)
class CodeJudgement:
    """What code could decide of a turn, and the items that are left for a model."""

    verdicts: list[Verdict]
    pending: list[Item]


def judge_by_code(items: Sequence[Item], turn: TurnRecord, ids: ItemIds) -> CodeJudgement:
    """Verdicts of the checks, and FAILs by rule for items that no model needs to look at.

    By rule fails an item without a check whose dependency fails, or whose channel the turn lacks: a reply item without
    a reply, a thinking item without thinking, a tool item without a call that succeeded. (What must *not* be called
    has nothing to quote and belongs into a `not_called` check.) Pure.
    """
    verdicts: dict[str, Verdict] = {}
    pending = []
    for item in dependencies_first(items):
        if item.check is not None:
            verdicts[item.id] = _by_check(item, turn, ids)
            continue
        failed = [key for key in item.depends_on if key in verdicts and verdicts[key].outcome is Outcome.FAIL]
        reason = f"it depends on {failed[0]!r}, which fails" if failed else lacking_channel(item.focus_on, turn)
        if reason is None:
            pending.append(item)
        else:
            verdicts[item.id] = _verdict(item, turn, ids, Outcome.FAIL, None, VerdictSource.CODE, RULE_JUDGE, reason)
    return CodeJudgement(list(verdicts.values()), pending)


def lacking_channel(channel: FocusOn, turn: TurnRecord) -> str | None:
    """Why no item on this channel can hold in the turn; None if there is something to look at."""
    if channel is FocusOn.REPLY:
        return None if has_reply(turn) else "the turn ended without a reply"
    if channel is FocusOn.THINKING:
        return None if any(step.thinking.strip() for step in turn.steps) else "there is no thinking in the turn"
    calls = [call for step in turn.steps for call in step.calls]
    if any(succeeded(call) for call in calls):
        return None
    return "every tool call of the turn failed" if calls else "there is no tool call in the turn"


class Judge:
    """Judges with `llm` for the items that carry no check; without one those are UNSCORED."""

    def __init__(self, log: Log, llm: LlmJudge | None = None) -> None:
        self._log = log
        self._llm = llm
        self._item_ids: dict[str, ItemIds] = {}

    async def judge_turn(self, scenario: Scenario, turn: TurnRecord) -> TurnJudgement:
        """Judges one turn by the checklists that count for it and writes its verdicts.

        Raises ValueError if the scenario has no such turn, LogError if the log does not hold scenario and trajectory.
        """
        checklists = current_checklists(self._log, [scenario])[scenario.hash]
        items = items_of(scenario, checklists, turn)
        ids = self._ids(scenario.hash)
        judged = judge_by_code(items, turn, ids)
        earlier: list[TurnRecord] = []
        if judged.pending and self._llm is not None:
            turns = turns_of(self._log, [turn.trajectory_id]).get(turn.trajectory_id, [])
            earlier = [other for other in turns if other.index < turn.index]
        verdicts = judged.verdicts + await self._by_llm(judged.pending, turn, earlier, ids)
        await asyncio.to_thread(add_verdicts, self._log, verdicts)
        by_key = {verdict.item_key: verdict for verdict in verdicts}
        return TurnJudgement(verdicts, strict_items_hold(items, by_key))

    async def judge_trajectories(
        self, trajectory_ids: Iterable[str], *, retry_unscored: bool = False
    ) -> dict[str, Reward]:
        """The reward of each trajectory by the verdicts that win in the log; writes reward rows where they changed.

        Items without a verdict are judged first; with `retry_unscored` those that are UNSCORED are, too. A trajectory
        that failed, still runs, or has no scenario is not judged: its value is None and `excluded_reason` says why.
        Raises LogError for an id that is not in the log.
        """
        wanted = list(dict.fromkeys(trajectory_ids))
        rewards: dict[str, Reward] = {}
        for start in range(0, len(wanted), _CHUNK):
            played = read_played(self._log, wanted[start : start + _CHUNK])
            await self._judge_chunk(played, retry_unscored)
            rewards |= write_rewards(self._log, played)
        return rewards

    async def _judge_chunk(self, played: Played, retry_unscored: bool) -> None:
        scored = [summary for summary in played.summaries if why_not_judged(summary) is None]
        before = verdicts_of(self._log, [summary.id for summary in scored])
        by_code: list[Verdict] = []
        waiting = []
        for summary in scored:
            digest = str(summary.scenario_hash)
            scenario, checklists, ids = played.scenarios[digest], played.checklists[digest], self._ids(digest)
            settled = {
                (verdict.turn_index, verdict.item_key)
                for verdict in before.get(summary.id, [])
                if not (retry_unscored and verdict.outcome is Outcome.UNSCORED)
            }
            turns = played.turns.get(summary.id, [])
            for position, turn in enumerate(turns):
                items = items_of(scenario, checklists, turn)
                missing = {item.id for item in items if (turn.index, item.id) not in settled}
                if not missing:
                    continue
                judged = judge_by_code(items, turn, ids)
                by_code += [verdict for verdict in judged.verdicts if verdict.item_key in missing]
                pending = [item for item in judged.pending if item.id in missing]
                if pending:
                    waiting.append(self._write_llm(pending, turn, turns[:position], ids))
        add_verdicts(self._log, by_code)
        await asyncio.gather(*waiting)

    async def _write_llm(
        self, pending: Sequence[Item], turn: TurnRecord, earlier: Sequence[TurnRecord], ids: ItemIds
    ) -> None:
        verdicts = await self._by_llm(pending, turn, earlier, ids)
        await asyncio.to_thread(add_verdicts, self._log, verdicts)

    async def _by_llm(
        self, pending: Sequence[Item], turn: TurnRecord, earlier: Sequence[TurnRecord], ids: ItemIds
    ) -> list[Verdict]:
        if self._llm is None:
            source, judge = VerdictSource.CODE, RULE_JUDGE
            return [_verdict(item, turn, ids, Outcome.UNSCORED, None, source, judge, NO_JUDGE) for item in pending]
        said = await self._llm.judge(turn, pending, earlier)
        return [
            _verdict(
                item,
                turn,
                ids,
                answer.outcome,
                answer.step_index,
                VerdictSource.LLM,
                self._llm.name,
                answer.reason,
                answer.quote,
                self._llm.prompt_hash,
            )
            for item, answer in zip(pending, said, strict=True)
        ]

    def _ids(self, digest: str) -> ItemIds:
        # Revisions of a checklist bring new items, so what is known of a scenario is asked again with each chunk.
        self._item_ids[digest] = item_ids(self._log, digest)
        return self._item_ids[digest]


def _by_check(item: Item, turn: TurnRecord, ids: ItemIds) -> Verdict:
    assert item.check is not None
    try:
        result = decide_check(item.check, turn)
    except ValueError as error:
        # The check itself is unsound; that is the checklist's fault and not the policy's.
        reason = f"the check cannot be decided: {error}"
        return _verdict(item, turn, ids, Outcome.UNSCORED, None, VerdictSource.CODE, CODE_JUDGE, reason)
    outcome = Outcome.PASS if result.satisfied else Outcome.FAIL
    return _verdict(
        item, turn, ids, outcome, result.step_index, VerdictSource.CODE, CODE_JUDGE, result.reason, result.quote
    )


def _verdict(
    item: Item,
    turn: TurnRecord,
    ids: ItemIds,
    outcome: Outcome,
    step_index: int | None,
    source: VerdictSource,
    judge: str,
    reason: str,
    quote: str = "",
    prompt_hash: str | None = None,
) -> Verdict:
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
        source=source,
        judge=judge,
        prompt_hash=prompt_hash,
        reason=reason,
        quote=quote,
    )
