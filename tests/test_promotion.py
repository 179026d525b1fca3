"""A logged chat becomes a scenario, gets checklists, and can be judged; and the command that does it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import checkloop
from env_sim.chat_worlds import promote_chat, read_tools, scenario_of, scenario_of_chat
from env_sim.simulator import Simulator
from reward.annotator import annotate_scenarios
from reward.judge import Judge
from store.annotations import Annotation, record_annotation, waiting_for_person
from store.chats import ChatSetup, create_chat
from store.checklists import current_checklists
from store.database import Log, LogError, open_log
from store.scenarios import add_scenarios, load_scenarios
from store.settings import AnnotationSettings
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    create_trajectories,
    get_trajectory,
    record_step,
    record_tool_answers,
)
from store.verdicts import verdicts_of
from store.vocabulary import AnnotationStatus, ChatTools, FocusOn, Origin, Split, ToolSource
from tests.annotation_examples import FIRST_TURN, SECOND_TURN, item, trip
from tests.scripted_annotator import as_answer, as_text, endpoint, in_turn
from tests.store_examples import a_call, a_step

SEED = next(n for n in range(199) if "find_flight" in {tool.name for tool in scenario_of("travel", n).tools})
ASKED = {"query": "Porto"}


def hold_chat(log: Log, setup: ChatSetup | None, *, seed: int | None = SEED, chat_id: str = "chat-1") -> int:
    """A chat of one turn: a call, its answer, a reply. Returns the last step."""
    create_chat(log, chat_id, setup, version="v0001", seed=seed)
    opening = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Flights?"}]
    calls = [a_call("c0", json.dumps(ASKED), "find_flight")]
    first = record_step(
        log,
        a_step(
            chat_id,
            user="Flights?",
            new_messages=opening,
            message={"content": "", "reasoning": "", "tool_calls": calls},
            finish_reason="tool_calls",
        ),
    )
    record_tool_answers(log, chat_id, [ToolAnswer("c0", '{"flight":"F84"}', False, ToolSource.WORLD)])
    return say(log, first, 1, "Take F84.", turn=0, index=1, chat_id=chat_id, user="Flights?")


def say(
    log: Log, parent: int, before: int, reply: str, *, turn: int, index: int = 0, chat_id: str = "chat-1", user: str
) -> int:
    """A step that replies, `before` steps after the first one."""
    return record_step(
        log,
        a_step(
            chat_id,
            turn_index=turn,
            index=index,
            parent_id=parent,
            user=user,
            new_messages=[{"role": "user", "content": user}],
            message={"content": reply, "reasoning": "", "tool_calls": []},
            context_tokens=3 + 5 * before,
        ),
    )


ITEMS = (
    item("flight_found", FocusOn.TOOL_RESPONSE, 0, "F84", question="Did find_flight answer with flight F84?"),
    item("flight_told", FocusOn.REPLY, 1, "F84", question="Does the reply tell F84?", depends_on=("flight_found",)),
)


def annotate(log: Log) -> None:
    (scenario,) = load_scenarios(log, source="chat")
    asked = endpoint(in_turn(as_text(as_answer(ITEMS))), log)
    asyncio.run(annotate_scenarios(log, [scenario], asked, settings=AnnotationSettings()))


def test_a_chat_is_promoted_annotated_and_judged(log: Log) -> None:
    last = hold_chat(log, ChatSetup(ChatTools.WORLD, "travel"))
    made = promote_chat(log, "chat-1")
    held = scenario_of("travel", SEED)
    assert (made.name, made.source, made.split, made.seed) == ("chat chat-1", "chat", Split.TRAIN, SEED)
    assert (made.domain, made.world, made.tools, made.system) == ("travel", held.world, held.tools, "Be brief.")
    assert [(turn.user, turn.checklist) for turn in made.turns] == [("Flights?", ())]
    assert made.turns[0].reference[0].calls[0].response == '{"flight":"F84"}'
    assert get_trajectory(log, "chat-1").scenario_hash == made.hash
    assert promote_chat(log, "chat-1") == made and len(load_scenarios(log)) == 1
    assert "has no checklist" in str(asyncio.run(Judge(log).judge_trajectories(["chat-1"]))["chat-1"].excluded_reason)
    annotate(log)
    assert asyncio.run(Judge(log).judge_trajectories(["chat-1"]))["chat-1"].value == 1.0
    say(log, last, 2, "You are welcome.", turn=1, user="Thanks")
    assert asyncio.run(Judge(log).judge_trajectories(["chat-1"]))["chat-1"].value == 1.0, "chats go on afterwards"
    assert promote_chat(log, "chat-1") == made


def test_a_turn_said_anew_is_no_longer_the_scenarios(sqlite_log: Log) -> None:
    hold_chat(sqlite_log, ChatSetup(ChatTools.WORLD, "travel"))
    promote_chat(sqlite_log, "chat-1")
    annotate(sqlite_log)
    anew = a_step("chat-1", user="Trains?", new_messages=[{"role": "user", "content": "Trains?"}])
    record_step(sqlite_log, anew)
    reward = asyncio.run(Judge(sqlite_log).judge_trajectories(["chat-1"]))["chat-1"]
    assert reward.value is None and "said anew" in str(reward.excluded_reason)
    assert verdicts_of(sqlite_log, ["chat-1"]) == {}


def test_tools_that_an_llm_or_nobody_here_answers_are_replayed(sqlite_log: Log) -> None:
    hold_chat(sqlite_log, ChatSetup(ChatTools.LLM, "travel"))
    made = promote_chat(sqlite_log, "chat-1")
    assert made.world is None
    assert asyncio.run(Simulator(made, 1).answer("find_flight", ASKED, "c")).source == ToolSource.RECORDED


def test_tools_that_the_log_does_not_know_are_asked_for(sqlite_log: Log, tmp_path: Path) -> None:
    hold_chat(sqlite_log, ChatSetup(ChatTools.MCP), chat_id="mcp")
    hold_chat(sqlite_log, None, seed=None, chat_id="elsewhere")
    file = tmp_path / "tools.json"
    function = {"name": "find_flight", "description": "Flights.", "parameters": {"type": "object"}}
    file.write_text(json.dumps([{"type": "function", "function": function}]))
    for chat_id in ("mcp", "elsewhere"):
        with pytest.raises(LogError, match="--tools FILE"):
            promote_chat(sqlite_log, chat_id)
        made = promote_chat(sqlite_log, chat_id, read_tools(file))
        assert ([tool.name for tool in made.tools], made.domain, made.world) == (["find_flight"], "chat", None)
    file.write_text('[{"name": 3}]')
    with pytest.raises(LogError, match="no JSON list of tools"):
        read_tools(file)


def test_a_domain_that_training_never_plays_stays_out_of_it(sqlite_log: Log) -> None:
    hold_chat(sqlite_log, ChatSetup(ChatTools.WORLD, "library"))
    made = promote_chat(sqlite_log, "chat-1")
    assert (made.split, made.seen) == (Split.TEST, False)


def test_what_is_no_chat_is_not_promoted(sqlite_log: Log) -> None:
    add_scenarios(sqlite_log, [trip()])
    create_trajectories(sqlite_log, [NewTrajectory("r1", Origin.ROLLOUT, trip().hash)])
    with pytest.raises(LogError, match="no chat but a trajectory of origin 'rollout'"):
        promote_chat(sqlite_log, "r1")
    create_chat(sqlite_log, "silent", ChatSetup(ChatTools.REAL), version=None, seed=1)
    with pytest.raises(LogError, match="no turn that ended with a reply"):
        promote_chat(sqlite_log, "silent")
    with pytest.raises(LogError, match="nobody"):
        scenario_of_chat(sqlite_log, "nobody")


@pytest.fixture
def command(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Runs `checkloop annotate …` with an annotator at a port where nobody listens; (status, output, errors)."""
    settings = tmp_path / "checkloop.toml"
    settings.write_text(
        f'database_url = "{sqlite_url}"\n[annotator]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "big"\nretries = 0\n'
        '[prices."big"]\nprompt = 2.0\ncompletion = 8.0\n'
    )

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["checkloop", "annotate", "--config", str(settings), *arguments])
        status = 0
        try:
            checkloop.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_command_estimates_before_it_asks(command: Any, sqlite_url: str) -> None:
    log = open_log(sqlite_url)
    third = trip("third", split=Split.TEST)
    add_scenarios(log, [trip(), trip("other", domain="shop"), third])
    status, said, _ = command("--dry-run", "--split", "train")
    assert status == 0 and "2 dialogues to annotate, 0 skipped; nothing was asked" in said
    assert "2 calls, at most" in said and "USD" in said
    assert "1 dialogues to annotate" in command("--dry-run", "--domain", "shop")[1]
    assert "1 dialogues to annotate" in command("--dry-run", "--scenario", third.hash[:10])[1]
    assert "1 dialogues to annotate" in command("--dry-run", "--limit", "1")[1]
    status, _, complaint = command("--dry-run", "--domain", "moon")
    assert status == 1 and "no scenario of the log" in complaint
    hold_chat(log, ChatSetup(ChatTools.WORLD, "travel"))
    assert "1 dialogues to annotate" in command("--dry-run", "--chat", "chat-1")[1]
    assert get_trajectory(log, "chat-1").scenario_hash is None and load_scenarios(log, source="chat") == []


