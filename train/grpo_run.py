"""`checkloop train grpo`: a GRPO run on groups of the log, in this process; killed at any moment it goes on.

Writes what `train_candidate` writes. Checkpoints stand in `home`/runs/NAME until the run ends.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from store.database import Log
from store.records import canonical_json
from store.runs import RunRecord, groups_of_run, list_runs
from store.settings import Settings
from store.versions import live_version
from store.vocabulary import JobStatus, RunKind
from train.alerts import RunStopped
from train.candidates import RunFiles, run_settings, train_candidate
from train.errors import TrainingFailed
from train.groups import load_groups_by_id
from train.progress import StageProgress
from train.run_directory import next_run_name, only_here
from train.selection import Choice, choose_groups


@dataclass(frozen=True)
class GrpoPlan:
    """A run before it begins. `choice` None: an unfinished run goes on with the groups that it has."""

    name: str
    base: str
    groups: tuple[int, ...]
    choice: Choice | None


def plan_grpo(
    log: Log,
    settings: Settings,
    *,
    name: str = "",
    base: str = "",
    seed: int,
    max_groups: int,
    batches: Sequence[str] | None = None,
) -> GrpoPlan:
    """What a run would be called, start from and take. `base` "": the live version.

    Without a name, the newest run of the same start, settings and seed that did not end well is gone on with, unless an
    alert stopped it: it would stop again. Raises TrainingFailed if no version is live, RunRefused if too much is
    excluded.
    """
    start = base or _live(log)
    runs = [run for run in list_runs(log) if run.kind is RunKind.GRPO and run.status is not JobStatus.DONE]
    unfinished = [run for run in runs if (run.name == name if name else _is_the_same(run, settings, start, seed))]
    if unfinished and (groups := groups_of_run(log, unfinished[-1].id)):
        return GrpoPlan(unfinished[-1].name, start, tuple(groups), None)
    choice = choose_groups(log, settings, base=start, max_groups=max_groups, batches=batches)
    chosen = unfinished[-1].name if unfinished else name or next_run_name(log, "grpo")
    return GrpoPlan(chosen, start, choice.looked_at, choice)


def run_grpo(
    log: Log, settings: Settings, plan: GrpoPlan, *, seed: int, checkpoint_every: int, progress: StageProgress
) -> str | None:
    """The candidate that the run makes; None if nothing could be learnt.

    Raises what `train_candidate` raises, and TrainingError if another process trains this run.
    """
    folder = settings.home / "runs" / plan.name
    made = folder / "made"
    step_level = settings.grpo.advantage == "step"
    title = f"train (GRPO) from {plan.base}, run {plan.name}"
    with only_here(folder), progress.stage("train", title) as stage:
        shutil.rmtree(made, ignore_errors=True)
        version = train_candidate(
            log,
            settings,
            lambda: load_groups_by_id(log, plan.groups, step_level=step_level),
            RunFiles(made, run_dir=folder / "checkpoints", checkpoint_every=checkpoint_every),
            stage,
            name=plan.name,
            base=plan.base,
            seed=seed,
        )
        shutil.rmtree(folder, ignore_errors=True)
    return version


def _is_the_same(run: RunRecord, settings: Settings, base: str, seed: int) -> bool:
    same_start = (run.base_version, run.seed) == (base, seed) and run.name.startswith("grpo-")
    if run.error is not None and run.error.startswith(f"{RunStopped.__name__}:"):
        return False
    return same_start and canonical_json(run.settings) == canonical_json(run_settings(settings))


def _live(log: Log) -> str:
    live = live_version(log)
    if live is None:
        raise TrainingFailed("no version is live: run `checkloop train sft`, or `checkloop init` for your own model")
    return live.name
