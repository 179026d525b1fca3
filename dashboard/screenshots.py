"""Pictures of every page, taken with headless Chromium: `python -m dashboard.screenshots [OUT_DIR] [DATABASE_URL]`.

Reads the given log (or the configured one) through a dashboard that it starts on a free loopback port and ends again;
writes OUT_DIR/NAME.png, with `--dark` NAME-dark.png. Needs playwright (extra "dev") and a Chromium on the path.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from agent.ports import free_port
from dashboard.boundary import connect
from dashboard.counting import FIRST_COUNT
from dashboard.links import JOBS, PAGES, PEOPLE, REVIEW, TRAJECTORIES, address
from store.browsing import page_of_trajectories
from store.settings import load_settings
from store.trajectory_filters import TrajectoryFilter

APP = Path(__file__).parent / "app.py"
READY_TIMEOUT_S = 60.0
SHOWN_TIMEOUT_MS = 60_000


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
TALLEST = 1700
"""Pixels of a picture: what a person sees at the first look and a little more."""
LARGEST = 150_000
"""Bytes of a picture: it goes into the repository."""


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
            _wait_until_ready(process, url, said)
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
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise DashboardError("no chromium on the path: install the package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def wait_until_shown(page: Page) -> None:
    """Waits until Streamlit has run the page to its end, the charts have been drawn and nothing changes any more."""
    # Before it has begun it does not run either.
    begun = '[data-testid="stMainBlockContainer"] [data-testid="stElementContainer"]'
    page.wait_for_selector(begun, state="attached", timeout=SHOWN_TIMEOUT_MS)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=SHOWN_TIMEOUT_MS)
    page.wait_for_load_state("networkidle", timeout=SHOWN_TIMEOUT_MS)
    # A page may run again at once (a link's filters, a form's first values), and its parts arrive one by one.
    page.wait_for_function(SETTLED, arg=[QUIET_MS, LIVE_MS, FIRST_COUNT], timeout=SHOWN_TIMEOUT_MS)


def take_screenshots(out_dir: Path, database_url: str = "", theme: Literal["light", "dark"] = "light") -> list[Path]:
    """One PNG a page, 1440 pixels wide and at most TALLEST high, of at most LARGEST bytes; returns the files."""
    out_dir.mkdir(parents=True, exist_ok=True)
    environment = {"CHECKLOOP_DATABASE_URL": database_url} if database_url else {}
    taken = []
    with running_dashboard(environment) as url, open_browser() as browser:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=theme)
        for name, view in _views(database_url).items():
            page = context.new_page()
            page.goto(f"{url}/{view}")
            wait_until_shown(page)
            # The page scrolls inside a container, so a full picture needs a window as tall as its content.
            height = page.evaluate(
                "Math.max(...[...document.querySelectorAll('[data-testid=stMain]')].map(e => e.scrollHeight), 900)"
            )
            page.set_viewport_size({"width": 1440, "height": min(int(height), TALLEST)})
            wait_until_shown(page)
            file = out_dir / f"{name}{'-dark' if theme == 'dark' else ''}.png"
            page.screenshot(path=file)
            make_small(file)
            taken.append(file)
            page.close()
    return taken


def make_small(file: Path) -> None:
    """Writes the picture again with as many colours as fit into LARGEST bytes: screens of text and lines have few."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    for colors in (256, 128, 64, 32, 16):
        picture.quantize(colors, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= LARGEST:
            return


def _views(database_url: str) -> dict[str, str]:
    log = connect(load_settings(None, database_url=database_url) if database_url else load_settings())
    failing = page_of_trajectories(log, TrajectoryFilter(origin="evaluation", low=0.2, high=0.8), limit=1, offset=0)
    views = {page.path: address(page) for page in PAGES}
    views["review"] = address(REVIEW, verdict="FAIL", reviewer="ada")
    if failing:
        views["trajectory"] = address(TRAJECTORIES, trajectory=failing[0].id)
    views["schedule-form"] = address(JOBS, form="schedule")
    views["people"] = address(PEOPLE)
    return views


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, said: IO[str]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said.seek(0)
            raise DashboardError(f"the dashboard ended with status {process.returncode}: {said.read().strip()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise DashboardError(f"the dashboard at {url} was not ready within {READY_TIMEOUT_S:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dashboard.screenshots", description="A picture of every page.")
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path("docs/pictures"))
    parser.add_argument("database_url", nargs="?", default="", help="default: the log of the settings")
    parser.add_argument("--dark", action="store_true", help="the dark theme")
    chosen = parser.parse_args()
    for picture in take_screenshots(chosen.out_dir, chosen.database_url, "dark" if chosen.dark else "light"):
        print(picture)
