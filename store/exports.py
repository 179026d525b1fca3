"""Trajectories as files for other tools: JSON Lines with everything, OpenAI's messages, Parquet with a row each.

Reads the log, a few hundred dialogues at a time, and writes to whatever can be written to; a log of any size needs the
memory of one such part (docs/scenarios.md has the formats).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import IO, Any

from sqlalchemy import select

from store.database import AnyRow, Log, in_chunks
from store.records import Scenario, TurnRecord
from store.scenarios import get_scenarios
from store.schema import StepRow, TrajectoryRow
from store.tokens import TokenSequence, token_sequences
from store.trajectories import TrajectorySummary, get_trajectories
from store.trajectory_filters import TrajectoryFilter, TrajectoryOrder, conditions_of, in_order
from store.turns import turns_of
from store.verdicts import Reward, Verdict, rewards_of, verdicts_of
from store.vocabulary import Outcome

PART = 200
"""Dialogues that are in memory at once."""


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    """A line each with turns, verdicts, reward and, if asked for, tokens."""
    OPENAI = "openai"
    """A line each, {"messages": […], "tools": […]}, as fine-tuning services take them."""
    PARQUET = "parquet"
    """A row each: what one filters and counts by, the messages as JSON."""


MIME: Mapping[ExportFormat, str] = {
    ExportFormat.JSONL: "application/jsonl",
    ExportFormat.OPENAI: "application/jsonl",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}


@dataclass(frozen=True)
class Exported:
    written: int
    left_out: int
    """OpenAI's form: dialogues in which nothing was said yet."""


@dataclass(frozen=True)
class Dialogue:
    """All that the log holds about one trajectory."""

    summary: TrajectorySummary
    scenario: Scenario | None
    turns: Sequence[TurnRecord]
    messages: Sequence[Mapping[str, Any]]
    """OpenAI's form: the last prompt and its completion."""
    reward: Reward | None
    verdicts: Sequence[Verdict]
    """Those that count."""
    tokens: TokenSequence | None


def export_trajectories(
    log: Log,
    wanted: TrajectoryFilter,
    form: ExportFormat,
    sink: IO[bytes],
    *,
    order: TrajectoryOrder = TrajectoryOrder.NEWEST,
    limit: int | None = None,
    tokens: bool = False,
    on_part: Callable[[int, int], None] | None = None,
    most_bytes: int | None = None,
) -> Exported:
    """Writes what the filter leaves, at most `limit`, to `sink`. `on_part` hears how many of how many are done. Once
    `most_bytes` are written, no further part of `PART` dialogues is begun.

    `tokens` adds ids and logprobs to JSON Lines. Dialogues that begin meanwhile are not among them.
    """
    listed = in_order(select(TrajectoryRow.id).where(*conditions_of(wanted)), order).limit(limit)
    with log.reading() as session:
        ids = list(session.scalars(listed))
    parts = _parts(
        log,
        ids,
        tokens and form is ExportFormat.JSONL,
        on_part,
        lambda: most_bytes is not None and sink.tell() >= most_bytes,
    )
    if form is ExportFormat.PARQUET:
        return Exported(_write_parquet(parts, sink), 0)
    written = looked_at = 0
    for dialogue in parts:
        looked_at += 1
        document = _openai_line(dialogue) if form is ExportFormat.OPENAI else _json_line(dialogue)
        if document is not None:
            sink.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
            written += 1
    return Exported(written, looked_at - written)


