"""The loop: cold start, before, rounds of (play, train, gate, swap), after; each stage done once and resumable.

Stages meet in the log: a stage's result is a stage row, so a loop that was killed goes on at the first stage without
one (invariant 6). What a stage needs from an earlier one it reads from there, never from memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.gateway_process import GatewayProcess
from agent.proof import PROBE_PROMPTS, probe_of
from agent.renderer_choice import load_renderer
from env_sim.rollouts import derive_seed
from store.database import Log
from store.records import Scenario
from store.run_dialogues import add_run_dialogues
from store.runs import add_metrics, ended_run, finish_run, start_run
from store.scenarios import add_scenarios
from store.settings import Settings
from store.stages import open_loop
from store.versions import get_version, live_version, set_version_state
from store.vocabulary import JobStatus, Origin, RunKind, Split, VersionState
from train.candidates import Held, hold_against_live
from train.errors import TrainingFailed
from train.evaluation import Outcome, mean_reward, one_each, play_batch, read_batch
from train.gate_items import look_at_batch
from train.names import check_name
from train.processes import refuse_several
from train.progress import Stage, StageProgress
from train.references import sft_examples
from train.registry import model_directory, register_version, version_of_run
from train.rounds import Rounds, refuse_selection, refuse_untrainable, served_and_judged_by
from train.sft import train_sft
from train.stages import Stages
from train.tracking import check_trackers, tracking_arguments
from train.training_run import check_trained_layers, give_back_trainer


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
    """One named loop over the log. `run` does what is not done yet. Raises TrainingFailed for a name that is none."""

    def __init__(
        self, log: Log, settings: Settings, sets: ScenarioSets, *, name: str, seed: int, progress: StageProgress
    ) -> None:
        self._log = log
        self._settings = settings
        self._sets = sets
        self._name = check_name("a loop", name)
        self._seed = seed
        self._progress = progress
        self._gateway: GatewayProcess | None = None
        self._held: str | None = None
        """The version whose weights are in the server that a gate borrows."""
        self._refused: set[str] = set()
        """What gates of this loop refused so far; learning may go on from it."""
        self._stages = Stages(log, name, progress)
        self._rounds = Rounds(log, settings, name=name, seed=seed)

    def run(self) -> LoopOutcome:
        """Raises what the first failing stage raised; the stage is recorded as failed and starts anew next time.

        TrainingFailed for settings that it cannot honour.
        """
        refuse_several("a loop")
        refuse_untrainable(self._settings)
        refuse_selection(self._settings, "a loop")
        check_trackers(self._settings.tracking)
        fixed = self._settings.model_dump(mode="json", include=set(_FIXED), exclude={"rollout": {"concurrency"}})
        open_loop(self._log, self._name, self._seed, fixed | served_and_judged_by(self._settings))
        try:
            model = Path(self._stages.run("model", "prepare the model", self._prepare_model)["path"])
            check_trained_layers(model, self._settings.grpo.trained_layers)
            self._stages.run("scenarios", "load the scenarios", self._load_scenarios)
            current = self._stages.run("cold-start", "cold start (SFT)", lambda s: self._cold_start(s, model))[
                "version"
            ]
            first = current
            self._go_live(current)
            before = self._evaluation("before", "play the test scenarios before", self._sets.test, current)
            tip = current
            for n in range(1, self._settings.loop.rounds + 1):
                current, tip = self._round(n, current, tip)
            after = self._evaluation("after", "play the test scenarios after", self._sets.test, current)
            self._stages.run("prune", "remove the weights of what did not go live", self._prune)
            return LoopOutcome(before, after, first, current, dict(self._stages.seconds))
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
        self._stages.run(f"{key}/play", f"round {n}: play groups", lambda s: self._play_groups(s, n, scenarios, tip))
        trained = self._stages.run(f"{key}/train", f"round {n}: train (GRPO)", lambda s: self._train(s, n, tip))
        candidate = trained["version"] or tip
        gate_comes = n % self._settings.loop.gate_every == 0 or n == self._settings.loop.rounds
        if candidate == current:
            self._stages.leave_out(f"{key}/load", f"{key}/gate", f"{key}/swap")
            return current, current
        if gate_comes and candidate in self._refused:
            self._stages.leave_out(f"{key}/gate", f"{key}/swap")
            return current, candidate  # nothing was learnt since: a gate would hold the same version once more
        if not gate_comes:
            loaded = self._stages.run(f"{key}/load", f"round {n}: load", lambda s: self._load(s, candidate))
            return current, candidate if loaded["accepted"] else tip
        decision = self._stages.run(f"{key}/gate", f"round {n}: gate", lambda s: self._gate(s, n, current, candidate))
        if not decision["passed"]:
            self._refused.add(candidate)
            self._stages.leave_out(f"{key}/swap")
            return current, candidate if decision.get("high", -1.0) >= 0 else current
        swap = self._stages.run(f"{key}/swap", f"round {n}: swap", lambda s: self._swap(s, candidate, decision))
        return (candidate, candidate) if swap["accepted"] else (current, current)

    def _prepare_model(self, stage: Stage) -> dict[str, Any]:
        stage.advance(0.1, self._settings.model.source)
        there = {path.resolve() for path in self._settings.home.glob("model*")}
        made = model_directory(self._settings)
        if made in there or self._settings.model.source != "bundled":
            stage.not_whole()
        return {"path": str(made)}

    def _load_scenarios(self, stage: Stage) -> dict[str, Any]:
        added = add_scenarios(self._log, self._sets.all())
        stage.advance(1.0, f"{len(self._sets.all())} scenarios, {added} of them new")
        return {"added": added}

    def _cold_start(self, stage: Stage, model: Path) -> dict[str, Any]:
        name = f"{self._name}/cold-start"
        if (ended := ended_run(self._log, name)) is not None:
            return {"version": version_of_run(self._log, ended)}
        run_id = start_run(self._log, name, RunKind.SFT, None, self._seed, self._settings.sft.model_dump(mode="json"))
        if version := version_of_run(self._log, run_id):
            finish_run(self._log, run_id, JobStatus.DONE)
            return {"version": version}
        try:
            version, said = self._made_cold(stage, model, run_id)
        except BaseException as error:
            finish_run(self._log, run_id, JobStatus.FAILED, f"{type(error).__name__}: {error}")
            raise
        finish_run(self._log, run_id, JobStatus.DONE)
        stage.advance(1.0, said)
        return {"version": version}

    def _made_cold(self, stage: Stage, model: Path, run_id: int) -> tuple[str, str]:
        """The version that the cold start makes, registered, and what is said of it."""
        add_run_dialogues(self._log, run_id, {one.hash: Split.TRAIN for one in self._sets.cold_start})

        def on_step(step: int, total: int, metrics: Mapping[str, float]) -> None:
            add_metrics(self._log, run_id, step, dict(metrics))
            stage.advance(step / total, f"step {step} of {total}, loss {metrics.get('loss', float('nan')):.3f}")

        renderer = load_renderer(model, self._settings.model.renderer)
        examples = sft_examples(self._sets.cold_start, renderer)
        made = self._rounds.fresh_folder("cold-start")
        probe = probe_of(example.ids for example in sft_examples(self._sets.validation[:PROBE_PROMPTS], renderer))
        tracking = tracking_arguments(self._settings.tracking, self._settings.home, f"{self._name}/cold-start")
        result = train_sft(
            model, made, examples, self._settings.sft, self._seed, on_step, probe_ids=probe, tracking=tracking
        )
        give_back_trainer()
        version = register_version(self._log, self._settings, made, parent=None, run_id=run_id)
        return version, f"{version}, {len(examples)} dialogues, {result.tokens} tokens"

    def _go_live(self, version: str) -> None:
        """The cold start has nothing to be held against: it goes live because the loop was started."""
        if get_version(self._log, version).state is VersionState.CANDIDATE:
            set_version_state(self._log, version, VersionState.LIVE, f"cold start of the loop {self._name!r}")

    def _evaluation(
        self, key: str, title: str, scenarios: Sequence[Scenario], version: str
    ) -> dict[str, list[Outcome]]:
        """One dialogue a scenario, same seeds whatever the version."""
        batch = f"{self._name}/{key}"
        self._stages.run(key, title, lambda s: self._evaluate(s, scenarios, batch, version))
        return read_batch(self._log, batch)

    def _evaluate(self, stage: Stage, scenarios: Sequence[Scenario], batch: str, version: str) -> dict[str, Any]:
        outcomes = self._play_once(stage, scenarios, batch, version, self._settings)
        stage.advance(1.0, f"{version}: mean reward {100 * mean_reward(outcomes):.1f} points")
        return {"reward": mean_reward(outcomes), "version": version}

    def _play_groups(self, stage: Stage, n: int, scenarios: Sequence[Scenario], version: str) -> dict[str, Any]:
        return self._rounds.play(stage, n, scenarios, version, lambda: self._serve_or_fail(version))

    def _train(self, stage: Stage, n: int, current: str) -> dict[str, Any]:
        return {"version": self._rounds.train(stage, n, current)}

    def _load(self, stage: Stage, candidate: str) -> dict[str, Any]:
        """Load a version that the next round is played with; nobody else is answered by it."""
        figures = self._serve(candidate)
        if not figures["accepted"]:
            reason = f"proof failed: {figures['proof']['reason']}"
            self._rounds.refuse(candidate, reason)
            stage.advance(1.0, f"{candidate} is refused: {reason}")
        return {"accepted": figures["accepted"]}

    def _gate(self, stage: Stage, n: int, current: str, candidate: str) -> dict[str, Any]:
        """Both versions on validation scenarios that no gate saw before, same seeds.

        The candidate is held against whatever is live now: while this loop was stopped, another one or a person may
        have made another version live than the `current` one of this loop, and that one it would take over from.
        """
        loop = self._settings.loop
        live = live_version_name(self._log) or current
        against = "" if live == current else f" (against {live}, which went live meanwhile)"
        validation = _of_round(self._sets.validation, -(-n // loop.gate_every), loop.validation_scenarios)

        def batch_of(version: str) -> str:
            return f"{self._name}/round-{n}/validation/{version}"

        def rewards_of(version: str) -> dict[str, float | None]:
            batch, settings = batch_of(version), self._settings.at_the_gate
            return one_each(self._play_once(stage, validation, batch, version, settings))

        decision = hold_against_live(
            self._log,
            self._serve,
            rewards_of,
            lambda version: look_at_batch(self._log, batch_of(version), self._settings.gate.safety_items),
            candidate=candidate,
            live=live,
            held=Held(
                batch=f"{self._name}/round-{n}/validation",
                scenarios=[scenario.hash for scenario in validation],
                rollout=self._settings.rollout,
                rules=self._settings.gate,
                min_effect=loop.gate_min_effect,
                seed=self._seed,
            ),
        )
        said = "passes" if decision.passed else "is refused"
        stage.advance(1.0, f"{candidate} {said}{against}: {decision.reason}")
        return {"passed": decision.passed, "reason": decision.reason, **decision.figures, "against": live}

    def _swap(self, stage: Stage, candidate: str, decision: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the candidate live, unless the gate's decision is out of date: then all stays as it is."""
        live = live_version_name(self._log)
        reason = ""
        if get_version(self._log, candidate).state is VersionState.REFUSED:
            reason = "it was refused since its gate"
        elif live not in (candidate, decision.get("against", live)):
            reason = f"{live} went live since its gate: `checkloop job submit gate version={candidate}` holds it anew"
        if reason:
            stage.advance(1.0, f"{candidate} does not go live: {reason}")
            return {"accepted": False, "reason": reason}
        figures = self._open_gateway().promote(candidate, f"gate: {decision['reason']}")
        self._held = candidate if figures["accepted"] else live_version_name(self._log)
        if figures["accepted"]:
            stage.advance(1.0, f"{candidate} is live after {figures['drain_s'] + figures['reload_s']:.1f} s")
        else:
            stage.advance(1.0, f"{candidate} refused: {figures['proof']['reason']}")
        return figures

    def _prune(self, stage: Stage) -> dict[str, Any]:
        keys = [f"round-{n}/train" for n in range(1, self._settings.loop.rounds + 1)]
        made = [(self._stages.result(key) or {}).get("version") for key in keys]
        return self._rounds.prune(stage, [name for name in made if name is not None])

    def _play_once(
        self, stage: Stage, scenarios: Sequence[Scenario], batch: str, version: str, settings: Settings
    ) -> dict[str, list[Outcome]]:
        """One dialogue a scenario, with the same seeds whatever the version."""
        return play_batch(
            self._log,
            scenarios,
            batch=batch,
            version=version,
            seed=derive_seed(self._seed, "play", "evaluation"),
            group_size=1,
            origin=Origin.EVALUATION,
            temperature=settings.rollout.evaluation_temperature,
            settings=settings,
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


def live_version_name(log: Log) -> str | None:
    version = live_version(log)
    return version.name if version else None


def _of_round(scenarios: Sequence[Scenario], n: int, count: int) -> Sequence[Scenario]:
    """The own `count` scenarios of round or gate n, counted from 1."""
    return scenarios[(n - 1) * count : n * count]


_FIXED = ("model", "rollout", "sft", "grpo", "loop", "gate")
"""Settings that make a loop what it is: it cannot go on with others. (How much runs at once does not matter.)"""
