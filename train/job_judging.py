"""The jobs about verdicts and checklists: `judge`, `sample`, `reward`, `annotate`. Each does what the command of its
name does, by the same function; heavy imports are the functions' own."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.vllm_client import ServerError
from store.backlog import unjudged
from store.schema import now
from store.settings import Settings
from store.vocabulary import Combination, JobKind
from train.errors import JobRefused
from train.job_payloads import AnnotatePayload, JudgePayload, RewardPayload, SamplePayload
from train.job_work import Work, mean

if TYPE_CHECKING:
    from reward.judging_plan import JudgingOptions

_JUDGED_AT_ONCE = 25
"""Trajectories between two looks at whether the job is to stop."""
_NOTES = 40
"""How often a job that judges beside writes down how far it is: the list of its dialogues is written with it."""


def judge_turns(work: Work) -> dict[str, Any]:
    """Judges what has no reward yet; with `beside` or `calibrate` lets a judge speak without counting.

    Raises JobRefused where the settings' limit on spending is reached: what was said until then is kept.
    """
    from agent.role_errors import LimitReached
    from reward.judging_plan import JudgingOptions

    payload = JudgePayload.model_validate(work.job.payload)
    options = JudgingOptions(payload.retry_unscored, payload.beside, payload.calibrate, payload.fresh)
    settings = judge_settings(work.settings, payload)
    try:
        return (_judge_backlog if options.counts else _judge_beside)(work, settings, payload, options)
    except LimitReached as limit:
        raise JobRefused(f"stopped, and what is left is judged by the next such job: {limit}") from limit


def judge_settings(settings: Settings, payload: JudgePayload) -> Settings:
    """With what the job says of the judge. Raises JobRefused where there is no LLM judge that it could speak of."""
    named = {"mode": payload.mode, "draws": payload.draws}
    changes: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if settings.judge is None:
        if changes or payload.model or payload.beside or payload.calibrate:
            raise JobRefused("there is no LLM judge: name one in checkloop.toml, section [judge]")
        return settings
    judge = settings.judge
    if payload.model:
        # By its own name: under the settings' name its verdicts, and its cached answers, would be another judge's.
        judge = judge.model_copy(update={"model": payload.model, "name": ""})
        changes = {"panel": (), "draws": 1, "combination": Combination.MAJORITY} | changes
    return settings.model_copy(update={"judge": judge, "judging": settings.judging.model_copy(update=changes)})


def _judge_backlog(work: Work, settings: Settings, payload: JudgePayload, options: "JudgingOptions") -> dict[str, Any]:
    from agent.role_errors import LimitReached
    from reward.judge import make_judge
    from store.verdicts import rewards_of

    waiting = unjudged(
        work.log, batches=_batches(work, payload), limit=payload.limit, retry_unscored=payload.retry_unscored
    )

    async def judge() -> list[float | None]:
        asked = make_judge(work.log, settings)
        values: list[float | None] = []
        for start in range(0, len(waiting), _JUDGED_AT_ONCE):
            chunk = waiting[start : start + _JUDGED_AT_ONCE]
            report = await asked.judge_log(chunk, options)
            if report.stopped is not None:
                raise LimitReached(report.stopped)
            rewards = rewards_of(work.log, chunk)
            values += [rewards[name].value for name in chunk]
            work.stage.advance(len(values) / len(waiting), f"{len(values)} of {len(waiting)} trajectories")
        return values

    values = asyncio.run(judge())
    known = [value for value in values if value is not None]
    return {"judged": len(known), "unscored": len(values) - len(known), "reward": mean(known)}


def _judge_beside(work: Work, settings: Settings, payload: JudgePayload, options: "JudgingOptions") -> dict[str, Any]:
    """What it has gone through is in its notes: asked afresh, nothing is paid for twice when it is taken over."""
    from agent.role_errors import LimitReached
    from reward.judge import make_judge
    from store.leases import note_on_job

    notes = dict(work.noted(lambda: {"trajectories": _beside_what(work, payload), "done": 0, "verdicts": {}}))
    names = notes["trajectories"]

    async def judge() -> None:
        asked, noted = make_judge(work.log, settings), notes["done"]
        while notes["done"] < len(names):
            report = await asked.judge_log(names[notes["done"] : notes["done"] + _JUDGED_AT_ONCE], options)
            if report.stopped is not None:
                raise LimitReached(report.stopped)
            said = {outcome.value: count for outcome, count in report.outcomes.items()}
            notes["verdicts"] = {
                key: notes["verdicts"].get(key, 0) + said.get(key, 0) for key in {*notes["verdicts"], *said}
            }
            notes["done"] = min(notes["done"] + _JUDGED_AT_ONCE, len(names))
            if notes["done"] - noted >= len(names) / _NOTES or notes["done"] == len(names):
                note_on_job(work.log, work.job, dict(notes))
                noted = notes["done"]
            work.stage.advance(notes["done"] / len(names), f"{notes['done']} of {len(names)} trajectories")

    asyncio.run(judge())
    return {"trajectories": len(names), "verdicts": notes["verdicts"]}


def _beside_what(work: Work, payload: JudgePayload) -> list[str]:
    from store.review_samples import ANCHORS, review_batches, samples_of
    from store.trajectories import judgeable_trajectories

    if payload.anchors:
        if ANCHORS not in {batch.name for batch in review_batches(work.log)}:
            raise JobRefused("there is no anchor set: the job `sample anchors=50` fixes one")
        found = [sample.trajectory_id for sample in samples_of(work.log, ANCHORS)]
    else:
        batches: Sequence[str | None] = _batches(work, payload) or [None]
        found = [name for batch in batches for name in judgeable_trajectories(work.log, batch=batch)]
    return list(dict.fromkeys(found))[: payload.limit]


def _batches(work: Work, payload: JudgePayload) -> list[str] | None:
    """The one named, else those of the rollouts before it; None: the whole log."""
    if payload.batch:
        return [payload.batch]
    return [job.name for job in work.before(JobKind.ROLLOUT)] or None


def draw_sample(work: Work) -> dict[str, Any]:
    """Puts judged turns up for review, or fixes the anchor set. Raises JobRefused for a batch that is there already."""
    from collections import Counter

    from reward.review_batches import batch_name, draw_batch
    from store.review_samples import review_batches, samples_of

    payload = SamplePayload.model_validate(work.job.payload)
    taken_over = work.job.notes is not None
    name = batch_name(payload.anchors, payload.batch, now())
    if taken_over:
        name = work.noted(dict)["batch"]
    there = {batch.name for batch in review_batches(work.log)}
    if name in there:
        if not taken_over:
            again = "it stays, for drift is seen on turns that do not change" if payload.anchors else "name another one"
            raise JobRefused(f"there is a batch {name!r} of reviews already: {again}")
        turns = Counter(sample.reason.value for sample in samples_of(work.log, name))
        return {"batch": name, "turns": dict(turns)}  # killed before its end was written
    work.noted(lambda: {"batch": name})
    work.stage.advance(0.05, "reading what judges and people said")
    drawn = draw_batch(
        work.log,
        name,
        randomly=payload.random,
        disputed=payload.disputed,
        uncertain=payload.uncertain,
        anchors=payload.anchors,
    )
    work.stage.advance(1.0, f"{len(drawn.turns)} of {drawn.judged} judged turns put up")
    return {"batch": name if drawn.turns else None, "turns": drawn.counts, "judged": drawn.judged}


def recompute_rewards(work: Work) -> dict[str, Any]:
    """Computes rewards again from the verdicts and checklists that count now; a second time nothing changes."""
    from reward.recount import Recount, recompute
    from store.verdicts import judged_trajectories

    payload = RewardPayload.model_validate(work.job.payload)
    names = [payload.trajectory] if payload.trajectory else judged_trajectories(work.log, batch=payload.batch)
    if payload.batch and not names:
        raise JobRefused(f"no trajectory of batch {payload.batch!r} was ever judged: the job `judge` judges it")

    def advance(found: Recount) -> None:
        work.stage.advance(found.trajectories / len(names), f"{found.trajectories} of {len(names)} trajectories")

    found = recompute(work.log, names, on_progress=advance)
    for line in found.lines(dry_run=False):
        print(line, flush=True)
    return {"trajectories": found.trajectories, "changed": found.changed, "up": found.up, "down": found.down}


def annotate_dialogues(work: Work) -> dict[str, Any]:
    """Has a checklist written for every turn that has none; a chat is promoted first. What is stored stays, so a job
    that is taken over goes on with the rest.

    Raises JobRefused where a limit of the annotator's settings ended it, ServerError where it is down.
    """
    from agent.role_work import ENOUGH_FAILURES
    from env_sim.chat_worlds import promote_chat
    from reward.annotation_choice import (
        annotator_endpoint,
        choose_scenarios,
        chosen_variants,
        first_open,
        self_test_panel,
    )
    from reward.annotation_report import named, report_lines
    from reward.annotator import annotate_scenarios
    from reward.dialogue_annotator import Annotator
    from reward.examination import Annotated
    from reward.self_test_judge import judge_items_with
    from store.database import LogError
    from store.vocabulary import AnnotationStatus

    payload = AnnotatePayload.model_validate(work.job.payload)
    log, settings = work.log, work.settings
    endpoint = annotator_endpoint(log, settings)
    variants = chosen_variants(settings, payload.variants, payload.variant)
    judge_items = judge_items_with(self_test_panel(log, settings)) if payload.with_judge else None
    try:
        if payload.chat:
            scenarios = [promote_chat(log, payload.chat)]
        else:
            scenarios = choose_scenarios(
                log, split=payload.split, domain=payload.domain, source=payload.source, named=payload.scenario
            )
    except LogError as error:
        raise JobRefused(str(error)) from error
    if payload.limit is not None:
        annotator = Annotator(log, endpoint, settings.annotation)
        scenarios = first_open(log, scenarios, annotator, variants, payload.limit, again=False)
    ended, total = 0, 0

    def begin(count: int) -> None:
        nonlocal total
        total = count
        work.stage.advance(0.0, f"{count} dialogues to annotate")

    def advance(one: Annotated) -> None:
        nonlocal ended
        ended += 1
        work.stage.advance(ended / max(total, 1), f"{ended} of {total} dialogues, the last one: {named(one)}")

    report = asyncio.run(
        annotate_scenarios(
            log,
            scenarios,
            endpoint,
            settings=settings.annotation,
            variants=variants,
            seed=payload.seed,
            judge_items=judge_items,
            on_begin=begin,
            on_done=advance,
        )
    )
    for line in report_lines(report):
        print(line, flush=True)
    unanswered = len(report.of(None))
    if report.stopped is not None:
        down = unanswered >= ENOUGH_FAILURES
        raise (ServerError if down else JobRefused)(f"stopped with {report.left} left: {report.stopped}")
    return {
        "annotated": len(report.of(AnnotationStatus.DONE)),
        "wait_for_a_person": len(report.of(AnnotationStatus.NEEDS_PERSON)),
        "unanswered": unanswered,
        "skipped": report.skipped,
    }
