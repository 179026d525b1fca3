"""The chat page as a person meets it, without a browser; tests/test_chat_browser.py has one."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

from agent.ports import free_port
from dashboard.chat_turns import took
from dashboard.chats import new_chat_id, scenario_of, setup_of, stored_setup
from dashboard.links import CHAT
from dashboard.live_chats import TurnState, live_chats
from env_sim.worlds import WORLDS
from env_sim.worlds.consequential import CONSEQUENTIAL
from store.browsing import step_figures
from store.chats import CHECKPOINT_TABLES, ChatSetup, create_chat, list_chats
from store.database import Log
from store.ratings import ratings_of
from store.records import Scenario
from store.runs import add_run_trajectories, start_run
from store.trajectories import NewTrajectory, create_trajectories, get_trajectory, list_trajectories, record_step
from store.turns import get_turns
from store.vocabulary import ChatTools, Origin, RunKind, ToolSource
from tests.pages import HOSTILE, html, open_page, shown
from tests.sample_log import CHAT_ID
from tests.scripted_gateway import Policy, Refuses, RunningGateway, Says, call
from tests.store_examples import a_step


@pytest.fixture
def serve(empty: Log, monkeypatch: pytest.MonkeyPatch) -> Any:
    """serve(policy): a running gateway that the page's settings point at."""
    started: list[RunningGateway] = []

    def start(policy: Policy, **options: float) -> RunningGateway:
        gateway = RunningGateway(empty, policy, **options)
        monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(gateway.port))
        started.append(gateway.__enter__())
        return gateway

    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))
    yield start
    for gateway in started:
        gateway.__exit__()


Serve = Callable[..., RunningGateway]


def say(app: AppTest, message: str) -> AppTest:
    app.chat_input(key="say").set_value(message).run()
    assert not app.exception
    return app


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click().run()
    assert not app.exception
    return app


def asks_a_tool_then_replies(body: dict[str, Any]) -> Says:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return Says(f"The tool says {last['content'][:20]}")
    return call(harmless_tool(body), nonsense=1)


def harmless_tool(body: dict[str, Any]) -> str:
    """The first tool that is not asked about."""
    names = [str(tool["function"]["name"]) for tool in body["tools"]]
    return next(name for name in names if name not in CONSEQUENTIAL)


def books_a_flight(body: dict[str, Any]) -> Says:
    last = body["messages"][-1]
    return Says(f"Told: {last['content']}") if last["role"] == "tool" else call("book_flight", id="F31", person="A")


def book_chat(log: Log) -> str:
    """A chat in the travel world whose tools include book_flight, which asks first."""
    seed = next(n for n in range(99) if "book_flight" in {tool.name for tool in scenario_of("travel", n).tools})
    chat_id = new_chat_id()
    create_chat(log, chat_id, ChatSetup(ChatTools.WORLD, "travel", ("book_flight",)), version=None, seed=seed)
    return chat_id


def test_a_chat_is_answered_shown_and_logged_and_goes_on_after_a_reload(empty: Log, serve: Serve) -> None:
    gateway = serve(asks_a_tool_then_replies)
    app = say(open_page(CHAT, tools="travel"), "Which trains run to Porto?")
    assert not app.error
    session = app.query_params["session"]
    said = html(app)
    tool = harmless_tool(gateway.scripted.requests[0])
    assert "Which trains run to Porto?" in said and tool in said and "The tool says" in said
    turn = get_turns(empty, session)[0]
    made = turn.steps[0].calls[0]
    assert made.source == ToolSource.VALIDATION  # nonsense is no argument of any tool
    assert took(made.latency_ms or 0) in said and "refused: arguments" in said and "nonsense" in said
    assert turn.reply in said.replace("&quot;", '"')
    system = gateway.scripted.requests[0]["messages"][0]

    again = say(open_page(CHAT, session=session), "And back?")
    assert [turn.user for turn in get_turns(empty, session)] == ["Which trains run to Porto?", "And back?"]
    later = gateway.scripted.requests[-1]["messages"]
    assert later[0] == system and "And back?" in [message["content"] for message in later]
    assert "And back?" in html(again)
    summary = list_trajectories(empty, origin=Origin.CHAT)[0]
    asked_first = tuple(t.name for t in scenario_of("travel", summary.seed or 0).tools if t.name in CONSEQUENTIAL)
    assert summary.id == session and setup_of(summary) == ChatSetup(ChatTools.WORLD, "travel", asked_first)


