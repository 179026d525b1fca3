"""An online run: rounds of rollouts, judging and training, on a server that nobody else is answered by.

Starts from the live version and ends with a candidate for the gate (docs/training.md). While a round is trained the
next ones may be played already, at most `online.max_staleness` of them; what they were sampled by is logged with every
token, so the loss is corrected for it (train/corrections.py). Its stages are those of a loop: a killed run goes on.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from store.backlog import least_played
from store.database import Log
from store.records import Scenario
from store.scenarios import get_scenario
from store.settings import Settings
from store.stages import list_loops, open_loop, stage_result
from store.versions import live_version
from store.vocabulary import Origin, Split
from train.errors import TrainingFailed
from train.held_out import Look, best_look, why_stop
from train.names import check_name
from train.processes import refuse_several
from train.progress import Stage, StageProgress
from train.rounds import Rounds, refuse_selection, refuse_untrainable, served_and_judged_by
from train.stages import Stages
from train.tracking import check_trackers
from train.training_server import TrainingServer

ENDED = "the run ended meanwhile"
_FIXED = ("rollout", "grpo", "online")
"""Settings that make an online run what it is, but for where its server listens."""


@dataclass(frozen=True)
class OnlineOutcome:
    base: str
    version: str | None
    """The candidate; None if no round had anything to learn from."""
    rewards: tuple[float, ...]
    """The mean reward of each round's rollouts."""
    stopped: str | None = None
    """Why it ended before its last round, with the version that did best on what is held out."""


