"""From the log's scenarios to an SFT set, the LLMs on the way asked: `checkloop data` and the job `data`.

`Ask` is handed in: it asks about dialogues as the command or the job does, with a bar or a job's progress.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from agent.renderer_choice import load_renderer
from agent.role_endpoint import RoleEndpoint
from store.database import Log
from store.endpoint_settings import Endpoint
from store.records import Scenario
from store.settings import DataSettings, Settings
from store.vocabulary import ModelRole
from train.compressor import Compressor
from train.dialogue_critic import DialogueCritic, unfit_reasons
from train.dialogue_work import AsksAboutDialogues, DialogueReport
from train.references import reference_messages
from train.registry import model_directory
from train.scenario_filters import Filtered, leave_out
from train.sft_set import CountTokens, MadeSet, make_set

R = TypeVar("R")


class Ask(Protocol):
    """Asks about what was kept and says what came of it; raises where it stopped before the end."""

    def __call__(self, doing: str, asking: AsksAboutDialogues[R], filtered: Filtered) -> DialogueReport[R]: ...


@dataclass(frozen=True)
class Made:
    made: MadeSet
    failed: int
    """Dialogues without an answer; they are asked about again the next time."""


def make_critic(log: Log, settings: Settings, seed: int) -> DialogueCritic | None:
    """The LLM of `[filter]`; None without one."""
    if settings.filter is None:
        return None
    return DialogueCritic(
        log, _endpoint(log, settings, ModelRole.FILTER, settings.filter), settings.filtering, seed=seed
    )


def make_compressor(log: Log, settings: Settings, seed: int) -> Compressor | None:
    """The LLM of `[compressor]`; None without one."""
    if settings.compressor is None:
        return None
    endpoint = _endpoint(log, settings, ModelRole.COMPRESSOR, settings.compressor)
    return Compressor(log, endpoint, settings.compression, seed=seed)


def make_sft_set(
    log: Log,
    settings: Settings,
    filtered: Filtered,
    wanted: DataSettings,
    critic: DialogueCritic | None,
    compressor: Compressor | None,
    ask: Ask,
) -> Made:
    """Asks both about what rules kept, and writes the set. Raises TrainingFailed if nothing of split train is left."""
    failed = 0
    if critic is not None:
        criticized = ask("reading dialogues", critic, filtered)
        failed += len(criticized.failed)
        filtered = leave_out(filtered, unfit_reasons(criticized, filtered.kept))
    shortened: dict[str, Any] = {}
    if compressor is not None:
        report = ask("shortening thinking", compressor, filtered)
        failed += len(report.failed)
        shortened = report.done
    return Made(make_set(log, settings.home, filtered, shortened, wanted, _counter(settings)), failed)


def _endpoint(log: Log, settings: Settings, role: ModelRole, named: Endpoint) -> RoleEndpoint:
    return RoleEndpoint(role, named, log=log, price=settings.prices.get(named.model))


def _counter(settings: Settings) -> CountTokens:
    renderer = load_renderer(model_directory(settings), settings.model.renderer)

    def count(scenario: Scenario) -> int:
        ids, _ = renderer.dialogue(reference_messages(scenario), [tool.as_openai() for tool in scenario.tools])
        return len(ids)

    return count
