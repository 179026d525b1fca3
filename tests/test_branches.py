"""Branches of a history: found, read each with its own turns, figures and ids, and shown on the trajectory's page."""

import pytest

from agent.conversations import tools_hash
from dashboard.branch_choice import tools_html
from dashboard.links import TRAJECTORIES
from dashboard.token_heat import SHOWN
from store.branches import Opening, branches_of, openings_of
from store.browsing import step_figures
from store.chats import ChatSetup
from store.database import Log, LogError
from store.tokens import ids_of_steps
from store.trajectories import NewTrajectory, create_trajectories, record_step
from store.turns import get_turns
from store.vocabulary import ChatTools, Origin
from tests.pages import HOSTILE, html, ids, open_page
from tests.store_examples import WEATHER, a_step, start

SYSTEM = "Be short. <b>Never</b> shout."


def said_anew(log: Log) -> list[int]:
    """A chat of two turns; the second answer is said again, and then its question is edited. The ids of its steps."""
    first = record_step(
        log,
        a_step(
            message={"content": "one", "tool_calls": []},
            new_messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello"}],
            tools_hash=tools_hash([WEATHER.as_openai()]),
        ),
    )
    steps = [first]
    for sampled, question, answer in ((20, "and?", "two"), (30, "and?", "two again"), (40, "or else?", "edited")):
        step = a_step(
            turn_index=1,
            parent_id=first,
            user=question,
            new_messages=[{"role": "user", "content": question}],
            message={"content": answer, "tool_calls": []},
            delta_ids=[sampled + 1, sampled + 2],
            sampled_ids=[sampled, sampled],
            context_tokens=7,
            latency_ms=float(sampled),
        )
        steps.append(record_step(log, step))
    return steps


def test_every_branch_is_found_and_read(log: Log) -> None:
    start(log, "t1", "alone", origin=Origin.CHAT)
    first, two, again, edited = said_anew(log)
    branches = branches_of(log, "t1")
    assert [(one.steps, one.parts_at) for one in branches] == [
        ((first, edited), None),
        ((first, again), 1),
        ((first, two), 1),
    ]
    read = [[(turn.user, turn.reply) for turn in get_turns(log, "t1", one.last)] for one in branches]
    assert read[0] == [("hello", "one"), ("or else?", "edited")] == [(t.user, t.reply) for t in get_turns(log, "t1")]
    assert read[1:] == [[("hello", "one"), ("and?", answer)] for answer in ("two again", "two")]
    assert [step_figures(log, "t1", one.steps)[1, 0].latency_ms for one in branches] == [40.0, 30.0, 20.0]
    assert [(one.delta_ids, one.sampled_ids) for one in ids_of_steps(log, branches[2].steps)] == [
        ([1, 2, 3], [10, 11]),
        ([21, 22], [20, 20]),
    ]
    assert openings_of(log, "t1", branches[2].steps) == [Opening(0, (SYSTEM,), tools_hash([WEATHER.as_openai()]))]
    assert branches_of(log, "alone") == []
    with pytest.raises(LogError, match="step 999 is none of this trajectory"):
        get_turns(log, "t1", 999)


def test_what_stands_before_a_cut_history_is_no_branch_of_its_own(log: Log) -> None:
    start(log, "t1")
    before = record_step(log, a_step(message={"content": "one", "tool_calls": []}))
    after = record_step(log, a_step(turn_index=1, message={"content": "two", "tool_calls": []}))
    (only,) = branches_of(log, "t1")
    assert only.steps == (before, after)
    assert [opening.turn_index for opening in openings_of(log, "t1", only.steps)] == [0, 1]


def test_a_rewritten_beginning_is_a_branch(log: Log) -> None:
    start(log, "t1")
    old = record_step(log, a_step(message={"content": "old", "tool_calls": []}))
    new = record_step(log, a_step(message={"content": "new", "tool_calls": []}))
    assert [(one.steps, one.parts_at) for one in branches_of(log, "t1")] == [((new,), None), ((old,), 0)]


def a_chat(log: Log, setup: ChatSetup | None) -> list[int]:
    chat = setup.as_dict() if setup is not None else None
    create_trajectories(log, [NewTrajectory(id="t1", origin=Origin.CHAT, version="v0001", seed=3, chat=chat)])
    return said_anew(log)


def test_a_branch_is_chosen_on_the_page_and_stands_in_its_address(sample: Log) -> None:
    _, two, again, _ = a_chat(sample, None)
    app = open_page(TRAJECTORIES, trajectory="t1")
    assert "or else?" in html(app) and "two again" not in html(app)
    names = app.selectbox(key="branch").options
    assert names == ["newest", f"to step {again}, apart from turn 2", f"to step {two}, apart from turn 2"]
    app.selectbox(key="branch").set_value(names[1]).run()
    said = html(app)
    assert "two again" in said and "or else?" not in said and ">one<" in said
    assert said.count("Verdicts and ratings speak of the newest branch") == 1, "the first turn is that of both"
    tokens = html(open_page(TRAJECTORIES, trajectory="t1", branch=names[2], show="Tokens", step="2.1", prompt="true"))
    assert ">#20<" in tokens and ">#21<" in tokens and ">#22<" in tokens
    assert ">#40<" not in tokens and "runs train on the newest branch" in tokens
    assert not [box for box in open_page(TRAJECTORIES, trajectory=ids(sample)[-1]).selectbox if box.key == "branch"]


def test_system_prompt_and_tools_are_shown_of_a_chat_without_a_scenario(sample: Log) -> None:
    a_chat(sample, ChatSetup(ChatTools.REAL))
    said = html(open_page(TRAJECTORIES, trajectory="t1"))
    assert "&lt;b&gt;Never&lt;/b&gt; shout." in said
    assert '<span class="cl-call">calculate</span>' in said and "The client offered others" in said


def test_what_is_known_of_the_tools_is_said() -> None:
    hashed = tools_hash([WEATHER.as_openai()])
    known = tools_html(Opening(0, (), hashed), (WEATHER,))
    assert "get_weather" in known and "The weather of a city." in known and "offered others" not in known
    assert "offered others" in tools_html(Opening(0, (), "0" * 64), (WEATHER,))
    assert "Their client had them" in tools_html(Opening(0, (), hashed), None)
    assert "none were offered" in tools_html(Opening(0, (), None), None)
    evil = WEATHER.model_copy(update={"description": HOSTILE})
    assert "<script" not in tools_html(Opening(0, (), hashed), (evil,))


def test_a_long_prompt_is_shown_page_by_page(sample: Log) -> None:
    create_trajectories(sample, [NewTrajectory(id="long", origin=Origin.CHAT, version="v0001")])
    count = 2 * SHOWN + 5
    record_step(sample, a_step("long", delta_ids=list(range(100_000, 100_000 + count)), context_tokens=count))
    folded = html(open_page(TRAJECTORIES, trajectory="long", show="Tokens"))
    assert f"{count:,}" in folded and "#100000" not in folded
    first = html(open_page(TRAJECTORIES, trajectory="long", show="Tokens", prompt="true"))
    assert first.count("<i title=") == SHOWN + 2 and "#100000" in first
    last = html(open_page(TRAJECTORIES, trajectory="long", show="Tokens", prompt="true", p_page="3"))
    assert last.count("<i title=") == 5 + 2 and f"#{100_000 + count - 1}" in last
