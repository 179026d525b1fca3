"""What each kind of job can be told, checked when it is queued; the words of the command line to jobs. Pure."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from store.jobs import MAX_ATTEMPTS, NewJob
from store.vocabulary import JobKind, Split
from train.errors import JobRefused


class Payload(BaseModel):
    """Options that are None take the settings' value, or what the docstring says."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RolloutPayload(Payload):
    scenarios: int | None = Field(default=None, ge=1)
    """`loop.scenarios_per_round`; those of `split` and `domain` that were played least often."""
    split: Split = Split.TRAIN
    domain: str | None = None
    group_size: int | None = Field(default=None, ge=2)
    version: str | None = None
    """The live one."""
    seed: int = 1


class JudgePayload(Payload):
    batch: str | None = None
    """The rollouts before it in the pipeline, else the whole log."""
    limit: int = Field(default=1000, ge=1)
    """Trajectories."""
    retry_unscored: bool = False


class SftPayload(Payload):
    data: str = ""
    """An SFT set; the newest."""
    base: str = ""
    """A version to start from; the model of the settings."""
    rollouts: int = Field(default=0, ge=0)
    """Validation scenarios that are played at each evaluation, on a server of the run's own."""
    seed: int = 1


class TrainPayload(Payload):
    batch: str | None = None
    """The rollouts before it in the pipeline, else the whole log; `[selection]` says what is taken of it."""
    max_groups: int = Field(default=96, ge=1)
    domain: str | None = None
    """Instead of `selection.domains`, and so on."""
    source: str | None = None
    max_age: int | None = Field(default=None, ge=0)
    max_uses: int | None = Field(default=None, ge=1)
    seed: int = 1
    checkpoint_every: int = Field(default=4, ge=1)
    """Steps; a run that is taken over goes on there."""


class GatePayload(Payload):
    version: str | None = None
    """What the run before it in the pipeline made."""
    scenarios: int | None = Field(default=None, ge=4)
    """`loop.validation_scenarios`; those that were evaluated on least often."""
    min_effect: float | None = None
    promote: bool = True
    canary: float | None = Field(default=None, gt=0, le=0.5)
    """Share of the sessions that a candidate which passes is given, instead of going live; `release` decides."""
    seed: int = 1


class ReleasePayload(Payload):
    min_chats: int = Field(default=30, ge=2)
    """Judged chats that candidate and live version need since the split began."""
    max_loss: float = Field(default=0.05, gt=0, le=1)
    """Reward that the candidate may lose at worst, by the lower end of the interval."""
    seed: int = 1


class EvaluatePayload(Payload):
    version: str | None = None
    """The live one."""
    split: Split = Split.TEST
    domain: str | None = None
    scenarios: int | None = Field(default=None, ge=1)
    """`loop.test_scenarios`, the same ones every time."""
    seed: int = 1


class PrunePayload(Payload):
    keep: int = Field(default=5, ge=0)
    """The newest so many versions keep their weights whatever they are."""


PAYLOADS: dict[JobKind, type[Payload]] = {
    JobKind.ROLLOUT: RolloutPayload,
    JobKind.JUDGE: JudgePayload,
    JobKind.SFT: SftPayload,
    JobKind.TRAIN: TrainPayload,
    JobKind.GATE: GatePayload,
    JobKind.RELEASE: ReleasePayload,
    JobKind.EVALUATE: EvaluatePayload,
    JobKind.PRUNE: PrunePayload,
}

MAKE_CANDIDATES = frozenset({JobKind.SFT, JobKind.TRAIN})


def read_jobs(words: Sequence[str], *, priority: int = 0, max_attempts: int = MAX_ATTEMPTS) -> list[NewJob]:
    """Kinds in order, each followed by its `key=value` options, as a pipeline. Raises JobRefused."""
    jobs: list[NewJob] = []
    for word in words:
        key, assigned, value = word.partition("=")
        if assigned:
            if not jobs:
                raise JobRefused(f"the option {word!r} comes before any job: write the kind first, such as rollout")
            jobs[-1] = replace(jobs[-1], payload=jobs[-1].payload | {key: _value(value)})
        elif word in PAYLOADS:
            jobs.append(NewJob(JobKind(word), {}, priority, max_attempts))
        else:
            raise JobRefused(f"there is no kind of job {word!r}: there are {', '.join(PAYLOADS)}")
    return check_pipeline(jobs)


def read_job_line(line: str, *, priority: int = 0, max_attempts: int = MAX_ATTEMPTS) -> list[NewJob]:
    """The same from one line, quoted as in a shell: `describe_jobs` read back. Raises JobRefused."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise JobRefused(f"the jobs cannot be read: {str(error).lower()}") from error
    return read_jobs(words, priority=priority, max_attempts=max_attempts)


def check_pipeline(jobs: Sequence[NewJob]) -> list[NewJob]:
    """The jobs with payloads as they will be stored. Raises JobRefused for an option that cannot be, an empty pipeline,
    and a gate that nothing gives a candidate."""
    if not jobs:
        raise JobRefused(f"name at least one job: {', '.join(PAYLOADS)}")
    checked: list[NewJob] = []
    for job in jobs:
        try:
            payload = PAYLOADS[job.kind].model_validate(job.payload)
        except ValidationError as error:
            said = error.errors()[0]
            option = ".".join(map(str, said["loc"]))
            known = ", ".join(PAYLOADS[job.kind].model_fields)
            raise JobRefused(f"{job.kind}: {option}: {said['msg']} (options of {job.kind}: {known})") from error
        if job.max_attempts < 1:
            raise JobRefused(f"{job.kind}: {job.max_attempts} attempts are none: allow at least one")
        candidate_given = getattr(payload, "version", None) is not None
        made_before = any(one.kind in MAKE_CANDIDATES for one in checked)
        if job.kind is JobKind.GATE and not candidate_given and not made_before:
            raise JobRefused(
                "gate: nothing makes a candidate before it: put train or sft before it, or add version=v0007"
            )
        checked.append(replace(job, payload=payload.model_dump(mode="json", exclude_unset=True)))
    return checked


def describe_jobs(jobs: Sequence[NewJob]) -> str:
    """As they are written on the command line."""
    words = []
    for job in jobs:
        words += [job.kind.value, *(f"{key}={_word(value)}" for key, value in job.payload.items())]
    return shlex.join(words)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