def test_a_gateway_that_fails_is_a_message_and_the_turn_can_be_said_again(empty: Log, serve: Serve) -> None:
    broken = [True]
    serve(lambda body: Refuses(503) if broken else Says("Here I am."))
    app = say(open_page(CHAT, tools="shop"), "Hello")
    assert "could not be finished" in app.error[0].value and "503" in app.code[0].value
    assert "Hello" in html(app) and "Traceback" not in shown(app)
    broken.clear()
    press(app, "again")
    assert not app.error and "Here I am." in html(app)
    assert [turn.user for turn in get_turns(empty, app.query_params["session"])] == ["Hello"]


def test_a_suggestion_can_be_asked(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says("Gladly."))
    app = press(open_page(CHAT, tools="library"), "suggest")
    assert not app.error and "Gladly." in html(app)
    session = app.query_params["session"]
    _, seed = stored_setup(empty, session)
    assert get_turns(empty, session)[0].user == scenario_of("library", seed).turns[0].user


@pytest.mark.parametrize("approved", [True, False])
def test_a_marked_tool_waits_for_a_decision(empty: Log, serve: Serve, approved: bool) -> None:
    serve(books_a_flight)
    session = book_chat(empty)
    app = say(open_page(CHAT, session=session), "Book F31 for A")
    assert "Shall the agent call book_flight?" in html(app) and "waits for you" in html(app)
    assert app.chat_input(key="say").disabled
    assert get_turns(empty, session)[0].steps[0].calls[0].response is None

    live_chats().forget(session)  # as a dashboard that was started again
    app = open_page(CHAT, session=session)
    reason = app.text_input(key=re.search(r"reason-\S+", " ".join(str(t.key) for t in app.text_input)).group())  # type: ignore[union-attr]
    reason.set_value("too dear <b>")
    press(app, "approve" if approved else "refuse")
    made = get_turns(empty, session)[0].steps[0].calls[0]
    said = html(app)
    assert "Told:" in said and "Shall the agent" not in said and not app.chat_input(key="say").disabled
    if approved:
        assert made.source in (ToolSource.WORLD, ToolSource.RECORDED)
    else:
        assert made.source == ToolSource.PERSON and made.response == "error: the user refused this call: too dear <b>"
        assert "too dear &lt;b&gt;" in said and "refused by a person" in said


def test_several_marked_calls_are_decided_one_by_one(empty: Log, serve: Serve) -> None:
    both = Says(calls=tuple(("book_flight", f'{{"id": "F3{n}", "person": "A"}}') for n in (1, 2)))
    serve(lambda body: Says("Done.") if body["messages"][-1]["role"] == "tool" else both)
    session = book_chat(empty)
    app = say(open_page(CHAT, session=session), "Book both")
    assert "1 more after it" in html(app)
    press(app, "refuse")
    assert all(made.response is None for made in get_turns(empty, session)[0].steps[0].calls)  # nothing runs yet
    press(app, "approve")
    first, second = get_turns(empty, session)[0].steps[0].calls
    assert first.source == ToolSource.PERSON and second.source != ToolSource.PERSON
    assert "Done." in html(app)


def test_the_last_message_is_edited_and_said_again(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says(f"Heard {body['messages'][-1]['content']}"))
    app = say(say(open_page(CHAT, tools="shop"), "one"), "two")
    session = app.query_params["session"]
    app.text_area(key=f"edit-{session}-1").set_value("zwei")
    press(app, "instead")
    said = html(app)
    assert "Heard zwei" in said and "Heard two" not in said and "said anew" in said
    press(app, "again")
    assert [turn.user for turn in get_turns(empty, session)] == ["one", "zwei"]
    with empty.lookup() as connection:
        assert connection.execute(text("SELECT count(*) FROM step")).scalar() == 4
    assert step_figures(empty, session)[1, 0].fork


