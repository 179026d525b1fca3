"""Many dialogues at a time before an LLM with a role (annotator, compressor, filter), and the prompt that it gets."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from agent.role_errors import LimitReached
from store.settings import SettingsError

ENOUGH_FAILURES = 20
"""Dialogues in succession without an answer after which the endpoint is taken to be down."""
T = TypeVar("T")


async def ask_about_all(work: Sequence[T], ask: Callable[[T], Awaitable[str | None]], *, at_once: int) -> str | None:
    """Calls `ask` for all of `work`, so many at a time; why it stopped before their end, None: it did not.

    `ask` gives why there was no answer, None where there was one. LimitReached out of it, and ENOUGH_FAILURES in
    succession, let what is in flight end and begin nothing more; anything else that it raises is raised at once.
    """
    waiting = iter(work)
    failures = 0
    stopped: str | None = None

    async def take() -> None:
        nonlocal failures, stopped
        for one in waiting:
            try:
                why = await ask(one)
            except LimitReached as limit:
                stopped = str(limit)
                return
            failures = 0 if why is None else failures + 1
            if failures >= ENOUGH_FAILURES:
                stopped = f"{failures} dialogues in succession got no answer, the last one: {why}"
            if stopped is not None:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(work))):
                group.create_task(take())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return stopped


def read_prompt(file: Path | None, bundled: Path, setting: str) -> str:
    """The prompt that `setting` names, or the bundled one. Raises SettingsError if it cannot be read."""
    try:
        return (file or bundled).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read the prompt {file or bundled} ({setting}): {reason}") from error
