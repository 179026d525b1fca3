"""The client for roles: what is tried again, what waits, what may be spent, and what the log keeps of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from agent.role_endpoint import RoleEndpoint, Said, Subject
from agent.role_errors import EndpointError, LimitReached
from agent.tries import estimated_tokens
from reward.judging_report import spent_line
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
    monkeypatch.setattr("agent.tries.FIRST_PAUSE_S", 0.0)


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


def without_usage(said: str = "fine, thank you.") -> httpx2.Response:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    return httpx2.Response(200, json={"id": "1", "choices": [choice]})


def test_what_an_endpoint_does_not_count_is_estimated_and_limited_all_the_same(sqlite_log: Log) -> None:
    """4 of 16 characters each way; 10 USD for a million sent and 100 for a million said: 0.00044 USD an answer."""
    cost = (4 * 10 + 4 * 100) / 1e6
    endpoint = scripted(lambda _: without_usage(), price=PRICE, max_usd=3.5 * cost, log=sqlite_log)

    async def many() -> list[Any]:
        question = [{"role": "user", "content": "What is the way?"}]
        return [await _outcome(lambda: endpoint.ask(question, max_tokens=4)) for _ in range(6)]  # type: ignore[arg-type]

    results = asyncio.run(many())
    assert [type(result) for result in results] == [Said] * 3 + [LimitReached] * 3
    assert results[0].usd == pytest.approx(cost)
    (total,) = call_totals(sqlite_log)
    assert (total.calls, total.estimated, total.prompt_tokens, total.completion_tokens) == (3, 3, 12, 12)
    assert endpoint.spent.estimated == 3 and "tokens of 3 estimated" in spent_line("big", endpoint.spent)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("What is the way?", 4), ("价格是多少", 4), ("\udcff", 1)]
)
def test_tokens_are_estimated_by_bytes(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


def test_a_lost_answer_may_have_been_billed_in_full(sqlite_log: Log) -> None:
    """Two tries whose connection broke after they were sent, then an answer: 1 token sent, at most 10 said, twice."""
    answers = iter([httpx2.ReadError("gone"), httpx2.ReadTimeout("late"), "fine"])

    def answer(_: dict[str, Any]) -> str:
        said = next(answers)
        if isinstance(said, Exception):
            raise said
        return said

    lost = (1 * 10 + 10 * 100) / 1e6
    said = asyncio.run(_said(scripted(answer, retries=2, price=PRICE, log=sqlite_log)))
    assert said.usd == pytest.approx(COST + 2 * lost)
    (total,) = call_totals(sqlite_log)
    assert (total.calls, total.failed, total.estimated, total.prompt_tokens) == (1, 0, 1, 102)
    assert total.usd == pytest.approx(COST + 2 * lost)


def test_what_was_never_sent_or_was_refused_costs_nothing(sqlite_log: Log) -> None:
    def nobody(_: dict[str, Any]) -> str:
        raise httpx2.ConnectError("connection refused")

    for answer in (nobody, Counting(503, 429, 500)):
        endpoint = scripted(answer, retries=2, price=PRICE, log=sqlite_log)
        with pytest.raises(EndpointError):
            asyncio.run(_said(endpoint))
        assert (endpoint.spent.usd, endpoint.spent.failed, endpoint.spent.estimated) == (0.0, 1, 0)
    (total,) = call_totals(sqlite_log)
    assert (total.calls, total.usd, total.unpriced) == (2, 0.0, 0)


def test_a_question_that_runs_into_the_deadline_is_paid_for(sqlite_log: Log) -> None:
    endpoint = scripted(lambda _: asyncio.sleep(5), timeout_s=0.05, price=PRICE, log=sqlite_log)
    with pytest.raises(EndpointError, match=r"no answer within 0\.05 s"):
        asyncio.run(_said(endpoint))
    assert endpoint.spent.usd == pytest.approx((1 * 10 + 10 * 100) / 1e6)
    (total,) = call_totals(sqlite_log)
    assert (total.failed, total.estimated, total.completion_tokens) == (1, 1, 10)


def test_lost_tries_use_up_the_limit_and_are_not_repeated_beyond_it() -> None:
    """A question may cost 0.00101 USD: after one try that was lost 0.0015 leave no room for another."""
    requests = 0

    def lost(_: dict[str, Any]) -> str:
        nonlocal requests
        requests += 1
        raise httpx2.ReadError("gone")

    endpoint = scripted(lost, retries=5, price=PRICE, max_usd=0.0015)

    async def twice() -> None:
        with pytest.raises(EndpointError, match="APIConnectionError"):
            await ask(endpoint)
        with pytest.raises(LimitReached, match="max_usd"):
            await ask(endpoint)

    asyncio.run(twice())
    assert requests == 1


def test_the_endpoint_says_when_to_try_again() -> None:
    """A Retry-After that ends after the deadline is not waited for: the reason is the refusal, not the deadline."""
    soon = httpx2.Response(429, json={}, headers={"Retry-After": "0.05"})
    answers: list[Any] = [soon, "fine"]
    began = time.monotonic()
    assert asyncio.run(_said(scripted(lambda _: answers.pop(0), retries=1))).text == "fine"
    assert time.monotonic() - began >= 0.05
    late = httpx2.Response(429, json={}, headers={"Retry-After": "60"})
    with pytest.raises(EndpointError, match="RateLimitError"):
        asyncio.run(_said(scripted(lambda _: late, retries=3, timeout_s=1.0)))
    assert time.monotonic() - began < 5


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

    began = time.monotonic()
    asyncio.run(many())
    assert starts[-1] - began >= 3 * 0.05 - 0.01, "whenever a busy machine lets the first one begin"


def test_tries_again_keep_to_the_rate_which_takes_nothing_from_the_deadline() -> None:
    """Five tries, half a second apart, of a question that has a second and a half."""
    starts: list[float] = []

    def answer(_: dict[str, Any]) -> Any:
        starts.append(time.monotonic())
        return "fine" if len(starts) == 5 else httpx2.Response(503, json={})

    endpoint = scripted(answer, max_requests_per_minute=120, retries=4, timeout_s=1.5)
    began = time.monotonic()
    assert asyncio.run(_said(endpoint)).text == "fine"
    assert len(starts) == 5 and starts[-1] - began >= 4 * 0.5 - 0.05


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
