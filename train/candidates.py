"""A candidate: trained from logged groups, held against the live version. Shared by the loop and by jobs.

Writes run, metric, version and gate rows. Each step is done once: a candidate that a run made before it was killed, and
a decision that is recorded, stand.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.proof import mean_change, probe_of, read_probe
from agent.vllm_client import ServerError
from agent.weight_files import damaged_files
from store.database import Log
from store.records import canonical_json
from store.runs import add_metrics, add_run_trajectories, finish_run, start_run
from store.settings import Settings
from store.training_settings import GateSettings, RolloutSettings
from store.versions import get_version, list_gate_decisions, set_version_state
from store.vocabulary import JobStatus, RunKind, VersionState
from train.gate import GateDecision, decide, record, surely_worse
from train.gate_items import Looked, trained_reward
from train.groups import Selection, TrainingGroup, advantages_by_step, level_of, select_groups
from train.grpo import train_grpo
from train.processes import in_all_processes
from train.progress import Stage
from train.registry import code_version, probe_prompts, register_version, version_of_run
from train.tracking import check_trackers, tracking_arguments
from train.training_run import TrainingError


@dataclass(frozen=True)
class RunFiles:
    """Where a GRPO run keeps what. `made` must not exist."""

    made: Path
    optimizer_in: Path | None = None
    optimizer_out: Path | None = None
    run_dir: Path | None = None
    """With `checkpoint_every`: a killed run goes on there."""
    checkpoint_every: int = 0


def run_settings(settings: Settings) -> dict[str, Any]:
    """What a GRPO run's row says about how it was made."""
    chosen = {f"selection.{name}": value for name, value in settings.selection.model_dump(mode="json").items()}
    return settings.grpo.model_dump(mode="json") | chosen


def train_candidate(
    log: Log,
    settings: Settings,
    load: Callable[[], Sequence[TrainingGroup]],
    files: RunFiles,
    stage: Stage,
    *,
    name: str,
    base: str,
    seed: int,
    temperature: float = 1.0,
) -> str | None:
    """The GRPO run `name` from version `base` on what `load` returns; the candidate that it makes.

    `temperature` is the one that the groups were sampled at. None if no group has anything to learn from. A version
    that the run made before it was killed is returned as it is.
    Raises RunRefused, TrainingError and CheckpointError; whatever is raised, the run is recorded as failed, so that
    nothing waits for it (`prune` keeps the base of a run in progress).
    """
    check_trackers(settings.tracking)
    run_id = start_run(log, name, RunKind.GRPO, base, seed, run_settings(settings))
    if version := version_of_run(log, run_id):
        finish_run(log, run_id, JobStatus.DONE)
        return version
    try:
        version, said = _made_of(log, settings, load, files, stage, name, base, seed, temperature, run_id)
    except BaseException as error:
        finish_run(log, run_id, JobStatus.FAILED, f"{type(error).__name__}: {error}")
        raise
    finish_run(log, run_id, JobStatus.DONE)
    stage.advance(1.0, said)
    return version


def _made_of(
    log: Log,
    settings: Settings,
    load: Callable[[], Sequence[TrainingGroup]],
    files: RunFiles,
    stage: Stage,
    name: str,
    base: str,
    seed: int,
    temperature: float,
    run_id: int,
) -> tuple[str | None, str]:
    """The version that the run makes, registered, and what is said of it."""
    selection = select_groups(load(), settings.grpo, settings.selection)
    if not selection.taken:
        why = Counter(reason for _, reason in selection.left_out).most_common(1)
        return None, "no group has anything to learn from" + "".join(f": {reason}" for reason, _ in why)
    used = {
        name: steps for group in selection.taken for name, steps in advantages_by_step(group, settings.grpo).items()
    }
    add_run_trajectories(log, run_id, selection.advantages, used, level_of(settings.grpo))

    def on_step(step: int, total: int, metrics: Mapping[str, float]) -> None:
        add_metrics(log, run_id, step, dict(metrics))
        stage.advance(step / total, f"step {step} of {total}, {metrics.get('tokens_per_s', 0):.0f} tokens/s")

    parent = Path(get_version(log, base).path)
    reference = parent if settings.grpo.reference == "parent" else _weights_of(log, settings.grpo.reference)
    result = in_all_processes(
        train_grpo,
        parent,
        files.made,
        selection.taken,
        settings.grpo,
        seed,
        here={"on_step": on_step},
        optimizer_in=files.optimizer_in,
        optimizer_out=files.optimizer_out,
        run_dir=files.run_dir,
        checkpoint_every=files.checkpoint_every,
        temperature=temperature,
        probe_ids=probe_prompts(parent) or probe_of(_dialogues(selection)),  # one's own model comes without a probe
        reference_dir=reference,
        tracking=tracking_arguments(settings.tracking, settings.home, name),
    )
    made_by = code_version() | {"steps": result.steps, "tokens": result.tokens, "seconds": result.seconds}
    version = register_version(log, settings, files.made, parent=base, run_id=run_id, figures=made_by)
    if files.run_dir is not None:  # only now: a kill until then loses nothing that a checkpoint holds
        shutil.rmtree(files.run_dir, ignore_errors=True)
    left_out = f", {len(selection.left_out)} left out" if selection.left_out else ""
    return version, f"{version}: {result.steps} steps on {len(selection.taken)} groups{left_out}"


def _dialogues(selection: Selection) -> Iterator[list[int]]:
    """The first trajectory of each group, from its first token to its last."""
    for group in selection.taken:
        yield [*group.members[0].prompt_ids, *group.members[0].completion_ids]


