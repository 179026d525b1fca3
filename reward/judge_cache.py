"""The same question is never paid for twice: what makes two questions the same, and what the log has on them."""

import hashlib
from collections.abc import Mapping, Sequence

from reward.llm_judge import Dialogue, LlmJudge
from reward.transcripts import show_plainly, show_turns
from store.database import Log
from store.records import Item, canonical_json
from store.verdicts import Verdict, verdicts_by_key
from store.vocabulary import JudgeMode


def shown_hash(llm: LlmJudge, dialogue: Dialogue) -> str:
    """Of what the judge is shown, whatever the boundary is."""
    turns = [*dialogue.earlier, dialogue.turn]
    text = show_plainly(turns) if llm.mode is JudgeMode.PAPER else show_turns(turns, "")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def cache_keys(
    llm: LlmJudge, dialogue: Dialogue, items: Sequence[Item], draw: int, held: Mapping[str, int] | None = None
) -> dict[str, str]:
    """By item key: SHA-256 of judge, mode, prompt, what is shown, the item's words, the draw and a temperature above 0.

    The judge is its name in the log, which the settings keep apart within a panel. Step by step it is asked from where
    the item's dependencies hold on (`held`), so there they are part of the question.
    """
    temperature = llm.endpoint.settings.temperature
    shown = shown_hash(llm, dialogue)
    keys = {}
    for item in items:
        words = item.model_dump(mode="json", include={"focus_on", "question", "pass_condition", "failure_examples"})
        if item.forbids:
            words["forbids"] = True
        if llm.mode is JudgeMode.PAPER:
            words["snippets"] = [evidence.snippet for evidence in item.evidence]
        if llm.mode is JudgeMode.STEP and item.depends_on:
            words["depends_on"] = {key: (held or {}).get(key) for key in item.depends_on}
        question: list[object] = [llm.name, llm.mode.value, llm.prompt_hash, shown, words, draw]
        if temperature > 0:  # left out at 0, so that what was said before temperatures were part of it stays known
            question.append(temperature)
        keys[item.id] = hashlib.sha256(canonical_json(question).encode("utf-8", "surrogatepass")).hexdigest()
    return keys


def look_up(log: Log, dialogue: Dialogue, keys: dict[str, str]) -> dict[str, tuple[Verdict, bool]]:
    """By item key what was said under its cache key, and whether it was said about this very turn."""
    found = verdicts_by_key(log, keys.values())
    known = {}
    for item_key, cache_key in keys.items():
        said = found.get(cache_key, [])
        own = [
            verdict
            for verdict in said
            if (verdict.trajectory_id, verdict.turn_index, verdict.item_key)
            == (dialogue.turn.trajectory_id, dialogue.turn.index, item_key)
        ]
        if said:
            known[item_key] = ((own or said)[-1], bool(own))
    return known
