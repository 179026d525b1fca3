"""Judged turns that a reviewer can get through in an hour, as far as the software allows: a browser that presses keys.

On the large SQLite log of the dashboard's bench (`BENCH_DIALOGUES` makes a smaller one). Somebody who reads nothing
says "the judge is right" (A) as soon as the turn is there, then skips turns (→). A person has what the software leaves
of eighteen seconds a turn (200 an hour, issue 6) to read.
"""

import os
import statistics
import time
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.dashboard import sqlite_log
from benchmarks.large_log import DIALOGUES
from benchmarks.line import Line
from dashboard.links import REVIEW, address
from dashboard.screenshots import open_browser, running_dashboard, wait_until_shown

TURNS = 40
WANTED_AN_HOUR = 200
READY = """before => location.search !== before && document.querySelector('.cl-item.cl-now') !== null
  && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"""


def measure(home: Path) -> list[Line]:
    dialogues = int(os.environ.get("BENCH_DIALOGUES", DIALOGUES))
    with sqlite_log(home, dialogues) as log:
        environment = {"CHECKLOOP_DATABASE_URL": log.url}
        with running_dashboard(environment) as url, open_browser() as browser:
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(f"{url}/{address(REVIEW, verdict='FAIL', reviewer='bench')}")
            page.wait_for_function(READY, arg="", timeout=60_000)
            wait_until_shown(page)
            agreed = [press(page, "a") for _ in range(TURNS)]
            passed = [press(page, "ArrowRight") for _ in range(TURNS // 2)]
    limit_s = 3600 / WANTED_AN_HOUR
    return [
        line_of(what, seconds, limit_s, dialogues)
        for what, seconds in (
            ("from the key that ends a turn to the next one", agreed),
            ("from a turn that is skipped to the next", passed),
        )
    ]


def line_of(what: str, seconds: list[float], limit_s: float, dialogues: int) -> Line:
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return Line(
        f"review in a browser: {what}, {dialogues * 10:,} verdicts, SQLite",
        f"p95 {p95:.2f} s (median {statistics.median(seconds):.2f})",
        f"{limit_s:.0f} s a turn ({WANTED_AN_HOUR} an hour)",
        f"{p95 / limit_s:.2f}",
        "≤ 0.1",
    ).said()


def press(page: Page, key: str) -> float:
    """Seconds until the next turn stands there and takes keys."""
    before = page.evaluate("location.search")
    began = time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_function(READY, arg=before, timeout=60_000)
    return time.perf_counter() - began
