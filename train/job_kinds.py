"""What each kind of job does: a table from kind to function.

A job that is taken over after a kill is the same job: what it chose is in its notes, its batches and runs bear its
name, and what these hold already is not made again. Heavy libraries are imported by the functions that need them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from store.vocabulary import JobKind, Origin
from train.job_data import make_data
from train.job_judging import annotate_dialogues, draw_sample, judge_turns, recompute_rewards
from train.job_learning import cold_start, gate_candidate, release_candidate, train_run
from train.job_payloads import MAKE_CANDIDATES, EvaluatePayload, PrunePayload, RolloutPayload
from train.job_work import Work, figures_of, least_played_scenarios, live_name, play


def run_job(work: Work) -> dict[str, Any]:
    """Does the job; its result, which can be stored as JSON."""
    result = KINDS[work.job.kind](work)
    return {name: _storable(value) for name, value in result.items()}


def play_groups(work: Work) -> dict[str, Any]:
    """Rollouts of scenarios in groups, to be trained on.

    Raises JobRefused without scenarios, TrainingFailed for settings that make them untrainable, ServerError if nothing
    was judged.
    """
    from env_sim.rollout_plans import derive_seed
    from train.rounds import refuse_untrainable

    refuse_untrainable(work.settings)
    payload = RolloutPayload.model_validate(work.job.payload)
    rollout = work.settings.rollout
    notes = work.noted(
        lambda: {
            "version": payload.version or live_name(work.log),
            "group_size": payload.group_size or rollout.group_size,
            "scenarios": least_played_scenarios(
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
        outcomes = play(
            work,
            notes["scenarios"],
            notes["version"],
            batch=work.job.name,
            seed=seed,
            origin=Origin.ROLLOUT,
            group_size=notes["group_size"],
            temperature=rollout.temperature,
        )
    return {"batch": work.job.name, "version": notes["version"], "groups": len(notes["scenarios"])} | figures_of(
        outcomes
    )


def evaluate_version(work: Work) -> dict[str, Any]:
    """One dialogue a scenario, the same scenarios and seeds whatever the version."""
    payload = EvaluatePayload.model_validate(work.job.payload)
    count = payload.scenarios or work.settings.loop.test_scenarios
    notes = work.noted(
        lambda: {
            "version": payload.version or live_name(work.log),
            "scenarios": least_played_scenarios(work.log, payload.split, payload.domain, None, count),
        }
    )
    with work.gateway.holding(notes["version"]):
        outcomes = play(work, notes["scenarios"], notes["version"], batch=work.job.name, seed=payload.seed)
    return {"batch": work.job.name, "version": notes["version"]} | figures_of(outcomes)


def prune(work: Work) -> dict[str, Any]:
    """Removes the weights of old versions."""
    from train.pruning import prune_versions

    pruned = prune_versions(work.log, work.settings, PrunePayload.model_validate(work.job.payload).keep)
    work.stage.advance(1.0, f"{len(pruned.versions)} versions, {pruned.freed_bytes / 2**20:.0f} MiB")
    return {"versions": list(pruned.versions), "freed_bytes": pruned.freed_bytes}


KINDS: dict[JobKind, Callable[[Work], dict[str, Any]]] = {
    JobKind.ROLLOUT: play_groups,
    JobKind.JUDGE: judge_turns,
    JobKind.SAMPLE: draw_sample,
    JobKind.REWARD: recompute_rewards,
    JobKind.ANNOTATE: annotate_dialogues,
    JobKind.DATA: make_data,
    JobKind.SFT: cold_start,
    JobKind.TRAIN: train_run,
    JobKind.GATE: gate_candidate,
    JobKind.RELEASE: release_candidate,
    JobKind.EVALUATE: evaluate_version,
    JobKind.PRUNE: prune,
}

NEED_ACCELERATOR = MAKE_CANDIDATES
NEED_GATEWAY = frozenset({JobKind.ROLLOUT, JobKind.GATE, JobKind.RELEASE, JobKind.EVALUATE})
"""They are answered by the policy; one such job talks to a gateway at a time, as a gate borrows its server."""


def _storable(value: Any) -> Any:
    """What is no number becomes None: JSON has no word for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _storable(part) for key, part in value.items()}
    return [_storable(part) for part in value] if isinstance(value, list | tuple) else value