def test_the_world_stands_where_the_dialogue_left_it(empty: Log, serve: Serve) -> None:
    """A cancellation is remembered by a new process, and undone when the turn that made it is said otherwise."""

    def policy(body: dict[str, Any]) -> Says:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return Says(f"Told: {last['content']}")
        return Says("no call") if "nothing" in last["content"] else call("cancel_flight", id=flight)

    serve(policy)
    seed = next(n for n in range(99) if "cancel_flight" in {tool.name for tool in scenario_of("travel", n).tools})
    flight = _some_flight(scenario_of("travel", seed))
    create_chat(empty, "chat-world", ChatSetup(ChatTools.WORLD, "travel"), version=None, seed=seed)
    app = say(open_page(CHAT, session="chat-world"), "cancel it")
    assert "refund" in html(app)
    app = say(open_page(CHAT, session="chat-world"), "cancel it again")
    assert "gone already" in html(app)
    app.text_area(key="edit-chat-world-1").set_value("nothing")
    press(app, "instead")
    create_chat(empty, "chat-fresh", ChatSetup(ChatTools.WORLD, "travel"), version=None, seed=seed)
    fresh = say(open_page(CHAT, session="chat-fresh"), "cancel it")
    fresh.text_area(key="edit-chat-fresh-0").set_value("cancel it, please")
    press(fresh, "instead")
    assert "gone already" not in html(fresh)


def _some_flight(scenario: Scenario) -> str:
    assert scenario.world is not None
    return next(iter(WORLDS["travel"](scenario.world.seed).things))


def test_real_tools_do_what_they_say(empty: Log, serve: Serve) -> None:
    def policy(body: dict[str, Any]) -> Says:
        last = body["messages"][-1]
        return Says(f"It is {last['content']}.") if last["role"] == "tool" else call("calculate", expression="17 * 23")

    serve(policy)
    app = open_page(CHAT)
    app.button_group(key="supply").set_value(ChatTools.REAL).run()
    assert "calculate" in html(app) and not [box for box in app.selectbox if box.key == "tools"]
    say(app, "What is 17 * 23?")
    assert "It is 391." in html(app) and "real tool" in html(app)
    assert get_turns(empty, app.query_params["session"])[0].steps[0].calls[0].source == ToolSource.REAL


