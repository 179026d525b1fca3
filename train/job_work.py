"""What the function of a job is given, and what several kinds of job do: play scenarios, and sum up what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.backlog import least_played
from store.database import Log
from store.jobs import JobRecord, earlier_jobs
from store.leases import note_on_job
from store.scenarios import get_scenario
from store.settings import Settings
from store.versions import live_version
from store.vocabulary import JobKind, Origin, Split
from train.errors import JobRefused
from train.job_gateway import JobGateway
from train.progress import Stage

if TYPE_CHECKING:
    from train.evaluation import Outcome


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

    def before(self, *kinds: JobKind) -> list[JobRecord]:
        """The jobs of these kinds before it in the pipeline."""
        return [job for job in earlier_jobs(self.log, self.job) if job.kind in kinds]


def play(
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

    return play_batch(
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


def least_played_scenarios(log: Log, split: Split, domain: str | None, origin: Origin | None, count: int) -> list[str]:
    """Raises JobRefused if there are none."""
    found = least_played(log, split=split, domain=domain, origin=origin, count=count)
    if not found:
        of_domain = f" of domain {domain}" if domain else ""
        raise JobRefused(f"the log holds no scenario of split {split}{of_domain}: `checkloop import FILE` adds some")
    return found


def live_name(log: Log) -> str:
    live = live_version(log)
    if live is None:
        raise JobRefused("no version is live: run `checkloop demo`, or `checkloop init` for your own model")
    return live.name


def figures_of(outcomes: "Mapping[str, Sequence[Outcome]]") -> dict[str, Any]:
    flat = [outcome for many in outcomes.values() for outcome in many]
    judged = [outcome.reward for outcome in flat if outcome.reward is not None]
    passed = [bool(outcome.fully_passed) for outcome in flat if outcome.reward is not None]
    return {
        "dialogues": len(flat),
        "judged": len(judged),
        "reward": mean(judged),
        "fully_passed": mean([float(one) for one in passed]),
    }


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