def _weights_of(log: Log, version: str) -> Path:
    """Raises LogError for an unknown version, TrainingError for one whose weights are gone."""
    directory = Path(get_version(log, version).path)
    if not directory.is_dir():
        raise TrainingError(f"grpo.reference = {version!r}: its weights in {directory} are gone; name another version")
    return directory


class GateUndecided(ServerError):
    """Servers or judges failed so often that nothing is known of the candidate; tried again, it may be."""


@dataclass(frozen=True)
class Held:
    """What a gate is held under; with the two versions it says which gate it is."""

    batch: str
    """Under which both versions' dialogues are played."""
    scenarios: Sequence[str]
    """Hashes."""
    rollout: RolloutSettings
    rules: GateSettings
    min_effect: float
    seed: int

    def figures(self) -> dict[str, str]:
        """As it stands with the decision: the batch, and a hash of everything."""
        everything = {
            "batch": self.batch,
            "scenarios": sorted(self.scenarios),
            "rollout": self.rollout.model_dump(mode="json", exclude={"concurrency"}),
            "rules": self.rules.model_dump(mode="json"),
            "min_effect": self.min_effect,
            "seed": self.seed,
        }
        digest = hashlib.sha256(canonical_json(everything).encode()).hexdigest()
        return {"batch": self.batch, "conditions": digest[:16]}


def hold_against_live(
    log: Log,
    serve: Callable[[str], dict[str, Any]],
    play: Callable[[str], Mapping[str, float | None]],
    look: Callable[[str], Mapping[str, Looked]],
    *,
    candidate: str,
    live: str,
    held: Held,
) -> GateDecision:
    """Both versions on the same scenarios, decided and recorded.

    `serve` brings a version to the server and returns the swap's figures; `play` returns the rewards of a version by
    scenario, `look` what it did there. A candidate whose files are damaged, or whose own logprobs are further from
    the live version than training comes, is refused before it is loaded. Where it passes, it is left on the server for
    its promotion; else it is refused and the live version brought back. A decision that was recorded before a kill
    stands, if it was held against the same live version under the same conditions; no other does.

    Raises ServerError, and GateUndecided where too little could be judged; that is recorded, the live version brought
    back, and the candidate stays one.
    """
    made = _decided_before(log, candidate, live, held)
    if made is not None:
        _refuse_if_it_failed(log, candidate, made)
        return made
    decision = _refused_unseen(log, candidate, live, held.rules)
    staging = decision is None
    if decision is None:
        before = play(live)
        staged = serve(candidate)
        if staged["accepted"]:
            after = play(candidate)
            looked = look(live), look(candidate)
            decision = decide(
                before, after, min_effect=held.min_effect, seed=held.seed, rules=held.rules, looked=looked
            )
            decision = _with_alert(log, decision, candidate, live)
        else:
            decision = GateDecision(False, f"proof failed: {staged['proof']['reason']}", staged)
    decision = replace(decision, figures=decision.figures | held.figures())
    record(log, candidate, live, decision)
    _refuse_if_it_failed(log, candidate, decision)
    if not decision.passed and staging:
        serve(live)
    if decision.passed is None:
        raise GateUndecided(
            f"the gate could not decide on {candidate}, which stays a candidate: {decision.reason}. The page "
            f"Trajectories shows what failed in {held.batch}/…; when that is mended, hold it against {live} again"
        )
    return decision


def _decided_before(log: Log, candidate: str, live: str, held: Held) -> GateDecision | None:
    """What this very gate decided before it was killed. Once the candidate's state has followed from it, settings that
    were changed since cannot take it back."""
    wanted = held.figures()
    followed = get_version(log, candidate).state is not VersionState.CANDIDATE
    for made in reversed(list_gate_decisions(log)):
        same = (made.candidate, made.live, made.figures.get("batch")) == (candidate, live, held.batch)
        if same and made.passed is not None and (followed or made.figures.get("conditions") == wanted["conditions"]):
            return GateDecision(made.passed, made.reason, made.figures)
    return None


def _refuse_if_it_failed(log: Log, candidate: str, decision: GateDecision) -> None:
    if decision.passed is False and get_version(log, candidate).state is VersionState.CANDIDATE:
        set_version_state(log, candidate, VersionState.REFUSED, decision.reason)


def _refused_unseen(log: Log, candidate: str, live: str, rules: GateSettings) -> GateDecision | None:
    """What the files alone say against a candidate; None: nothing."""
    made, served = get_version(log, candidate), get_version(log, live)
    if damage := damaged_files(Path(made.path), made.files):
        return GateDecision(False, f"its files are damaged: {', '.join(damage)}", {"damaged": damage})
    probe, before = read_probe(Path(made.path)), read_probe(Path(served.path))
    if probe is None or before is None or probe.ids != before.ids:
        return None
    change = mean_change(probe, before)
    if change <= rules.max_change:
        return None
    reason = (
        f"its logprobs of the probe are {change:.1f} nats a token away from the live version's, more than "
        f"gate.max_change = {rules.max_change:g}: no training does that"
    )
    return GateDecision(False, reason, {"change": change})


def _with_alert(log: Log, decision: GateDecision, candidate: str, live: str) -> GateDecision:
    """Says so where the reward of what is trained on rises while that of held-out scenarios falls."""
    if not surely_worse(decision):
        return decision
    before, after = trained_reward(log, live), trained_reward(log, candidate)
    if before is None or after is None or after <= before:
        return decision
    reason = (
        f"{decision.reason}; alert: the reward of what it trained on rose from {100 * before:.1f} to {100 * after:.1f} "
        "points while that of held-out scenarios fell"
    )
    return GateDecision(decision.passed, reason, decision.figures | {"trained_before": before, "trained_after": after})
