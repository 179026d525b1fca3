"""The loop: cold start, before, rounds of (play, train, gate, swap), after; each stage done once and resumable.

Stages meet in the log: a stage's result is a stage row, so a loop that was killed goes on at the first stage without
one (invariant 6). What a stage needs from an earlier one it reads from there, never from memory.
"""

import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.gateway_process import GatewayProcess
from agent.proof import PROBE_PROMPTS, probe_of
from agent.renderer_choice import load_renderer
from env_sim.rollouts import derive_seed
from store.database import Log
from store.records import Scenario
from store.runs import add_metrics, add_run_dialogues, finish_run, start_run
from store.scenarios import add_scenarios
from store.settings import Settings
from store.stages import fail_stage, finish_stage, open_loop, stage_result, start_stage
from store.traffic import pinned_versions
from store.versions import get_version, live_version, set_version_state
from store.vocabulary import JobStatus, Origin, RunKind, Split, VersionState
from train.candidates import RunFiles, hold_against_live, train_candidate
from train.errors import TrainingFailed
from train.evaluation import Outcome, mean_reward, one_each, play_batch, read_batch
from train.gate_items import look_at_batch
from train.groups import load_groups
from train.processes import refuse_several
from train.progress import Stage, StageProgress
from train.pruning import remove_weights
from train.references import sft_examples
from train.registry import model_directory, register_version, version_of_run
from train.sft import train_sft
from train.tracking import check_trackers, tracking_arguments
from train.training_run import check_trained_layers, give_back_memory


@dataclass(frozen=True)
class ScenarioSets:
    """Disjoint; `cold_start` and `pool` are of split train."""

    cold_start: Sequence[Scenario]
    pool: Sequence[Scenario]
    """Played in groups, `scenarios_per_round` of them each round, none twice."""
    validation: Sequence[Scenario]
    """For the gates, `validation_scenarios` of them each time, none twice: a version that once passed on scenarios by
    luck would have that luck counted against every later candidate on the same ones."""
    test: Sequence[Scenario]

    def all(self) -> list[Scenario]:
        return [*self.cold_start, *self.pool, *self.validation, *self.test]


@dataclass(frozen=True)
class LoopOutcome:
    before: dict[str, list[Outcome]]
    after: dict[str, list[Outcome]]
    first_version: str
    last_version: str
    seconds: dict[str, float]


