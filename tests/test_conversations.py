"""What a request continues, and what counts as rewriting history."""

import gc
import weakref
from typing import Any

import pytest

from agent.conversations import Conversation, Conversations, fingerprints
from agent.rendering import Renderer
from store.database import Log
from store.trajectories import record_step
from store.vocabulary import Untrainable
from tests.store_examples import a_step, start

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Is it?"}]
SAID = {"role": "assistant", "content": "Yes."}
MORE = [*ASK, SAID, {"role": "user", "content": "Sure?"}]


def answer(
    talk: Conversation, renderer: Renderer, messages: list[dict[str, Any]], step: int, *, cut: bool = False
) -> bool:
    """Records an answer as the gateway does; whether its step is a fork."""
    prompt = talk.prompt(renderer, messages, None)
    forked = prompt.forked
    if prompt.parent is not None and not cut:
        prompt.parent.go_on()
    content = "Ye" if cut else "Yes."
    talk.add(step, prompt, SAID | {"content": content}, renderer.encode("Yes.<|im_end|>"), cut_off=cut)
    return forked


def test_a_request_sent_again_after_it_was_cut_off_is_no_fork(renderer: Renderer) -> None:
    talk = Conversation()
    assert not answer(talk, renderer, ASK, 1, cut=True)
    assert not answer(talk, renderer, ASK, 2), "the first request of a dialogue, sent again"
    assert not answer(talk, renderer, MORE, 3, cut=True)
    assert not answer(talk, renderer, MORE, 4, cut=True) and not answer(talk, renderer, MORE, 5)
    assert answer(talk, renderer, MORE, 6), "it had an answer"
    assert answer(talk, renderer, ASK, 7)


def test_who_goes_on_from_what_was_cut_off_goes_on_from_what_was_before(renderer: Renderer) -> None:
    """The stop button of a chat: the half answer stays, and to ask the question before it again rewrites history."""
    talk = Conversation()
    answer(talk, renderer, ASK, 1)
    answer(talk, renderer, MORE, 2, cut=True)
    stopped = [*MORE, {"role": "assistant", "content": "Ye"}, {"role": "user", "content": "Go on."}]
    assert not answer(talk, renderer, stopped, 3)
    assert answer(talk, renderer, MORE, 4)


@pytest.mark.parametrize("reason", [Untrainable.CANCELLED, Untrainable.TRUNCATED])
async def test_a_restarted_gateway_knows_what_was_cut_off(
    sqlite_log: Log, renderer: Renderer, reason: Untrainable
) -> None:
    start(sqlite_log, "t1")
    ids = renderer.open(ASK, None)
    sampled = renderer.encode("Yes.<|im_end|>")
    first = record_step(sqlite_log, _step(None, ASK, ids, sampled, 0, len(ids)))
    prompt = (await Conversations(sqlite_log).get("t1")).prompt(renderer, MORE, None)
    assert not prompt.forked and prompt.parent is not None
    context = len(ids) + len(sampled) + len(prompt.delta_ids)
    record_step(sqlite_log, _step(first, MORE[2:], prompt.delta_ids, sampled, 1, context, reason))
    again = (await Conversations(sqlite_log).get("t1")).prompt(renderer, MORE, None)
    assert again.forked == (reason is not Untrainable.CANCELLED)


def _step(
    parent: int | None, new: Any, delta: Any, sampled: Any, turn: int, context: int, reason: Untrainable | None = None
) -> Any:
    return a_step(
        "t1",
        turn_index=turn,
        parent_id=parent,
        new_messages=new,
        message={"content": "Yes.", "reasoning": "", "tool_calls": []},
        delta_ids=delta,
        sampled_ids=sampled,
        logprobs=[-0.5] * len(sampled),
        context_tokens=context,
        trainable=reason is None,
        untrainable_reason=reason,
    )


def test_a_name_is_part_of_what_was_said_except_on_what_the_policy_said() -> None:
    ada, bob, nobody = (
        fingerprints([ASK[0] | name, SAID], None)[-1] for name in ({"name": "ada"}, {"name": "bob"}, {})
    )
    assert len({ada, bob, nobody}) == 3
    named = fingerprints([ASK[0], SAID | {"name": "supervisor"}], None)[-1]
    assert named == nobody, "agents put their own name on an answer before they send it back"


def test_of_two_first_requests_at_once_the_later_one_is_a_fork(renderer: Renderer) -> None:
    """Both are rendered before either is written; all choices of one request (n > 1) are roots alike."""
    talk = Conversation()
    one, other = talk.prompt(renderer, ASK, None), talk.prompt(renderer, ASK, None)
    assert not one.forked and one.begin()
    assert other.forked and not other.begin()
    assert not one.forked and not one.begin(), "its second choice"
    one.take_back()
    assert not other.forked, "the first one could not be written"


async def _say(talks: Conversations, name: str, renderer: Renderer, messages: list[dict[str, Any]], step: int) -> None:
    """A step as the recorder keeps it, of a dialogue of which the log has nothing to be read."""
    talk = await talks.get(name)
    prompt = talk.prompt(renderer, messages, None)
    key = talk.add(step, prompt, SAID, renderer.encode("Yes.<|im_end|>"))
    if prompt.parent is not None:
        prompt.parent.go_on()
    talks.ended(name, key, talk)


def _counted(talks: Conversations) -> int:
    return sum(len(context.ids) for talk in talks._kept.values() for context in talk.contexts.values())


async def test_what_is_kept_is_counted_and_what_is_evicted_is_let_go(sqlite_log: Log, renderer: Renderer) -> None:
    talks = Conversations(sqlite_log, capacity=3)
    for step in range(12):
        await _say(talks, f"t{step % 4}", renderer, [{"role": "user", "content": f"Is it {step}?"}], step)
        assert talks._ids == _counted(talks)
    slow = await talks.get("t3")
    prompt = slow.prompt(renderer, ASK, None)
    held = weakref.ref(next(iter(slow.contexts.values())))
    for step in range(3):
        await _say(talks, f"u{step}", renderer, ASK, 20 + step)
    assert "t3" not in talks._kept, "evicted while it is answered"
    talks.ended("t3", slow.add(30, prompt, SAID, [7] * 1000), slow)
    assert talks._ids == _counted(talks) < 1000
    await _say(talks, "u2", renderer, ASK, 31)
    assert talks._ids == _counted(talks), "the same context again, by another step"
    del slow, prompt
    gc.collect()
    assert held() is None


async def test_an_end_is_remembered_of_what_was_evicted_unless_it_was_continued(
    sqlite_log: Log, renderer: Renderer
) -> None:
    talks = Conversations(sqlite_log, max_ids=1)
    await _say(talks, "t1", renderer, ASK, 1)
    assert talks.continued_by(MORE, None) == "t1"
    await _say(talks, "t1", renderer, MORE, 2)
    assert talks.continued_by(MORE, None) is None, "somebody went on from there"
    await _say(talks, "u1", renderer, [{"role": "user", "content": "Another one?"}], 3)
    assert list(talks._kept) == ["u1"]
    assert talks.continued_by(MORE, None) is None
    assert talks.continued_by([*MORE, SAID, {"role": "user", "content": "Really?"}], None) == "t1"
