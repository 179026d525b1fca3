"""What each kind of job can be told, checked when it is queued; the words of the command line to jobs. Pure."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from store.jobs import MAX_ATTEMPTS, NewJob
from store.vocabulary import JobKind, JudgeMode, Split
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
    beside: bool = False
    """Instead: every item without a check once more; these verdicts do not count."""
    calibrate: bool = False
    """Instead: the LLM judges items that carry checks, beside."""
    anchors: bool = False
    """Only dialogues of the anchor set; beside or to calibrate."""
    fresh: bool = False
    """Ask even what the log holds an answer to."""
    model: str | None = None
    """Another model at the judge's endpoint, alone. Another endpoint is for the settings: keys go where they say."""
    mode: JudgeMode | None = None
    draws: int | None = Field(default=None, ge=1, le=20)
    """How often each question is asked; `judging.draws`."""

    @model_validator(mode="after")
    def _one_purpose(self) -> "JudgePayload":
        if self.beside and self.calibrate:
            raise ValueError("calibrate speaks beside by itself: leave beside out")
        if self.retry_unscored and (self.beside or self.calibrate):
            raise ValueError("retry_unscored is about verdicts that count, beside and calibrate about others")
        if self.anchors and not (self.beside or self.calibrate):
            raise ValueError("the anchor set is judged beside: add beside=true")
        if self.anchors and self.batch:
            raise ValueError("the anchor set is no batch of rollouts: leave batch out")
        return self


class SamplePayload(Payload):
    random: int = Field(default=20, ge=0)
    """Turns drawn with equal chance: the only ones whose figures are unbiased."""
    disputed: int = Field(default=10, ge=0)
    uncertain: int = Field(default=10, ge=0)
    anchors: int = Field(default=0, ge=0)
    """Instead: fixes the anchor set, once, with so many turns."""
    batch: str = Field(default="", max_length=64)
    """Its name, which is also the seed; the time."""

    @model_validator(mode="after")
    def _named(self) -> "SamplePayload":
        if self.anchors and self.batch:
            raise ValueError("the anchor set has a name of its own: leave batch out")
        return self


class RewardPayload(Payload):
    trajectory: str | None = None
    """Only this one."""
    batch: str | None = None
    """Only those of this batch; without either everything that was ever judged."""

    @model_validator(mode="after")
    def _which(self) -> "RewardPayload":
        if self.trajectory and self.batch:
            raise ValueError("trajectory names one: leave batch out")
        return self


class AnnotatePayload(Payload):
    split: Split | None = None
    domain: str | None = None
    source: str | None = None
    scenario: str | None = None
    """Its name, or how its hash begins."""
    chat: str | None = None
    """A chat, promoted to a scenario first."""
    limit: int | None = Field(default=None, ge=1)
    """Scenarios that need it."""
    variants: int | None = Field(default=None, ge=1)
    """Independent checklists a turn; `annotation.variants`."""
    variant: int | None = Field(default=None, ge=0)
    """Only this one of them."""
    with_judge: bool = False
    """The self-test asks the judge about items without a check."""
    seed: int = 0

    @model_validator(mode="after")
    def _which(self) -> "AnnotatePayload":
        if self.chat and (self.split or self.domain or self.source or self.scenario or self.limit):
            raise ValueError("chat names one dialogue: leave the other filters out")
        if self.variants is not None and self.variant is not None:
            raise ValueError("variants says how many, variant says which one: give one of the two")
        return self


class DataPayload(Payload):
    domain: str | None = None
    """Instead of `data.domains`."""
    source: str | None = None
    filter: bool = True
    """Have dialogues read by the LLM [filter], if there is one."""
    compress: bool = True
    """Have long thinking shortened, if there is a [compressor]."""
    seed: int = 0


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
    JobKind.SAMPLE: SamplePayload,
    JobKind.REWARD: RewardPayload,
    JobKind.ANNOTATE: AnnotatePayload,
    JobKind.DATA: DataPayload,
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
            option = "".join(f"{part}: " for part in said["loc"])
            known = ", ".join(PAYLOADS[job.kind].model_fields)
            why = said["msg"].removeprefix("Value error, ")
            raise JobRefused(f"{job.kind}: {option}{why} (options of {job.kind}: {known})") from error
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
