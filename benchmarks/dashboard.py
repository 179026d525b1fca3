"""Server time of every page of the dashboard on a large log, on SQLite and PostgreSQL.

A visit runs the page's script to its end, and again until it shows figures instead of saying that they are being
counted. `BENCH_DIALOGUES` makes a smaller log (100,000 dialogues with ten verdicts each otherwise, which
takes a while to write the first time; the SQLite file is kept); `BENCH_DATABASES=SQLite` measures that alone.
Each page is looked at as it opens and with a filter, a search, an order or far down its list, as far as it has them.
The first visit finds nothing counted: it is the time until the figures are there. Before every second of the others a
verdict is written, so that half of them find a log that has changed.
"""

import gc
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streamlit import config
from streamlit.testing.v1 import AppTest

import dashboard
from benchmarks.dashboard_memory import memory_line
from benchmarks.large_log import DIALOGUES, SCENARIOS, a_scenario, build_large_log, name_of, version_of
from benchmarks.line import Line
from dashboard.counting import COUNTS, FIRST_COUNT
from dashboard.links import (
    CHAT,
    COMPARE,
    ITEMS,
    JOBS,
    JUDGES,
    OVERVIEW,
    PAGES,
    PEOPLE,
    REVIEW,
    TRAINING,
    TRAJECTORIES,
    PageSpec,
)
from dashboard.links import (
    SCENARIOS as SCENARIOS_PAGE,
)
from store.database import Log, open_log
from store.scenarios import item_ids
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import Outcome, VerdictSource
from tests.databases import PostgresqlDatabases, postgresql_server

VISITS = 20
LIMIT_S = 0.5
Query = Mapping[str, str | list[str]]
APP = Path(dashboard.__file__).parent / "app.py"


def measure(home: Path) -> list[Line]:
    dialogues = int(os.environ.get("BENCH_DIALOGUES", DIALOGUES))
    lines = []
    chosen = os.environ.get("BENCH_DATABASES", "SQLite,PostgreSQL").split(",")
    for name, opened in (("SQLite", sqlite_log), ("PostgreSQL", postgresql_log)):
        if name in chosen:
            with opened(home, dialogues) as log:
                lines += [line_of(name, *look, log, dialogues).said() for look in looks(dialogues)]
                if name == "SQLite":
                    lines.append(memory_line(log, home, [(page, {}) for page in PAGES]).said())
    return lines


def looks(dialogues: int) -> Iterator[tuple[PageSpec, str, Query]]:
    """Every page as it opens, then with what people do there: (page, what, query)."""
    for page in (*PAGES, PEOPLE):
        yield page, "", {}
    some, version = name_of(dialogues // 2), version_of(dialogues // 2, dialogues)
    deep = str(max(1, dialogues // 100))
    yield OVERVIEW, "one domain over time", {"o_domain": "shop", "o_over": "time"}
    yield REVIEW, "the random share", {"why": "random"}
    yield REVIEW, "a kind of item in a domain", {"of_kind": "reply_mentions", "of_domain": "shop"}
    yield REVIEW, "FAIL of a version", {"verdict": "FAIL", "of_version": version}
    yield TRAJECTORIES, "one dialogue", {"trajectory": some}
    yield TRAJECTORIES, "its reward", {"trajectory": some, "show": "Reward"}
    yield TRAJECTORIES, "its tokens", {"trajectory": some, "show": "Tokens"}
    yield TRAJECTORIES, "filtered", {"origin": "evaluation", "domain": "shop", "version": version}
    yield TRAJECTORIES, "searched", {"text": "number 42"}
    yield TRAJECTORIES, "by reward", {"order": "lowest reward"}
    yield TRAJECTORIES, "a range of rewards", {"reward": ["0.25", "0.75"]}
    yield TRAJECTORIES, "failed a kind of item", {"kind": "called", "outcome": "FAIL"}
    yield TRAJECTORIES, "that called a tool", {"tool": "find_shop"}
    yield TRAJECTORIES, "far down", {"page": deep}
    yield COMPARE, "one domain", {"c_domain": "shop"}
    yield SCENARIOS_PAGE, "searched", {"named": "shop", "s_page": "2"}
    yield SCENARIOS_PAGE, "one scenario", {"opened": a_scenario(1).hash}
    yield ITEMS, "filtered", {"i_origin": "evaluation", "i_domain": "shop"}
    yield JUDGES, "people, by item kind", {"against": "people, all reviewed", "by": "item kind"}
    yield TRAINING, "older runs", {"t_page": "2"}
    yield JOBS, "failed ones", {"j_status": "failed"}
    yield JOBS, "far down", {"j_page": "3"}
    yield JOBS, "one job", {"job": "1"}
    yield JOBS, "one schedule", {"schedule": "schedule-01"}
    yield CHAT, "one chat", {"session": "chat-000001"}


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


def line_of(
    database: str, page: PageSpec, what: str, query: Query, log: Log, dialogues: int, visits: int = VISITS
) -> Line:
    os.environ["CHECKLOOP_DATABASE_URL"] = log.url
    # As dashboard/.streamlit/config.toml has it, which AppTest does not read.
    config.set_option("runner.magicEnabled", False)
    config.set_option("server.address", "127.0.0.1")
    app = AppTest.from_file(str(APP), default_timeout=120)
    if page is not PAGES[0]:
        app.run()  # registers the pages
        app.switch_page(page.target)
    app.query_params.update(query)
    COUNTS.finish()  # what the look before and the first page left to be counted
    COUNTS.forget()
    gc.collect()  # the look before leaves a whole AppTest behind, which no server has
    first = visit(app)
    seconds = []
    for n in range(visits):
        if n % 2:
            judge_one(log, n % SCENARIOS)
        seconds.append(visit(app))
    p95 = statistics.quantiles(seconds, n=20)[-1]
    title = f"{page.title}{f', {what}' if what else ''}"
    return Line(
        f"dashboard: {title}, {dialogues * 10:,} verdicts, {database}",
        f"p95 {p95:.2f} s (median {statistics.median(seconds):.2f}; figures there after {first:.2f})",
        f"{LIMIT_S} s",
        f"{p95 / LIMIT_S:.2f}",
        "≤ 1",
    )


def visit(app: AppTest) -> float:
    """Seconds until the page shows its figures. Raises RuntimeError if it shows an error, or none in a minute."""
    began = time.perf_counter()
    app.run()
    while is_counting(app):
        if time.perf_counter() - began > 60:
            raise RuntimeError("the page is still being counted after a minute")
        time.sleep(0.02)
        app.run()
    took = time.perf_counter() - began
    if app.exception or app.error:
        raise RuntimeError(f"the page failed: {[*app.exception, *app.error][0].value}")
    return took


def is_counting(app: AppTest) -> bool:
    return any(FIRST_COUNT in element.value for element in app.html)


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
