"""When a schedule is due: cron times in a time zone, judged turns, jobs that got done. Pure.

Cron expressions are read by cronsim, which follows Debian's cron: a time that daylight saving leaves out comes as soon
as the clock has moved, one that comes twice fires the first time; with a star in the hour or minute, real time counts.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from store.vocabulary import JobKind
from train.errors import JobRefused

_EVERY = re.compile(r"(\d+)[- ]judged[- ]turns?")


class _Trigger(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CronTimes(_Trigger):
    """`0 3 * * *`: minute, hour, day of month, month, day of week."""

    kind: Literal["cron"] = "cron"
    expression: str

    @field_validator("expression")
    @classmethod
    def _can_come(cls, expression: str) -> str:
        if len(expression.split()) != 5:
            raise ValueError(f"{expression!r} is no cron expression: write five fields, such as '0 3 * * *'")
        try:
            next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise ValueError(f"{expression!r} is no cron expression: {str(error).lower()}") from error
        except StopIteration:
            raise ValueError(f"{expression!r} never comes") from None
        return expression

    def after(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """The times later than `moment`, in UTC."""
        last = moment
        for local in CronSim(self.expression, moment.astimezone(zone)):
            # Where the clock is set back, cronsim may begin with a time that has been; where it is set forward, several
            # times may fall together.
            if (time := local.astimezone(UTC)) > last:
                yield time
                last = time

    def newest(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The latest time that is not later than `moment`, in UTC."""
        # From a little later on: at the second 02:10 of a night cronsim does not see that 02:30 has been.
        start = (moment + timedelta(hours=3)).astimezone(zone)
        backwards = (local.astimezone(UTC) for local in CronSim(self.expression, start, reverse=True))
        return next(time for time in backwards if time <= moment)


class JudgedTurns(_Trigger):
    """So many turns judged since the schedule last fired."""

    kind: Literal["judged_turns"] = "judged_turns"
    every: int = Field(ge=1)


class AfterJob(_Trigger):
    """Each time a job of a kind is done."""

    kind: Literal["after"] = "after"
    job: JobKind


Trigger = CronTimes | JudgedTurns | AfterJob
_TRIGGER: TypeAdapter[Trigger] = TypeAdapter(Annotated[Trigger, Field(discriminator="kind")])


def read_trigger(document: dict[str, Any]) -> Trigger:
    """Raises JobRefused that says what is wrong with it."""
    try:
        return _TRIGGER.validate_python(document)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise JobRefused(f"the trigger cannot be used: {said}") from error


def read_every(text: str) -> JudgedTurns:
    """`200-judged-turns`. Raises JobRefused for anything else."""
    found = _EVERY.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise JobRefused(f"{text!r} cannot be counted: write a number of turns, such as 200-judged-turns")
    return JudgedTurns(every=int(found[1]))


def choose_trigger(cron: str | None, every: str | None, after: JobKind | None) -> Trigger | None:
    """The trigger that the one option given names, None if none is. Raises JobRefused for two of them, or a bad one."""
    given = [option for option in (cron, every, after) if option is not None]
    if len(given) > 1:
        raise JobRefused("give one of --cron, --every and --after: a schedule has one trigger")
    if cron is not None:
        return read_trigger({"kind": "cron", "expression": cron})
    if every is not None:
        return read_every(every)
    return AfterJob(job=after) if after is not None else None


def zone_of(name: str) -> ZoneInfo:
    """Raises JobRefused for an unknown time zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise JobRefused(f"there is no time zone {name!r}: write one such as UTC or Europe/Berlin") from error


def next_times(trigger: Trigger, zone: str, moment: datetime, count: int = 5) -> list[datetime]:
    """The next `count` times of a cron trigger in UTC; none of the others, whose times nobody knows."""
    return list(islice(trigger.after(moment, zone_of(zone)), count)) if isinstance(trigger, CronTimes) else []


def describe(trigger: Trigger, zone: str) -> str:
    """For people."""
    if isinstance(trigger, CronTimes):
        return f"{trigger.expression} ({zone})"
    if isinstance(trigger, JudgedTurns):
        return f"every {trigger.every} judged turns"
    return f"after {trigger.job}"
