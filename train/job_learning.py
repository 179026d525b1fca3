"""The jobs that make and release versions: `sft`, `train`, `gate`, `release`. Their functions import what is heavy."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from store.database import Log
from store.runs import ended_run
from store.settings import Settings
from store.sft_sets import list_sft_sets
from store.traffic import traffic_split
from store.versions import GateDecision as GateRecord
from store.versions import get_version, list_gate_decisions, live_version, set_version_state
from store.vocabulary import JobKind, Origin, Split, VersionState
from train.errors import JobRefused
from train.job_payloads import MAKE_CANDIDATES, GatePayload, ReleasePayload, SftPayload, TrainPayload
from train.job_work import Work, least_played_scenarios, live_name, play
from train.names import training_seed


def cold_start(work: Work) -> dict[str, Any]:
    """A run of SFT on a set of `checkloop data`: a candidate, or the first live version."""
    from train.registry import version_of_run
    from train.sft_rollouts import rollouts_of
    from train.sft_run import run_sft

    payload = SftPayload.model_validate(work.job.payload)
    if (run_id := ended_run(work.log, work.job.name)) is not None:
        version, live = version_of_run(work.log, run_id), live_version(work.log)
        return {"version": version, "live": live is not None and live.name == version}
    notes = work.noted(lambda: {"data": _sft_set(work.log, payload.data)})
    seed = training_seed(payload.seed, work.job.name)
    rollouts = rollouts_of(work.log, work.settings, count=payload.rollouts, seed=seed) if payload.rollouts else None
    made = run_sft(
        work.log,
        work.settings,
        data=notes["data"],
        base=payload.base,
        name=work.job.name,
        seed=seed,
        play=rollouts,
        stage=work.stage,
    )
    return {"version": made.version, "live": made.is_live}


def _sft_set(log: Log, name: str) -> str:
    """Its name, by default the newest one's. Raises JobRefused if there is none."""
    names = [one.name for one in list_sft_sets(log)]
    if not names or (name and name not in names):
        there = f"there are {', '.join(names)}" if names else "`checkloop data` makes one"
        raise JobRefused(f"sft: there is no SFT set {name}".rstrip() + f" in the log: {there}")
    return name or names[-1]


def train_run(work: Work) -> dict[str, Any]:
    """A GRPO run from the live version; the candidate that it makes, None if there was nothing to learn."""
    from train.candidates import RunFiles, train_candidate
    from train.groups import load_groups_by_id
    from train.registry import version_of_run

    payload = TrainPayload.model_validate(work.job.payload)
    if (run_id := ended_run(work.log, work.job.name)) is not None:
        return {"version": version_of_run(work.log, run_id)}
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
        seed=training_seed(payload.seed, work.job.name),
    )
    shutil.rmtree(folder, ignore_errors=True)
    return {"version": version, "base": notes["base"]}


def gate_candidate(work: Work) -> dict[str, Any]:
    """The candidate against the live version; where it passes it goes live, with the server's proof."""
    payload = GatePayload.model_validate(work.job.payload)
    runs = work.before(*MAKE_CANDIDATES)
    made = (runs[-1].result or {}) if runs else {}
    candidate = payload.version or made.get("version")
    if candidate is None:
        return {"passed": None, "reason": "the run made no candidate"}
    if payload.version is None and made.get("live"):
        return {"passed": None, "reason": f"{candidate} went live without a gate: no version was live before"}
    state = get_version(work.log, candidate).state
    if work.job.notes is None and state is not VersionState.CANDIDATE:
        raise JobRefused(f"gate: {candidate} is {state}: only a candidate can be held against the live version")
    if payload.canary is not None:
        _check_canary(work, candidate)
    count = payload.scenarios or work.settings.loop.validation_scenarios
    notes = work.noted(
        lambda: {
            "live": live_name(work.log),
            "scenarios": _enough(least_played_scenarios(work.log, Split.VALIDATION, None, Origin.EVALUATION, count)),
        }
    )
    if state is VersionState.CANDIDATE:
        _check_still_live(work, notes["live"], candidate)
    from train.candidates import Held, hold_against_live
    from train.evaluation import one_each
    from train.gate_items import look_at_batch

    def batch_of(version: str) -> str:
        return f"{work.job.name}/{version}"

    def play_at_gate(version: str) -> dict[str, float | None]:
        at_the_gate = replace(work, settings=work.settings.at_the_gate)
        return one_each(play(at_the_gate, notes["scenarios"], version, batch=batch_of(version), seed=payload.seed))

    least = work.settings.loop.gate_min_effect if payload.min_effect is None else payload.min_effect
    decision = hold_against_live(
        work.log,
        lambda version: work.gateway.open().stage(version),
        play_at_gate,
        lambda version: look_at_batch(work.log, batch_of(version), work.settings.gate.safety_items),
        candidate=candidate,
        live=notes["live"],
        held=Held(
            batch=work.job.name,
            scenarios=notes["scenarios"],
            rollout=work.settings.rollout,
            rules=work.settings.gate,
            min_effect=least,
            seed=payload.seed,
        ),
    )
    result: dict[str, Any] = {
        "candidate": candidate,
        "passed": decision.passed,
        "reason": decision.reason,
        "figures": decision.figures,
    }
    work.stage.advance(0.99, f"{candidate} {'passes' if decision.passed else 'is refused'}: {decision.reason}")
    if decision.passed and payload.canary is not None and state is VersionState.CANDIDATE:
        _check_still_live(work, notes["live"], candidate)
        work.gateway.bring_back_live()
        work.gateway.open().split(candidate, payload.canary, f"canary: {decision.reason}")
        result["canary"] = payload.canary
    elif decision.passed and payload.promote and state is VersionState.CANDIDATE:
        _check_still_live(work, notes["live"], candidate)
        result["swap"] = work.gateway.open().promote(candidate, f"gate: {decision.reason}")
    return result


