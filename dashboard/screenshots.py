"""Pictures of every page, taken with headless Chromium: `python -m dashboard.screenshots [OUT_DIR] [DATABASE_URL]`.

Of each page the view that shows most: a turn whose verdict quotes it, a scenario opened, a dialogue. What the log does
not hold is said, and has no picture.

Reads the given log (or the configured one) through a dashboard that it starts on a free loopback port and ends again;
writes OUT_DIR/NAME.png, with `--dark` NAME-dark.png. Needs playwright (extra "dev") and a Chromium on the path.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from agent.ports import free_port
from agent.startup import NotUp, wait_until_up
from dashboard.boundary import connect
from dashboard.counting import FIRST_COUNT
from dashboard.links import CHAT, JOBS, PAGES, PEOPLE, REVIEW, SCENARIOS, TRAJECTORIES, address
from reward.people import quote_occurs
from reward.review import read_turn
from store.agreement import judges_of
from store.browsing import page_of_trajectories
from store.chats import list_chats
from store.database import Log
from store.review_queues import QueueFilter, Turn, list_open
from store.scenario_browsing import ScenarioFilter, page_of_scenarios
from store.schema import now
from store.settings import load_settings
from store.trajectory_filters import TrajectoryFilter
from store.vocabulary import Outcome

APP = Path(__file__).parent / "app.py"
READY_TIMEOUT_S = 60.0
SHOWN_TIMEOUT_MS = 60_000
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Programs, the first that is there is taken. The shell draws the same pages without a window's own menus and bars,
which are pages, too: a whole Chromium computes six times as long for an empty page."""


QUIET_MS, LIVE_MS = 700, 10_000
"""A page on which nothing has changed for so long, and no script runs, has settled; one that follows something live may
never do so, and is taken after a while, but never amid a run of its script or before its figures are there."""
SETTLED = """([quiet, live, counting]) => new Promise(resolve => {
  const app = document.querySelector('[data-testid=stApp]')
  const unfinished = () => app.dataset.testScriptState !== 'notRunning' || app.innerText.includes(counting)
    || app.querySelector('[data-testid=stSkeleton]') !== null
  const finish = () => { observer.disconnect(); clearTimeout(timer); resolve(true) }
  const settled = () => unfinished() ? wait() : finish()
  const overdue = () => unfinished() ? setTimeout(overdue, 50) : finish()
  let timer = setTimeout(settled, quiet)
  const wait = () => { clearTimeout(timer); timer = setTimeout(settled, quiet) }
  const observer = new MutationObserver(wait)
  setTimeout(overdue, live)
  // Attributes change with every poll of something live, which shows nothing new.
  observer.observe(app, {subtree: true, childList: true, characterData: true})
})"""
FOLLOWED = """view => {
  history.pushState({}, '', view)
  dispatchEvent(new PopStateEvent('popstate'))
  const app = document.querySelector('[data-testid=stApp]'), last = performance.now() + 2000
  return new Promise(resolve => {
    const begun = () => app.dataset.testScriptState !== 'notRunning' || performance.now() > last
    const look = () => begun() ? resolve(true) : requestAnimationFrame(look)
    look()
  })
}"""
"""Goes on when the page's script was asked for, since what stands there until then is the page before."""
TALLEST = 4000
"""Pixels of a picture: a page to its end, but no list without one."""
LARGEST = 250_000
"""Bytes of a picture: it goes into the repository."""


MAIN = "[data-testid=stMain], [data-testid=stAppScrollToBottomContainer]"
"""The page beside the sidebar; with a chat's input it is another one."""
BROKEN = ", ".join(f':is({MAIN}) [data-testid="{name}"]' for name in ("stException", "stAlertContentError"))
"""What stands on a page in the place of something that could not be shown."""
REVIEWER = "ada"
LOOKED_AT = 100
"""Turns and scenarios of the log among which the one for a picture is looked for."""


class DashboardError(RuntimeError):
    """The dashboard did not come up, or there is no browser to look at it with."""


