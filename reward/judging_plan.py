"""Which items of which turns are to be judged, and what of them is left for an LLM. Reads the log, writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward.code_judge import RULE_JUDGE, ItemIds, judge_by_code, make_verdict, unjustified
from reward.evidence import decide_forbidding, lacking_channel
from reward.llm_judge import Dialogue
from reward.scoring import Played, items_of
from store.database import Log
from store.records import Item, TurnRecord
from store.scenarios import item_ids
from store.verdicts import Verdict, verdicts_of
from store.vocabulary import Outcome

NO_JUDGE = "no judge is configured for items without a check"


@dataclass(frozen=True)
class JudgingOptions:
    """What is judged besides items that have no verdict."""

    retry_unscored: bool = False
    """Also items whose verdict is UNSCORED."""
    beside: bool = False
    """Instead: every item without a check, by an LLM whose verdicts do not count."""
    calibrate: bool = False
    """Instead: every item with a check, by an LLM whose verdicts do not count, to be compared with the check."""
    fresh: bool = False
    """Ask also what the log holds an answer to."""

    @property
    def counts(self) -> bool:
        return not (self.beside or self.calibrate)


UNJUDGED = JudgingOptions()
"""Just the items that have no verdict."""


@dataclass(frozen=True)
class TurnWork:
    """What is to be judged of one turn."""

    dialogue: Dialogue
    ids: ItemIds
    items: list[Item]
    """All that count for the turn."""
    decided: list[Verdict]
    """By code, not written yet."""
    pending: list[Item]
    """For an LLM."""
    held: dict[str, int]
    """Since which step the other items hold, where that is known."""


def plan_chunk(log: Log, played: Played, options: JudgingOptions, *, llm: bool, rules: bool) -> list[TurnWork]:
    """The turns with something to judge, those of a trajectory in order; none of one that is not scored.

    `llm`: whether there is a model to ask; without one what needs it is UNSCORED. `rules` False: items that no model
    needs to look at are for the model nevertheless (CM2's procedure).
    """
    scored = [summary for summary in played.summaries if played.why_not_scored(summary) is None]
    before = verdicts_of(log, [summary.id for summary in scored]) if options.counts else {}
    # Revisions of a checklist bring new items, so what is known of a scenario is asked again with each chunk.
    ids = {digest: item_ids(log, digest) for digest in played.scenarios}
    work = []
    for summary in scored:
        digest = str(summary.scenario_hash)
        said: dict[int, dict[str, Verdict]] = {}
        for verdict in before.get(summary.id, []):
            said.setdefault(verdict.turn_index, {})[verdict.item_key] = verdict
        turns = played.turns.get(summary.id, [])
        for position, turn in enumerate(turns):
            items = items_of(played.scenarios[digest], played.checklists[digest], turn)
            dialogue = Dialogue(turn, tuple(turns[:position]), digest)
            planned = plan_turn(dialogue, items, said.get(turn.index, {}), ids[digest], options, llm=llm, rules=rules)
            if planned.decided or planned.pending:
                work.append(planned)
    return work


def plan_turn(
    dialogue: Dialogue,
    items: Sequence[Item],
    said: Mapping[str, Verdict],
    ids: ItemIds,
    options: JudgingOptions,
    *,
    llm: bool,
    rules: bool,
) -> TurnWork:
    """`said`: the verdicts that win in the log, by item key. Raises ValueError for an item that `ids` does not know."""
    turn = dialogue.turn
    open_rules = unjustified(items, turn, said)
    missing = {item.id for item in items if item.id in open_rules or not _is_settled(said.get(item.id), options)}
    known = {key: verdict.outcome for key, verdict in said.items() if key not in missing}
    code = judge_by_code(items, turn, ids, known, rules=rules)
    if options.calibrate:
        pending = [item for item in items if item.check and not (rules and _needs_no_model(item, turn))]
    else:
        pending = [item for item in code.pending if item.id in missing]
    decided = [verdict for verdict in code.verdicts if verdict.item_key in missing] if options.counts else []
    unknown = [item.id for item in pending if (turn.index, item.id) not in ids]
    if unknown:
        raise ValueError(f"item {unknown[0]!r} of turn {turn.index} is not in the log: add the scenario first")
    if not llm:
        decided += [
            make_verdict(item, turn, ids, Outcome.UNSCORED, judge=RULE_JUDGE, reason=NO_JUDGE) for item in pending
        ]
        pending = []
    winning = {verdict.item_key: verdict for verdict in code.verdicts} | {
        key: verdict for key, verdict in said.items() if key not in missing
    }
    own = {item.id for item in pending}
    held = {
        key: verdict.step_index
        for key, verdict in winning.items()
        if verdict.outcome is Outcome.PASS and verdict.step_index is not None and key not in own
    }
    return TurnWork(dialogue, ids, list(items), decided, pending, held)


def _needs_no_model(item: Item, turn: TurnRecord) -> bool:
    decide = decide_forbidding if item.forbids else lacking_channel
    return decide(item.focus_on, turn) is not None


def _is_settled(verdict: Verdict | None, options: JudgingOptions) -> bool:
    return verdict is not None and not (options.retry_unscored and verdict.outcome is Outcome.UNSCORED)
