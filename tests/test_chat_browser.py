"""Chatting in a real browser, against a scripted gateway: what a person sees happen, and what the log holds of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dashboard.chats import new_chat_id, scenario_of
from dashboard.screenshots import open_browser, running_dashboard, wait_until_shown
from env_sim.worlds import WORLDS
from store.browsing import step_figures
from store.chats import ChatSetup, create_chat, list_chats
from store.database import Log, open_log
from store.ratings import ratings_of
from store.turns import get_turns
from store.vocabulary import ChatTools, ToolSource
from tests.pages import HOSTILE
from tests.scripted_gateway import RunningGateway, Says, call

pytestmark = pytest.mark.timeout(900)
SECOND = 1000
WANTED = {"find_flight", "book_flight"}
SEED = next(n for n in range(199) if {tool.name for tool in scenario_of("travel", n).tools} >= WANTED)
PACE_S = 0.05


def _flight() -> tuple[str, str]:
    """A flight of the chat's world that has seats, and where it goes."""
    ref = scenario_of("travel", SEED).world
    assert ref is not None
    world = WORLDS["travel"](ref.seed)
    return world.free[0], world.things[world.free[0]]


FLIGHT, CITY = _flight()


def policy(body: dict[str, Any]) -> Says:
    """A travel agent of few words."""
    last = body["messages"][-1]
    content = str(last["content"])
    if last["role"] == "tool":
        told = json.loads(content) if content.startswith("{") else {}
        return Says(f"Your booking is {told['booking']}." if "booking" in told else f"Told: {content}")
    if "book" in content:
        return call("book_flight", id=FLIGHT, person="Ann Lee")
    if "flights" in content:
        return call("find_flight", query=CITY)
    return Says("word " * 120) if "slowly" in content else Says(f"You said: {content}")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    opened = open_log(f"sqlite:///{tmp_path_factory.mktemp('chat')}/log.db")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def gateway(log: Log) -> Iterator[RunningGateway]:
    with RunningGateway(log, policy, pace_s=PACE_S) as running:
        yield running


@pytest.fixture(scope="module")
def environment(log: Log, gateway: RunningGateway) -> dict[str, str]:
    return {"CHECKLOOP_DATABASE_URL": log.url, "CHECKLOOP_GATEWAY__PORT": str(gateway.port)}