@contextmanager
def running_dashboard(environment: dict[str, str]) -> Iterator[str]:
    """The address of a dashboard started with these environment variables; ended when the block ends."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(APP),
        "--server.port",
        str(port),
        "--server.headless",
        "true",
    ]
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would block the server when it is full
        process = subprocess.Popen(command, env=os.environ | environment, stdout=said, stderr=said)
        try:
            url = f"http://127.0.0.1:{port}"
            try:
                wait_until_up(process, f"{url}/_stcore/health", READY_TIMEOUT_S)
            except NotUp as error:
                said.seek(0)
                raise DashboardError(f"the dashboard {error}: {said.read().strip()[-2000:]}") from error
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Headless Chromium of this system. Raises DashboardError if there is none."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        raise DashboardError("no chromium on the path: install the package `chromium-headless-shell` or `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def open_view(page: Page, url: str, view: str) -> None:
    """`view` of the dashboard at `url`, shown whole; by a link inside of it where the dashboard is open already, since
    to load it anew is five seconds of JavaScript."""
    if page.url.startswith(f"{url}/"):
        page.evaluate(FOLLOWED, f"/{view}")
    else:
        page.goto(f"{url}/{view}")
    wait_until_shown(page)


def wait_until_shown(page: Page) -> None:
    """Waits until Streamlit has run the page to its end, the charts have been drawn and nothing changes any more."""
    # Before it has begun it does not run either.
    begun = '[data-testid="stMainBlockContainer"] [data-testid="stElementContainer"]'
    page.wait_for_selector(begun, state="attached", timeout=SHOWN_TIMEOUT_MS)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=SHOWN_TIMEOUT_MS)
    page.wait_for_load_state("networkidle", timeout=SHOWN_TIMEOUT_MS)
    # A page may run again at once (a link's filters, a form's first values), and its parts arrive one by one.
    page.wait_for_function(SETTLED, arg=[QUIET_MS, LIVE_MS, FIRST_COUNT], timeout=SHOWN_TIMEOUT_MS)


def take_screenshots(
    out_dir: Path, views: Mapping[str, str], database_url: str = "", theme: Literal["light", "dark"] = "light"
) -> Iterator[Path]:
    """One PNG a view, 1440 pixels wide, as tall as the page but at most TALLEST, of at most LARGEST bytes. Raises
    DashboardError where there is nothing to take one of."""
    out_dir.mkdir(parents=True, exist_ok=True)
    environment = {"CHECKLOOP_DATABASE_URL": database_url} if database_url else {}
    with running_dashboard(environment) as url, open_browser() as browser:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=theme)
        page = context.new_page()
        for name, view in views.items():
            page.set_viewport_size({"width": 1440, "height": 900})
            open_view(page, url, view)
            # The page scrolls inside a container, so a full picture needs a window as tall as its content.
            height = page.evaluate(
                f"Math.max(...[...document.querySelectorAll('{MAIN}')].map(e => e.scrollHeight), 900)"
            )
            page.set_viewport_size({"width": 1440, "height": min(int(height), TALLEST)})
            wait_until_shown(page)
            file = out_dir / f"{name}{'-dark' if theme == 'dark' else ''}.png"
            check_shown(page, view)
            page.screenshot(path=file)
            make_small(file)
            yield file


def check_shown(page: Page, view: str) -> None:
    """Raises DashboardError where the page has no title, or its script broke off: no picture is made of that."""
    if (broken := page.locator(BROKEN)).count():
        raise DashboardError(f"/{view} broke off: {broken.first.inner_text()[:500]}")
    if not page.locator(f":is({MAIN}) h1").count():
        raise DashboardError(f"/{view} shows no page: nothing on it has a title")


def make_small(file: Path) -> None:
    """Writes the picture again with as many colours as fit into LARGEST bytes: screens of text and lines have few."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    for colors in (256, 128, 64, 32, 16):
        picture.quantize(colors, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= LARGEST:
            return


def choose_views(log: Log) -> tuple[dict[str, str], dict[str, str]]:
    """The address of each picture, and of those that this log cannot fill why not."""
    views = {page.path: address(page) for page in PAGES}
    views["schedule-form"] = address(JOBS, form="schedule")
    views["people"] = address(PEOPLE)
    missing = {}
    if (seen := quoted_turn(log)) is not None:
        (trajectory, index), item = seen
        views["review"] = address(REVIEW, verdict="FAIL", reviewer=REVIEWER, turn=f"{trajectory}:{index}", focus=item)
    else:
        missing["review"] = "no open turn of it has a FAIL with a quote: `checkloop judge` judges what is logged"
    scenarios = page_of_scenarios(log, ScenarioFilter(), limit=LOOKED_AT, offset=0)
    if any(one.items for one in scenarios):
        views["scenarios"] = address(SCENARIOS, opened=max(scenarios, key=lambda one: one.items).hash)
    else:
        missing["scenarios"] = "no scenario of it has a checklist: `checkloop annotate` writes some"
    if failing := page_of_trajectories(
        log, TrajectoryFilter(origin="evaluation", low=0.2, high=0.8), limit=1, offset=0
    ):
        views["trajectory"] = address(TRAJECTORIES, trajectory=failing[0].id)
    else:
        missing["trajectory"] = "no evaluation of it got a reward between 0.2 and 0.8"
    if chats := list_chats(log, limit=1):
        views["chat"] = address(CHAT, session=chats[0].id)
    if not judges_of(log):
        missing["judges"] = "no LLM judge has spoken: `checkloop judge --calibrate --limit 60` lets one"
    return {name: view for name, view in views.items() if name not in missing}, missing


def quoted_turn(log: Log) -> tuple[Turn, str] | None:
    """An open turn with an item that a judge failed, and with a quote that stands in the turn."""
    wanted = QueueFilter(outcome=Outcome.FAIL)
    for turn, _ in list_open(log, wanted, person=REVIEWER, at=now(), limit=LOOKED_AT):
        shown = read_turn(log, turn)
        for one in shown.open_items(wanted) if shown is not None else ():
            if one.judged and one.judged.quote.strip() and shown and quote_occurs(one.judged.quote, shown.turn.steps):
                return turn, one.item.id
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dashboard.screenshots", description="A picture of every page.")
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path("docs/pictures"))
    parser.add_argument("database_url", nargs="?", default="", help="default: the log of the settings")
    parser.add_argument("--dark", action="store_true", help="the dark theme")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these pictures alone")
    chosen = parser.parse_args()
    url = chosen.database_url
    found, left_out = choose_views(connect(load_settings(None, database_url=url) if url else load_settings()))
    for name in chosen.only or ():
        if name not in found | left_out:
            parser.error(f"there is no picture {name!r}, only {', '.join(sorted(found | left_out))}")
    for name, why in left_out.items():
        if name in (chosen.only or left_out):
            print(f"no picture {name}: {why}", file=sys.stderr)
    wanted = {name: view for name, view in found.items() if name in (chosen.only or found)}
    for picture in take_screenshots(chosen.out_dir, wanted, url, "dark" if chosen.dark else "light"):
        print(picture)
