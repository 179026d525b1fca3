"""Chats in the log: listing, renaming and deleting them; what a deletion takes along and what it refuses."""

import json
from random import Random

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from checkloop import app
from dashboard.chats import setup_of, title_of
from env_sim.worlds import DOMAINS, WORLDS
from env_sim.worlds.consequential import CONSEQUENTIAL
from store.chats import ChatSetup, create_chat, delete_chat, is_listed, list_chats, rename_chat, unlist_chat
from store.database import Log, LogError
from store.ratings import rate_turn, ratings_of
from store.runs import add_run_trajectories, start_run
from store.schema import Base, IncidentRow
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    create_trajectories,
    get_trajectory,
    record_step,
    record_tool_answers,
)
from store.verdicts import Reward, add_rewards
from store.vocabulary import ChatTools, Origin, RunKind, ToolSource
from tests.store_examples import a_call, a_step

SETUP = ChatSetup(ChatTools.WORLD, "shop", ("order_product",))
HANGING = {table.name for table in Base.metadata.sorted_tables if "trajectory_id" in table.c}


def full_chat(log: Log, name: str) -> None:
    """A chat with a row in every table that can name a trajectory, but for those of training."""
    create_chat(log, name, SETUP, version="v0001", seed=7)
    calling = {"content": "", "reasoning": None, "tool_calls": [a_call(f"{name}-c0")]}
    first = record_step(log, a_step(name, message=calling))
    record_step(log, a_step(name, index=1, parent_id=first, context_tokens=8))
    record_tool_answers(log, name, [ToolAnswer(f"{name}-c0", "{}", False, ToolSource.WORLD)])
    rate_turn(log, name, 0, 1, comment="good", person="ann")
    add_rewards(log, [Reward(name, 1.0, (1.0,), True, 0, None)])
    with log.session() as session:
        session.add(IncidentRow(trajectory_id=name, kind="cancelled", detail="gone"))


def rows_of(log: Log, name: str) -> set[str]:
    """Tables that hold a row of the trajectory."""
    with log.lookup() as connection:
        tables = [table for table in Base.metadata.sorted_tables if table.name in HANGING]
        return {t.name for t in tables if connection.execute(select(t).where(t.c.trajectory_id == name)).first()}


def test_deleting_a_chat_takes_everything_that_hangs_on_it(log: Log) -> None:
    full_chat(log, "chat-1")
    full_chat(log, "chat-2")
    all_of_it = rows_of(log, "chat-1")
    # No scenario, so no judge and no review; no training.
    judged = {"verdict", "withdrawal", "model_call"}
    assert all_of_it == HANGING - judged - {"review_sample", "review_claim", "review_place", "run_trajectory"}
    delete_chat(log, "chat-1")
    assert rows_of(log, "chat-1") == set()
    assert rows_of(log, "chat-2") == all_of_it
    with pytest.raises(LogError, match="no trajectory 'chat-1'"):
        get_trajectory(log, "chat-1")
    with pytest.raises(LogError, match="no chat 'chat-1'"):
        delete_chat(log, "chat-1")


def test_a_chat_that_was_trained_on_and_what_is_no_chat_stay(log: Log) -> None:
    full_chat(log, "chat-1")
    run = start_run(log, "r1", RunKind.GRPO, "v0001", 1, {})
    add_run_trajectories(log, run, {"chat-1": 0.5})
    before = rows_of(log, "chat-1")
    with pytest.raises(LogError, match=f"trained on .run {run}."):
        delete_chat(log, "chat-1")
    assert rows_of(log, "chat-1") == before
    create_trajectories(log, [NewTrajectory("r", Origin.ROLLOUT)])
    with pytest.raises(LogError, match="no chat but a trajectory of origin 'rollout'"):
        delete_chat(log, "r")


def test_chats_are_listed_newest_first_without_the_sessions_of_other_clients(log: Log) -> None:
    full_chat(log, "chat-1")
    create_trajectories(log, [NewTrajectory("from-a-client", Origin.CHAT), NewTrajectory("roll", Origin.ROLLOUT)])
    create_chat(log, "chat-2", SETUP, version=None, seed=1)
    listed = list_chats(log, limit=10)
    assert [one.id for one in listed] == ["chat-2", "chat-1"]
    assert (listed[1].turns, listed[1].opening, listed[1].version) == (1, "hello", "v0001")
    assert ChatSetup.from_dict(listed[1].chat or {}) == SETUP
    assert [one.id for one in list_chats(log, limit=1, offset=1)] == ["chat-1"]


def test_a_chat_is_renamed_and_its_name_taken_back(log: Log) -> None:
    create_chat(log, "chat-1", SETUP, version=None, seed=1)
    rename_chat(log, "chat-1", "  Shoes \n for Ann ")
    assert get_trajectory(log, "chat-1").title == "Shoes for Ann"
    rename_chat(log, "chat-1", " ")
    assert get_trajectory(log, "chat-1").title is None
    with pytest.raises(LogError, match="no chat"):
        rename_chat(log, "chat-2", "x")


