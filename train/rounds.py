"""Rounds: groups that are played, a candidate that is trained from them. Shared by the loop and by online runs."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from env_sim.rollouts import derive_seed
from store.database import Log
from store.records import Scenario
from store.runs import ended_run, list_runs
from store.settings import Settings
from store.traffic import pinned_versions
from store.versions import get_version, live_version, set_version_state
from store.vocabulary import Origin, VersionState
from train.candidates import RunFiles, train_candidate
from train.errors import TrainingFailed
from train.evaluation import mean_reward, one_each, play_batch
from train.groups import load_groups
from train.names import check_name, training_seed
from train.progress import Stage
from train.pruning import remove_weights
from train.registry import version_of_run
from train.training_run import give_back_trainer

OF_THE_LOG = ("split", "domains", "sources", "tools", "max_age", "max_uses")
"""Settings of `[selection]` that choose among groups which are there already."""


def refuse_untrainable(settings: Settings) -> None:
    """Before anything is played to be trained on. Raises TrainingFailed for a temperature that makes it untrainable."""
    if (temperature := settings.rollout.temperature) != 1.0:
        raise TrainingFailed(
            f"rollout.temperature = {temperature:g}: what is sampled at another temperature than 1 is recorded as not "
            "to be trained on, so these groups would be played for nothing. Leave it out; evaluations and gates have "
            "rollout.evaluation_temperature"
        )


def refuse_selection(settings: Settings, what: str) -> None:
    """`what` trains on the groups that it plays itself. Raises TrainingFailed where settings ask for others."""
    fields = type(settings.selection).model_fields
    for name in OF_THE_LOG:
        if (value := getattr(settings.selection, name)) != fields[name].default:
            raise TrainingFailed(
                f"selection.{name} = {value!r} chooses among groups of the log, but {what} trains on those that it "
                f"plays itself, each once: leave it out, or train from the log (`checkloop train grpo`)"
            )


def served_and_judged_by(settings: Settings) -> dict[str, Any]:
    """What decides what dialogues come to, and which are trained on, beside the sections that a loop keeps whole: it
    cannot go on with others. Defaults are left out; where an endpoint is and how fast it is asked does not matter."""
    found = settings.model_dump(
        mode="json",
        include={
            "selection": True,
            "judge": _OF_ENDPOINTS,
            "judging": {"mode": True, "draws": True, "combination": True, "panel": {"__all__": _OF_ENDPOINTS}},
            "simulator": _OF_ENDPOINTS,
            "server": {"max_model_len", "dtype"},
        },
        exclude_defaults=True,
    )
    return {section: values for section, values in found.items() if values}


_OF_ENDPOINTS = {"model", "name", "temperature"}


class Rounds:
    """Of the loop or online run `name`. Batch and run of round n are called `name`/round-n.

    Raises TrainingFailed for a name that is none of a folder.
    """

    def __init__(self, log: Log, settings: Settings, *, name: str, seed: int) -> None:
        self._log = log
        self._settings = settings
        self._name = check_name("a loop", name)
        self._seed = seed
        self._folder = settings.home / "loops" / name

    def play(
        self,
        stage: Stage,
        n: int,
        scenarios: Sequence[Scenario],
        version: str,
        before_playing: Callable[[], object],
    ) -> dict[str, Any]:
        """Groups of these scenarios, played by `version` and judged."""
        batch, rollout = self._name_of(n), self._settings.rollout
        outcomes = play_batch(
            self._log,
            scenarios,
            batch=batch,
            version=version,
            seed=derive_seed(self._seed, "play", batch),
            group_size=rollout.group_size,
            origin=Origin.ROLLOUT,
            temperature=rollout.temperature,
            settings=self._settings,
            stage=stage,
            before_playing=before_playing,
        )
        stage.advance(1.0, f"{len(scenarios)} groups, mean reward {100 * mean_reward(outcomes):.1f} points")
        return {"reward": mean_reward(outcomes)}

    def look(
        self,
        stage: Stage,
        after: int,
        scenarios: Sequence[Scenario],
        version: str,
        before_playing: Callable[[], object],
    ) -> dict[str, float | None]:
        """What `version` earns on scenarios that are held out, by their hash; with the same seeds in every look."""
        outcomes = play_batch(
            self._log,
            scenarios,
            batch=f"{self._name}/held-out-{after}",
            version=version,
            seed=derive_seed(self._seed, "held-out", self._name),
            group_size=1,
            origin=Origin.EVALUATION,
            temperature=self._settings.rollout.evaluation_temperature,
            settings=self._settings,
            stage=stage,
            before_playing=before_playing,
        )
        stage.advance(1.0, f"{len(scenarios)} scenarios, mean reward {100 * mean_reward(outcomes):.1f} points")
        return one_each(outcomes)

    def train(self, stage: Stage, n: int, base: str) -> str | None:
        """The candidate that round n's groups make of `base`; None if they have nothing to learn from.

        Adam's moments go from a version to the one that is made of it. Raises what `train_candidate` raises.
        """
        name = self._name_of(n)
        if (ended := ended_run(self._log, name)) is not None:
            return version_of_run(self._log, ended)
        earlier, later = self._moments_of(base), self._folder / f"optimizer-{n}.pt"
        files = RunFiles(
            self.fresh_folder(f"round-{n}"),
            optimizer_in=earlier,
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
            base=base,
            temperature=self._settings.rollout.temperature,
            seed=training_seed(self._seed, name),
        )
        give_back_trainer()
        if version is not None:
            live = live_version(self._log)  # a gate may take learning back to it
            kept = {later, self._moments_of(live.name) if live is not None else None}
            for moments in self._folder.glob("optimizer-*.pt"):
                if moments not in kept:
                    moments.unlink(missing_ok=True)
        return version

    def _moments_of(self, version: str) -> Path | None:
        """Adam's moments where a round of these made the version and they are still there."""
        made_by = get_version(self._log, version).run_id
        run = next((run.name for run in list_runs(self._log) if run.id == made_by), "")
        found = self._folder / f"optimizer-{run.removeprefix(f'{self._name}/round-')}.pt"
        return found if run.startswith(f"{self._name}/round-") and found.is_file() else None

    def refuse(self, version: str, reason: str) -> None:
        """A candidate that the server's proof speaks against; one that is refused already stays so."""
        if get_version(self._log, version).state is VersionState.CANDIDATE:
            set_version_state(self._log, version, VersionState.REFUSED, reason)

    def prune(self, stage: Stage, versions: Sequence[str], keep: Sequence[str] = ()) -> dict[str, Any]:
        """What rounds made and no gate let through has done its work: rows stay, weights and Adam's moments go.

        Pinned versions stay, and those of `keep`.
        """
        spared = {*pinned_versions(self._log), *keep}
        found = [get_version(self._log, name) for name in versions if name not in spared]
        never = (VersionState.CANDIDATE, VersionState.REFUSED)
        gone = [version for version in found if version.state in never and Path(version.path).is_dir()]
        for version in gone:
            self.refuse(version.name, f"made between two gates of {self._name!r}: nobody was to be answered by it")
        pruned = remove_weights(self._log, gone)
        shutil.rmtree(self._folder, ignore_errors=True)
        stage.advance(1.0, f"{len(pruned.versions)} versions, {pruned.freed_bytes / 2**20:.0f} MiB")
        return {"versions": list(pruned.versions)}

    def fresh_folder(self, key: str) -> Path:
        """A folder for what a run makes, which does not exist yet; a killed try's remains are removed."""
        folder = self._folder / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def _name_of(self, n: int) -> str:
        return f"{self._name}/round-{n}"
