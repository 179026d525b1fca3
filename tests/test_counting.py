"""Counts beside the request: a page waits a moment, then shows the figure from before; nothing is counted twice."""

import threading

import pytest

from dashboard import counting
from dashboard.counting import Counts, StillCounting, once_a_request, one_request


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PATIENCE_S", 0.05)


class SlowCount:
    """Gives 1, 2, 3 …, each when it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = 0

    def __call__(self) -> int:
        self.begun += 1
        assert self.gate.acquire(timeout=10)
        return self.begun


def finished(counts: Counts, state: int, count: SlowCount) -> int:
    """What is counted for this state in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "PATIENCE_S", 10.0)
        value: int = counts.get("key", state, count)
    return value


def test_the_first_count_of_a_large_log_is_waited_for_elsewhere() -> None:
    counts, count = Counts(), SlowCount()
    with pytest.raises(StillCounting) as waiting:
        counts.get("key", 1, count)
    with pytest.raises(StillCounting):
        counts.get("key", 1, count)
    assert count.begun == 1 and not waiting.value.done()
    count.gate.release()
    assert finished(counts, 1, count) == 1
    assert waiting.value.done()
    assert counts.get("key", 1, count) == 1 and count.begun == 1


def test_a_log_that_changed_shows_the_figure_from_before_with_its_time() -> None:
    counts, count = Counts(), SlowCount()
    count.gate.release()
    assert finished(counts, 1, count) == 1
    with one_request() as oldest:
        assert counts.get("key", 2, count) == 1
        assert oldest() is not None
    count.gate.release()
    assert finished(counts, 2, count) == 2
    with one_request() as oldest:
        assert counts.get("key", 2, count) == 2
        assert oldest() is None


def test_what_is_counted_again_waits_for_its_like_and_nothing_else_does() -> None:
    counts, one, other = Counts(), SlowCount(), SlowCount()
    for key, count in (("one", one), ("other", other)):
        count.gate.release()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counting, "PATIENCE_S", 10.0)
            assert counts.get(key, 1, count) == 1
    assert counts.get("one", 2, one) == 1 and counts.get("other", 2, other) == 1
    assert (one.begun, other.begun) == (2, 1), "beside pages that have figures to show only one is counted at a time"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "PATIENCE_S", 10.0)
        assert counts.get("new", 2, lambda: "first") == "first"
    one.gate.release()
    other.gate.release()
    counts.finish()
    assert (counts.kept("one"), counts.kept("other")) == (2, 2)


def test_what_goes_wrong_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts()
    monkeypatch.setattr(counting, "REST", 0.0)

    def fails() -> int:
        raise ValueError("the database is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "PATIENCE_S", 10.0)
        for _ in range(2):
            with pytest.raises(ValueError, match="the database is gone"):
                counts.get("key", 1, fails)
        assert counts.get("key", 1, lambda: 3) == 3


@pytest.mark.parametrize("before", [True, False])
def test_a_count_that_fails_after_the_page_went_on_is_told_and_tried_again(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a figure from before, which must not stay for ever, and without one."""
    counts, count = Counts(), SlowCount()
    if before:
        count.gate.release()
        assert finished(counts, 1, count) == 1
    gate = threading.Event()

    def fails() -> int:
        assert gate.wait(10)
        raise ValueError("the disk is full")

    def look(state: int) -> object:
        try:
            return counts.get("key", state, fails)
        except (StillCounting, ValueError) as error:
            return str(error)

    assert look(2) == (1 if before else "being counted")
    (entry,) = counts._entries.values()
    running = entry.running
    assert running is not None
    gate.set()
    running.result(10)
    assert [look(2), look(3)] == ["the disk is full"] * 2, "it rests"
    monkeypatch.setattr(counting, "REST", 0.0)
    count.gate.release()
    assert finished(counts, 3, count) == count.begun


def test_an_error_that_nobody_heard_of_is_told_while_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, gate = Counts(), threading.Semaphore(0)
    monkeypatch.setattr(counting, "REST", 0.0)

    def fails() -> int:
        assert gate.acquire(timeout=10)
        raise ValueError("the disk is full")

    with pytest.raises(StillCounting) as waiting:
        counts.get("key", 1, fails)
    gate.release()
    while not waiting.value.done():
        pass
    with pytest.raises(ValueError, match="the disk is full"):
        counts.get("key", 2, fails)
    with pytest.raises(StillCounting):
        counts.get("key", 2, fails)
    gate.release()


def test_the_state_of_the_log_is_asked_once_in_a_request() -> None:
    states = iter(range(10))
    with one_request(), one_request():
        assert [once_a_request("log", lambda: next(states)) for _ in range(3)] == [0, 0, 0]
        assert once_a_request("another", lambda: next(states)) == 1
    assert [once_a_request("log", lambda: next(states)) for _ in range(2)] == [2, 3]


def test_what_is_kept_is_bounded_in_bytes_and_the_newest_stays() -> None:
    counts = Counts(largest=1000)
    for n in range(10):
        assert len(counts.get(n, 1, lambda: b"x" * 300)) == 300
    assert counts.size <= 1000
    assert counts.kept(9) is not None and counts.kept(0) is None
    assert len(counts.get("large", 1, lambda: b"x" * 5000)) == 5000
    assert counts.kept("large") is not None and counts.kept(9) is None
    assert len(counts.get("large", 1, lambda: b"y")) == 5000, "it is not counted again and again"
