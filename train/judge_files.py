"""Distilled judges on disk: `home`/judges/judge-0001 holds an adapter as peft writes it and a card; all or nothing.

The card (`judge.json`) says what the adapter was made of, from what, and how good it is; with it stand the SHA-256 of
its own files and of its base model's weights, for an adapter on another base is another judge.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.weight_files import file_hashes
from train.checkpoints import CheckpointError, check_files
from train.errors import TrainingFailed

CARD = "judge.json"
_NAME = re.compile(r"judge-\d{4,}")


class Card(BaseModel):
    """What is to be known of a distilled judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    base: str
    """Directory of the base model, as it was at training."""
    base_files: dict[str, str]
    """Name -> SHA-256 of its weights."""
    files: dict[str, str]
    """Name -> SHA-256 of the adapter's own."""
    prompt_hash: str
    """Of the question that it learnt (reward/prompts/judge_small.md)."""
    rank: int
    modules: tuple[str, ...]
    seed: int
    settings: dict[str, Any]
    data: dict[str, Any]
    """Sources, counts, base rates, what was left out and why."""
    against: str
    figures: dict[str, dict[str, float]]
    """On held-out turns, by judge."""


@dataclass(frozen=True)
class SavedJudge:
    card: Card
    path: Path


def judges_folder(home: Path) -> Path:
    return home / "judges"


def next_judge_name(taken: Iterable[str]) -> str:
    """The name after the greatest of those."""
    numbers = [int(name.partition("-")[2]) for name in taken]
    return f"judge-{max(numbers, default=0) + 1:04d}"


def judge_names(home: Path) -> list[str]:
    folder = judges_folder(home)
    return sorted(path.name for path in folder.glob("judge-*") if _NAME.fullmatch(path.name) and path.is_dir())


def check_judge_name(name: str) -> str:
    """Raises TrainingFailed for a name that is no `judge-0001`."""
    if not _NAME.fullmatch(name):
        raise TrainingFailed(f"{name!r} is no name for a judge: it is judge- and at least four digits, like judge-0001")
    return name


def weight_hashes(model_dir: Path) -> dict[str, str]:
    """Name -> SHA-256 of a model's weights."""
    return {name: digest for name, digest in file_hashes(model_dir).items() if name.endswith(".safetensors")}


def write_card(part: Path, card: Card) -> None:
    """Into the directory in the making."""
    (part / CARD).write_text(json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")


def read_judge(home: Path, name: str) -> SavedJudge:
    """Raises TrainingFailed if there is no such judge, CheckpointError if its files are not those that were written."""
    path = (judges_folder(home) / name).resolve()
    try:
        card = Card.model_validate_json((path / CARD).read_text())
    except FileNotFoundError as error:
        known = ", ".join(judge_names(home)) or "none yet: `checkloop judge distil` makes one"
        raise TrainingFailed(f"there is no judge {name!r} in {judges_folder(home)}; there are {known}") from error
    except ValidationError as error:
        raise CheckpointError(f"{path / CARD} is damaged: {error.errors()[0]['msg']}") from error
    check_files(path, card.files)
    return SavedJudge(card, path)
