"""Where versions come from, as a tree; and in which settings two runs differ. Pure: records to escaped HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboard.format import ago, figure, figures, moment
from dashboard.links import COMPARE, TRAJECTORIES, address
from dashboard.text import chip, escape, link, soft, state_badge, table
from store.figures import VersionFigures
from store.runs import RunRecord
from store.vocabulary import VersionState

ABSENT = "–"


@dataclass(frozen=True)
class Branch:
    """A version in its tree. `lead` is what is drawn before its name."""

    version: VersionFigures
    lead: str


def branches(versions: Sequence[VersionFigures]) -> list[Branch]:
    """Every version below its parent, oldest first; whose parent is not among them begins a tree.

    An only child stands straight below its parent: a loop's rounds are a line, not a staircase.
    """
    names = {version.name for version in versions}
    children: dict[str | None, list[VersionFigures]] = {}
    for version in versions:
        children.setdefault(version.parent if version.parent in names else None, []).append(version)
    found: list[Branch] = []
    # (version, lead, what its children's leads begin with), the next one last
    waiting = [(root, "", "") for root in reversed(children.get(None, []))]
    while waiting:
        version, lead, below = waiting.pop()
        found.append(Branch(version, lead))
        young = children.get(version.name, [])
        if len(young) == 1:
            waiting.append((young[0], below, below))
            continue
        last = len(young) - 1
        waiting += reversed(
            [
                (child, below + ("└─ " if n == last else "├─ "), below + ("   " if n == last else "│  "))
                for n, child in enumerate(young)
            ]
        )
    return found


def version_tree(versions: Sequence[VersionFigures], pins: Mapping[str, str], at: datetime) -> str:
    """A row a version: its place in the tree, state, pin, run, since when, and why."""
    live = next((one.name for one in versions if one.state == VersionState.LIVE), None)
    rows = [
        (
            f'<span class="cl-tree">{escape(one.lead)}</span><b>{escape(one.version.name)}</b>',
            state_badge(one.version.state) + _pin(pins.get(one.version.name)),
            escape(one.version.run or ABSENT),
            escape(moment(one.version.since)) + soft(f" {ago(one.version.since, at)}"),
            _why(one.version),
            _links(one.version.name, live),
        )
        for one in branches(versions)
    ]
    return table(("version", "state", "run", "since (UTC)", "why", ""), rows)


def _pin(reason: str | None) -> str:
    return "" if reason is None else f' <span title="{escape(reason)}">{chip("pinned")}</span>'


def _why(version: VersionFigures) -> str:
    said = figures(version.figures)
    return escape(version.reason) + (f"<br>{soft(said)}" if said else "")


def _links(name: str, live: str | None) -> str:
    dialogues = link("dialogues", address(TRAJECTORIES, version=name))
    if live is None or name == live:
        return dialogues
    return f"{dialogues} · {link('compare', address(COMPARE, c_before=name, c_after=live))}"


@dataclass(frozen=True)
class Difference:
    """A setting that two runs do not share; None where a run has no such setting."""

    name: str
    before: str | None
    after: str | None


def newest_alike(runs: Sequence[RunRecord]) -> tuple[str, str]:
    """Names of the newest two of one kind, the older one first; of the newest two where no kind has two.

    `runs`: at least two, oldest first.
    """
    older: dict[str, str] = {}
    pairs = []
    for run in runs:
        if run.kind in older:
            pairs.append((older[run.kind], run.name))
        older[run.kind] = run.name
    return pairs[-1] if pairs else (runs[-2].name, runs[-1].name)


def differences(before: RunRecord, after: RunRecord) -> list[Difference]:
    """Settings, seed and base version in which two runs differ, by name."""
    sides = [_flat(_all_of(run)) for run in (before, after)]
    names = sorted({*sides[0], *sides[1]})
    return [
        Difference(name, sides[0].get(name), sides[1].get(name))
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]


def shared(before: RunRecord, after: RunRecord) -> int:
    """How many settings are the same in both."""
    left, right = _flat(_all_of(before)), _flat(_all_of(after))
    return sum(left[name] == right.get(name) for name in left)


def _all_of(run: RunRecord) -> dict[str, Any]:
    return {"kind": run.kind.value, "from version": run.base_version or ABSENT, "seed": run.seed, **run.settings}


def _flat(document: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested settings under names with dots: {"lora": {"rank": 8}} is {"lora.rank": "8"}."""
    found: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = repr(value) if isinstance(value, float) else figure(value)
    return found


def difference_table(found: Sequence[Difference], before: str, after: str) -> str:
    rows = [(f"<code>{escape(one.name)}</code>", _value(one.before), f"<b>{_value(one.after)}</b>") for one in found]
    return table(("setting", before, after), rows)


def _value(value: str | None) -> str:
    return soft("not set") if value is None else escape(value)
