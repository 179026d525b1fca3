"""Trajectories are recorded as they happen and come back as turns; nothing recorded is overwritten."""

from typing import Any

import pytest
from sqlalchemy import func, select

from store.database import Log, LogError
from store.scenarios import add_scenarios, item_ids
from store.schema import Base, GroupRow, StepRow, ToolResponseRow, TurnRow
from store.tokens import token_sequences
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    create_group,
    create_trajectories,
    delete_trajectories,
    end_trajectory,
    ensure_trajectory,
    get_trajectory,
    get_turns,
    judgeable_trajectories,
    list_trajectories,
    record_step,
    record_tool_answers,
    turns_of,
)
from store.verdicts import Reward, Verdict, add_rewards, add_verdicts
from store.vocabulary import Origin, Outcome, StopReason, ToolSource, VerdictSource
from tests.store_examples import a_call, a_scenario, a_step, record_chain, start


def _count(log: Log, row: type[Base]) -> int:
    with log.reading() as session:
        return session.scalar(select(func.count()).select_from(row)) or 0


def test_a_trajectory_comes_back_with_its_scenario(log: Log) -> None:
    scenario = a_scenario("rain", domain="weather", seen=False)
    start(log, "other", scenario=scenario)
    group = create_group(log, scenario.hash, "demo/round-1/train", "v0001", 5)
    new = NewTrajectory("t1", Origin.ROLLOUT, scenario.hash, group, "b", 3, "v0001", 2**40, {"temperature": 1.0}, "T")
    create_trajectories(log, [new])
    found = get_trajectory(log, "t1")
    assert (found.origin, found.scenario_hash, found.scenario_name) == (Origin.ROLLOUT, scenario.hash, "rain")
    assert (found.domain, found.seen, found.group_id, found.batch) == ("weather", False, group, "b")
    assert (found.member, found.version, found.seed, found.title) == (3, "v0001", 2**40, "T")
    assert (found.stop_reason, found.error, found.ended_at) == (None, None, None)


def test_trajectories_are_created_all_or_none(log: Log) -> None:
    with pytest.raises(LogError):
        create_trajectories(log, [NewTrajectory("t1", "chat"), NewTrajectory("t2", "chat", scenario_hash="0" * 64)])
    assert list_trajectories(log) == []
    with pytest.raises(ValueError, match="'dream'"):
        create_trajectories(log, [NewTrajectory("t1", "dream")])


def test_an_unannounced_session_is_created_once(log: Log) -> None:
    ensure_trajectory(log, "t1", Origin.CHAT, "v0001")
    ensure_trajectory(log, "t1", Origin.IMPORT, "v0002")
    found = get_trajectory(log, "t1")
    assert (found.origin, found.version) == (Origin.CHAT, "v0001")


def test_a_trajectory_ends_once(log: Log) -> None:
    start(log, "t1")
    end_trajectory(log, "t1", StopReason.FAILED, "the server died")
    ended = get_trajectory(log, "t1")
    assert (ended.stop_reason, ended.error) == (StopReason.FAILED, "the server died")
    end_trajectory(log, "t1", "failed")
    assert get_trajectory(log, "t1") == ended
    with pytest.raises(LogError, match="already ended with 'failed', not 'completed'"):
        end_trajectory(log, "t1", StopReason.COMPLETED)
    with pytest.raises(LogError, match="no trajectory 't2'"):
        end_trajectory(log, "t2", StopReason.COMPLETED)
    with pytest.raises(LogError, match="no trajectory 't2'"):
        get_trajectory(log, "t2")


def test_a_dialogue_comes_back_turn_by_turn(log: Log) -> None:
    start(log, "t1")
    calls = [a_call("c1"), a_call("c2", '{"city": "Bergen"')]
    message: dict[str, Any] = {"content": "", "reasoning": "Look it up.", "tool_calls": calls}
    first = record_step(log, a_step(message=message, finish_reason="tool_calls", user="Umbrella in Oslo?"))
    answers = [
        ToolAnswer("c1", '{"rain": true}', False, ToolSource.WORLD, 3.5),
        ToolAnswer("c2", '{"error": "arguments are no JSON"}', True, ToolSource.VALIDATION, None),
    ]
    record_tool_answers(log, "t1", answers)
    tools = [{"role": "tool", "tool_call_id": a.call_id, "content": a.response} for a in answers]
    message = {"content": "Yes.", "reasoning": None, "tool_calls": []}
    second = record_step(
        log,
        a_step(index=1, parent_id=first, delta_ids=[4], context_tokens=6, message=message, new_messages=tools),
    )
    thanks = [{"role": "user", "content": "Thanks"}]
    message = {"content": "You are wel", "reasoning": None, "tool_calls": []}
    record_step(
        log,
        a_step(
            turn_index=1,
            parent_id=second,
            delta_ids=[5],
            context_tokens=9,
            user="Thanks",
            new_messages=thanks,
            message=message,
            finish_reason="length",
        ),
    )

    one, two = get_turns(log, "t1")

    assert (one.trajectory_id, one.index, one.complete, one.reply) == ("t1", 0, True, "Yes.")
    assert [step.index for step in one.steps] == [0, 1]
    assert one.steps[0].thinking == "Look it up."
    good, bad = one.steps[0].calls
    assert (good.call_id, good.name, good.arguments) == ("c1", "get_weather", {"city": "Oslo"})
    assert (good.response, good.is_error, good.source, good.latency_ms) == ('{"rain": true}', False, "world", 3.5)
    assert (bad.arguments, bad.is_error, bad.source) == (None, True, "validation")
    assert (two.index, two.user, two.complete, two.reply) == (1, "Thanks", False, "")
    assert turns_of(log, ["t1", "nobody"]) == {"t1": [one, two]}
    with log.reading() as session:
        kept = session.execute(select(TurnRow.index.label("turn"), TurnRow.user).order_by("turn")).all()
    assert [tuple(row) for row in kept] == [(0, "Umbrella in Oslo?"), (1, "Thanks")]