@pytest.fixture(scope="module")
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    with running_dashboard(environment) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that fails the test if a page talks to a stranger, or runs what somebody wrote in a chat."""
    opened = browser.new_context(viewport={"width": 1440, "height": 1000})
    strangers: list[str] = []
    opened.on(
        "request", lambda r: strangers.append(r.url) if urlparse(r.url).hostname not in {"127.0.0.1", None} else None
    )
    opened.on("dialog", lambda dialog: strangers.append(f"dialog: {dialog.message}"))
    yield opened
    opened.close()
    assert strangers == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def travel_chat(log: Log) -> str:
    """A chat whose agent can find flights, and book them if it asks first."""
    chat_id = new_chat_id()
    create_chat(log, chat_id, ChatSetup(ChatTools.WORLD, "travel", ("book_flight",)), version=None, seed=SEED)
    return chat_id


def send(page: Page, message: str) -> None:
    box = page.get_by_test_id("stChatInputTextArea")
    expect(box).to_be_enabled(timeout=30 * SECOND)
    box.fill(message)
    box.press("Enter")


def turn_is_over(page: Page) -> None:
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0, timeout=30 * SECOND)
    wait_until_shown(page)


def opened_chat(page: Page) -> str:
    return parse_qs(urlparse(page.url).query)["session"][0]


def test_a_message_is_answered_word_by_word_and_outlives_a_reload(page: Page, dashboard: str, log: Log) -> None:
    page.goto(f"{dashboard}/chat?tools=travel")
    send(page, "hello, slowly")
    caret = page.locator(".cl-caret")  # it blinks, so being there is asked for, not being seen
    expect(caret).to_be_attached(timeout=30 * SECOND)
    reply = page.locator(".cl-turn .cl-text").first
    early = len(reply.inner_text().split())
    page.wait_for_timeout(int(20 * PACE_S * SECOND))
    later = len(reply.inner_text().split())
    assert 0 < early < later < 120  # it grows
    page.wait_for_url(re.compile("session="))
    chat_id = opened_chat(page)

    page.reload()  # in the middle of the answer, which goes on
    expect(caret).to_be_attached(timeout=15 * SECOND)
    assert len(reply.inner_text().split()) >= later
    turn_is_over(page)
    expect(page.get_by_text("word " * 119).first).to_be_visible(timeout=15 * SECOND)
    [turn] = get_turns(log, chat_id)
    assert turn.complete and turn.reply.split() == ["word"] * 120


def test_a_tool_call_is_folded_and_shows_arguments_result_and_duration(
    page: Page, dashboard: str, travel_chat: str, log: Log
) -> None:
    page.goto(f"{dashboard}/chat?session={travel_chat}")
    send(page, "Which flights are there?")
    fold = page.locator(".cl-tool")
    expect(fold.locator("summary")).to_contain_text("find_flight", timeout=30 * SECOND)
    turn_is_over(page)
    expect(fold.locator("summary")).to_contain_text(re.compile(rf"{CITY}.*\d ms"))
    expect(fold.get_by_text("Result")).to_be_hidden()
    fold.locator("summary").click()
    expect(fold.get_by_text("Result · simulated world")).to_be_visible()
    made = get_turns(log, travel_chat)[0].steps[0].calls[0]
    expect(fold.locator(".cl-mono").last).to_contain_text(json.loads(made.response or "")["id"])


def test_stopped_what_was_said_stays_and_the_turn_is_said_again(
    page: Page, dashboard: str, travel_chat: str, log: Log
) -> None:
    page.goto(f"{dashboard}/chat?session={travel_chat}")
    send(page, "talk slowly")
    expect(page.locator(".cl-caret")).to_be_attached(timeout=30 * SECOND)
    page.wait_for_timeout(int(10 * PACE_S * SECOND))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("Stopped. The turn can be said again.")).to_be_visible(timeout=10 * SECOND)
    kept = page.locator(".cl-turn .cl-text").first.inner_text().split()
    assert 3 < len(kept) < 100
    wait_until_shown(page)
    page.reload()
    expect(page.get_by_text("Stopped. The turn can be said again.")).to_be_visible(timeout=30 * SECOND)
    assert page.locator(".cl-turn .cl-text").first.inner_text().split() == kept
    page.get_by_role("button", name="Say again").click()
    expect(page.locator(".cl-caret")).to_be_attached(timeout=30 * SECOND)
    turn_is_over(page)
    [turn] = get_turns(log, travel_chat)
    assert turn.user == "talk slowly" and turn.reply.split() == ["word"] * 120


def test_a_booking_waits_for_approval_also_over_a_restart_of_the_dashboard(
    context: BrowserContext, environment: dict[str, str], travel_chat: str, log: Log
) -> None:
    with running_dashboard(environment) as first:
        page = context.new_page()
        page.goto(f"{first}/chat?session={travel_chat}")
        send(page, "book it for Ann")
        expect(page.get_by_text("Shall the agent call book_flight?")).to_be_visible(timeout=30 * SECOND)
        expect(page.get_by_test_id("stChatInputTextArea")).to_be_disabled()
        page.close()
    assert get_turns(log, travel_chat)[0].steps[0].calls[0].response is None
    with running_dashboard(environment) as second:
        page = context.new_page()
        page.goto(f"{second}/chat?session={travel_chat}")
        page.get_by_role("button", name="Approve").click(timeout=30 * SECOND)
        expect(page.get_by_text("Your booking is").first).to_be_visible(timeout=30 * SECOND)
        turn_is_over(page)
        send(page, "book another one")
        page.get_by_label("If you refuse: why").fill("one is enough")
        page.get_by_role("button", name="Refuse").click(timeout=30 * SECOND)
        expect(page.get_by_text("Told: error: the user refused this call: one is enough").first).to_be_visible(
            timeout=30 * SECOND
        )
        turn_is_over(page)
    booked, refused = (turn.steps[0].calls[0] for turn in get_turns(log, travel_chat))
    assert booked.source in (ToolSource.WORLD, ToolSource.RECORDED) and refused.source == ToolSource.PERSON


def test_the_last_message_is_edited(page: Page, dashboard: str, travel_chat: str, log: Log) -> None:
    page.goto(f"{dashboard}/chat?session={travel_chat}")
    send(page, "good mornign")
    expect(page.get_by_text("You said: good mornign")).to_be_visible(timeout=30 * SECOND)
    turn_is_over(page)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Your message").fill("good morning")
    page.get_by_role("button", name="Say this instead").click()
    expect(page.get_by_text("You said: good morning", exact=True)).to_be_visible(timeout=30 * SECOND)
    turn_is_over(page)
    expect(page.get_by_text("good mornign")).to_have_count(0)
    expect(page.get_by_text("said anew")).to_be_visible()
    assert step_figures(log, travel_chat)[0, 0].fork


def test_thumbs_and_a_comment_stand_beside_the_verdicts(page: Page, dashboard: str, travel_chat: str, log: Log) -> None:
    page.goto(f"{dashboard}/chat?session={travel_chat}")
    for number in range(4):
        send(page, f"message {number}")
        expect(page.get_by_text(f"You said: message {number}")).to_be_visible(timeout=30 * SECOND)
        turn_is_over(page)
    page.get_by_test_id("stFeedback").last.get_by_role("radio").last.click()
    page.get_by_role("button", name="Comment").click()
    page.get_by_label("What was good or bad about it").fill(HOSTILE)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".cl-quote")).to_contain_text(HOSTILE, timeout=15 * SECOND)
    rating = ratings_of(log, [travel_chat])[travel_chat, 3]
    assert rating.comment == HOSTILE and rating.value in (-1, 1)

    page.get_by_role("link", name="Verdicts", exact=True).last.click()
    heading = page.get_by_role("heading", name="Turn 4")
    expect(heading).to_be_in_viewport(timeout=30 * SECOND)  # at that turn, not at the first
    expect(page.get_by_text("thumbs")).to_be_visible()
    expect(page.locator(".cl-quote")).to_contain_text(HOSTILE)


def test_chats_are_listed_renamed_resumed_and_deleted(page: Page, dashboard: str, travel_chat: str, log: Log) -> None:
    page.goto(f"{dashboard}/chat?session={travel_chat}")
    send(page, "remember me")
    expect(page.get_by_text("You said: remember me")).to_be_visible(timeout=30 * SECOND)
    turn_is_over(page)
    menu = (
        page.locator(".st-key-chat-head").get_by_test_id("stPopoverButton").first
    )  # Streamlit keeps a hidden one to measure
    menu.click()
    page.get_by_label("Name").fill("Porto in May")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator(".cl-title", has_text="Porto in May")).to_be_visible(timeout=15 * SECOND)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_text("What answers the agent's tools")).to_be_visible(timeout=15 * SECOND)
    page.get_by_role("link", name="Porto in May").click()
    expect(page.get_by_text("You said: remember me")).to_be_visible(timeout=30 * SECOND)
    wait_until_shown(page)
    menu.click()
    page.get_by_text("Delete this chat with its log").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The chat and its log are deleted.")).to_be_visible(timeout=15 * SECOND)
    expect(page.get_by_role("link", name="Porto in May")).to_have_count(0)
    assert travel_chat not in {chat.id for chat in list_chats(log, limit=100)}


def test_hostile_text_of_people_models_and_tools_does_nothing(
    page: Page, dashboard: str, travel_chat: str, tmp_path: Path
) -> None:
    page.goto(f"{dashboard}/chat?session={travel_chat}")
    send(page, HOSTILE)
    expect(page.get_by_text(f"You said: {HOSTILE}")).to_be_visible(timeout=30 * SECOND)
    turn_is_over(page)
    assert page.locator(".cl img, .cl script, .cl a[href*='evil']").count() == 0
