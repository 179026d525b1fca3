"""Ids as they were sampled come back exactly, in one sequence for each trajectory (invariant 1)."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from store.database import Log, LogError
from store.tokens import (
    context_ids,
    pack_ids,
    pack_logprobs,
    token_sequences,
    unpack_ids,
    unpack_logprobs,
)
from store.trajectories import record_step
from tests.store_examples import a_step, record_chain, start

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=6)


@given(IDS, st.lists(st.floats(width=32, allow_nan=False), max_size=6))
def test_packing_keeps_every_value(ids: list[int], logprobs: list[float]) -> None:
    assert unpack_ids(pack_ids(ids)) == ids
    assert unpack_logprobs(pack_logprobs(logprobs)) == logprobs


def test_packing_is_little_endian_four_bytes_each() -> None:
    assert pack_ids([1, 258]) == b"\x01\x00\x00\x00\x02\x01\x00\x00"
    assert pack_logprobs([-0.5]) == b"\x00\x00\x00\xbf"


@pytest.mark.parametrize("bad", [-1, 2**32, 1.5])
def test_what_is_no_token_id_is_refused(bad: Any) -> None:
    with pytest.raises(LogError, match=f"{bad} is no token id"):
        pack_ids([1, bad, 2])


def test_a_dialogue_becomes_one_sequence(log: Log) -> None:
    start(log, "t1")
    first = record_step(log, a_step(finish_reason="tool_calls", version="v0001"))
    second = record_step(
        log,
        a_step(
            index=1,
            parent_id=first,
            delta_ids=[20, 21],
            sampled_ids=[30],
            logprobs=[-2.0],
            context_tokens=7,
            version="v0002",
            trainable=False,
            untrainable_reason="cut by the client",
        ),
    )
    third = record_step(
        log, a_step(turn_index=1, parent_id=second, delta_ids=[40], sampled_ids=[50, 51], context_tokens=9)
    )

    sequence = token_sequences(log, ["t1"])["t1"]

    assert sequence.prompt_ids == [1, 2, 3]
    assert sequence.completion_ids == [10, 11, 20, 21, 30, 40, 50, 51]
    assert sequence.sampled == [1, 1, 0, 0, 1, 0, 1, 1]
    assert sequence.logprobs == [-0.5, -0.25, 0.0, 0.0, -2.0, 0.0, -0.5, -0.25]
    assert sequence.step_of_token == [0, 0, -1, -1, 1, -1, 2, 2]
    assert [step[:4] for step in sequence.steps] == [
        (0, 0, "v0001", True),
        (0, 1, "v0002", False),
        (1, 0, "v0001", True),
    ]
    assert context_ids(log, first) == [1, 2, 3, 10, 11]
    assert context_ids(log, third) == sequence.prompt_ids + sequence.completion_ids


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=8), st.data())
def test_concatenation_is_the_last_prompt_and_its_completion(
    log: Log, pairs: list[tuple[list[int], list[int]]], data: st.DataObject
) -> None:
    """A model of the server: each step extends any earlier context, and the log agrees with the prompt it saw."""
    test_concatenation_is_the_last_prompt_and_its_completion.counter += 1  # type: ignore[attr-defined]
    name = f"t{test_concatenation_is_the_last_prompt_and_its_completion.counter}"  # type: ignore[attr-defined]
    start(log, name)
    contexts: dict[int | None, list[int]] = {None: []}
    prompt: list[int] = []
    sampled: list[int] = []
    for index, (delta, sampled) in enumerate(pairs):
        parent = data.draw(st.sampled_from(list(contexts)))
        prompt = contexts[parent] + delta
        step = a_step(
            name,
            index=index,
            parent_id=parent,
            delta_ids=delta,
            sampled_ids=sampled,
            logprobs=[-1.0] * len(sampled),
            context_tokens=len(prompt),
        )
        contexts[record_step(log, step)] = prompt + sampled
    sequence = token_sequences(log, [name])[name]
    assert sequence.prompt_ids + sequence.completion_ids == prompt + sampled
    for step_id, ids in contexts.items():
        assert step_id is None or context_ids(log, step_id) == ids


test_concatenation_is_the_last_prompt_and_its_completion.counter = 0  # type: ignore[attr-defined]


def test_the_sequence_of_a_fork_follows_the_last_step(log: Log) -> None:
    start(log, "t1")
    first, _, _ = record_chain(log, "t1", [([1, 2, 3], [10, 11]), ([4], [12]), ([5], [13])])
    record_step(log, a_step(index=1, parent_id=first, delta_ids=[99], sampled_ids=[100, 101], context_tokens=6))
    sequence = token_sequences(log, ["t1"])["t1"]
    assert sequence.prompt_ids == [1, 2, 3]
    assert sequence.completion_ids == [10, 11, 99, 100, 101]
    assert [step.step_index for step in sequence.steps] == [0, 1]


def test_a_rewritten_beginning_starts_a_sequence_of_its_own(log: Log) -> None:
    start(log, "t1")
    record_chain(log, "t1", [([1, 2, 3], [10, 11]), ([4], [12])])
    record_step(log, a_step(turn_index=1, delta_ids=[7, 8], context_tokens=2))
    sequence = token_sequences(log, ["t1"])["t1"]
    assert (sequence.prompt_ids, sequence.completion_ids) == ([7, 8], [10, 11])


@pytest.mark.parametrize("context_tokens", [5, 7])
def test_a_step_that_does_not_extend_its_parent_is_refused(log: Log, context_tokens: int) -> None:
    start(log, "t1")
    first = record_step(log, a_step())
    with pytest.raises(LogError, match=rf"5 ids of the parent and 1 new ones are not the prompt's {context_tokens}"):
        record_step(log, a_step(index=1, parent_id=first, delta_ids=[4], context_tokens=context_tokens))
    assert token_sequences(log, ["t1"])["t1"].completion_ids == [10, 11]


def test_a_step_cannot_go_on_from_another_trajectory(log: Log) -> None:
    start(log, "t1", "t2")
    first = record_step(log, a_step("t1"))
    with pytest.raises(LogError, match=rf"'t2' has no step {first} to go on from"):
        record_step(log, a_step("t2", index=1, parent_id=first, delta_ids=[4], context_tokens=6))


def test_every_sampled_id_needs_its_logprob(log: Log) -> None:
    start(log, "t1")
    with pytest.raises(LogError, match="2 sampled ids, 1 logprobs"):
        record_step(log, a_step(logprobs=[-0.5]))


def test_a_log_whose_ids_do_not_add_up_is_not_trained_on(log: Log) -> None:
    start(log, "t1")
    _, last = record_chain(log, "t1", [([1, 2, 3], [10, 11]), ([4], [12])])
    with log.session() as session:
        session.execute(text("UPDATE step SET context_tokens = 9 WHERE id = :id"), {"id": last})
    with pytest.raises(LogError, match=rf"t1, step {last}: the ids of its context number 6, the log says 9"):
        token_sequences(log, ["t1"])


def test_unknown_steps_and_empty_trajectories(log: Log) -> None:
    start(log, "silent")
    assert token_sequences(log, ["silent", "nobody"]) == {}
    with pytest.raises(LogError, match="no step 12345"):
        context_ids(log, 12345)


def test_a_thousand_trajectories_cost_a_few_queries(sqlite_log: Log) -> None:
    names = [f"t{i}" for i in range(1001)]
    start(sqlite_log, *names)
    record_chain(sqlite_log, names[0], [([1], [2])])
    record_chain(sqlite_log, names[-1], [([3], [4])])
    statements: list[str] = []
    event.listen(sqlite_log.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    sequences = token_sequences(sqlite_log, names)
    assert list(sequences) == [names[0], names[-1]]
    assert len([s for s in statements if s.startswith("SELECT")]) <= 3