@pytest.mark.parametrize("arguments", ["[1]", "null", '"Oslo"', "", "[" * 100_000])
def test_arguments_that_are_no_object_come_back_as_none(log: Log, arguments: str) -> None:
    start(log, "t1")
    record_step(log, a_step(message={"content": "", "tool_calls": [a_call("c1", arguments)]}))
    assert get_turns(log, "t1")[0].steps[0].calls[0].arguments is None


def test_answers_first_seen_in_a_request_are_the_clients(log: Log) -> None:
    start(log, "t1")
    calls = [a_call("c1"), a_call("c2"), a_call("c3")]
    first = record_step(log, a_step(message={"content": "", "tool_calls": calls}, finish_reason="tool_calls"))
    record_tool_answers(log, "t1", [ToolAnswer("c1", "known", False, ToolSource.REAL, 1.0)])
    messages = [
        {"role": "tool", "tool_call_id": "c1", "content": "known, as the client repeats it"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "in "}, {"text": "parts"}]},
        {"role": "tool", "tool_call_id": "an example of the client's own", "content": "not a call of ours"},
    ]
    record_step(log, a_step(index=1, parent_id=first, delta_ids=[4], context_tokens=6, new_messages=messages))
    one, two, three = get_turns(log, "t1")[0].steps[0].calls
    assert (one.response, one.source) == ("known", "real")
    assert (two.response, two.source, two.latency_ms) == ("in parts", "client", None)
    assert (three.response, three.source, three.is_error) == (None, None, False)
    assert _count(log, ToolResponseRow) == 2


def test_the_first_answer_to_a_call_stays(log: Log) -> None:
    start(log, "t1", "t2")
    for name in ("t1", "t2"):
        record_step(log, a_step(name, message={"content": "", "tool_calls": [a_call("c1")]}))
    record_tool_answers(log, "t1", [ToolAnswer("c1", "first", False, "world", 1.0)])
    record_tool_answers(log, "t1", [ToolAnswer("c1", "second", True, "llm", 1.0)])
    record_tool_answers(log, "t2", [ToolAnswer("c1", "another dialogue", False, "world", 1.0)])
    assert get_turns(log, "t1")[0].steps[0].calls[0].response == "first"
    assert get_turns(log, "t2")[0].steps[0].calls[0].response == "another dialogue"


def test_what_a_policy_may_sample_can_be_stored_on_both_databases(log: Log) -> None:
    start(log, "t1")
    message = {
        "content": "nul \x00, half \ud83d of ☂",
        "tool_calls": [a_call("c1", '{"a\x00": "\udc00"}', "n\x00" * 99)],
    }
    record_step(log, a_step(message=message, user="u\x00\ud83d"))
    record_tool_answers(log, "t1", [ToolAnswer("c1", "\x00\ud83d ☂ 🙂", False, "real", 1.0)])
    (turn,) = get_turns(log, "t1")
    assert turn.steps[0].content == message["content"]
    assert turn.steps[0].calls[0].response == "\ufffd\ufffd ☂ 🙂"
    assert turn.steps[0].calls[0].name == ("n\ufffd" * 64)
    assert token_sequences(log, ["t1"])["t1"].completion_ids == [10, 11]


def test_a_step_of_an_unknown_trajectory_leaves_nothing(log: Log) -> None:
    with pytest.raises(LogError, match="no trajectory 't1' in the log: create it first"):
        record_step(log, a_step("t1"))
    assert _count(log, TurnRow) == _count(log, StepRow) == 0


