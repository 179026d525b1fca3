"""How many requests run and wait at once; beyond that callers are told to come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.openai_form import ApiError


class Admission:
    """At most `max_in_flight` places and `max_waiting` callers who wait for one, first come, first served."""

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        self.max_in_flight = max_in_flight
        self.max_waiting = max_waiting
        self.in_flight = 0
        self.waiting = 0
        self._closing = False
        self._places = asyncio.Semaphore(max_in_flight)
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Raises ApiError 429 where too many wait, 503 where the gateway is shutting down."""
        if self._closing:
            raise ApiError(503, "the gateway is shutting down", "shutting_down", "server_error", retry_after=5)
        if self._places.locked() and self.waiting >= self.max_waiting:
            raise ApiError(
                429,
                f"{self.in_flight} requests run and {self.waiting} wait: try again later",
                "too_many_requests",
                "rate_limit_error",
                retry_after=2,
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.in_flight += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            self._places.release()
            if self.in_flight == 0:
                self._empty.set()

    async def close(self, patience_s: float) -> bool:
        """Takes nobody in any more; whether all who were in have gone within `patience_s`."""
        self._closing = True
        try:
            await asyncio.wait_for(self._empty.wait(), patience_s)
        except TimeoutError:
            return False
        return True
