"""A chat with the real model behind the real gateway: stopped in the middle, gone on with by another process."""

import asyncio
import contextlib
import time

from agent.chat import ChatSession, Equipment, TokenSaid, TurnEnded
from agent.real_tools import answer_really, real_specs
from store.chats import chat_steps
from store.turns import get_turns
from store.vocabulary import StopReason
from tests.serving import Serving

EQUIPMENT = Equipment(real_specs(), answer_really, system="You are a storyteller.")


def test_a_chat_with_the_real_model_is_stopped_and_goes_on(serving: Serving) -> None:
    async def stop_early() -> tuple[str, str]:
        chat = ChatSession(serving.url, serving.log, EQUIPMENT, max_tokens=1500)
        heard, pieces = "", 0
        async with contextlib.aclosing(chat.say("Tell me a long story about a fox and a river.")) as events:
            async for event in events:
                assert isinstance(event, TokenSaid), event
                heard, pieces = heard + event.text, pieces + 1
                if pieces == 6:
                    break
        await chat.close()
        return chat.id, heard

    async def go_on(session: str) -> TurnEnded:
        chat = ChatSession(serving.url, serving.log, EQUIPMENT, session=session, max_tokens=12)
        events = [event async for event in chat.say("Say hello.")]
        await chat.close()
        assert isinstance(events[0], TokenSaid) and isinstance(events[-1], TurnEnded)
        return events[-1]

    session, heard = asyncio.run(stop_early())
    deadline = time.monotonic() + 20
    while not (steps := chat_steps(serving.log, session)):
        assert time.monotonic() < deadline, "the gateway has not recorded the stopped step"
        time.sleep(0.05)
    assert steps[0].cut_off and steps[0].message["content"].startswith(heard)
    assert not get_turns(serving.log, session)[0].complete

    ended = asyncio.run(go_on(session))
    assert ended.stop_reason in (None, StopReason.MAX_TOKENS)
    [turn] = get_turns(serving.log, session)
    assert turn.user == "Say hello."
    assert [message["role"] for message in chat_steps(serving.log, session)[-1].new_messages] == ["system", "user"]
