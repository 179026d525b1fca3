"""Server time of every page of the dashboard on a large log, on SQLite and PostgreSQL.

A visit runs the page's script to its end. `CHECKLOOP_BENCH_DIALOGUES` makes a smaller log (100,000
dialogues with ten verdicts each otherwise, which takes a while to write the first time; the SQLite file is kept).
Before every second visit a verdict is written, so that half of the visits find a log that has changed.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamlit import config
from streamlit.testing.v1 import AppTest

import dashboard
from benchmarks.large_log import DIALOGUES, SCENARIOS, a_scenario, build_large_log, name_of
from benchmarks.line import Line
from dashboard.links import PAGES, TRAJECTORIES, PageSpec
from store.database import Log, open_log
from store.scenarios import item_ids
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import Outcome, VerdictSource
from tests.databases import PostgresqlDatabases, postgresql_server

VISITS = 20
LIMIT_S = 0.5
APP = Path(dashboard.__file__).parent / "app.py"


def measure(home: Path) -> list[Line]:
    dialogues = int(os.environ.get("CHECKLOOP_BENCH_DIALOGUES", DIALOGUES))
    lines = []
    for name, opened in (("SQLite", sqlite_log), ("PostgreSQL", postgresql_log)):
        with opened(home, dialogues) as log:
            lines += [line_of(name, page, query, log, dialogues) for page, query in pages(dialogues)]
    return lines


def pages(dialogues: int) -> Iterator[tuple[PageSpec, dict[str, str]]]:
    """Every page as it opens, and one dialogue."""
    for page in PAGES:
        yield page, {}
    yield TRAJECTORIES, {"trajectory": name_of(dialogues // 2)}


@contextmanager
def sqlite_log(home: Path, dialogues: int) -> Iterator[Log]:
    folder = home / "dashboard"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"log-{dialogues}.db"
    if not file.exists():
        half_made = file.with_suffix(".tmp")
        half_made.unlink(missing_ok=True)
        build_large_log(f"sqlite:///{half_made}", dialogues).close()
        half_made.rename(file)
    log = open_log(f"sqlite:///{file}")
    yield log
    log.close()


@contextmanager
def postgresql_log(home: Path, dialogues: int) -> Iterator[Log]:
    with postgresql_server() as server:
        log = build_large_log(PostgresqlDatabases(server).create(), dialogues)
        with log.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")  # as autovacuum does within minutes
        yield log
        log.close()


def line_of(database: str, page: PageSpec, query: dict[str, str], log: Log, dialogues: int) -> Line:
    os.environ["CHECKLOOP_DATABASE_URL"] = log.url
    config.set_option("runner.magicEnabled", False)
    app = AppTest.from_file(str(APP), default_timeout=120)
    if page is not PAGES[0]:
        app.run()  # registers the pages
        app.switch_page(page.target)
    app.query_params.update(query)
    first = visit(app)
    seconds = []
    for n in range(VISITS):
        if n % 2:
            judge_one(log, n % SCENARIOS)
        seconds.append(visit(app))
    p95 = statistics.quantiles(seconds, n=20)[-1]
    what = f"{page.title}{', one dialogue' if query else ''}"
    return Line(
        f"dashboard: {what}, {dialogues * 10:,} verdicts, {database}",
        f"p95 {p95:.2f} s (median {statistics.median(seconds):.2f}, first {first:.2f})",
        f"{LIMIT_S} s",
        f"{p95 / LIMIT_S:.2f}",
        "≤ 1",
    )


def visit(app: AppTest) -> float:
    """Seconds that the server works on one visit. Raises RuntimeError if the page shows an error."""
    began = time.perf_counter()
    app.run()
    took = time.perf_counter() - began
    if app.exception or app.error:
        raise RuntimeError(f"the page failed: {[*app.exception, *app.error][0].value}")
    return took


def judge_one(log: Log, n: int) -> None:
    """One more verdict on a dialogue of the first ones."""
    ids = item_ids(log, a_scenario(n).hash)
    said = Verdict(
        name_of(n),
        1,
        ids[1, "polite"],
        "polite",
        Outcome.FAIL,
        None,
        VerdictSource.LLM,
        "big-judge",
        "a" * 64,
        "no",
        "",
    )
    add_verdicts(log, [said])
