"""One run in a real browser: what a person sees and does, and what their browser is made to do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from agent.ports import free_port
from dashboard.screenshots import (
    MAIN,
    TALLEST,
    DashboardError,
    check_shown,
    open_browser,
    open_view,
    running_dashboard,
    wait_until_shown,
)
from store.database import open_log
from store.jobs import list_jobs
from store.review_claims import place_of
from store.review_queues import QueueFilter
from store.scenarios import add_scenarios, get_scenario
from store.trajectories import get_trajectory, list_trajectories
from store.turns import get_turns
from store.verdicts import verdicts_of
from store.versions import live_version
from store.vocabulary import Outcome
from tests.pages import HOSTILE, WORSE, hostile_trajectory
from tests.sample_log import build_sample_log
from tests.scripted_gateway import RunningGateway, Says
from tests.test_hostile import poison

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('browser')}/log.db"
    log = build_sample_log(url)
    hostile_trajectory(log)
    hostile_trajectory(log, "worse", text=WORSE)
    log.close()
    return url


@pytest.fixture(scope="module")
def dashboard(database_url: str) -> Iterator[str]:
    environment = {"CHECKLOOP_DATABASE_URL": database_url, "CHECKLOOP_GATEWAY__PORT": str(free_port())}
    with running_dashboard(environment) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window that fails the test if the page talks to anyone but the dashboard, or runs what a model wrote."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    opened = context.new_page()
    strangers: list[str] = []
    opened.on(
        "request", lambda r: strangers.append(r.url) if urlparse(r.url).hostname not in {"127.0.0.1", None} else 0
    )
    opened.on("dialog", lambda dialog: strangers.append(f"dialog: {dialog.message}"))
    yield opened
    context.close()
    assert strangers == []


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.url).query)


def click_first_row(page: Page, x: int, opens: Locator) -> None:
    """Rows are drawn on a canvas, and nothing says that it is no more drawn anew: a click before that is lost."""
    for last in (False, False, True):
        wait_until_shown(page)
        page.wait_for_timeout(700)
        page.get_by_test_id("stDataFrame").click(position={"x": x, "y": 55})
        try:
            expect(opens).to_be_visible(timeout=15_000)
        except AssertionError:
            if last:
                raise
        else:
            break


def test_a_person_looks_around(page: Page, dashboard: str, database_url: str) -> None:
    log = open_log(database_url)
    page.goto(dashboard)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Held-out checklist reward")).to_be_visible(timeout=40_000)
    expect(page.locator(".cl-badge", has_text="live").first).to_be_visible(timeout=40_000)
    expect(page.locator("canvas, svg.marks").first).to_be_visible(timeout=40_000)

    wait_until_shown(page)
    page.get_by_role("link", name="Trajectories").click()
    expect(page.get_by_text("found, newest first")).to_be_visible(timeout=40_000)
    page.get_by_role("combobox", name="Batch").click()
    page.get_by_role("option", name="demo/after").click()
    after = list_trajectories(log, batch="demo/after")
    expect(page.get_by_text(f"{len(after)} found")).to_be_visible(timeout=40_000)
    assert query(page)["batch"] == ["demo/after"]

    click_first_row(page, x=300, opens=page.get_by_role("heading", name="Turn 1"))
    opened = query(page)["trajectory"][0]
    assert opened in {summary.id for summary in after}
    assert query(page)["batch"] == ["demo/after"]
    turn = get_turns(log, opened)[0]
    expect(page.get_by_text(turn.user)).to_be_visible(timeout=40_000)
    expect(page.get_by_text(turn.steps[0].thinking).first).to_be_hidden()
    page.locator(".cl summary:visible").first.click()
    expect(page.get_by_text(turn.steps[0].thinking).first).to_be_visible(timeout=40_000)
    page.get_by_role("button", name="Next").click()
    page.wait_for_url(lambda url: opened not in url)

    link = f"{dashboard}/trajectories?trajectory={opened}"
    page.goto(link)
    expect(page.get_by_text(turn.user)).to_be_visible(timeout=40_000)
    outcomes = [verdict.outcome for verdict in verdicts_of(log, [opened])[opened]]
    expect(page.locator(".cl-item .cl-badge", has_text="PASS")).to_have_count(outcomes.count(Outcome.PASS))
    log.close()


def test_an_item_leads_to_the_dialogues_that_fail_it(page: Page, dashboard: str) -> None:
    page.goto(f"{dashboard}/items")
    expect(page.get_by_role("heading", name="By question")).to_be_visible(timeout=30_000)
    click_first_row(page, x=480, opens=page.get_by_text("with verdict FAIL"))
    assert query(page)["outcome"] == ["FAIL"]


def test_hostile_text_does_nothing(page: Page, dashboard: str) -> None:
    page.goto(f"{dashboard}/trajectories?trajectory=hostile")
    expect(page.get_by_role("heading", name="Turn 1")).to_be_visible(timeout=30_000)
    expect(page.get_by_text(HOSTILE).first).to_be_visible(timeout=40_000)
    assert page.locator(".cl img, .cl script").count() == 0
    for address in (
        "trajectories?trajectory=worse",
        "review?turn=worse:0",
        "chat?session=worse",
        "",
        "items",
        "judges",
    ):
        open_view(page, dashboard, address)
        assert page.locator(".cl img, .cl script, .cl svg, .cl iframe, .katex").count() == 0
        width = page.locator(MAIN).first.evaluate("main => main.scrollWidth")
        assert width <= 1440, f"{address} is {width} pixels wide"
    open_view(page, dashboard, "chat?session=hostile")
    expect(page.get_by_text("checkloop up", exact=True)).to_be_visible(timeout=30_000)
    expect(page.get_by_text(HOSTILE).first).to_be_visible(timeout=40_000)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("combobox", name="Domain of the simulated tools")).to_be_visible(timeout=40_000)
    page.wait_for_url(lambda url: "session" not in url)


def test_hostile_text_does_nothing_on_the_other_pages(page: Page, tmp_path: Path) -> None:
    """Comparing, a checklist with its graph and its editor, runs, jobs, people: with all that `poison` writes."""
    url = f"sqlite:///{tmp_path}/log.db"
    log = build_sample_log(url)
    job = poison(log)
    played = get_scenario(log, get_trajectory(log, "hostile").scenario_hash or "")
    first, second, *_ = played.turns[0].checklist
    chained = (
        first.model_copy(update={"id": WORSE[:120], "depends_on": (), "weight": 0.5}),
        second.model_copy(update={"id": f"2 {HOSTILE[:110]}", "depends_on": (WORSE[:120],), "weight": 0.5}),
    )
    graph = played.model_copy(update={"turns": (played.turns[0].model_copy(update={"checklist": chained}),)})
    add_scenarios(log, [graph])
    log.close()
    environment = {"CHECKLOOP_DATABASE_URL": url, "CHECKLOOP_GATEWAY__PORT": str(free_port())}
    with running_dashboard(environment) as dashboard:
        for address, sign in (
            ("compare", "Scenarios, regressions first"),
            (f"compare?scenario={played.hash}", "Turn 1"),
            ("scenarios", "found, by name"),
            (f"scenarios?opened={played.hash}&edit=true", "Add an item"),
            (f"scenarios?opened={graph.hash}", "Checklist ·"),
            (
                "training?run_b=hostile+%3Cb%3Erun%3C%2Fb%3E+%21%5Bi%5D%28http%3A%2F%2Fevil.test%2Fi%29",
                "Gate decisions",
            ),
            ("jobs", "newest first"),
            (f"jobs?job={job}", "onerror"),
            ("people", "evil.test"),
        ):
            open_view(page, dashboard, address)
            expect(page.get_by_text(sign).first).to_be_visible(timeout=40_000)
            assert page.locator(".cl img, .cl script, .cl svg, .cl iframe, .katex").count() == 0, address
            drawn = "[data-testid=stGraphVizChart]"
            assert page.locator(f"{drawn} :is(script, image, img, a, iframe, foreignObject)").count() == 0, address
            assert page.locator(drawn).count() == (graph.hash in address), address
            width = page.locator(MAIN).first.evaluate("main => main.scrollWidth")
            assert width <= 1440, f"{address} is {width} pixels wide"


def test_training_and_chat_open_by_their_links(page: Page, dashboard: str) -> None:
    page.goto(f"{dashboard}/training")
    expect(page.get_by_role("heading", name="Gate decisions")).to_be_visible(timeout=30_000)
    wait_until_shown(page)
    assert page.get_by_test_id("stVegaLiteChart").count() == 7
    chosen = query(page)
    assert {"runs", "run_a", "run_b", "version"} <= chosen.keys()
    # Back to where nothing was chosen yet: as at first, not the boxes empty.
    open_view(page, dashboard, "items")
    open_view(page, dashboard, "training")
    wait_until_shown(page)
    assert page.get_by_test_id("stVegaLiteChart").count() == 7
    assert query(page) == chosen
    open_view(page, dashboard, "chat")
    expect(page.get_by_text("The gateway is not running")).to_be_visible(timeout=30_000)


def test_a_review_session_with_keys(page: Page, dashboard: str, database_url: str) -> None:
    """From filter to undo without the mouse, except for the filter and the field."""
    log = open_log(database_url)
    page.goto(f"{dashboard}/review?reviewer=ada")
    expect(page.get_by_role("button", name="Agree")).to_be_visible(timeout=30_000)
    page.get_by_role("combobox", name="Judge's verdict").click()
    page.get_by_role("option", name="FAIL").click()
    page.wait_for_url(lambda url: "verdict=FAIL" in url)
    wait_until_shown(page)
    page.wait_for_timeout(500)  # the turn of the old queue leaves the address, that of the new one comes
    page.wait_for_url(lambda url: "turn=" in url)
    page.get_by_role("heading", name="Review").click()  # out of the filter: keys are for the page now
    (first,) = query(page)["turn"]
    name, index = first.rsplit(":", 1)

    def said() -> list[tuple[str, str, str]]:
        of_turn = [v for v in verdicts_of(log, [name])[name] if v.turn_index == int(index)]
        return sorted((v.item_key, v.outcome.value, v.reason) for v in of_turn if v.judge == "ada")

    items = page.locator(".cl-item").count()
    assert items > 2
    expect(page.locator(".cl-item.cl-now")).to_have_count(1)
    expect(page.locator(".cl-focus").first).to_be_visible(timeout=40_000)

    page.get_by_placeholder("Reason").click()
    page.keyboard.type("up to a fault")  # u, p, a, f are letters here
    for _ in range(150):
        place = place_of(log, "ada", QueueFilter(outcome=Outcome.FAIL).name)
        if place is not None and place.draft == "up to a fault":
            break
        page.wait_for_timeout(100)
    assert place is not None and place.draft == "up to a fault", "kept while it is typed; the field was not left"
    page.keyboard.press("Tab")
    page.wait_for_timeout(300)
    assert said() == []
    page.keyboard.press("p")
    expect(page.get_by_text("✓").filter(has_text=": PASS")).to_be_visible(timeout=40_000)
    assert [verdict[1:] for verdict in said()] == [("PASS", "up to a fault")]
    page.keyboard.press("f")
    expect(page.get_by_text("✓").filter(has_text=": FAIL")).to_be_visible(timeout=40_000)
    assert len(said()) == 2
    page.keyboard.press("a")
    page.wait_for_url(lambda url: first.replace(":", "%3A") not in url)
    assert len(said()) == items
    expect(page.get_by_text("1 turn today")).to_be_visible(timeout=40_000)

    page.keyboard.press("u")  # all that "a" said
    page.wait_for_url(lambda url: first.replace(":", "%3A") in url)
    assert len(said()) == 2
    page.reload()
    expect(page.get_by_role("button", name="Agree")).to_be_visible(timeout=30_000)
    assert query(page)["turn"] == [first] and query(page)["verdict"] == ["FAIL"]
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: first.replace(":", "%3A") not in url)
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(lambda url: first.replace(":", "%3A") in url)
    for left in (1, 0):
        page.keyboard.press("u")
        for _ in range(150):
            if len(said()) == left:
                break
            page.wait_for_timeout(100)
        assert len(said()) == left
        wait_until_shown(page)
    expect(page.get_by_text("0 turns today")).to_be_visible(timeout=40_000)
    log.close()


def test_two_browsers_of_one_name_review_different_turns(browser: Browser, dashboard: str) -> None:
    def open_review(of: Browser) -> Page:
        page = of.new_context().new_page()
        page.goto(f"{dashboard}/review?reviewer=eve&verdict=FAIL")
        page.wait_for_url(lambda url: "turn=" in url, timeout=40_000)
        return page

    first, second = open_review(browser), open_review(browser)
    turns = [query(page)["turn"] for page in (first, second)]
    assert turns[0] != turns[1]
    expect(second.get_by_text("Somebody reviews as eve in another browser, too")).to_be_visible(timeout=40_000)
    first.goto(f"{dashboard}/review?reviewer=eve&verdict=FAIL")
    first.wait_for_url(lambda url: "turn=" in url, timeout=40_000)
    assert query(first)["turn"] == turns[0], "a reload is the same browser"
    for page in (first, second):
        page.context.close()


@pytest.mark.parametrize("view", ["", "training"])
def test_charts_show_their_points(page: Page, dashboard: str, view: str) -> None:
    """A specification that is sound may still be drawn before its rows come: axes without a point, or "undefined"."""
    page.goto(f"{dashboard}/{view}")
    wait_until_shown(page)
    charts = page.get_by_test_id("stVegaLiteChart")
    expect(charts.first).to_be_visible(timeout=40_000)
    for chart in charts.all():
        expect(chart.locator(".mark-symbol path").first).to_be_attached(timeout=20_000)
        expect(chart.get_by_text("undefined")).to_have_count(0)


def test_pictures_of_every_page(database_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dashboard.screenshots", str(tmp_path / "pictures"), database_url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    taken = [Path(line) for line in printed.splitlines()]
    assert {file.stem for file in taken} >= {
        "overview",
        "review",
        "trajectories",
        "trajectory",
        "items",
        "compare",
        "scenarios",
        "judges",
        "training",
        "jobs",
        "chat",
        "people",
    }
    heights = {file.stem: Image.open(file).height for file in taken}
    assert 1700 < heights["overview"] <= TALLEST and 1700 < heights["training"] < TALLEST, "whole pages"
    sizes = {file.stem: file.stat().st_size for file in taken}
    small = {name: size for name, size in sizes.items() if size < (18_000 if name == "people" else 20_000)}
    assert small == {}, "a page that shows nothing is smaller"


def test_no_picture_is_made_of_a_page_that_shows_nothing_or_broke_off(page: Page) -> None:
    main = '<section data-testid="stMain">{}</section>'
    page.set_content(main.format("<h1>People</h1>"))
    check_shown(page, "people")
    page.set_content(main.format("<p>Loading</p>"))
    with pytest.raises(DashboardError, match="/people shows no page"):
        check_shown(page, "people")
    for kind in ("stException", "stAlertContentError"):
        page.set_content(main.format(f'<h1>People</h1><div data-testid="{kind}">KeyError: ada</div>'))
        with pytest.raises(DashboardError, match="/people broke off: KeyError: ada"):
            check_shown(page, "people")


def test_a_schedule_is_made_in_the_form_and_its_job_runs(page: Page, database_url: str, tmp_path: Path) -> None:
    """From the empty form to the log of a job that a real worker did."""
    log = open_log(database_url)
    environment = {
        "CHECKLOOP_DATABASE_URL": database_url,
        "CHECKLOOP_HOME": str(tmp_path),
        "CHECKLOOP_GATEWAY__PORT": str(free_port()),
    }
    with running_dashboard(environment) as url:
        page.goto(f"{url}/jobs")
        page.get_by_role("button", name="New schedule").click(timeout=30_000)
        name = page.get_by_role("textbox", name="Name")
        name.fill("tidy")
        name.press("Tab")
        cron = page.get_by_role("textbox", name="Cron expression")
        cron.fill("61 * * * *")
        expect(page.get_by_text("is no cron expression")).to_be_visible(timeout=30_000)
        cron.fill("15 4 * * *")
        expect(page.get_by_text("04:15")).to_have_count(5, timeout=30_000)
        jobs = page.get_by_role("textbox", name="Jobs, in order")
        jobs.fill("prune keep=3")
        jobs.press("Tab")
        page.get_by_role("button", name="Create schedule").click(timeout=30_000)
        page.wait_for_url(lambda address: "schedule=tidy" in address, timeout=30_000)
        page.get_by_role("button", name="Run now").click(timeout=30_000)
        page.get_by_text("waits for a worker").wait_for(timeout=30_000)
        page.goto(page.url)
        page.get_by_text("waits for a worker").wait_for(timeout=30_000)
        worker = [sys.executable, "-m", "checkloop", "worker", "--once", "--kinds", "prune"]
        subprocess.run(worker, check=True, env=os.environ | environment, timeout=600, capture_output=True)
        expect(page.locator(".cl-badge", has_text="done")).to_be_visible(timeout=30_000)
        (job,) = list_jobs(log, schedule="tidy")
        page.get_by_role("link", name=f"job {job.id}").click()
        expect(page.get_by_text("0 versions, 0 MiB").first).to_be_visible(timeout=30_000)
    log.close()


def test_a_version_is_promoted_and_rolled_back(page: Page, database_url: str) -> None:
    log = open_log(database_url)
    gateway = RunningGateway(log, lambda body: Says("hello"))
    environment = {"CHECKLOOP_DATABASE_URL": database_url, "CHECKLOOP_GATEWAY__PORT": str(gateway.port)}
    with gateway, running_dashboard(environment) as url:
        page.goto(f"{url}/training?version=v0002")
        page.get_by_role("button", name="Promote …").click(timeout=60_000)
        page.get_by_role("button", name="Promote v0002").click(timeout=30_000)
        expect(page.get_by_text("v0002 is live after")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Roll back to v0003 …").click(timeout=30_000)
        page.get_by_role("button", name="Roll back to v0003", exact=True).click(timeout=30_000)
        expect(page.get_by_text("v0003 is live after")).to_be_visible(timeout=60_000)
        live = live_version(log)
        assert live is not None and live.name == "v0003"
    log.close()


def test_a_regression_is_looked_at_side_by_side(page: Page, dashboard: str) -> None:
    page.goto(f"{dashboard}/compare")
    expect(page.get_by_role("heading", name="Scenarios, regressions first")).to_be_visible(timeout=60_000)
    page.locator("table a").first.click()
    expect(page.get_by_role("heading", name="Turn 1")).to_be_visible(timeout=30_000)
    assert query(page)["scenario"]
    expect(page.locator(".cl-differs").first).to_be_visible(timeout=30_000)
