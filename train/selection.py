"""Which groups of the log a GRPO run takes, and why not the others: one function for runs, jobs and dry runs.

Reads groups, scenarios, versions, runs and rewards; writes nothing. What a run then trained on is in its
run_trajectory rows, from which a group's uses are counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from store.database import Log
from store.groups import GroupSummary, list_groups
from store.scenarios import get_scenarios
from store.settings import Settings
from store.training_settings import SelectionSettings
from store.versions import list_versions
from train.groups import Selection, TrainingGroup, load_groups_by_id, select_groups

LOADED_AT_ONCE = 32
"""Groups whose tokens and rewards are looked at together."""
NOT_NEEDED = "enough groups are taken already"


@dataclass(frozen=True)
class LeftOut:
    group: GroupSummary
    reason: str


@dataclass(frozen=True)
class Choice:
    """`looked_at`: ids of the groups that were loaded; a run that loads them makes the same selection of them."""

    looked_at: tuple[int, ...]
    taken: tuple[GroupSummary, ...]
    left_out: tuple[LeftOut, ...]
    trajectories: int
    """Of the taken groups, those with an advantage."""
    excluded_share: float

    def reasons(self) -> Counter[str]:
        """How many groups each reason leaves out, figures that differ from group to group set aside."""
        return Counter(one.reason for one in self.left_out)


def choose_groups(
    log: Log, settings: Settings, *, base: str, max_groups: int, batches: Sequence[str] | None = None
) -> Choice:
    """The groups that a run from version `base` would take: newest first, at most `max_groups`.

    `batches` None: the whole log. Raises RunRefused if too much of what was looked at is excluded.
    """
    wanted = settings.selection
    ages = ages_before(log, base)
    fitting: list[GroupSummary] = []
    left_out: list[LeftOut] = []
    tools = _ToolsOf(log)
    for group in list_groups(log, batches=batches):
        reason = _why_not(group, wanted, ages, base) or _why_not_its_tools(group, wanted, tools)
        if reason is None:
            fitting.append(group)
        else:
            left_out.append(LeftOut(group, reason))
    loaded: list[TrainingGroup] = []
    selection = Selection((), (), 0.0, {})
    while len(selection.taken) < max_groups and len(loaded) < len(fitting):
        missing = min(max(max_groups - len(selection.taken), 1), LOADED_AT_ONCE)
        following = fitting[len(loaded) : len(loaded) + missing]
        step_level = settings.grpo.advantage == "step"
        loaded += load_groups_by_id(log, [group.id for group in following], step_level=step_level)
        selection = select_groups(loaded, settings.grpo.model_copy(update={"max_excluded": 1.0}), wanted)
    selection = select_groups(loaded, settings.grpo, wanted)
    by_id = {group.id: group for group in fitting}
    left_out += [LeftOut(by_id[group_id], reason) for group_id, reason in selection.left_out]
    left_out += [LeftOut(group, NOT_NEEDED) for group in fitting[len(loaded) :]]
    taken = tuple(sorted((by_id[group.group_id] for group in selection.taken), key=lambda group: group.id))
    looked_at = tuple(sorted(group.group_id for group in loaded))
    return Choice(looked_at, taken, tuple(left_out), len(selection.advantages), selection.excluded_share)


def ages_before(log: Log, base: str) -> dict[str, int]:
    """How many versions each ancestor of `base` lies before it; `base` itself 0."""
    parents = {version.name: version.parent for version in list_versions(log)}
    ages: dict[str, int] = {}
    name: str | None = base
    while name is not None and name not in ages:
        ages[name] = len(ages)
        name = parents.get(name)
    return ages


def choice_lines(choice: Choice) -> list[str]:
    """What a run would take and why the rest not, for a person."""
    lines = [
        f"{len(choice.taken)} groups, {choice.trajectories} trajectories to train on; "
        f"{100 * choice.excluded_share:.0f} % of those looked at are excluded"
    ]
    for batch, count in sorted(Counter(group.batch for group in choice.taken).items()):
        versions = sorted({group.version for group in choice.taken if group.batch == batch})
        lines.append(f"  {count} of {batch} (played by {', '.join(versions)})")
    if choice.left_out:
        lines.append(f"{len(choice.left_out)} groups are left out:")
    lines += [f"  {count}: {reason}" for reason, count in choice.reasons().most_common()]
    return lines


class _ToolsOf:
    """The names of the tools that a scenario offers, read when they are first asked for."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[str, frozenset[str]] = {}

    def __call__(self, scenario_hash: str) -> frozenset[str]:
        if scenario_hash not in self._known:
            scenario = get_scenarios(self._log, [scenario_hash])[scenario_hash]
            self._known[scenario_hash] = frozenset(tool.name for tool in scenario.tools)
        return self._known[scenario_hash]


def _why_not(group: GroupSummary, wanted: SelectionSettings, ages: dict[str, int], base: str) -> str | None:
    if group.split is not wanted.split:
        return f"its scenario is of split {group.split} (selection.split = {wanted.split})"
    if wanted.domains and group.domain not in wanted.domains:
        return f"its scenario is of domain {group.domain} (selection.domains)"
    if wanted.sources and group.source not in wanted.sources:
        return f"its scenario is of source {group.source} (selection.sources)"
    if group.unfinished:
        return "some of its trajectories have not ended"
    age = ages.get(group.version)
    if age is None:
        return f"it was played by {group.version}, which {base} does not descend from"
    if age > wanted.max_age:
        return f"it was played by {group.version}, {age} before {base} (selection.max_age = {wanted.max_age})"
    if group.uses >= wanted.max_uses:
        return f"{group.uses} runs have trained on it (selection.max_uses = {wanted.max_uses})"
    return None


def _why_not_its_tools(group: GroupSummary, wanted: SelectionSettings, tools: _ToolsOf) -> str | None:
    if wanted.tools and not tools(group.scenario_hash) & set(wanted.tools):
        return f"its scenario offers none of {', '.join(wanted.tools)} (selection.tools)"
    return None