class OnlineRun:
    """One named online run over the log: `run` does what is not done yet. Raises TrainingFailed for what is no name."""

    def __init__(self, log: Log, settings: Settings, *, name: str, seed: int, progress: StageProgress) -> None:
        self._log = log
        self._settings = settings
        self._name = check_name("an online run", name)
        self._seed = seed
        self._progress = progress
        self._stages = Stages(log, name, progress)
        self._server = TrainingServer(settings, name, progress)
        self._stopped = threading.Event()

    def run(self) -> OnlineOutcome:
        """Raises what the first failing stage raised; the stage is recorded as failed and starts anew next time.

        TrainingFailed for settings that it cannot honour, and if no version is live, the log has no training scenario,
        or the server's proof speaks against a version, which is refused.
        """
        refuse_several("an online run")
        refuse_untrainable(self._settings)
        refuse_selection(self._settings, "an online run")
        check_trackers(self._settings.tracking)
        fixed = self._settings.model_dump(
            mode="json",
            include=set(_FIXED),
            exclude={"rollout": {"concurrency"}, "online": {"gateway_port", "server_port"}},
        )
        open_loop(self._log, self._name, self._seed, fixed | served_and_judged_by(self._settings))
        plan = self._stages.run("plan", "choose scenarios", self._plan)
        try:
            made, stopped = self._rounds(plan["base"], plan["rounds"], plan["held_out"])
        finally:
            self._server.stop()
        chosen = made[-1] if made else None
        if stopped is not None:
            best = best_look(self._looks(len(plan["rounds"]))).version
            chosen = best if best in made else None
        others = [version for version in made if version != chosen]
        self._stages.run("prune", "remove the weights of earlier rounds", lambda s: self._work().prune(s, others))
        return OnlineOutcome(plan["base"], chosen, tuple(self._earned(len(plan["rounds"]))), stopped)

    def _plan(self, stage: Stage) -> dict[str, Any]:
        """The version to start from; each round's scenarios: those played least, none twice if possible."""
        live = live_version(self._log)
        if live is None:
            raise TrainingFailed(
                "no version is live: run `checkloop train sft`, or `checkloop init` for your own model"
            )
        wanted = self._settings.online
        size = wanted.scenarios_per_round
        found = least_played(self._log, split=Split.TRAIN, origin=Origin.ROLLOUT, count=wanted.rounds * size)
        if not found:
            raise TrainingFailed("the log holds no scenario of split train: `checkloop import FILE` adds some")
        size = min(size, len(found))
        held_out = []
        if 0 < wanted.held_out_every < wanted.rounds:
            held_out = least_played(
                self._log, split=Split.VALIDATION, origin=Origin.EVALUATION, count=wanted.held_out_scenarios
            )
        endless = found * -(-wanted.rounds * size // len(found))
        stage.advance(1.0, f"from {live.name}, {len(found)} scenarios in {wanted.rounds} rounds of {size}")
        rounds = [endless[n * size : (n + 1) * size] for n in range(wanted.rounds)]
        return {"base": live.name, "rounds": rounds, "held_out": held_out}

    def _rounds(
        self, base: str, planned: Sequence[Sequence[str]], held_out: Sequence[str]
    ) -> tuple[list[str], str | None]:
        """The versions that the rounds made, in order, and why there were no more rounds; rounds without anything to
        learn from make none."""
        made: list[str] = []
        playing: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="rollouts") as player:
            try:
                if held_out:
                    player.submit(self._look, 0, held_out, base).result()
                for n in range(1, len(planned) + 1):
                    ahead = min(len(planned), n + self._settings.online.max_staleness)
                    for later in range(n + len(playing), ahead + 1):
                        playing.append(player.submit(self._play, later, planned[later - 1], made, base))
                    playing.popleft().result()
                    done = self._trained(n, made[-1] if made else base)
                    if done["version"] is not None:
                        made.append(done["version"])
                    if made and held_out and self._settings.online.looks_after(n):
                        reason = player.submit(self._look, n, held_out, made[-1]).result()
                        if reason is not None:
                            self._end(playing)
                            return made, reason
            except BaseException:
                self._end(playing)
                raise
        return made, None

    def _end(self, playing: Sequence[Future[Any]]) -> None:
        self._stopped.set()
        for waiting in playing:
            waiting.cancel()

    def _look(self, n: int, hashes: Sequence[str], version: str) -> str | None:
        """What the newest version earns on what is held out, and why that ends the run, if it does."""
        scenarios = [get_scenario(self._log, digest) for digest in hashes]
        title = f"round {n}: play what is held out" if n else "play what is held out"
        found = self._stages.run(_held_out(n), title, lambda s: self._looked(s, n, scenarios, version))
        return cast("str | None", found["stopped"])

    def _looked(self, stage: Stage, n: int, scenarios: Sequence[Scenario], version: str) -> dict[str, Any]:
        rewards = self._look_at(_Stoppable(stage, self._stopped), n, scenarios, version)
        look = Look(n, version, rewards)
        stopped = why_stop([*self._looks(n), look], self._earned(n), seed=self._seed)
        return {"version": version, "reward": look.mean, "rewards": rewards, "stopped": stopped}

    def _look_at(self, stage: Stage, n: int, scenarios: Sequence[Scenario], version: str) -> dict[str, float | None]:
        return self._work().look(stage, n, scenarios, version, lambda: self._hold(version))

    def _looks(self, before: int) -> list[Look]:
        """Those before and after the rounds that precede this one."""
        found = ((n, self._stages.result(_held_out(n))) for n in range(before))
        return [Look(n, result["version"], result["rewards"]) for n, result in found if result is not None]

    def _earned(self, rounds: int) -> list[float]:
        """The mean reward of the rollouts of the first rounds, as far as they were played."""
        found = (self._stages.result(f"round-{n}/play") for n in range(1, rounds + 1))
        return [float(result["reward"]) for result in found if result is not None]

    def _trained(self, n: int, base: str) -> dict[str, Any]:
        title = f"round {n}: train (GRPO)"
        return self._stages.run(f"round-{n}/train", title, lambda stage: self._train(stage, n, base))

    def _play(self, n: int, hashes: Sequence[str], made: Sequence[str], base: str) -> None:
        """Round n by the newest version that there is when it begins; the same one when it goes on after a kill.

        Once a round has failed no later one begins.
        """
        if self._stopped.is_set():
            raise TrainingFailed(ENDED)
        key = f"round-{n}"
        tip = made[-1] if made else base
        try:
            chosen = self._stages.run(f"{key}/version", f"round {n}: choose the version", lambda s: {"version": tip})
            scenarios = [get_scenario(self._log, digest) for digest in hashes]
            self._stages.run(
                f"{key}/play",
                f"round {n}: play groups",
                lambda s: self._play_groups(s, n, scenarios, chosen["version"]),
            )
        except BaseException:
            self._stopped.set()
            raise

    def _play_groups(self, stage: Stage, n: int, scenarios: Sequence[Scenario], version: str) -> dict[str, Any]:
        rounds = self._work()
        played = rounds.play(_Stoppable(stage, self._stopped), n, scenarios, version, lambda: self._hold(version))
        return played | {"version": version}

    def _hold(self, version: str) -> None:
        """Raises TrainingFailed if the server does not answer with `version`."""
        if (reason := self._server.hold(version)) is not None:
            self._work().refuse(version, f"proof failed: {reason}")
            raise TrainingFailed(f"the training server does not answer with {version}: {reason}")

    def _train(self, stage: Stage, n: int, base: str) -> dict[str, Any]:
        return {"version": self._work().train(stage, n, base)}

    def _work(self) -> Rounds:
        return Rounds(self._log, self._server.settings, name=self._name, seed=self._seed)


def online_run_name(log: Log) -> str:
    """The newest online run that has not come to its end, or else the next name: online-1, online-2 …"""
    names = [loop.name for loop in list_loops(log) if loop.name.startswith("online-")]
    if names and stage_result(log, names[-1], "prune") is None:
        return names[-1]
    return f"online-{1 + max((int(name[7:]) for name in names if name[7:].isdigit()), default=0)}"


def _held_out(n: int) -> str:
    """Key of the stage."""
    return f"held-out-{n}"


class _Stoppable(Stage):
    """Ends the work of a stage, where it says how far it is, once the run has failed elsewhere."""

    def __init__(self, stage: Stage, stopped: threading.Event) -> None:
        self._stage = stage
        self._stopped = stopped

    def advance(self, share: float, detail: str = "") -> None:
        if self._stopped.is_set():
            raise TrainingFailed(ENDED)
        self._stage.advance(share, detail)
