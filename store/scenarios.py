"""Scenarios in the log and in files. Writes scenario and item rows once, by content hash; files are JSON Lines."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from sqlalchemy import collate, select

from store.database import Log, LogError, in_chunks, insert_new
from store.records import Called, CallOrder, Item, NotCalled, ReplyRepeats, ResponseReceived, Scenario
from store.schema import ItemRow, ScenarioRow
from store.vocabulary import Split

_AT_ONCE = 200
"""Scenarios of one transaction: a fraction of a second."""


class ScenarioFileError(LogError):
    """A scenario file is corrupt: the file, the line, the field, and what is wrong with it."""


def add_scenarios(log: Log, scenarios: Iterable[Scenario]) -> int:
    """Adds the scenarios that are not there yet, with their items; returns how many were new.

    Raises LogError, with nothing added, for a name that does not fit its column. Some are written at a time, so that a
    large file holds no other writer up; where that fails half way, those are there and adding all again adds the rest.
    """
    by_hash = {scenario.hash: scenario for scenario in scenarios}
    for scenario in by_hash.values():
        _check_lengths(scenario)
    return sum(_add(log, dict(chunk)) for chunk in in_chunks(list(by_hash.items()), _AT_ONCE))


def _add(log: Log, by_hash: dict[str, Scenario]) -> int:
    with log.lookup() as connection:
        known = set(connection.scalars(select(ScenarioRow.hash).where(ScenarioRow.hash.in_(by_hash))))
    new = {digest: scenario for digest, scenario in by_hash.items() if digest not in known}
    if not new:
        return 0
    scenarios = [_row(digest, scenario) for digest, scenario in new.items()]
    items = [
        item_row(digest, turn_index, item)
        for digest, scenario in new.items()
        for turn_index, turn in enumerate(scenario.turns)
        for item in turn.checklist
    ]
    with log.writing() as connection:
        connection.execute(insert_new(log, ScenarioRow.__table__), scenarios)
        if items:
            connection.execute(insert_new(log, ItemRow.__table__), items)
    return len(new)


def get_scenario(log: Log, digest: str) -> Scenario:
    """Raises LogError if there is none with this hash."""
    with log.lookup() as connection:
        document = connection.scalar(select(ScenarioRow.document).where(ScenarioRow.hash == digest))
    if document is None:
        raise LogError(f"there is no scenario {digest!r} in the log")
    return Scenario.model_validate(document)


def get_scenarios(log: Log, digests: Iterable[str]) -> dict[str, Scenario]:
    """By hash. Raises LogError that names one that is not in the log."""
    wanted = list(dict.fromkeys(digests))
    found: dict[str, Scenario] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(wanted):
            query = select(ScenarioRow.hash, ScenarioRow.document).where(ScenarioRow.hash.in_(chunk))
            for digest, document in connection.execute(query):
                found[digest] = Scenario.model_validate(document)
    missing = [digest for digest in wanted if digest not in found]
    if missing:
        raise LogError(f"there is no scenario {missing[0]!r} in the log")
    return found


def load_scenarios(
    log: Log,
    *,
    split: Split | str | None = None,
    domain: str | None = None,
    source: str | None = None,
    seen: bool | None = None,
    limit: int | None = None,
) -> list[Scenario]:
    """The scenarios that meet every condition given, ordered by name (byte order, the same on both databases)."""
    query = select(ScenarioRow.document)
    if split is not None:
        query = query.where(ScenarioRow.split == Split(split).value)
    if domain is not None:
        query = query.where(ScenarioRow.domain == domain)
    if source is not None:
        query = query.where(ScenarioRow.source == source)
    if seen is not None:
        query = query.where(ScenarioRow.seen == seen)
    byte_order = "BINARY" if log.engine.dialect.name == "sqlite" else "C"
    query = query.order_by(collate(ScenarioRow.name, byte_order), ScenarioRow.hash).limit(limit)
    with log.lookup() as connection:
        return [Scenario.model_validate(document) for document in connection.scalars(query)]


def item_ids(log: Log, scenario_hash: str) -> dict[tuple[int, str], int]:
    """(turn index, item key) to the id that verdicts name; empty for an unknown scenario."""
    query = select(ItemRow.turn_index, ItemRow.key, ItemRow.id).where(ItemRow.scenario_hash == scenario_hash)
    with log.lookup() as connection:
        return {(turn, key): item_id for turn, key, item_id in connection.execute(query)}


def read_scenario_file(path: Path | str) -> list[Scenario]:
    """All scenarios of a JSON Lines file. Raises ScenarioFileError at the first bad line: all of it or nothing."""
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ScenarioFileError(f"cannot read the scenario file {path}: {error.strerror or error}") from error
    scenarios = [_read_line(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not scenarios:
        raise ScenarioFileError(f"{path} holds no scenario")
    return scenarios


@dataclass(frozen=True)
class ScenarioFilePreview:
    """What a scenario file would bring."""

    scenarios: tuple[Scenario, ...]
    """Of the sound lines."""
    problems: tuple[str, ...]
    """A line each; with any of them nothing is imported."""
    new: int
    """Of the sound ones, those that the log does not hold."""


@dataclass(frozen=True)
class ReadScenarios:
    """What a scenario file holds, whatever the log holds."""

    by_hash: Mapping[str, Scenario]
    """Of the sound lines."""
    problems: tuple[str, ...]

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        return tuple(self.by_hash.values())


def preview_scenarios(log: Log, data: bytes, where: str = "the file") -> ScenarioFilePreview:
    """Reads every line of a scenario file and writes nothing; `where` is what problems call it."""
    found = read_scenarios(data, where)
    return ScenarioFilePreview(found.scenarios, found.problems, count_new(log, found.by_hash))


def read_scenarios(data: bytes, where: str = "the file") -> ReadScenarios:
    """Reads every line of a scenario file; `where` is what problems call it. Pure."""
    scenarios: dict[str, Scenario] = {}
    problems: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            scenario = _read_line(Path(where), number, line)
            _check_lengths(scenario)
        except LogError as error:
            problems.append(str(error))
        else:
            scenarios[scenario.hash] = scenario
    if not scenarios and not problems:
        problems.append(f"{where} holds no scenario")
    return ReadScenarios(scenarios, tuple(problems))


def count_new(log: Log, hashes: Iterable[str]) -> int:
    """How many of these scenarios the log does not hold."""
    wanted = set(hashes)
    known = 0
    with log.lookup() as connection:
        for chunk in in_chunks(list(wanted)):
            known += len(connection.scalars(select(ScenarioRow.hash).where(ScenarioRow.hash.in_(chunk))).all())
    return len(wanted) - known


def write_scenario_file(path: Path | str, scenarios: Iterable[Scenario]) -> None:
    """One scenario a line, canonical JSON; the file is there whole or as it was before. Raises LogError."""
    path = Path(path)
    text = "".join(scenario.canonical_json() + "\n" for scenario in scenarios)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise LogError(f"cannot write the scenario file {path}: {error.strerror or error}") from error


def _read_line(path: Path, number: int, line: bytes) -> Scenario:
    where = f"{path}, line {number}"
    try:
        document = json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ScenarioFileError(f"{where}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ScenarioFileError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise ScenarioFileError(f"{where}: not JSON: {error}") from error
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'scenario'}: {e['msg']}" for e in error.errors()]
        raise ScenarioFileError(f"{where}: " + "; ".join(problems)) from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _check_lengths(scenario: Scenario) -> None:
    """SQLite would take any length; the same scenario must fit both databases."""
    values = [("domain", scenario.domain, 64), ("source", scenario.source, 64)]
    values += [("item id", item.id, 128) for turn in scenario.turns for item in turn.checklist]
    for what, value, limit in values:
        if len(value) > limit:
            raise LogError(f"scenario {scenario.name!r}: {what} {value!r} is longer than {limit} characters")


def _row(digest: str, scenario: Scenario) -> dict[str, Any]:
    return {
        "hash": digest,
        "name": scenario.name,
        "domain": scenario.domain,
        "source": scenario.source,
        "split": scenario.split.value,
        "seen": scenario.seen,
        "turn_count": len(scenario.turns),
        "document": scenario.model_dump(mode="json"),
    }


def item_row(digest: str, turn_index: int, item: Item) -> dict[str, Any]:
    """The row that verdicts on the item point at."""
    return {
        "scenario_hash": digest,
        "turn_index": turn_index,
        "key": item.id,
        "kind": item.check.kind if item.check else "llm",
        "focus_on": item.focus_on.value,
        "tool": _tool_of(item),
        "question": item.question,
        "strict": item.required_for_next_turn,
        "weight": item.weight,
    }


def _tool_of(item: Item) -> str | None:
    """Whose call or answer the item's check is about; None where that is no single tool."""
    check = item.check
    tool = None
    if isinstance(check, Called | ResponseReceived | ReplyRepeats):
        tool = check.tool
    elif isinstance(check, CallOrder):
        tool = check.then
    elif isinstance(check, NotCalled) and len(check.tools) == 1:
        tool = check.tools[0]
    return tool and tool[:128]