def test_a_chat_of_an_older_log_keeps_its_domain_when_it_gets_a_name(sqlite_log: Log) -> None:
    create_trajectories(sqlite_log, [NewTrajectory("old", Origin.CHAT, seed=3, title="travel")])
    summary = get_trajectory(sqlite_log, "old")
    assert setup_of(summary) == ChatSetup(ChatTools.WORLD, "travel") and title_of(summary) is None
    rename_chat(sqlite_log, "old", "Lisbon", setup_of(summary))
    summary = get_trajectory(sqlite_log, "old")
    assert setup_of(summary) == ChatSetup(ChatTools.WORLD, "travel") and title_of(summary) == "Lisbon"


def test_a_setup_of_a_newer_checkloop_is_said() -> None:
    with pytest.raises(LogError, match="telepathy"):
        ChatSetup.from_dict({"tools": "telepathy"})


@pytest.mark.parametrize("domain", sorted(WORLDS))
def test_the_tools_that_change_a_world_are_marked_as_consequential(domain: str) -> None:
    """What a call leaves behind in a world is seen by comparing the world before and after."""
    world_type = WORLDS[domain]
    names = {spec.name for spec in world_type.tools}
    changing = set()
    for seed in range(12):
        said = DOMAINS[domain]
        for intent in (said.find, *said.on_id):
            world, random = world_type(2 * seed), Random(seed)
            slots = {**world.draw(random), said.act.parameter: random.choice(said.act.values.train)}
            spec = next(spec for spec in world_type.tools if spec.name == intent.tool)
            arguments = {name: slots[name] for name in spec.parameters["properties"]}
            before = json.dumps(vars(world), default=str, sort_keys=True)
            world.call(intent.tool, arguments)
            if json.dumps(vars(world), default=str, sort_keys=True) != before:
                changing.add(intent.tool)
    assert changing <= CONSEQUENTIAL
    looking = ("find_", "get_")
    assert {name for name in names if name not in CONSEQUENTIAL} == {n for n in names if n.startswith(looking)}
    assert all(any(name in {s.name for s in world.tools} for world in WORLDS.values()) for name in CONSEQUENTIAL)


def test_a_chat_off_the_list_keeps_its_log_and_comes_back(log: Log) -> None:
    full_chat(log, "chat-1")
    full_chat(log, "chat-2")
    before = rows_of(log, "chat-1")
    unlist_chat(log, "chat-1")
    assert [one.id for one in list_chats(log, limit=9)] == ["chat-2"]
    assert [one.id for one in list_chats(log, limit=9, unlisted=True)] == ["chat-1"]
    assert rows_of(log, "chat-1") == before and not is_listed(log, "chat-1") and is_listed(log, "chat-2")
    unlist_chat(log, "chat-1", back=True)
    assert {one.id for one in list_chats(log, limit=9)} == {"chat-1", "chat-2"}
    create_trajectories(log, [NewTrajectory("r", Origin.ROLLOUT)])
    with pytest.raises(LogError, match="no chat 'r'"):
        unlist_chat(log, "r")


def test_chats_are_listed_renamed_rated_removed_and_deleted_by_commands(
    sqlite_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)
    full_chat(sqlite_log, "chat-aa1")
    full_chat(sqlite_log, "chat-aa2")

    def run(*words: str, answer: str = "") -> tuple[int, str]:
        said = CliRunner().invoke(app, ["chat", *words], input=answer)
        return said.exit_code, f"{said.output}{said.exception or ''}"

    assert run("rename", "chat-aa1", "  the  kettle ")[1] == "chat-aa1 is called 'the kettle'\n"
    status, listed = run("list")
    assert status == 0 and "the kettle" in listed and "1 turn " in listed and "v0001" in listed
    assert "2 chats begin with 'chat-a'" in run("remove", "chat-a")[1]
    assert run("rate", "chat-aa1", "0", "down", "--comment", "too late", "--person", "ben")[1] == (
        "turn 0 of chat-aa1 is rated down\n"
    )
    run("rate", "chat-aa1", "0", "up", "--person", "ben")
    rating = ratings_of(sqlite_log, ["chat-aa1"])["chat-aa1", 0]
    assert (rating.value, rating.comment, rating.person) == (1, "too late", "ben")
    assert "has no comment" in run("rate", "chat-aa1", "0", "none", "--comment", "oh")[1]
    assert "has no rating any more" in run("rate", "chat-aa1", "0", "none")[1]
    assert ratings_of(sqlite_log, ["chat-aa1"]) == {}
    assert "no turn 3 to rate" in run("rate", "chat-aa1", "3", "up")[1]
    assert run("remove", "chat-aa1")[1] == "chat-aa1 is off the list; its log stays\n"
    assert "chat-aa1" not in run("list")[1] and "chat-aa1" in run("list", "--removed")[1]
    assert run("remove", "chat-aa1", "--back")[1] == "chat-aa1 is on the list again\n"
    assert run("delete", "chat-aa1", answer="n\n")[0] == 1 and rows_of(sqlite_log, "chat-aa1")
    assert "are deleted" in run("delete", "chat-aa1", answer="y\n")[1] and not rows_of(sqlite_log, "chat-aa1")
    assert run("delete", "chat-aa2", "--yes")[0] == 0 and run("list")[1] == "no chat yet\n"
