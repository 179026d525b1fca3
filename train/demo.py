"""`make demo`: the loop on the bundled worlds, and its table of before and after."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from env_sim.scenario_generator import SEEN_DOMAINS, UNSEEN_DOMAINS, generate_scenarios
from reward.intervals import paired_bootstrap
from store.configured import printer
from store.database import Log
from store.records import Scenario
from store.settings import Settings
from store.training_settings import GrpoSettings, LoopSettings
from store.vocabulary import Split
from train.evaluation import Outcome
from train.loop import LoopOutcome, ScenarioSets, TrainingLoop
from train.memory import PeakMemory
from train.progress import StageProgress

BUNDLE_SEED = 20260
"""The bundled scenarios are the same for every loop; its seed decides everything else."""


def demo_settings(settings: Settings) -> Settings:
    """GRPO as the bundled model learns best from in a few rounds, where the settings do not say otherwise.

    A baseline for each state instead of the group's, and no penalty, which costs a pass of the version before.
    """
    given = settings.grpo.model_dump(exclude_unset=True)
    preferred: dict[str, object] = {"kl": 0.0} if "reference" not in given else {}
    if settings.grpo.advantage == "trajectory":
        preferred["baseline"] = "state"
    return settings.model_copy(update={"grpo": GrpoSettings.model_validate(preferred | given)})


def bundled_sets(settings: Settings) -> ScenarioSets:
    """Disjoint scenario sets of the sizes in the settings; test holds unseen domains besides the seen ones."""
    loop = settings.loop
    dialogues = settings.sft.dialogues
    train = generate_scenarios(Split.TRAIN, dialogues + loop.rounds * loop.scenarios_per_round, BUNDLE_SEED)
    unseen = loop.test_scenarios // 8
    test = generate_scenarios(Split.TEST, loop.test_scenarios - unseen, BUNDLE_SEED, SEEN_DOMAINS)
    test += generate_scenarios(Split.TEST, unseen, BUNDLE_SEED, UNSEEN_DOMAINS)
    validation = generate_scenarios(Split.VALIDATION, loop.gates * loop.validation_scenarios, BUNDLE_SEED)
    return ScenarioSets(train[:dialogues], train[dialogues:], validation, test)


def expected_seconds(loop: LoopSettings) -> dict[str, float]:
    """Seconds of each stage on two quiet cores: what the first estimate of the time left is made from."""
    stages = {"model": 25.0, "scenarios": 2.0, "cold-start": 85.0, "servers": 28.0, "before": 45.0, "after": 45.0}
    for n in range(1, loop.rounds + 1):
        stages |= {f"round-{n}/play": 42.0, f"round-{n}/train": 36.0}
        if n % loop.gate_every and n < loop.rounds:
            stages[f"round-{n}/load"] = 2.0
        else:
            stages |= {f"round-{n}/gate": 45.0, f"round-{n}/swap": 2.0}
    return stages


def run_demo(log: Log, settings: Settings, *, name: str, seed: int) -> LoopOutcome:
    """Runs or resumes the loop `name` and prints its table on standard output."""
    settings = demo_settings(settings)
    sets = bundled_sets(settings)
    progress = StageProgress(expected_seconds(settings.loop))
    with progress.shown(), PeakMemory() as memory:
        outcome = TrainingLoop(log, settings, sets, name=name, seed=seed, progress=progress).run()
    console = printer()
    console.print(outcome_table(outcome, sets.test, seed))
    console.print(stage_table(outcome.seconds))
    console.print(cost_line(outcome.seconds, memory.peak))
    console.print(
        "Look at it all: [bold]checkloop up[/] (dashboard and chat in the browser), [bold]checkloop chat[/] "
        "(the terminal). Another seed: [bold]make demo SEED=2[/]."
    )
    return outcome


def outcome_table(outcome: LoopOutcome, test: Sequence[Scenario], seed: int) -> Table:
    """Checklist reward (equation 4) and share of fully passed dialogues by domain, with paired 95 % intervals."""
    table = Table(
        title=f"Test scenarios before ({outcome.first_version}) and after ({outcome.last_version}), 0 to 100 points"
    )
    for column in ("", "n", "reward before", "after", "difference [95 %]", "all passed before", "after"):
        table.add_column(column, justify="left" if not column else "right")
    domains = sorted({s.domain for s in test}, key=lambda d: (d in UNSEEN_DOMAINS, d))
    groups: list[tuple[str, list[Scenario]]] = [
        (domain + (" (unseen)" if domain in UNSEEN_DOMAINS else ""), [s for s in test if s.domain == domain])
        for domain in domains
    ]
    groups.append(("seen domains", [s for s in test if s.domain not in UNSEEN_DOMAINS]))
    groups.append(("unseen domains", [s for s in test if s.domain in UNSEEN_DOMAINS]))
    groups.append(("all", list(test)))
    for index, (name, scenarios) in enumerate(groups):
        if index in (len(domains), len(groups) - 1):
            table.add_section()
        table.add_row(name, *_cells(outcome, [s.hash for s in scenarios], seed))
    return table


def _cells(outcome: LoopOutcome, hashes: Sequence[str], seed: int) -> list[str]:
    pairs = [(_of(outcome.before, h), _of(outcome.after, h)) for h in hashes]
    kept = [(b, a) for b, a in pairs if b is not None and a is not None]
    if not kept:
        return ["0", *["not judged"] * 5]
    before, after = [b.reward or 0.0 for b, _ in kept], [a.reward or 0.0 for _, a in kept]
    paired = paired_bootstrap(before, after, seed)
    return [
        str(len(kept)),
        f"{100 * sum(before) / len(before):.1f}",
        f"{100 * sum(after) / len(after):.1f}",
        paired.in_points(),
        f"{100 * sum(bool(b.fully_passed) for b, _ in kept) / len(kept):.0f} %",
        f"{100 * sum(bool(a.fully_passed) for _, a in kept) / len(kept):.0f} %",
    ]


def _of(outcomes: Mapping[str, Sequence[Outcome]], scenario_hash: str) -> Outcome | None:
    return next((o for o in outcomes.get(scenario_hash, ()) if o.reward is not None), None)


def cost_line(seconds: Mapping[str, float], peak_bytes: int) -> str:
    """`peak_bytes`: of all processes together, since the command was given. Tries that were killed left no seconds."""
    return f"Wall time: {sum(seconds.values()):.0f} s, at most {peak_bytes / 2**30:.1f} GiB resident"


def stage_table(seconds: Mapping[str, float]) -> Table:
    table = Table()
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, spent in seconds.items():
        table.add_row(stage, f"{spent:.1f}")
    return table