class TrainingLoop:
    """One named loop over the log. `run` does what is not done yet."""

    def __init__(
        self, log: Log, settings: Settings, sets: ScenarioSets, *, name: str, seed: int, progress: StageProgress
    ) -> None:
        self._log = log
        self._settings = settings
        self._sets = sets
        self._name = name
        self._seed = seed
        self._progress = progress
        self._gateway: GatewayProcess | None = None
        self._held: str | None = None
        """The version whose weights are in the server that a gate borrows."""
        self._seconds: dict[str, float] = {}
        self._folder = settings.home / "loops" / name

    def run(self) -> LoopOutcome:
        """Raises what the first failing stage raised; the stage is recorded as failed and starts anew next time."""
        refuse_several("a loop")
        check_trackers(self._settings.tracking)
        fixed = self._settings.model_dump(mode="json", include=set(_FIXED), exclude={"rollout": {"concurrency"}})
        open_loop(self._log, self._name, self._seed, fixed)
        try:
            model = Path(self._stage("model", "prepare the model", self._prepare_model)["path"])
            check_trained_layers(model, self._settings.grpo.trained_layers)
            self._stage("scenarios", "load the scenarios", self._load_scenarios)
            current = self._stage("cold-start", "cold start (SFT)", lambda s: self._cold_start(s, model))["version"]
            first = current
            self._go_live(current)
            before = self._evaluation("before", "play the test scenarios before", self._sets.test, current)
            tip = current
            for n in range(1, self._settings.loop.rounds + 1):
                current, tip = self._round(n, current, tip)
            after = self._evaluation("after", "play the test scenarios after", self._sets.test, current)
            self._stage("prune", "remove the weights of what did not go live", self._prune)
            return LoopOutcome(before, after, first, current, dict(self._seconds))
        finally:
            if self._gateway is not None:
                self._gateway.stop()

    def _round(self, n: int, current: str, tip: str) -> tuple[str, str]:
        """One round; the version that is live after it, and the newest one, which the next round goes on from.

        Rollouts to learn from are sampled from the newest version, whoever is live: learning stays on-policy. What the
        gate refuses does not go live; it is dropped as a basis too where it is worse beyond doubt.
        """
        key = f"round-{n}"
        scenarios = _of_round(self._sets.pool, n, self._settings.loop.scenarios_per_round)
        self._stage(f"{key}/play", f"round {n}: play groups", lambda s: self._play_groups(s, n, scenarios, tip))
        trained = self._stage(f"{key}/train", f"round {n}: train (GRPO)", lambda s: self._train(s, n, tip))
        candidate = trained["version"] or tip
        if candidate == current:
            return current, current
        if n % self._settings.loop.gate_every and n < self._settings.loop.rounds:
            loaded = self._stage(f"{key}/load", f"round {n}: load", lambda s: self._load(s, candidate))
            return current, candidate if loaded["accepted"] else tip
        decision = self._stage(f"{key}/gate", f"round {n}: gate", lambda s: self._gate(s, n, current, candidate))
        if not decision["passed"]:
            return current, candidate if decision.get("high", -1.0) >= 0 else current
        swap = self._stage(f"{key}/swap", f"round {n}: swap", lambda s: self._swap(s, candidate, decision["reason"]))
        return (candidate, candidate) if swap["accepted"] else (current, current)

    def _stage(self, key: str, title: str, work: Callable[[Stage], dict[str, Any]]) -> dict[str, Any]:
        done = stage_result(self._log, self._name, key)
        if done is not None:
            self._seconds[key] = float(done.get("seconds", 0.0))
            self._progress.skip(key, title)
            return done
        start_stage(self._log, self._name, key)
        began = time.monotonic()
        try:
            with self._progress.stage(key, title) as stage:
                result = work(stage)
        except BaseException as error:
            fail_stage(self._log, self._name, key, f"{type(error).__name__}: {error}", time.monotonic() - began)
            raise
        gc.collect()
        give_back_memory()  # a trainer's gigabytes are the server's in the next stage
        self._seconds[key] = time.monotonic() - began
        finish_stage(self._log, self._name, key, result | {"seconds": self._seconds[key]}, self._seconds[key])
        return result

    def _prepare_model(self, stage: Stage) -> dict[str, Any]:
        stage.advance(0.1, self._settings.model.source)
        return {"path": str(model_directory(self._settings))}

    def _load_scenarios(self, stage: Stage) -> dict[str, Any]:
        added = add_scenarios(self._log, self._sets.all())
        stage.advance(1.0, f"{len(self._sets.all())} scenarios, {added} of them new")
        return {"added": added}

    def _cold_start(self, stage: Stage, model: Path) -> dict[str, Any]:
        run_id = start_run(
            self._log,
            f"{self._name}/cold-start",
            RunKind.SFT,
            None,
            self._seed,
            self._settings.sft.model_dump(mode="json"),
        )
        if version := version_of_run(self._log, run_id):
            return {"version": version}
        add_run_dialogues(self._log, run_id, {one.hash: Split.TRAIN for one in self._sets.cold_start})

        def on_step(step: int, total: int, metrics: Mapping[str, float]) -> None:
            add_metrics(self._log, run_id, step, dict(metrics))
            stage.advance(step / total, f"step {step} of {total}, loss {metrics.get('loss', float('nan')):.3f}")

        renderer = load_renderer(model, self._settings.model.renderer)
        examples = sft_examples(self._sets.cold_start, renderer)
        made = self._fresh_folder("cold-start")
        probe = probe_of(example.ids for example in sft_examples(self._sets.validation[:PROBE_PROMPTS], renderer))
        tracking = tracking_arguments(self._settings.tracking, self._settings.home, f"{self._name}/cold-start")
        result = train_sft(
            model, made, examples, self._settings.sft, self._seed, on_step, probe_ids=probe, tracking=tracking
        )
        version = register_version(self._log, self._settings, made, parent=None, run_id=run_id)
        finish_run(self._log, run_id, JobStatus.DONE)
        stage.advance(1.0, f"{version}, {len(examples)} dialogues, {result.tokens} tokens")
        return {"version": version}

    def _go_live(self, version: str) -> None:
        """The cold start has nothing to be held against: it goes live because the loop was started."""
        if get_version(self._log, version).state is VersionState.CANDIDATE:
            set_version_state(self._log, version, VersionState.LIVE, f"cold start of the loop {self._name!r}")

    def _evaluation(
        self, key: str, title: str, scenarios: Sequence[Scenario], version: str
    ) -> dict[str, list[Outcome]]:
        """One dialogue a scenario, same seeds whatever the version."""
        batch = f"{self._name}/{key}"
        self._stage(key, title, lambda s: self._evaluate(s, scenarios, batch, version))
        return read_batch(self._log, batch)

    def _evaluate(self, stage: Stage, scenarios: Sequence[Scenario], batch: str, version: str) -> dict[str, Any]:
        outcomes = self._play(
            stage, scenarios, batch, version, 1, Origin.EVALUATION, self._settings.rollout.evaluation_temperature
        )
        stage.advance(1.0, f"{version}: mean reward {100 * mean_reward(outcomes):.1f} points")
        return {"reward": mean_reward(outcomes), "version": version}

    def _play_groups(self, stage: Stage, n: int, scenarios: Sequence[Scenario], version: str) -> dict[str, Any]:
        rollout = self._settings.rollout
        outcomes = self._play(
            stage,
            scenarios,
            f"{self._name}/round-{n}",
            version,
            rollout.group_size,
            Origin.ROLLOUT,
            rollout.temperature,
        )
        stage.advance(1.0, f"{len(scenarios)} groups, mean reward {100 * mean_reward(outcomes):.1f} points")
        return {"reward": mean_reward(outcomes)}

    def _train(self, stage: Stage, n: int, current: str) -> dict[str, Any]:
        name = f"{self._name}/round-{n}"
        earlier, later = (self._folder / f"optimizer-{number}.pt" for number in (n - 1, n))
        files = RunFiles(
            self._fresh_folder(f"round-{n}"),
            optimizer_in=earlier if earlier.is_file() else None,
            # An adapter begins anew in every round, so its moments would fit nothing.
            optimizer_out=later if self._settings.grpo.method == "full" else None,
        )
        version = train_candidate(
            self._log,
            self._settings,
            lambda: load_groups(self._log, name, step_level=self._settings.grpo.advantage == "step"),
            files,
            stage,
            name=name,
            base=current,
            temperature=self._settings.rollout.temperature,
            seed=derive_seed(self._seed, name) % 2**32,  # NumPy takes no greater one
        )
        if version is not None:
            earlier.unlink(missing_ok=True)
        return {"version": version}

    def _load(self, stage: Stage, candidate: str) -> dict[str, Any]:
        """Load a version that the next round is played with; nobody else is answered by it."""
        figures = self._serve(candidate)
        if not figures["accepted"]:
            reason = f"proof failed: {figures['proof']['reason']}"
            if get_version(self._log, candidate).state is VersionState.CANDIDATE:
                set_version_state(self._log, candidate, VersionState.REFUSED, reason)
            stage.advance(1.0, f"{candidate} is refused: {reason}")
        return {"accepted": figures["accepted"]}

    def _gate(self, stage: Stage, n: int, current: str, candidate: str) -> dict[str, Any]:
        """Both versions on validation scenarios that no gate saw before, same seeds."""
        loop = self._settings.loop
        validation = _of_round(self._sets.validation, -(-n // loop.gate_every), loop.validation_scenarios)

        def batch_of(version: str) -> str:
            return f"{self._name}/round-{n}/validation/{version}"

        def rewards_of(version: str) -> dict[str, float | None]:
            gate, temperature = self._settings.at_the_gate, self._settings.rollout.evaluation_temperature
            return one_each(
                self._play(
                    stage, validation, batch_of(version), version, 1, Origin.EVALUATION, temperature, settings=gate
                )
            )

        decision = hold_against_live(
            self._log,
            self._serve,
            rewards_of,
            lambda version: look_at_batch(self._log, batch_of(version), self._settings.gate.safety_items),
            candidate=candidate,
            live=current,
            rules=self._settings.gate,
            min_effect=self._settings.loop.gate_min_effect,
            seed=self._seed,
        )
        stage.advance(1.0, f"{candidate} {'passes' if decision.passed else 'is refused'}: {decision.reason}")
        return {"passed": decision.passed, "reason": decision.reason, **decision.figures}

    def _swap(self, stage: Stage, candidate: str, reason: str) -> dict[str, Any]:
        figures = self._open_gateway().promote(candidate, f"gate: {reason}")
        self._held = candidate if figures["accepted"] else live_version_name(self._log)
        if figures["accepted"]:
            stage.advance(1.0, f"{candidate} is live after {figures['drain_s'] + figures['reload_s']:.1f} s")
        else:
            stage.advance(1.0, f"{candidate} refused: {figures['proof']['reason']}")
        return figures

    def _prune(self, stage: Stage) -> dict[str, Any]:
        """What rounds made and no gate let through has done its work: rows stay, weights and Adam's moments go."""
        rounds = range(1, self._settings.loop.rounds + 1)
        made = [(stage_result(self._log, self._name, f"round-{n}/train") or {}).get("version") for n in rounds]
        versions = [get_version(self._log, name) for name in made if name is not None]
        pinned = pinned_versions(self._log)
        never = (VersionState.CANDIDATE, VersionState.REFUSED)
        gone = [v for v in versions if v.state in never and v.name not in pinned and Path(v.path).is_dir()]
        for version in gone:
            if version.state is VersionState.CANDIDATE:
                reason = f"made between two gates of the loop {self._name!r}: nobody was to be answered by it"
                set_version_state(self._log, version.name, VersionState.REFUSED, reason)
        pruned = remove_weights(self._log, gone)
        shutil.rmtree(self._folder, ignore_errors=True)
        stage.advance(1.0, f"{len(pruned.versions)} versions, {pruned.freed_bytes / 2**20:.0f} MiB")
        return {"versions": list(pruned.versions)}

    def _play(
        self,
        stage: Stage,
        scenarios: Sequence[Scenario],
        batch: str,
        version: str,
        group_size: int,
        origin: Origin,
        temperature: float,
        settings: Settings | None = None,
    ) -> dict[str, list[Outcome]]:
        return play_batch(
            self._log,
            scenarios,
            batch=batch,
            version=version,
            seed=derive_seed(self._seed, "play", batch if origin is Origin.ROLLOUT else "evaluation"),
            group_size=group_size,
            origin=origin,
            temperature=temperature,
            settings=settings or self._settings,
            stage=stage,
            before_playing=lambda: self._serve_or_fail(version),
        )

    def _serve(self, version: str) -> dict[str, Any]:
        """Brings the server to answer `policy@version`: with one server, it holds that version from then on."""
        gateway = self._open_gateway()
        if self._held == version:
            return {"accepted": True}
        self._held = None
        figures = gateway.stage(version)
        if figures["accepted"]:
            self._held = version
        return figures

    def _serve_or_fail(self, version: str) -> None:
        figures = self._serve(version)
        if not figures["accepted"]:
            raise TrainingFailed(f"the server does not answer with {version}: {figures['proof']['reason']}")

    def _open_gateway(self) -> GatewayProcess:
        """The running gateway; started when the first stage needs it."""
        if self._gateway is None:
            gateway = GatewayProcess(self._settings)
            with self._progress.stage("servers", "start vLLM"):
                gateway.launch()
                self._gateway = gateway
                gateway.wait_ready()
            self._held = live_version_name(self._log)
        return self._gateway

    def _fresh_folder(self, key: str) -> Path:
        """A folder for what a run makes; a killed try's remains are removed."""
        folder = self._folder / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder


def live_version_name(log: Log) -> str | None:
    version = live_version(log)
    return version.name if version else None


def _of_round(scenarios: Sequence[Scenario], n: int, count: int) -> Sequence[Scenario]:
    """The own `count` scenarios of round or gate n, counted from 1."""
    return scenarios[(n - 1) * count : n * count]


_FIXED = ("model", "rollout", "sft", "grpo", "loop", "gate")
"""Settings that make a loop what it is: it cannot go on with others. (How much runs at once does not matter.)"""
