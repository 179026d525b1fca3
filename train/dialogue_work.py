"""Reference dialogues before an LLM, many at a time: what is asked about, what came of it, what is left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from agent.role_errors import EndpointError
from agent.role_work import ask_about_all
from reward.examination import Cost
from store.records import Scenario

R = TypeVar("R")


@dataclass
class DialogueReport(Generic[R]):
    done: dict[str, R] = field(default_factory=dict)
    """By scenario hash, those that were done before included."""
    asked: int = 0
    skipped: int = 0
    """Dialogues that were done before, or about which there is nothing to ask."""
    failed: list[str] = field(default_factory=list)
    """Why dialogues got no answer; they are asked about again the next time."""
    left: int = 0
    stopped: str | None = None
    cost: Cost = field(default_factory=Cost)


class AsksAboutDialogues(Protocol[R]):
    """The compressor, or the filter."""

    max_concurrency: int

    def open_work(
        self, scenarios: Sequence[Scenario], *, again: bool = False
    ) -> tuple[list[Scenario], DialogueReport[R]]:
        """The scenarios to ask about, and a report that holds what is done; with `again` nothing is."""

    def estimate(self, scenario: Scenario) -> Cost:
        """Of one dialogue, if nothing goes back."""

    async def ask(self, scenario: Scenario, cost: Cost) -> R:
        """Asks and stores, adding to `cost`. Raises EndpointError or LimitReached where there is no answer, with
        nothing stored."""


async def ask_about_dialogues(
    asking: AsksAboutDialogues[R],
    scenarios: Sequence[Scenario],
    *,
    again: bool = False,
    on_begin: Callable[[int], None] = lambda count: None,
    on_done: Callable[[Scenario], None] = lambda scenario: None,
) -> DialogueReport[R]:
    """As many dialogues at a time as the endpoint takes questions. A limit of its settings ends it cleanly."""
    work, report = asking.open_work(scenarios, again=again)
    on_begin(len(work))

    async def ask(scenario: Scenario) -> str | None:
        cost, failure = Cost(), None
        try:
            report.done[scenario.hash] = await asking.ask(scenario, cost)
        except EndpointError as error:
            failure = f"{scenario.name}: {error}"
            report.failed.append(failure)
        finally:
            report.cost.add(cost)
        report.asked += 1
        on_done(scenario)
        return failure

    report.stopped = await ask_about_all(work, ask, at_once=asking.max_concurrency)
    report.left = len(work) - report.asked
    return report
