"""`annotate_scenarios`: has checklists written for scenarios that lack them, many at a time (CM2 pipeline, 4).

Reads scenarios, checklists and annotations; `reward.dialogue_annotator` writes each dialogue when it is done, so that a
kill loses at most the dialogues in flight, and the same call goes on where it stood.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from agent.role_endpoint import RoleEndpoint
from agent.role_errors import EndpointError
from agent.role_work import ask_about_all
from reward.dialogue_annotator import Annotator
from reward.examination import Annotated, Cost, Work
from reward.self_test import JudgeItems
from store.annotations import latest_annotations
from store.checklists import Checklist, current_checklists
from store.database import Log, in_chunks
from store.records import Scenario
from store.settings import AnnotationSettings, SettingsError
from store.vocabulary import AnnotationStatus


@dataclass
class Report:
    """What `annotate_scenarios` did."""

    ended: list[Annotated] = field(default_factory=list)
    skipped: int = 0
    """Variants that were there before, or that wait for a person."""
    left: int = 0
    """Variants that were not begun or not finished because `stopped`."""
    stopped: str | None = None
    cost: Cost = field(default_factory=Cost)
    """Of every answer, those about dialogues that did not end included."""

    def of(self, status: AnnotationStatus | None) -> list[Annotated]:
        return [one for one in self.ended if one.status is status]


async def annotate_scenarios(
    log: Log,
    scenarios: Sequence[Scenario],
    endpoint: RoleEndpoint,
    *,
    settings: AnnotationSettings,
    variants: Sequence[int] | None = None,
    again: bool = False,
    seed: int = 0,
    judge_items: JudgeItems | None = None,
    on_begin: Callable[[int], None] | None = None,
    on_done: Callable[[Annotated], None] | None = None,
) -> Report:
    """Writes what `open_work` finds, as many dialogues at a time as the endpoint takes questions.

    `judge_items` also tries items without a check in the self-test. `on_begin` is told how many there are to write. A
    limit of the endpoint's settings ends it cleanly (`Report.stopped`); a dialogue without an answer is among the ended
    ones with status None. Raises SettingsError where variants could only be copies, LogError where the log fails.
    """
    annotator = Annotator(log, endpoint, settings, seed=seed, judge_items=judge_items)
    wanted = tuple(range(settings.variants) if variants is None else variants)
    work, skipped = open_work(log, scenarios, annotator, wanted, again=again)
    report = Report(skipped=skipped)
    if on_begin is not None:
        on_begin(len(work))

    async def ask(one: Work) -> str | None:
        cost, failure = Cost(), None
        try:
            ended = await annotator.annotate(one, cost)
        except EndpointError as error:
            failure = str(error)
            ended = Annotated(one, None, (failure,), cost)
        finally:
            report.cost.add(cost)
        report.ended.append(ended)
        if on_done is not None:
            on_done(ended)
        return failure

    report.stopped = await ask_about_all(work, ask, at_once=endpoint.settings.max_concurrency)
    report.left = len(work) - len(report.ended)
    return report


def open_work(
    log: Log, scenarios: Sequence[Scenario], annotator: "Annotator", variants: Sequence[int], *, again: bool
) -> tuple[list[Work], int]:
    """What is to be written, and how many (scenario, variant) are skipped.

    Skipped is a variant that has a checklist for every turn, whoever wrote it, and one that this annotator with this
    prompt has handed to a person; with `again` nothing is. A variant that has some is written for the other turns.
    Raises SettingsError where one annotator at temperature 0 would write several variants of a scenario: equal ones.
    """
    latest = latest_annotations(log)
    work: list[Work] = []
    skipped = 0
    for scenario, current_T in _with_checklists(log, scenarios):
        digest, to_write = scenario.hash, []
        for variant in variants:
            there = {t for t, current in enumerate(current_T) if any(one.variant == variant for one in current)}
            turns = tuple(t for t in range(len(scenario.turns)) if again or t not in there)
            before = latest.get((digest, variant))
            handed_over = before is not None and before.status is AnnotationStatus.NEEDS_PERSON
            if not turns or (not again and before is not None and handed_over and annotator.wrote(before)):
                skipped += 1
            else:
                to_write.append(Work(scenario, variant, turns))
        work += to_write
        if annotator.is_greedy and to_write:
            other = {checklist.variant for current in current_T for checklist in current}
            done = {v for v in other if (one := latest.get((digest, v))) is not None and annotator.wrote(one)}
            if len(copies := sorted(done | {one.variant for one in to_write})) > 1:
                raise SettingsError(
                    f"{annotator.name} at temperature 0 would write the same checklists as variants {copies} of "
                    f"scenario {scenario.name!r}: set annotator.temperature above 0, or let another annotator write "
                    "the further variants (--variant)"
                )
    return work, skipped


def _with_checklists(log: Log, scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, list[list[Checklist]]]]:
    unique = list({scenario.hash: scenario for scenario in scenarios}.values())
    for chunk in in_chunks(unique):
        current = current_checklists(log, chunk)
        for scenario in chunk:
            yield scenario, current[scenario.hash]