def test_an_llm_plays_the_tools_only_where_the_settings_name_one(
    empty: Log, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(lambda body: Says("hi"))
    app = open_page(CHAT)
    assert "LLM simulator" not in app.button_group(key="supply").options
    assert "[simulator]" in html(app)
    create_chat(empty, "chat-llm", ChatSetup(ChatTools.LLM, "shop"), version=None, seed=1)
    app = say(open_page(CHAT, session="chat-llm"), "hello")
    assert "section [simulator]" in app.code[0].value
    monkeypatch.setenv("CHECKLOOP_SIMULATOR", '{"base_url": "http://127.0.0.1:9/v1", "model": "m"}')
    assert "LLM simulator" in open_page(CHAT).button_group(key="supply").options
    assert "hi" in html(press(open_page(CHAT, session="chat-llm"), "again"))


def test_turns_are_rated_and_commented(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says("Yes."))
    app = say(open_page(CHAT, tools="shop"), "one")
    session = app.query_params["session"]
    thumb = f"thumb-{session}-0"
    app.feedback(key=thumb).set_value(0).run()
    assert ratings_of(empty, [session])[session, 0].value == -1
    app.text_area(key=f"comment-{session}-0").set_value(HOSTILE)
    press(app, f"save-{session}-0")
    rated = ratings_of(empty, [session])[session, 0]
    assert (rated.value, rated.comment) == (-1, HOSTILE)
    assert "&lt;script&gt;" in html(app) and "<script" not in html(app)
    app = open_page(CHAT, session=session)
    assert app.feedback(key=thumb).value == 0
    app.feedback(key=thumb).set_value(1).run()
    assert ratings_of(empty, [session])[session, 0].value == 1
    app.feedback(key=thumb).set_value(None).run()
    assert ratings_of(empty, [session]) == {}


def test_a_chat_is_renamed_and_deleted_with_its_log(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says("Yes."))
    app = say(open_page(CHAT, tools="shop"), "one")
    session = app.query_params["session"]
    app.text_input(key=f"title-{session}").set_value("Shoes <i>")
    press(app, "rename")
    assert "Shoes &lt;i&gt;" in html(app) and get_trajectory(empty, session).title == "Shoes <i>"
    assert app.button(key="delete").disabled
    app.checkbox(key=f"sure-{session}").check().run()
    press(app, "delete")
    assert "deleted" in app.success[0].value and "session" not in app.query_params
    assert list_chats(empty, limit=9) == []
    with empty.lookup() as connection:
        assert all(
            connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() == 0
            for name in ("step", "turn", *CHECKPOINT_TABLES[:2])
        )
    assert "no such chat" in html(open_page(CHAT, session=session))


def test_a_chat_that_was_trained_on_is_not_deleted(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says("Yes."))
    app = say(open_page(CHAT, tools="shop"), "one")
    session = app.query_params["session"]
    add_run_trajectories(empty, start_run(empty, "r", RunKind.GRPO, "v0001", 1, {}), {session: 0.1})
    app.checkbox(key=f"sure-{session}").check().run()
    press(app, "delete")
    assert "trained on" in app.code[0].value and get_turns(empty, session)


def test_a_turn_that_runs_is_seen_from_a_second_window_and_stopped(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says("word " * 400), pace_s=0.02)
    create_chat(empty, "chat-slow", ChatSetup(ChatTools.REAL), version=None, seed=1)
    settings_app = open_page(CHAT)  # loads the settings and modules of the page
    assert not settings_app.exception
    from dashboard.boundary import connect
    from store.settings import load_settings

    settings = load_settings()
    turn = live_chats().say(connect(settings), settings, "chat-slow", "talk", 0)
    deadline = time.monotonic() + 60
    while len(turn.events) < 3:
        assert time.monotonic() < deadline and turn.state is TurnState.RUNNING
        time.sleep(0.02)
    turn.stop()
    assert turn.wait(5)
    assert turn.state is TurnState.STOPPED and 3 <= len(turn.events) < 400
    app = open_page(CHAT, session="chat-slow")
    assert "word word word" in html(app) and "Stopped" in html(app)
    assert {"again", "instead"} <= {button.key for button in app.button}
    assert not app.chat_input(key="say").disabled


def test_a_long_chat_shows_its_newest_turns_first(empty: Log) -> None:
    create_chat(empty, "chat-long", ChatSetup(ChatTools.REAL), version=None, seed=1)
    parent, context = None, 0
    for turn in range(150):
        said = {"content": f"answer {turn}.", "reasoning": None, "tool_calls": []}
        step = a_step(
            "chat-long",
            turn_index=turn,
            parent_id=parent,
            user=f"question {turn}.",
            context_tokens=context + 3,
            message=said,
            new_messages=[{"role": "user", "content": f"question {turn}."}],
        )
        parent, context = record_step(empty, step), context + 5
    started = time.monotonic()
    app = open_page(CHAT, session="chat-long")
    assert time.monotonic() - started < 10
    said = html(app)
    assert "answer 149." in said and "answer 138." in said and "answer 137." not in said
    assert "48 of 138 earlier turns" in app.button(key="earlier").label
    press(app, "earlier")
    assert "answer 90." in html(app) and "answer 89." not in html(app)


def test_without_a_gateway_nothing_can_be_said(sample: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))
    app = open_page(CHAT)
    assert app.chat_input(key="say").disabled and app.button(key="suggest").disabled
    assert app.code[0].value == "checkloop up"


def test_a_chat_from_elsewhere_can_be_read(sample: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))
    app = open_page(CHAT, session=CHAT_ID)
    assert "AP-131" in html(app) and "started elsewhere" in html(app)
    assert app.chat_input(key="say").disabled


def test_a_chat_of_an_older_log_goes_on(empty: Log, serve: Serve) -> None:
    serve(lambda body: Says("As ever."))
    create_trajectories(empty, [NewTrajectory("chat-old", Origin.CHAT, seed=3, title="travel")])
    app = say(open_page(CHAT, session="chat-old"), "hello")
    assert "As ever." in html(app) and "Travel" in html(app)


@pytest.mark.parametrize("domain", sorted(WORLDS))
def test_a_chat_can_start_in_every_world(domain: str, empty: Log) -> None:
    app = open_page(CHAT, tools=domain)
    assert app.selectbox(key="tools").value == domain
    assert any(f">{tool.name}<" in html(app) for tool in WORLDS[domain].tools)
    [asked] = app.multiselect
    assert set(asked.value) == set(asked.options) & CONSEQUENTIAL


def test_what_answers_a_new_chat_s_tools_stands_in_the_address(sample: Log) -> None:
    app = open_page(CHAT, supply="Real tools")
    (control,) = app.segmented_control
    assert control.value == ChatTools.REAL and "These tools do what they say" in html(app)
    assert "tools" not in {box.key for box in app.selectbox}