def test_a_fork_reads_as_its_last_branch(log: Log) -> None:
    start(log, "t1")
    first, _, _ = record_chain(log, "t1", [([1, 2, 3], [10, 11]), ([4], [12]), ([5], [13])])
    edited: dict[str, Any] = {
        "turn_index": 1,
        "parent_id": first,
        "delta_ids": [4],
        "context_tokens": 6,
        "user": "old wording",
        "new_messages": [{"role": "user", "content": "old wording"}],
    }
    record_step(log, a_step(**edited))
    edited["new_messages"] = [{"role": "user", "content": "new wording"}]
    edited["message"] = {"content": "to the new wording", "tool_calls": []}
    record_step(log, a_step(**edited | {"user": "new wording"}))
    one, two = get_turns(log, "t1")
    assert [step.index for step in one.steps] == [0]
    assert (two.user, two.reply) == ("new wording", "to the new wording")
    assert len(two.steps) == 1


def test_turns_before_a_cut_history_are_still_shown(log: Log) -> None:
    start(log, "t1")
    first = record_step(log, a_step(message={"content": "one", "tool_calls": []}))
    record_step(log, a_step(turn_index=1, parent_id=first, delta_ids=[4], context_tokens=6))
    record_step(log, a_step(turn_index=2, message={"content": "three", "tool_calls": []}))
    assert [(turn.index, turn.reply) for turn in get_turns(log, "t1")] == [(0, "one"), (1, "hi"), (2, "three")]


def test_trajectories_are_found_by_what_they_are(log: Log) -> None:
    start(log, "a", "b", scenario=a_scenario("rain"), batch="x", version="v0001")
    start(log, "c", scenario=a_scenario("shop", domain="shop"), batch="y", version="v0002", origin=Origin.EVALUATION)
    start(log, "d", origin=Origin.CHAT)

    def found(**conditions: object) -> list[str]:
        return [t.id for t in list_trajectories(log, **conditions)]  # type: ignore[arg-type]

    assert found() == ["d", "c", "b", "a"]
    assert found(batch="x") == ["b", "a"]
    assert found(origin=Origin.EVALUATION) == ["c"]
    assert found(version="v0001") == ["b", "a"]
    assert found(domain="shop") == ["c"]
    assert found(domain="shop", version="v0001") == []
    assert found(limit=2, offset=1) == ["c", "b"]
    assert found(limit=None) == ["d", "c", "b", "a"]


def test_only_unfinished_trajectories_can_be_removed(log: Log) -> None:
    scenario = a_scenario()
    start(log, "done", "open", "untouched", scenario=scenario)
    full, empty = (create_group(log, scenario.hash, batch, "v0001", 1) for batch in ("full", "empty"))
    create_trajectories(log, [NewTrajectory("in-full", "rollout", scenario.hash, full)])
    create_trajectories(log, [NewTrajectory("in-full-open", "rollout", scenario.hash, full)])
    create_trajectories(log, [NewTrajectory("in-empty", "rollout", scenario.hash, empty)])
    item = item_ids(log, scenario.hash)[0, "umbrella"]
    for name in ("done", "open"):
        message = {"content": "", "tool_calls": [a_call("c1")]}
        first = record_step(log, a_step(name, message=message))
        record_step(log, a_step(name, index=1, parent_id=first, delta_ids=[4], context_tokens=6))
        record_tool_answers(log, name, [ToolAnswer("c1", "x", False, "world", 1.0)])
        add_verdicts(
            log, [Verdict(name, 0, item, "umbrella", Outcome.FAIL, None, VerdictSource.CODE, "checks", None, "", "")]
        )
        add_rewards(log, [Reward(name, 0.0, (0.0,), False, 0)])
    end_trajectory(log, "done", StopReason.COMPLETED)
    end_trajectory(log, "in-full", StopReason.COMPLETED)

    ids = ["done", "open", "in-full", "in-full-open", "in-empty", "nobody"]
    assert delete_trajectories(log, ids) == 3

    assert {t.id for t in list_trajectories(log)} == {"done", "untouched", "in-full"}
    assert token_sequences(log, ["done", "open"]).keys() == {"done"}
    with log.reading() as session:
        assert session.scalars(select(GroupRow.batch)).all() == ["full"]
    assert delete_trajectories(log, ids) == 0


def test_what_can_be_judged_has_a_scenario_and_ended_or_is_a_chat(log: Log) -> None:
    add_scenarios(log, [scenario := a_scenario("rain", domain="weather")])
    for name, origin, of, stop in (
        ("done", Origin.ROLLOUT, scenario.hash, StopReason.COMPLETED),
        ("running", Origin.ROLLOUT, scenario.hash, None),
        ("failed", Origin.ROLLOUT, scenario.hash, StopReason.FAILED),
        ("chat", Origin.CHAT, scenario.hash, None),
        ("bare", Origin.CHAT, None, StopReason.COMPLETED),
    ):
        create_trajectories(log, [NewTrajectory(name, origin, scenario_hash=of, batch="b", version="v0001")])
        if stop is not None:
            end_trajectory(log, name, stop)
    assert judgeable_trajectories(log) == ["chat", "done"]
    assert judgeable_trajectories(log, origin=Origin.CHAT, batch="b", version="v0001", domain="weather") == ["chat"]
    assert judgeable_trajectories(log, domain="travel") == judgeable_trajectories(log, batch="c") == []
    assert judgeable_trajectories(log, version="v0002") == []
