"""Whether a job is tried again, and when: by what went wrong and how often it was tried. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from store.vocabulary import ExitReason


@dataclass(frozen=True)
class BackOff:
    first_s: float
    factor: float = 4.0
    most_s: float = 3600.0


BACK_OFF: dict[ExitReason, BackOff] = {
    ExitReason.SERVER: BackOff(30.0),
    ExitReason.LOG: BackOff(10.0),
    ExitReason.MACHINE: BackOff(10.0),
    ExitReason.MEMORY: BackOff(300.0, factor=1.0),
    ExitReason.CRASHED: BackOff(30.0),
}
"""What is not here ends the job: it would go wrong in the same way again, or somebody wanted it to end."""


def retry_delay(reason: ExitReason, attempts: int, max_attempts: int) -> timedelta | None:
    """How long to wait after the `attempts`-th try; None if there is no other."""
    back_off = BACK_OFF.get(reason)
    if back_off is None or attempts >= max_attempts:
        return None
    return timedelta(seconds=min(back_off.first_s * back_off.factor ** (attempts - 1), back_off.most_s))