def test_the_command_lists_what_waits_for_a_person(command: Any, sqlite_url: str) -> None:
    assert "nothing waits for a person" in command("--list")[1]
    log = open_log(sqlite_url)
    add_scenarios(log, [trip()])
    needs = Annotation(
        trip().hash, 0, "big", "f" * 64, AnnotationStatus.NEEDS_PERSON, 4, ("turn 1: all weights are 0",)
    )
    record_annotation(log, needs)
    said = command("--list")[1]
    assert "trip (travel)" in said and "big, 4 answers" in said and "- turn 1: all weights are 0" in said


def test_a_person_writes_what_the_annotator_could_not(command: Any, sqlite_url: str, tmp_path: Path) -> None:
    """In the annotator's form, and examined like its answers."""
    log = open_log(sqlite_url)
    add_scenarios(log, [trip()])
    record_annotation(log, Annotation(trip().hash, 0, "big", "f" * 64, AnnotationStatus.NEEDS_PERSON, 4, ("hopeless",)))
    file = tmp_path / "mine.json"
    given = ("--scenario", "trip", "--answer", str(file), "--person", "ada")
    file.write_text(as_text(as_answer(FIRST_TURN, 0)))
    status, _, complaint = command(*given)
    assert status == 1 and "turn 1: the answer has no checklist of this turn" in complaint
    file.write_text(as_text(as_answer(FIRST_TURN, 0), as_answer(SECOND_TURN, 1)))
    status, said, _ = command(*given)
    assert status == 0 and "4 items in 2 turns, 3 with a check" in said
    assert waiting_for_person(log) == []
    (first,), (second,) = current_checklists(log, [trip()])[trip().hash]
    assert (first.author, second.author, first.prompt_hash) == ("ada", "ada", None)
    status, _, complaint = command(*given)
    assert status == 1 and "has a checklist of variant 0" in complaint
    assert command("--answer", str(file))[0] == 1


