"""What is to be annotated, and by whom: the same for `checkloop annotate` and the job `annotate`. Reads the log."""

from collections.abc import Sequence

from agent.role_endpoint import RoleEndpoint
from reward.annotator import open_work
from reward.dialogue_annotator import Annotator
from reward.judge import make_panel
from reward.panel import Panel
from store.database import Log, LogError
from store.records import Scenario
from store.scenarios import load_scenarios
from store.settings import Settings, SettingsError
from store.vocabulary import ModelRole, Split


def annotator_endpoint(log: Log, settings: Settings) -> RoleEndpoint:
    """Raises SettingsError where the settings name no annotator."""
    if settings.annotator is None:
        raise SettingsError("there is no annotator: name one in checkloop.toml, section [annotator]")
    price = settings.prices.get(settings.annotator.model)
    return RoleEndpoint(ModelRole.ANNOTATOR, settings.annotator, log=log, price=price)


def choose_scenarios(
    log: Log, *, split: Split | None, domain: str | None, source: str | None, named: str | None
) -> list[Scenario]:
    """`named`: a scenario's name, or how its hash begins. Raises LogError if there is none."""
    found = load_scenarios(log, split=split, domain=domain, source=source)
    if named is not None:
        found = [one for one in found if one.name == named or one.hash.startswith(named)]
    if not found:
        raise LogError("no scenario of the log meets these conditions: `checkloop import` brings some")
    return found


def chosen_variants(settings: Settings, variants: int | None, variant: int | None) -> list[int]:
    """Raises SettingsError where both how many and which one are given."""
    if variants is not None and variant is not None:
        raise SettingsError("--variants says how many, --variant says which one: give one of the two")
    return [variant] if variant is not None else list(range(variants or settings.annotation.variants))


def first_open(
    log: Log, scenarios: Sequence[Scenario], annotator: Annotator, variants: Sequence[int], limit: int, *, again: bool
) -> list[Scenario]:
    """The first `limit` scenarios that need a checklist."""
    work, _ = open_work(log, scenarios, annotator, variants, again=again)
    return list({one.scenario.hash: one.scenario for one in work}.values())[:limit]


def self_test_panel(log: Log, settings: Settings) -> Panel:
    """The judges of the settings, whom the self-test asks. Raises SettingsError where they name none."""
    panel = make_panel(log, settings)
    if panel is None:
        raise SettingsError("--with-judge needs a judge: name one in checkloop.toml, section [judge]")
    return panel
