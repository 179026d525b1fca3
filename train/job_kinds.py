"""What each kind of job does: a table from kind to function.

A job that is taken over after a kill is the same job: what it chose is in its notes, its batches and runs bear its
name, and what these hold already is not made again. Heavy libraries are imported by the functions that need them.
"""

import asyncio
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.vllm_client import ServerError
from store.backlog import least_played, unjudged
from store.database import Log
from store.jobs import JobRecord, earlier_jobs
from store.leases import note_on_job
from store.runs import list_runs
from store.scenarios import get_scenario
from store.settings import Settings
from store.trajectories import list_trajectories
from store.versions import get_version, live_version
from store.vocabulary import JobKind, JobStatus, Origin, Split, VersionState
from train.errors import JobRefused
from train.job_gateway import JobGateway
from train.job_payloads import EvaluatePayload, GatePayload, JudgePayload, PrunePayload, RolloutPayload, TrainPayload
from train.progress import Stage

if TYPE_CHECKING:
    from train.evaluation import Outcome

_JUDGED_AT_ONCE = 25
"""Trajectories between two looks at whether the job is to stop."""


@dataclass(frozen=True)
class Work:
    """What a job's function is given."""

    log: Log
    settings: Settings
    job: JobRecord
    stage: Stage
    gateway: JobGateway

    def noted(self, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the job chose when it first started; chosen and stored now if this is the first time."""
        if self.job.notes is not None:
            return self.job.notes
        notes = choose()
        note_on_job(self.log, self.job, notes)
        return notes

    def before(self, kind: JobKind) -> list[JobRecord]:
        """The jobs of a kind before it in the pipeline."""
        return [job for job in earlier_jobs(self.log, self.job) if job.kind is kind]


def run_job(work: Work) -> dict[str, Any]:
    """Does the job; its result, which can be stored as JSON."""
    result = KINDS[work.job.kind](work)
    return {name: _storable(value) for name, value in result.items()}


def play_groups(work: Work) -> dict[str, Any]:
    """Rollouts of scenarios in groups. Raises JobRefused without scenarios, ServerError if nothing was judged."""
    from env_sim.rollout_plans import derive_seed

    payload = RolloutPayload.model_validate(work.job.payload)
    rollout = work.settings.rollout
    notes = work.noted(
        lambda: {
            "version": payload.version or _live(work.log),
            "group_size": payload.group_size or rollout.group_size,
            "scenarios": _scenarios(
                work.log,
                payload.split,
                payload.domain,
                Origin.ROLLOUT,
                payload.scenarios or work.settings.loop.scenarios_per_round,
            ),
        }
    )
    seed = derive_seed(payload.seed, work.job.name)
    with work.gateway.holding(notes["version"]):
        outcomes = _play(
            work,
            notes["scenarios"],
            notes["version"],
            batch=work.job.name,
            seed=seed,
            origin=Origin.ROLLOUT,
            group_size=notes["group_size"],
            temperature=rollout.temperature,
        )
    return {"batch": work.job.name, "version": notes["version"], "groups": len(notes["scenarios"])} | _figures(outcomes)


def judge_backlog(work: Work) -> dict[str, Any]:
    """Judges what has no reward yet."""
    from reward.judge import make_judge

    payload = JudgePayload.model_validate(work.job.payload)
    played = [job.name for job in work.before(JobKind.ROLLOUT)]
    batches = [payload.batch] if payload.batch else played or None
    waiting = unjudged(work.log, batches=batches, limit=payload.limit, retry_unscored=payload.retry_unscored)

    async def judge() -> list[float | None]:
        asked = make_judge(work.log, work.settings)
        values: list[float | None] = []
        for start in range(0, len(waiting), _JUDGED_AT_ONCE):
            chunk = waiting[start : start + _JUDGED_AT_ONCE]
            rewards = await asked.judge_trajectories(chunk, retry_unscored=payload.retry_unscored)
            values += [reward.value for reward in rewards.values()]
            work.stage.advance(len(values) / len(waiting), f"{len(values)} of {len(waiting)} trajectories")
        return values

    values = asyncio.run(judge())
    known = [value for value in values if value is not None]
    return {"judged": len(known), "unscored": len(values) - len(known), "reward": _mean(known)}


def train_run(work: Work) -> dict[str, Any]:
    """A GRPO run from the live version; the candidate that it makes, None if there was nothing to learn."""
    from env_sim.rollout_plans import derive_seed
    from train.candidates import RunFiles, train_candidate
    from train.groups import load_groups_by_id
    from train.registry import version_of_run

    payload = TrainPayload.model_validate(work.job.payload)
    done = next((r for r in list_runs(work.log) if r.name == work.job.name and r.status is JobStatus.DONE), None)
    if done is not None:  # its process was killed between the run's end and its own
        return {"version": version_of_run(work.log, done.id)}
    settings = _selecting(work.settings, payload)
    notes = work.noted(lambda: _groups_to_train_on(work, settings, payload))
    step_level = settings.grpo.advantage == "step"
    folder = work.settings.home / "jobs" / work.job.name.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "made"
    shutil.rmtree(made, ignore_errors=True)
    files = RunFiles(made, run_dir=folder / "checkpoints", checkpoint_every=payload.checkpoint_every)
    version = train_candidate(
        work.log,
        settings,
        lambda: load_groups_by_id(work.log, notes["groups"], step_level=step_level),
        files,
        work.stage,
        name=work.job.name,
        base=notes["base"],
        seed=derive_seed(payload.seed, work.job.name) % 2**32,  # NumPy takes no greater one
    )
    shutil.rmtree(folder, ignore_errors=True)
    return {"version": version, "base": notes["base"]}


def gate_candidate(work: Work) -> dict[str, Any]:
    """The candidate against the live version; where it passes it goes live, with the server's proof."""
    payload = GatePayload.model_validate(work.job.payload)
    runs = work.before(JobKind.TRAIN)
    candidate = payload.version or ((runs[-1].result or {}).get("version") if runs else None)
    if candidate is None:
        return {"passed": None, "reason": "the run made no candidate"}
    state = get_version(work.log, candidate).state
    if work.job.notes is None and state is not VersionState.CANDIDATE:
        raise JobRefused(f"gate: {candidate} is {state}: only a candidate can be held against the live version")
    count = payload.scenarios or work.settings.loop.validation_scenarios
    notes = work.noted(
        lambda: {
            "live": _live(work.log),
            "scenarios": _scenarios(work.log, Split.VALIDATION, None, Origin.EVALUATION, count),
        }
    )
    if state is VersionState.CANDIDATE and (live := _live(work.log)) != notes["live"]:
        raise JobRefused(
            f"gate: {live} went live instead of {notes['live']} meanwhile: hold {candidate} against it anew"
        )
    from train.candidates import hold_against_live
    from train.evaluation import one_each
    from train.gate_items import look_at_batch

    def batch_of(version: str) -> str:
        return f"{work.job.name}/{version}"

    def play(version: str) -> dict[str, float | None]:
        at_the_gate = replace(work, settings=work.settings.at_the_gate)
        return one_each(_play(at_the_gate, notes["scenarios"], version, batch=batch_of(version), seed=payload.seed))

    least = work.settings.loop.gate_min_effect if payload.min_effect is None else payload.min_effect
    decision = hold_against_live(
        work.log,
        lambda version: work.gateway.open().stage(version),
        play,
        lambda version: look_at_batch(work.log, batch_of(version), work.settings.gate.safety_items),
        candidate=candidate,
        live=notes["live"],
        rules=work.settings.gate,
        min_effect=least,
        seed=payload.seed,
    )
    result: dict[str, Any] = {
        "candidate": candidate,
        "passed": decision.passed,
        "reason": decision.reason,
        "figures": decision.figures,
    }
    work.stage.advance(0.99, f"{candidate} {'passes' if decision.passed else 'is refused'}: {decision.reason}")
    if decision.passed and payload.promote and state is VersionState.CANDIDATE:
        result["swap"] = work.gateway.open().promote(candidate, f"gate: {decision.reason}")
    return result


def evaluate_version(work: Work) -> dict[str, Any]:
    """One dialogue a scenario, the same scenarios and seeds whatever the version."""
    payload = EvaluatePayload.model_validate(work.job.payload)
    count = payload.scenarios or work.settings.loop.test_scenarios
    notes = work.noted(
        lambda: {
            "version": payload.version or _live(work.log),
            "scenarios": _scenarios(work.log, payload.split, payload.domain, None, count),
        }
    )
    with work.gateway.holding(notes["version"]):
        outcomes = _play(work, notes["scenarios"], notes["version"], batch=work.job.name, seed=payload.seed)
    return {"batch": work.job.name, "version": notes["version"]} | _figures(outcomes)


def prune(work: Work) -> dict[str, Any]:
    """Removes the weights of old versions."""
    from train.pruning import prune_versions

    pruned = prune_versions(work.log, work.settings, PrunePayload.model_validate(work.job.payload).keep)
    work.stage.advance(1.0, f"{len(pruned.versions)} versions, {pruned.freed_bytes / 2**20:.0f} MiB")
    return {"versions": list(pruned.versions), "freed_bytes": pruned.freed_bytes}


KINDS: dict[JobKind, Callable[[Work], dict[str, Any]]] = {
    JobKind.ROLLOUT: play_groups,
    JobKind.JUDGE: judge_backlog,
    JobKind.TRAIN: train_run,
    JobKind.GATE: gate_candidate,
    JobKind.EVALUATE: evaluate_version,
    JobKind.PRUNE: prune,
}

NEED_ACCELERATOR = frozenset({JobKind.TRAIN})
NEED_GATEWAY = frozenset({JobKind.ROLLOUT, JobKind.GATE, JobKind.EVALUATE})
"""They are answered by the policy; one such job talks to a gateway at a time, as a gate borrows its server."""


def _play(
    work: Work,
    hashes: Sequence[str],
    version: str,
    *,
    batch: str,
    seed: int,
    origin: Origin = Origin.EVALUATION,
    group_size: int = 1,
    temperature: float | None = None,
) -> "dict[str, list[Outcome]]":
    """Without a temperature, that of evaluations."""
    from train.evaluation import play_batch

    outcomes = play_batch(
        work.log,
        [get_scenario(work.log, digest) for digest in hashes],
        batch=batch,
        version=version,
        seed=seed,
        group_size=group_size,
        origin=origin,
        temperature=work.settings.rollout.evaluation_temperature if temperature is None else temperature,
        settings=work.settings,
        stage=work.stage,
        before_playing=work.gateway.open,
    )
    if all(outcome.reward is None for many in outcomes.values() for outcome in many):
        failed = next((t.error for t in list_trajectories(work.log, batch=batch, limit=None) if t.error), None)
        raise ServerError(f"not one dialogue of {batch} could be played and judged: {failed or 'nothing is scored'}")
    return outcomes


def _scenarios(log: Log, split: Split, domain: str | None, origin: Origin | None, count: int) -> list[str]:
    """Raises JobRefused if there are none."""
    found = least_played(log, split=split, domain=domain, origin=origin, count=count)
    if not found:
        of_domain = f" of domain {domain}" if domain else ""
        raise JobRefused(f"the log holds no scenario of split {split}{of_domain}: `checkloop import FILE` adds some")
    return found


def _groups_to_train_on(work: Work, settings: Settings, payload: TrainPayload) -> dict[str, Any]:
    """What the run starts from, the ids of its groups and why others are left out."""
    from train.selection import choose_groups

    base = _live(work.log)
    batches = [payload.batch] if payload.batch is not None else [job.name for job in work.before(JobKind.ROLLOUT)]
    choice = choose_groups(work.log, settings, base=base, max_groups=payload.max_groups, batches=batches or None)
    return {"base": base, "groups": list(choice.looked_at), "left_out": dict(choice.reasons())}


def _selecting(settings: Settings, payload: TrainPayload) -> Settings:
    """The settings with the payload's conditions."""
    given: dict[str, Any] = {
        "domains": payload.domain and (payload.domain,),
        "sources": payload.source and (payload.source,),
        "max_age": payload.max_age,
        "max_uses": payload.max_uses,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"selection": settings.selection.model_copy(update=changes)})


def _live(log: Log) -> str:
    live = live_version(log)
    if live is None:
        raise JobRefused("no version is live: run `checkloop demo`, or `checkloop init` for your own model")
    return live.name


def _figures(outcomes: "Mapping[str, Sequence[Outcome]]") -> dict[str, Any]:
    flat = [outcome for many in outcomes.values() for outcome in many]
    judged = [outcome.reward for outcome in flat if outcome.reward is not None]
    passed = [bool(outcome.fully_passed) for outcome in flat if outcome.reward is not None]
    return {
        "dialogues": len(flat),
        "judged": len(judged),
        "reward": _mean(judged),
        "fully_passed": _mean([float(one) for one in passed]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _storable(value: Any) -> Any:
    """What is no number becomes None: JSON has no word for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _storable(part) for key, part in value.items()}
    return [_storable(part) for part in value] if isinstance(value, list | tuple) else value
