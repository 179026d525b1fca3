"""The client for roles: what is tried again, what waits, what may be spent, and what the log keeps of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from agent.role_endpoint import EndpointError, LimitReached, RoleEndpoint, Said, Subject
from store.database import Log
from store.endpoint_settings import Price
from store.model_calls import call_totals
from store.vocabulary import ModelRole
from tests.judged_log import scripted

PRICE = Price(prompt=10.0, cached=1.0, completion=100.0)
COST = (60 * 10 + 40 * 1 + 10 * 100) / 1e6
"""Of a scripted answer: 100 tokens sent, 40 of them from the cache, 10 said."""


def ask(endpoint: RoleEndpoint, max_tokens: int = 10) -> Awaitable[Said]:
    return endpoint.ask([{"role": "user", "content": "Hi"}], max_tokens=max_tokens, subject=Subject(items=3))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.0)


class Counting:
    """Answers with one status after the other, then "fine"."""

    def __init__(self, *statuses: int) -> None:
        self.left = list(statuses)
        self.requests = 0

    def __call__(self, _: dict[str, Any]) -> Any:
        self.requests += 1
        return httpx2.Response(self.left.pop(0), json={"error": "x"}) if self.left else "fine"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again(status: int, sqlite_log: Log) -> None:
    answer = Counting(status, status)
    assert asyncio.run(_said(scripted(answer, retries=2, log=sqlite_log))).text == "fine"
    assert answer.requests == 3
    (total,) = call_totals(sqlite_log)
    assert (total.role, total.calls, total.failed, total.items) == (ModelRole.JUDGE, 1, 0, 3)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_tried_again(status: int, sqlite_log: Log) -> None:
    answer = Counting(status, status)
    with pytest.raises(EndpointError, match="judge big-judge: "):
        asyncio.run(_said(scripted(answer, retries=3, log=sqlite_log)))
    assert answer.requests == 1
    (total,) = call_totals(sqlite_log)
    assert (total.calls, total.failed, total.prompt_tokens) == (1, 1, 0)


def test_it_gives_up_after_the_retries() -> None:
    answer = Counting(503, 503, 503)
    with pytest.raises(EndpointError, match="InternalServerError"):
        asyncio.run(_said(scripted(answer, retries=1)))
    assert answer.requests == 2


def test_the_deadline_holds_for_all_tries_together() -> None:
    async def slow_failure() -> httpx2.Response:
        await asyncio.sleep(0.06)
        return httpx2.Response(503, json={})

    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"no answer within 0\.1 s"):
        asyncio.run(_said(scripted(lambda _: slow_failure(), retries=50, timeout_s=0.1)))
    assert time.monotonic() - began < 1


def test_tokens_and_price_are_counted(sqlite_log: Log) -> None:
    endpoint = scripted(Counting(), log=sqlite_log, price=PRICE)
    said = asyncio.run(_said(endpoint))
    assert (said.prompt_tokens, said.cached_tokens, said.completion_tokens) == (100, 40, 10)
    assert said.usd == pytest.approx(COST)
    (total,) = call_totals(sqlite_log)
    assert total.usd == pytest.approx(COST) and endpoint.spent.usd == pytest.approx(COST)
    unpriced = scripted(Counting(), log=sqlite_log)
    assert asyncio.run(_said(unpriced)).usd is None
    assert call_totals(sqlite_log)[0].unpriced == 1


def test_a_spending_limit_stops_before_the_question_that_would_break_it() -> None:
    answer = Counting()
    endpoint = scripted(answer, price=PRICE, max_usd=3.5 * COST)

    async def many() -> list[Any]:
        return [await _outcome(lambda: ask(endpoint)) for _ in range(6)]

    results = asyncio.run(many())
    assert [type(result) for result in results] == [Said] * 3 + [LimitReached] * 3
    assert answer.requests == 3
    assert "max_usd" in str(results[-1])


def test_what_only_waits_or_is_overestimated_does_not_use_up_the_limit() -> None:
    """Each question may cost five times what it does: the limit allows eight at once by the estimate, forty by cost."""
    answer = Counting()
    endpoint = scripted(answer, price=PRICE, max_usd=41 * COST, max_concurrency=30)

    async def many() -> list[Any]:
        return await asyncio.gather(*(_outcome(lambda: ask(endpoint, max_tokens=80)) for _ in range(36)))

    results = asyncio.run(many())
    assert all(isinstance(result, Said) for result in results)


def test_requests_a_minute_are_spread() -> None:
    starts: list[float] = []

    def answer(_: dict[str, Any]) -> str:
        starts.append(time.monotonic())
        return "fine"

    endpoint = scripted(answer, max_requests_per_minute=1200)

    async def many() -> None:
        await asyncio.gather(*(ask(endpoint) for _ in range(4)))

    asyncio.run(many())
    assert starts[-1] - starts[0] >= 3 * 0.05 - 0.01


def test_calls_in_flight_are_bounded() -> None:
    running, most = 0, 0

    async def hold() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return "fine"

    endpoint = scripted(lambda _: hold(), max_concurrency=3)

    async def many() -> None:
        await asyncio.gather(*(ask(endpoint) for _ in range(12)))

    asyncio.run(many())
    assert most == 3


async def _said(endpoint: RoleEndpoint) -> Said:
    return await ask(endpoint)


async def _outcome(question: Callable[[], Awaitable[Said]]) -> Said | LimitReached:
    try:
        return await question()
    except LimitReached as limit:
        return limit
