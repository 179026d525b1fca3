"""What became of dialogues that were annotated; appended, never changed. Writes annotation and checklist rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from store.checklists import Checklist, append_checklist
from store.database import AnyRow, Log, LogError
from store.schema import AnnotationRow, ScenarioRow
from store.vocabulary import AnnotationStatus


@dataclass(frozen=True)
class Annotation:
    """One try to write a variant of a scenario's checklists."""

    scenario_hash: str
    variant: int
    annotator: str
    prompt_hash: str
    status: AnnotationStatus
    attempts: int
    """Answers that the annotator gave."""
    problems: tuple[str, ...] = ()
    """Why it was handed to a person, or which items were left out."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Of the self-test, the checks and the cost."""
    created_at: datetime | None = None
    """None: now, when it is added."""


@dataclass(frozen=True)
class Waiting:
    """An annotation that a person has to look at, and the scenario that it is about."""

    annotation: Annotation
    scenario_name: str
    domain: str


def record_annotation(log: Log, annotation: Annotation, checklists: Sequence[Checklist] = ()) -> list[Checklist]:
    """Writes the annotation and the checklists that came of it, in one transaction; returns these as stored.

    Raises LogError, with nothing written, for an unsound checklist, an unknown scenario, and for checklists beside an
    annotation that was handed to a person.
    """
    if checklists and annotation.status is not AnnotationStatus.DONE:
        raise LogError(f"an annotation that is {annotation.status.value!r} stores no checklist")
    row = {
        "scenario_hash": annotation.scenario_hash,
        "variant": annotation.variant,
        "annotator": annotation.annotator,
        "prompt_hash": annotation.prompt_hash,
        "status": annotation.status.value,
        "attempts": annotation.attempts,
        "problems": list(annotation.problems),
        "figures": dict(annotation.figures),
    }
    with log.writing() as connection:
        stored = [append_checklist(connection, checklist) for checklist in checklists]
        connection.execute(insert(AnnotationRow.__table__), [row])
    return stored


def latest_annotations(log: Log) -> dict[tuple[str, int], Annotation]:
    """The newest one of each (scenario hash, variant)."""
    with log.lookup() as connection:
        rows = connection.execute(select(AnnotationRow.__table__).order_by(AnnotationRow.id))
        return {(row.scenario_hash, row.variant): _annotation(row) for row in rows}


def waiting_for_person(log: Log) -> list[Waiting]:
    """The (scenario, variant) whose newest annotation needs a person, oldest first."""
    waiting = [one for one in latest_annotations(log).values() if one.status is AnnotationStatus.NEEDS_PERSON]
    with log.lookup() as connection:
        columns = select(ScenarioRow.hash, ScenarioRow.name, ScenarioRow.domain)
        about = {
            row.hash: row
            for one in waiting
            for row in connection.execute(columns.where(ScenarioRow.hash == one.scenario_hash))
        }
    return [Waiting(one, about[one.scenario_hash].name, about[one.scenario_hash].domain) for one in waiting]


def _annotation(row: AnyRow) -> Annotation:
    return Annotation(
        scenario_hash=row.scenario_hash,
        variant=row.variant,
        annotator=row.annotator,
        prompt_hash=row.prompt_hash,
        status=AnnotationStatus(row.status),
        attempts=row.attempts,
        problems=tuple(row.problems),
        figures=row.figures,
        created_at=row.created_at,
    )
