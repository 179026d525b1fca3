"""The lines of an SFT set: whole dialogues as OpenAI messages with their tools; also as ids with the loss mask.

Reads and writes JSON Lines. A line names its scenario by hash; the ids are made when a run begins, by the renderer of
the model that is trained, which is the gateway's.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.rendering import Message, Renderer, RenderingError
from store.sft_sets import SftSet
from store.vocabulary import Split
from train.errors import TrainingFailed
from train.sft import SftExample


class SftDialogue(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str
    """Hash."""
    name: str
    split: Split
    tools: tuple[dict[str, Any], ...]
    """In OpenAI's form."""
    messages: tuple[Message, ...]
    """Thinking in `reasoning_content`."""

    def line(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False) + "\n"


def read_dialogues(made: SftSet) -> list[SftDialogue]:
    """Raises TrainingFailed if the set's file is gone or not what was written."""
    try:
        content = Path(made.path).read_bytes()
    except OSError as error:
        raise TrainingFailed(f"SFT set {made.name}: cannot read {made.path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != made.sha256:
        raise TrainingFailed(
            f"SFT set {made.name}: {made.path} was changed since it was written: run `checkloop data` for a new set"
        )
    try:
        return [SftDialogue.model_validate_json(line) for line in content.decode().splitlines() if line]
    except ValidationError as error:
        raise TrainingFailed(f"SFT set {made.name}: {made.path}: {error.errors()[0]['msg']}") from error


def render_dialogues(
    dialogues: Sequence[SftDialogue], renderer: Renderer, max_tokens: int
) -> tuple[list[SftExample], list[str], Counter[str]]:
    """Each as the ids that the gateway would have recorded, and its scenario; why some are left out, and how many."""
    examples: list[SftExample] = []
    scenarios: list[str] = []
    left_out: Counter[str] = Counter()
    for dialogue in dialogues:
        try:
            ids, mask = renderer.dialogue(dialogue.messages, dialogue.tools)
        except RenderingError as error:
            left_out[f"the model's format cannot write it: {error}"] += 1
            continue
        if len(ids) > max_tokens:
            left_out[f"longer than {max_tokens} tokens"] += 1
        else:
            examples.append(SftExample(ids, mask))
            scenarios.append(dialogue.scenario)
    return examples, scenarios, left_out