def test_a_chat_is_promoted_by_a_command_that_asks_no_model(sqlite_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)
    hold_chat(sqlite_log, ChatSetup(ChatTools.WORLD, "travel"))
    said = CliRunner().invoke(checkloop.app, ["chat", "promote", "chat"])
    assert said.exit_code == 0, said.output
    (made,) = load_scenarios(sqlite_log, source="chat")
    assert f"chat-1 is scenario 'chat chat-1' ({made.hash[:12]}), split train" in said.output
    assert get_trajectory(sqlite_log, "chat-1").scenario_hash == made.hash
    hold_chat(sqlite_log, ChatSetup(ChatTools.MCP), chat_id="mcp")
    assert "--tools FILE" in str(CliRunner().invoke(checkloop.app, ["chat", "promote", "mcp"]).exception)


def test_a_person_writes_the_checklists_of_a_chat(command: Any, sqlite_url: str, tmp_path: Path) -> None:
    log = open_log(sqlite_url)
    hold_chat(log, ChatSetup(ChatTools.WORLD, "travel"))
    file = tmp_path / "mine.json"
    file.write_text(as_text(as_answer(ITEMS, 0)))
    given = ("--chat", "chat-1", "--answer", str(file), "--person", "ada")
    status, _, complaint = command(*given, "--dry-run")
    assert status == 1 and "nobody is asked" in complaint
    status, said, complaint = command(*given)
    assert status == 0 and "2 items in 1 turns" in said, complaint
    assert get_trajectory(log, "chat-1").scenario_hash is not None


def test_the_command_says_what_got_no_answer(command: Any, sqlite_url: str) -> None:
    add_scenarios(open_log(sqlite_url), [trip()])
    status, said, _ = command()
    assert status == 1
    assert "1 without an answer" in said and "APIConnectionError" in said


def test_options_that_contradict_each_other_are_refused(command: Any) -> None:
    for options, why in [
        (("--variants", "2", "--variant", "1"), "give one of the two"),
        (("--tools", "x.json"), "needs --chat"),
        (("--with-judge",), "--with-judge needs a judge"),
    ]:
        status, _, complaint = command(*options)
        assert status == 1 and why in complaint