def messages_of(log: Log, trajectory_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The conversation as the last step's model saw and ended it, in OpenAI's form; without those that have no step.

    Thinking is left out: the form has no place for it. Arguments are the text as it was sampled.
    """
    columns = (StepRow.id, StepRow.trajectory_id, StepRow.parent_id, StepRow.new_messages, StepRow.message)
    rows: dict[str, dict[int, AnyRow]] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(trajectory_ids):
            for row in connection.execute(select(*columns).where(StepRow.trajectory_id.in_(chunk))):
                rows.setdefault(row.trajectory_id, {})[row.id] = row
    return {name: _conversation(steps) for name, steps in rows.items()}


def _conversation(steps: Mapping[int, AnyRow]) -> list[dict[str, Any]]:
    chain: list[AnyRow] = []
    step_id: int | None = max(steps)
    while step_id is not None:
        chain.append(steps[step_id])
        step_id = steps[step_id].parent_id
    messages: list[dict[str, Any]] = []
    for row in reversed(chain):
        messages += row.new_messages
        messages.append(_assistant(row.message))
    return messages


def _assistant(message: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": message.get("content") or ""}
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in message.get("tool_calls") or ()
    ]
    return said | {"tool_calls": calls} if calls else said


def _parts(
    log: Log,
    ids: Sequence[str],
    tokens: bool,
    on_part: Callable[[int, int], None] | None,
    is_full: Callable[[], bool],
) -> Iterator[Dialogue]:
    done = 0
    for part in in_chunks(ids, PART):
        if done and is_full():
            return
        summaries = get_trajectories(log, part)
        scenarios = get_scenarios(log, (one.scenario_hash for one in summaries if one.scenario_hash))
        turns, messages = turns_of(log, part), messages_of(log, part)
        rewards, verdicts = rewards_of(log, part), verdicts_of(log, part)
        sequences = token_sequences(log, part) if tokens else {}
        for summary in summaries:
            yield Dialogue(
                summary=summary,
                scenario=scenarios.get(summary.scenario_hash or ""),
                turns=turns.get(summary.id, ()),
                messages=messages.get(summary.id, ()),
                reward=rewards.get(summary.id),
                verdicts=verdicts.get(summary.id, ()),
                tokens=sequences.get(summary.id),
            )
        done += len(part)
        if on_part is not None:
            on_part(done, len(ids))


def _json_line(dialogue: Dialogue) -> dict[str, Any]:
    summary = asdict(dialogue.summary)
    for moment in ("created_at", "ended_at"):
        summary[moment] = summary[moment] and summary[moment].isoformat()
    document: dict[str, Any] = summary | {
        "turns": [turn.model_dump(mode="json", exclude={"trajectory_id"}) for turn in dialogue.turns],
        "reward": dialogue.reward and {k: v for k, v in asdict(dialogue.reward).items() if k != "trajectory_id"},
        "verdicts": [_verdict(verdict) for verdict in dialogue.verdicts],
    }
    if dialogue.tokens is not None:
        document["tokens"] = {
            "prompt_ids": dialogue.tokens.prompt_ids,
            "completion_ids": dialogue.tokens.completion_ids,
            "sampled": dialogue.tokens.sampled,
            "logprobs": dialogue.tokens.logprobs,
        }
    return document


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "turn_index": verdict.turn_index,
        "item": verdict.item_key,
        "outcome": verdict.outcome.value,
        "step_index": verdict.step_index,
        "source": verdict.source.value,
        "judge": verdict.judge,
        "reason": verdict.reason,
        "quote": verdict.quote,
    }


def _openai_line(dialogue: Dialogue) -> dict[str, Any] | None:
    if not dialogue.messages:
        return None
    line: dict[str, Any] = {"messages": list(dialogue.messages)}
    if dialogue.scenario is not None and dialogue.scenario.tools:
        line["tools"] = [tool.as_openai() for tool in dialogue.scenario.tools]
    return line


@cache
def _parquet_schema() -> Any:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("id", pa.string()),
            ("origin", pa.string()),
            ("scenario_hash", pa.string()),
            ("scenario_name", pa.string()),
            ("domain", pa.string()),
            ("seen", pa.bool_()),
            ("batch", pa.string()),
            ("group_id", pa.int64()),
            ("member", pa.int64()),
            ("version", pa.string()),
            ("seed", pa.int64()),
            ("stop_reason", pa.string()),
            ("error", pa.string()),
            ("created_at", moment),
            ("ended_at", moment),
            ("turns", pa.int64()),
            ("steps", pa.int64()),
            ("reward", pa.float64()),
            ("fully_passed", pa.bool_()),
            ("excluded_reason", pa.string()),
            ("passed", pa.int64()),
            ("failed", pa.int64()),
            ("unscored", pa.int64()),
            ("messages", pa.string()),
        ]
    )


def _parquet_row(dialogue: Dialogue) -> dict[str, Any]:
    outcomes = [verdict.outcome for verdict in dialogue.verdicts]
    return asdict(dialogue.summary) | {
        "turns": len(dialogue.turns),
        "steps": sum(len(turn.steps) for turn in dialogue.turns),
        "reward": dialogue.reward and dialogue.reward.value,
        "fully_passed": dialogue.reward and dialogue.reward.fully_passed,
        "excluded_reason": dialogue.reward and dialogue.reward.excluded_reason,
        "passed": outcomes.count(Outcome.PASS),
        "failed": outcomes.count(Outcome.FAIL),
        "unscored": outcomes.count(Outcome.UNSCORED),
        "messages": json.dumps(list(dialogue.messages), ensure_ascii=False),
    }


def _write_parquet(dialogues: Iterable[Dialogue], sink: IO[bytes]) -> int:
    # Imported here: only this format pays for loading Arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, written = _parquet_schema(), 0
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(sink, schema) as writer:

        def flush() -> None:
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()

        for dialogue in dialogues:
            rows.append(_parquet_row(dialogue))
            written += 1
            if len(rows) == PART:
                flush()
        flush()
    return written
