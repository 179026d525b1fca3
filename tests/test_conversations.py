"""What a request continues, and what counts as rewriting history."""

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
