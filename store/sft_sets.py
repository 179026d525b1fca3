"""SFT sets, and what LLMs said of the dialogues in them. Writes sft_set, thinking_compression and dialogue_criticism
rows, appended, never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from store.database import Log, LogError
from store.schema import DialogueCriticismRow, SftSetRow, ThinkingCompressionRow


@dataclass(frozen=True)
class Compression:
    """What came of the thinking of one scenario's reference dialogue."""

    scenario_hash: str
    compressor: str
    prompt_hash: str
    passages: tuple[tuple[int, int, str], ...]
    """(turn, step, shorter thinking) of those that were taken."""
    problems: tuple[tuple[int, int, str], ...] = ()
    """(turn, step, reason) of those of which the original stays."""


@dataclass(frozen=True)
class Criticism:
    """Whether a scenario's reference dialogue is fit to learn from."""

    scenario_hash: str
    model: str
    prompt_hash: str
    problem: str
    """Empty: nothing was found."""
    effort: str
    """At which it was found, or the last one asked at."""
    questions: int


@dataclass(frozen=True)
class SftSet:
    name: str
    path: str
    sha256: str
    dialogues: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    """None: now, when it is added."""


def add_compression(log: Log, compression: Compression) -> None:
    """Raises LogError for an unknown scenario."""
    row = asdict(compression) | {
        "passages": [list(one) for one in compression.passages],
        "problems": [list(one) for one in compression.problems],
    }
    with log.writing() as connection:
        connection.execute(insert(ThinkingCompressionRow.__table__), [row])


def compressions_by(log: Log, compressor: str, prompt_hash: str) -> dict[str, Compression]:
    """The newest of each scenario, by its hash, that this compressor with this prompt made."""
    table = ThinkingCompressionRow.__table__
    query = select(table).where(table.c.compressor == compressor, table.c.prompt_hash == prompt_hash)
    with log.lookup() as connection:
        rows = connection.execute(query.order_by(table.c.id)).all()
    return {
        row.scenario_hash: Compression(
            row.scenario_hash,
            row.compressor,
            row.prompt_hash,
            tuple((turn, step, text) for turn, step, text in row.passages),
            tuple((turn, step, reason) for turn, step, reason in row.problems),
        )
        for row in rows
    }


def add_criticism(log: Log, criticism: Criticism) -> None:
    """Raises LogError for an unknown scenario."""
    with log.writing() as connection:
        connection.execute(insert(DialogueCriticismRow.__table__), [asdict(criticism)])


def criticisms_by(log: Log, model: str, prompt_hash: str) -> dict[str, Criticism]:
    """The newest of each scenario, by its hash, that this model with this prompt came to."""
    table = DialogueCriticismRow.__table__
    columns = (
        table.c.scenario_hash,
        table.c.model,
        table.c.prompt_hash,
        table.c.problem,
        table.c.effort,
        table.c.questions,
    )
    query = select(*columns).where(table.c.model == model, table.c.prompt_hash == prompt_hash).order_by(table.c.id)
    with log.lookup() as connection:
        return {row.scenario_hash: Criticism(*row) for row in connection.execute(query)}


def add_sft_set(log: Log, made: SftSet) -> None:
    """Raises LogError if the name is taken."""
    row = asdict(made)
    del row["created_at"]
    with log.writing() as connection:
        taken = connection.scalar(select(SftSetRow.name).where(SftSetRow.name == made.name))
        if taken is not None:
            raise LogError(f"there is already an SFT set {made.name!r}: sets are immutable, take the next name")
        connection.execute(insert(SftSetRow.__table__), [row])


def list_sft_sets(log: Log) -> list[SftSet]:
    """Oldest first."""
    with log.lookup() as connection:
        rows = connection.execute(select(SftSetRow.__table__).order_by(SftSetRow.created_at, SftSetRow.name))
        return [SftSet(**row._asdict()) for row in rows]


def get_sft_set(log: Log, name: str = "") -> SftSet:
    """The one of this name, or the newest. Raises LogError if there is none."""
    found: Sequence[SftSet] = [one for one in list_sft_sets(log) if not name or one.name == name]
    if not found:
        what = f"no SFT set {name!r}" if name else "no SFT set"
        raise LogError(f"there is {what} in the log: `checkloop data` makes one")
    return found[-1]
