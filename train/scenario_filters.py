"""Which of the log's scenarios `[data]` keeps, and why the others are left out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from store.checklists import current_checklists
from store.database import Log, in_chunks
from store.records import Scenario
from store.scenarios import load_scenarios
from store.settings import DataSettings
from store.vocabulary import Split
from train.dialogue_filters import fingerprint, why_unfit


@dataclass(frozen=True)
class Filtered:
    kept: tuple[Scenario, ...]
    """Of the splits train and validation, in order of name."""
    looked_at: int
    left_out: Counter[str]


def filter_scenarios(log: Log, wanted: DataSettings) -> Filtered:
    """The scenarios that `[data]` keeps, lengths in tokens aside. Test scenarios are not looked at."""
    kept: list[Scenario] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    looked_at = 0
    for split, limit in ((Split.TRAIN, None), (Split.VALIDATION, wanted.validation_dialogues)):
        count = 0
        for chunk in in_chunks(load_scenarios(log, split=split)):
            checklists = current_checklists(log, chunk)
            for scenario in chunk:
                looked_at += 1
                reason = _not_asked_for(scenario, wanted) or why_unfit(scenario, checklists[scenario.hash], wanted)
                if reason is None and wanted.duplicate_dialogues and (spoken := fingerprint(scenario)) in seen:
                    reason = "the same dialogue as an earlier scenario's (data.duplicate_dialogues)"
                elif reason is None and limit is not None and count >= limit:
                    reason = f"more than data.validation_dialogues = {limit}"
                if reason is not None:
                    left_out[reason] += 1
                    continue
                if wanted.duplicate_dialogues:
                    seen.add(spoken)
                kept.append(scenario)
                count += 1
    return Filtered(tuple(kept), looked_at, left_out)


def leave_out(filtered: Filtered, reasons: Mapping[str, str]) -> Filtered:
    """Without the scenarios whose hash has a reason."""
    kept = tuple(scenario for scenario in filtered.kept if scenario.hash not in reasons)
    gone = Counter(reasons[scenario.hash] for scenario in filtered.kept if scenario.hash in reasons)
    return Filtered(kept, filtered.looked_at, filtered.left_out + gone)


def _not_asked_for(scenario: Scenario, wanted: DataSettings) -> str | None:
    if wanted.domains and scenario.domain not in wanted.domains:
        return "another domain (data.domains)"
    if wanted.sources and scenario.source not in wanted.sources:
        return "another source (data.sources)"
    return None
