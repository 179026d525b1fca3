"""What is learned in one of the bundled worlds from one cold start: SFT on reference dialogues of the scenarios
that the others play, GRPO at trajectory, turn and step level (CM2, equations 5, 7 and 10), and each level under a judge
of whose verdicts a tenth are wrong.

Every arm plays the same scenarios, new ones in each round, and the cold start does, too: what a round earned beyond it
(equation 4, by the checks, before any verdict is turned round) is measured on scenarios that nothing was trained on.
The last round is played only.
Hours of work: it goes on where it was stopped, and begins no stage after LEARNING_MINUTES (no limit without).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from agent.gateway_process import GatewayProcess
from agent.proof import PROBE_PROMPTS, probe_of
from agent.renderer_choice import load_renderer
from benchmarks.judge_noise import noise_lines, turned_round
from benchmarks.learning_lines import learning_lines
from benchmarks.line import Line
from env_sim.scenario_generator import generate_scenarios
from reward.scoring import score_trajectories
from store.database import Log, open_log
from store.groups import list_groups
from store.records import Scenario
from store.runs import finish_run, start_run
from store.scenarios import add_scenarios
from store.settings import Settings, load_settings
from store.stages import open_loop
from store.trajectories import list_trajectories
from store.turns import step_counts_of
from store.verdicts import add_verdicts, verdicts_of
from store.versions import get_version, set_version_state
from store.vocabulary import JobStatus, RunKind, Split, VersionState
from train.demo import BUNDLE_SEED
from train.evaluation import read_batch
from train.progress import Stage, StageProgress
from train.references import sft_examples
from train.registry import model_directory, register_version, version_of_run
from train.rounds import Rounds
from train.sft import train_sft
from train.stages import Stages
from train.training_run import give_back_trainer

ROUNDS, SCENARIOS, GROUP = 4, 16, 4
LAST = 32
"""Scenarios of the last round, which is played only: the more of them, the less of a difference is chance."""
LEARNING_RATE = 1.2e-4
DOMAINS = ("home",)
"""One world: what little is played goes further in it than in six."""
SEEDS = (1, 2, 3)
WRONG = 0.1
SHARES_WRONG = (0.05, 0.1, 0.2)
"""What is left of the advantages under these is computed from what the arms without wrong verdicts played."""
COLD = "cold-start"


@dataclass(frozen=True)
class Arm:
    name: str
    level: str | None
    """Of advantages; None: nothing is learned in rounds."""
    wrong: float = 0.0
    """Share of the verdicts that are turned round."""
    supervised: bool = False
    """Trained on reference dialogues once, and played in the last round."""

    @property
    def rounds(self) -> range:
        """In which it plays, counted from 1."""
        return range(ROUNDS + 1 if self.supervised else 1, ROUNDS + 2)

    def loop(self, seed: int) -> str:
        return f"{self.name.replace(' ', '-')}-{seed}"


UNTRAINED = Arm("as it started", None)
"""The cold start plays what all others play: rounds differ in how hard they are."""
ARMS = (
    UNTRAINED,
    Arm("trajectory", "trajectory"),
    Arm("turn", "turn"),
    Arm("step", "step"),
    Arm("sft", None, supervised=True),
    Arm("trajectory wrong", "trajectory", WRONG),
    Arm("turn wrong", "turn", WRONG),
    Arm("step wrong", "step", WRONG),
)
ORDER = [
    *((UNTRAINED, seed) for seed in SEEDS[:1]),
    *((arm, seed) for seed in SEEDS for arm in ARMS if arm is not UNTRAINED and not arm.wrong),
    *((arm, seed) for seed in SEEDS for arm in ARMS if arm.wrong),
]


class OutOfTime(Exception):
    """The time that was given is over; what is done is kept."""


def measure(home: Path) -> list[Line]:
    """Goes on with the experiment, then says how far it has come."""
    minutes = float(os.environ.get("LEARNING_MINUTES", "inf"))
    experiment = Experiment(home / "learning", load_settings(home=home.parent), time.monotonic() + 60 * minutes)
    try:
        with experiment.serving():
            for arm, seed in ORDER:
                experiment.run(arm, seed)
    except OutOfTime:
        pass
    return experiment.lines()


class Experiment:
    """One log and one server; each arm and seed is a loop of its own in it."""

    def __init__(self, home: Path, shared: Settings, deadline: float) -> None:
        self._shared, self._deadline = shared, deadline
        grpo = {"kl": 0.0, "scenarios_per_step": 4, "learning_rate": LEARNING_RATE}
        self._settings = load_settings(home=home, rollout={"group_size": GROUP}, grpo=grpo)
        self._log: Log = open_log(self._settings.url)
        self._progress = StageProgress({})
        self._gateway: GatewayProcess | None = None
        self._held = ""
        self._cold = generate_scenarios(Split.TRAIN, self._settings.sft.dialogues, BUNDLE_SEED)
        self._pool = generate_scenarios(Split.TRAIN, ROUNDS * SCENARIOS + LAST, BUNDLE_SEED + 1, DOMAINS)
        add_scenarios(self._log, [*self._cold, *self._pool])

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The cold start is made where there is none yet, and served."""
        self._supervised(COLD, 1, None, self._cold, self._settings)
        if get_version(self._log, "v0001").state is VersionState.CANDIDATE:
            set_version_state(self._log, "v0001", VersionState.LIVE, COLD)
        with GatewayProcess(self._settings) as self._gateway:
            self._held = "v0001"
            yield

    def run(self, arm: Arm, seed: int) -> None:
        """Every stage of the arm that is not done yet. Raises OutOfTime."""
        name, settings = arm.loop(seed), self._settings
        if arm.level is not None:
            grpo = settings.grpo.model_copy(update={"advantage": arm.level})
            settings = settings.model_copy(update={"grpo": grpo})
        rounds = Rounds(self._log, settings, name=name, seed=seed)
        stages = self._stages(name, seed, settings)
        tip, made = "v0001", list[str]()
        if arm.supervised:
            tip = self._supervised(name, seed, "v0001", self._pool[: ROUNDS * SCENARIOS], settings)
            made.append(tip)
        for n in arm.rounds:
            self._stage(stages, f"round-{n}/play", partial(self._play, rounds, name, n, tip))
            if arm.level is None or n > ROUNDS:
                continue
            if arm.wrong:
                self._stage(stages, f"round-{n}/wrong", partial(self._turn_round, f"{name}/round-{n}", arm.wrong))
            trained = self._stage(stages, f"round-{n}/train", partial(self._train, rounds, n, tip))["version"]
            if trained is not None:
                tip = trained
                made.append(trained)
        self._stage(stages, "prune", lambda stage: rounds.prune(stage, made))

    def lines(self) -> list[Line]:
        """What has been learned (benchmarks.learning_lines), and what wrong verdicts leave of the advantages in what
        was played."""
        played = {
            arm.name: {seed: {n: self._rewards(arm, seed, n) for n in arm.rounds} for seed in SEEDS} for arm in ARMS
        }
        loops = [arm.loop(seed) for arm in ARMS if not arm.wrong for seed in SEEDS]
        batches = sorted({group.batch for group in list_groups(self._log)})
        known = [batch for batch in batches if batch.rpartition("/")[0] in loops]
        return [*learning_lines(played, UNTRAINED.name), *noise_lines(self._log, known, SHARES_WRONG)]

    def _rewards(self, arm: Arm, seed: int, n: int) -> dict[str, float]:
        """Mean reward by scenario of what the arm played in round n, as the stage found it: before verdicts were turned
        round."""
        stages = Stages(self._log, arm.loop(seed), self._progress)
        result = stages.result(f"round-{n}/play")
        return {} if result is None else dict(result["rewards"])

    def _stages(self, name: str, seed: int, settings: Settings) -> Stages:
        open_loop(self._log, name, seed, settings.model_dump(mode="json", include={"rollout", "sft", "grpo"}))
        return Stages(self._log, name, self._progress)

    def _stage(self, stages: Stages, key: str, work: Callable[[Stage], dict[str, Any]]) -> dict[str, Any]:
        if stages.result(key) is None and time.monotonic() > self._deadline:
            raise OutOfTime
        return stages.run(key, key, work)

    def _serve(self, version: str) -> None:
        if self._held == version or self._gateway is None:
            return
        self._held = ""
        figures = self._gateway.stage(version)
        if not figures["accepted"]:
            raise RuntimeError(f"the server does not answer with {version}: {figures['proof']['reason']}")
        self._held = version

    def _supervised(
        self, name: str, seed: int, parent: str | None, scenarios: Sequence[Scenario], settings: Settings
    ) -> str:
        """The version that SFT makes of the bundled model (its cold start), or of `parent` in one epoch."""
        stages = self._stages(name, seed, settings)
        sft = settings.sft if parent is None else settings.sft.model_copy(update={"epochs": 1})

        def work(stage: Stage) -> dict[str, Any]:
            run_id = start_run(self._log, name, RunKind.SFT, parent, seed, sft.model_dump(mode="json"))
            if version := version_of_run(self._log, run_id):
                return {"version": version}
            base = model_directory(self._shared) if parent is None else Path(get_version(self._log, parent).path)
            renderer = load_renderer(base, settings.model.renderer)
            made = Rounds(self._log, settings, name=name, seed=seed).fresh_folder("sft")
            probe = probe_of(one.ids for one in sft_examples(self._pool[-PROBE_PROMPTS:], renderer))

            def on_step(step: int, total: int, metrics: Any) -> None:
                stage.advance(step / total, f"step {step} of {total}")

            train_sft(base, made, sft_examples(scenarios, renderer), sft, seed, on_step, probe_ids=probe)
            give_back_trainer()
            version = register_version(self._log, settings, made, parent=parent, run_id=run_id)
            finish_run(self._log, run_id, JobStatus.DONE)
            return {"version": version}

        return str(self._stage(stages, "sft", work)["version"])

    def _play(self, rounds: Rounds, name: str, n: int, version: str, stage: Stage) -> dict[str, Any]:
        scenarios = self._pool[(n - 1) * SCENARIOS :][: LAST if n > ROUNDS else SCENARIOS]
        played = rounds.play(stage, n, scenarios, version, lambda: self._serve(version))
        outcomes = read_batch(self._log, f"{name}/round-{n}")
        values = {digest: [one.reward for one in many if one.reward is not None] for digest, many in outcomes.items()}
        return played | {"rewards": {digest: mean(many) for digest, many in values.items() if many}}

    def _train(self, rounds: Rounds, n: int, base: str, stage: Stage) -> dict[str, Any]:
        return {"version": rounds.train(stage, n, base)}

    def _turn_round(self, batch: str, share: float, stage: Stage) -> dict[str, Any]:
        """As a judge would err: so many of the batch's verdicts, drawn at random, say the opposite from now on."""
        names = [one.id for one in list_trajectories(self._log, batch=batch, limit=None)]
        counts = step_counts_of(self._log, names)
        wrong = [
            one
            for name, verdicts in verdicts_of(self._log, names).items()
            for one in turned_round(verdicts, counts[name], share)
        ]
        add_verdicts(self._log, wrong)
        score_trajectories(self._log, names)
        stage.advance(1.0, f"{len(wrong)} verdicts")
        return {"wrong": len(wrong)}
