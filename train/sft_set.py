"""Makes an SFT set: the log's scenarios, filtered, with their compressed thinking, as a file with its row in SQL."""

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.database import Log
from store.records import Scenario
from store.settings import DataSettings
from store.sft_sets import Compression, SftSet, add_sft_set, list_sft_sets
from store.vocabulary import Split
from train.errors import TrainingFailed
from train.references import reference_messages
from train.scenario_filters import Filtered
from train.sft_dialogues import SftDialogue
from train.thinking import kind_of, with_thinking

CountTokens = Callable[[Scenario], int]
"""Tokens of the whole reference dialogue, as the policy's renderer writes it."""


@dataclass(frozen=True)
class MadeSet:
    set: SftSet
    is_new: bool
    """False: the newest set holds the very same."""


def make_set(
    log: Log,
    home: Path,
    filtered: Filtered,
    compressions: Mapping[str, Compression],
    wanted: DataSettings,
    count_tokens: CountTokens,
) -> MadeSet:
    """Writes `home`/data/NAME.jsonl and its row; where the newest set holds the same, that one is returned.

    Raises TrainingFailed if no dialogue of split train is left.
    """
    left_out = Counter(filtered.left_out)
    lines: list[str] = []
    by_split: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    before = after = taken = 0
    for scenario in filtered.kept:
        compression = compressions.get(scenario.hash)
        shorter = {(t, s): text for t, s, text in compression.passages} if compression else {}
        made = with_thinking(scenario, shorter) if shorter else scenario
        tokens = count_tokens(made)
        if wanted.max_tokens and tokens > wanted.max_tokens:
            left_out[f"longer than data.max_tokens = {wanted.max_tokens}"] += 1
            continue
        before += count_tokens(scenario) if shorter else tokens
        after += tokens
        taken += len(shorter)
        problems.update(kind_of(reason) for _, _, reason in (compression.problems if compression else ()))
        by_split[made.split.value] += 1
        lines.append(_line(scenario, made))
    if not by_split[Split.TRAIN.value]:
        why = "; ".join(f"{count}: {reason}" for reason, count in left_out.most_common())
        raise TrainingFailed(f"no dialogue of split train is left of {filtered.looked_at} scenarios: {why or 'none'}")
    figures: dict[str, Any] = {
        "looked_at": filtered.looked_at,
        "left_out": dict(left_out.most_common()),
        "dialogues": dict(by_split),
        "tokens_before": before,
        "tokens_after": after,
        "passages_shortened": taken,
        "passages_kept": dict(problems.most_common()),
        "compressors": sorted({one.compressor for one in compressions.values()}),
    }
    return _store(log, home, "".join(lines).encode(), len(lines), wanted, figures)


def set_lines(made: SftSet) -> list[str]:
    """Its figures, for a person."""
    figures = made.figures
    splits = ", ".join(f"{count} of split {split}" for split, count in figures["dialogues"].items())
    lines = [f"{made.name}: {made.dialogues} dialogues ({splits}) of {figures['looked_at']} scenarios, in {made.path}"]
    lines += [f"  left out: {count}: {reason}" for reason, count in figures["left_out"].items()]
    before, after = figures["tokens_before"], figures["tokens_after"]
    share = f" ({100 * (after - before) / before:+.0f} %)" if before else ""
    lines.append(
        f"{before:,} tokens before, {after:,} after{share}; {figures['passages_shortened']} passages shortened"
    )
    lines += [f"  the original stays: {count}: {reason}" for reason, count in figures["passages_kept"].items()]
    return lines


def _line(scenario: Scenario, made: Scenario) -> str:
    return SftDialogue(
        scenario=scenario.hash,
        name=scenario.name,
        split=scenario.split,
        tools=tuple(tool.as_openai() for tool in scenario.tools),
        messages=tuple(reference_messages(made)),
    ).line()


def _store(
    log: Log, home: Path, content: bytes, dialogues: int, wanted: DataSettings, figures: Mapping[str, Any]
) -> MadeSet:
    digest = hashlib.sha256(content).hexdigest()
    sets = list_sft_sets(log)
    if sets and sets[-1].sha256 == digest and Path(sets[-1].path).is_file():
        return MadeSet(sets[-1], False)
    folder = (home / "data").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{uuid.uuid4().hex[:8]}.part"
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        place = _reserve(log, folder)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
    made = SftSet(place.stem, str(place), digest, dialogues, wanted.model_dump(mode="json"), figures)
    add_sft_set(log, made)
    return MadeSet(made, True)


def _reserve(log: Log, folder: Path) -> Path:
    """An empty file of the next name that no set has and that is not there: of two commands at once each gets its own.
    What a killed one left is passed over."""
    there = [file.stem for file in folder.glob("data-*.jsonl")]
    while True:
        place = folder / f"{next_set_name([*there, *(one.name for one in list_sft_sets(log))])}.jsonl"
        try:
            place.touch(exist_ok=False)
        except FileExistsError:
            there.append(place.stem)
            continue
        return place


def next_set_name(names: Sequence[str]) -> str:
    """data-0001, data-0002 …: one more than the greatest there is."""
    numbers = [int(name.removeprefix("data-")) for name in names if name.removeprefix("data-").isdigit()]
    return f"data-{max(numbers, default=0) + 1:04d}"
