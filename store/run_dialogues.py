"""Whose dialogues a cold start or a small judge learnt from and was measured on, by scenario.

Writes run_dialogue rows. What a GRPO run trained on is in store/runs.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select

from store.database import Log
from store.schema import RunDialogueRow, ScenarioRow
from store.vocabulary import Split


@dataclass(frozen=True)
class RunDialogue:
    scenario_hash: str
    name: str
    domain: str
    source: str
    turns: int
    split: Split
    """TRAIN: learnt from; VALIDATION: measured on."""


def add_run_dialogues(log: Log, run_id: int, splits: dict[str, Split]) -> None:
    """Scenario hash to split, of the dialogues that a run trains on and is measured on. What was said before of this
    run, by a try that was killed, is gone."""
    table = RunDialogueRow.__table__
    rows = [{"run_id": run_id, "scenario_hash": name, "split": split.value} for name, split in splits.items()]
    with log.writing() as connection:
        connection.execute(delete(table).where(table.c.run_id == run_id))
        if rows:
            connection.execute(insert(table), rows)


def count_run_dialogues(log: Log, run_ids: Sequence[int]) -> dict[int, dict[Split, int]]:
    """Of these runs, those that have any."""
    row = RunDialogueRow
    query = select(row.run_id, row.split, func.count()).where(row.run_id.in_(run_ids)).group_by(row.run_id, row.split)
    counts: dict[int, dict[Split, int]] = {}
    with log.lookup() as connection:
        for run_id, split, count in connection.execute(query):
            counts.setdefault(run_id, {})[Split(split)] = count
    return counts


def page_of_run_dialogues(log: Log, run_id: int, *, limit: int, offset: int = 0) -> list[RunDialogue]:
    """What was trained on first, each part by domain and name."""
    row, scenario = RunDialogueRow, ScenarioRow
    columns = (scenario.hash, scenario.name, scenario.domain, scenario.source, scenario.turn_count, row.split)
    query = select(*columns).join(scenario, scenario.hash == row.scenario_hash).where(row.run_id == run_id)
    query = query.order_by(row.split, scenario.domain, scenario.name, scenario.hash).limit(limit).offset(offset)
    with log.lookup() as connection:
        return [RunDialogue(*found[:5], Split(found[5])) for found in connection.execute(query)]