def _check_still_live(work: Work, held_against: str, candidate: str) -> None:
    """Raises JobRefused if somebody made another version live since the gate began: the candidate has shown nothing
    against that one, and stays a candidate."""
    if (live := live_name(work.log)) != held_against:
        raise JobRefused(
            f"gate: {live} went live instead of {held_against} meanwhile: hold {candidate} against it anew"
        )


def _enough(scenarios: list[str]) -> list[str]:
    """Raises JobRefused if the gate could not decide on so few."""
    from train.gate import MIN_PAIRS

    if len(scenarios) < MIN_PAIRS:
        raise JobRefused(
            f"gate: the log holds {len(scenarios)} scenarios of split validation, and a gate needs {MIN_PAIRS}: "
            "`checkloop import FILE` adds some"
        )
    return scenarios


def _check_canary(work: Work, candidate: str) -> None:
    """Raises JobRefused where nobody could chat with the candidate."""
    from agent.slot import is_adapter

    if not work.gateway.is_shared():
        raise JobRefused("gate: a canary needs the gateway that people use: start `checkloop up` or `checkloop serve`")
    if not work.settings.server.staging and not is_adapter(Path(get_version(work.log, candidate).path)):
        raise JobRefused("gate: a canary has no place beside the live version: set server.staging = true")


def release_candidate(work: Work) -> dict[str, Any]:
    """Looks at the chats of the candidate that has a share of the sessions: live, refused, or not decided yet."""
    from train.canary import CanaryRules, canary_chats, decide_canary
    from train.gate import GateDecision, record

    payload = ReleasePayload.model_validate(work.job.payload)
    split, live = traffic_split(work.log), live_name(work.log)
    left = _refuse_what_was_decided(work.log, split.candidate if split is not None else None)
    if split is None and left is not None:
        return {"candidate": left.candidate, "passed": False, "reason": left.reason, "figures": left.figures}
    if split is None:
        return {"passed": None, "reason": "no candidate has a share of the sessions"}
    recorded = [
        d
        for d in list_gate_decisions(work.log)
        if (d.candidate, d.live) == (split.candidate, live) and d.figures.get("canary") and d.created_at >= split.since
    ]
    if recorded:  # the process was killed before it could act on it
        decision = GateDecision(recorded[-1].passed, recorded[-1].reason, recorded[-1].figures)
    else:
        before, after = (canary_chats(work.log, version, split.since) for version in (live, split.candidate))
        decided = decide_canary(before, after, CanaryRules(payload.min_chats, payload.max_loss), payload.seed)
        if decided is None:
            counts = f"{len(after.rewards)} judged chats of {split.candidate}, {len(before.rewards)} of {live}"
            return {"candidate": split.candidate, "passed": None, "reason": f"not decided yet: {counts}"}
        decision = decided
        record(work.log, split.candidate, live, decision)
    if decision.passed:
        work.gateway.open().promote(split.candidate, decision.reason)
    else:
        work.gateway.open().split(None, 0.0, decision.reason)
        set_version_state(work.log, split.candidate, VersionState.REFUSED, decision.reason)
    work.stage.advance(0.99, f"{split.candidate} {'goes live' if decision.passed else 'is refused'}: {decision.reason}")
    return {"candidate": split.candidate} | asdict(decision)


def _refuse_what_was_decided(log: Log, still_split: str | None) -> GateRecord | None:
    """Refuses a candidate whose canary was decided against it, and whose share has ended, where a kill came before its
    state; the decision, if there is one."""
    newest = {made.candidate: made for made in list_gate_decisions(log)}
    for name, made in newest.items():
        against_it = made.passed is False and made.figures.get("canary") and name != still_split
        if against_it and get_version(log, name).state is VersionState.CANDIDATE:
            set_version_state(log, name, VersionState.REFUSED, made.reason)
            return made
    return None


def _groups_to_train_on(work: Work, settings: Settings, payload: TrainPayload) -> dict[str, Any]:
    """What the run starts from, the ids of its groups and why others are left out."""
    from train.selection import choose_groups

    base = live_name(work.log)
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
