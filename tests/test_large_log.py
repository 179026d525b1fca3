"""Every page on a log of two thousand dialogues with all that surrounds them: opens without an error, and soon."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.dashboard import looks
from benchmarks.large_log import build_large_log
from dashboard.links import PageSpec
from store.database import Log
from tests.pages import open_page

DIALOGUES = 2_000
BOUND_S = 20.0
"""Generous: this is the time of an AppTest on a machine that does other things, and the first count of everything."""
LOOKS = list(looks(DIALOGUES))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    log = build_large_log(f"sqlite:///{tmp_path_factory.mktemp('large')}/log.db", DIALOGUES)
    yield log
    log.close()


@pytest.mark.parametrize(("page", "what", "query"), LOOKS, ids=[f"{p.path} {what}".strip() for p, what, _ in LOOKS])
def test_every_page_opens(
    page: PageSpec, what: str, query: dict[str, str], large: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", large.url)
    began = time.monotonic()
    app = open_page(page, **query)
    took = time.monotonic() - began
    assert not app.error, app.error[0].value
    assert app.html and took < BOUND_S, f"{took:.1f} s"


def test_the_same_seed_makes_the_same_log(tmp_path: Path) -> None:
    again = build_large_log(f"sqlite:///{tmp_path}/again.db", 50)
    third = build_large_log(f"sqlite:///{tmp_path}/third.db", 50)
    dump = "SELECT group_concat(value) FROM (SELECT value FROM metric ORDER BY id)"
    with again.lookup() as one, third.lookup() as other:
        assert one.exec_driver_sql(dump).scalar() == other.exec_driver_sql(dump).scalar()
    again.close()
    third.close()
