"""A policy that speaks the format of Qwen3, through the real gateway: only what it samples is scripted."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from transformers import AutoTokenizer

from agent.ports import free_ports
from agent.renderer_choice import load_renderer
from store.database import Log
from store.log_check import check_log
from store.settings import load_settings
from store.tokens import token_sequences
from store.turns import get_turns
from store.versions import add_version, set_version_state
from store.vocabulary import VersionState
from tests.faulty_vllm import faulty_servers, gateway_over
from tests.library_formats import template_of
from tests.serving import MODEL
from tests.test_library_rendering import TOOL, answered, asked, called, spans


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = template_of("qwen3")
    place = tmp_path_factory.mktemp("qwen3")
    tokenizer.save_pretrained(place)
    return place


def test_a_dialogue_of_a_model_that_the_library_knows(model_dir: Path, tmp_path: Path, sqlite_log: Log) -> None:
    """Parallel calls, thinking, plain and streamed: the log holds the very ids that the cold start would train on, in
    one sequence without a fork, although the client never sends the thinking back."""
    renderer = load_renderer(model_dir)
    assert renderer.name == "qwen3"
    dialogue = [
        asked("A flight?"),
        called(("find_flights", {"origin": "Oslo"}), ("find_flights", {"origin": "Tromsø"}), thought="Both."),
        *answered("F1", "none"),
        called(content="F1 it is.", thought="Known."),
        asked("Sure?"),
        called(content="Yes."),
    ]
    ids, mask = renderer.dialogue(dialogue, [TOOL])
    port, server_port = free_ports()
    with faulty_servers() as (vllm,):
        settings = load_settings(
            home=tmp_path, database_url=sqlite_log.url, gateway={"port": port},
            server={"port": server_port, "urls": [vllm.url], "max_model_len": 2048, "start_timeout_s": 5},
        )  # fmt: skip
        add_version(sqlite_log, "v0001", parent=None, path=str(model_dir), files={})
        set_version_state(sqlite_log, "v0001", VersionState.LIVE, "first")
        with gateway_over(sqlite_log, settings) as (address, _):
            vllm.script = [sampled for _, sampled in spans(ids, mask)]
            api = openai.OpenAI(base_url=f"{address}/sessions/s/v1", api_key="none", max_retries=0)
            sent: list[Any] = [dialogue[0]]
            first = api.chat.completions.create(model="policy", messages=sent, tools=[TOOL])  # type: ignore[list-item]
            said = first.choices[0].message
            assert first.choices[0].finish_reason == "tool_calls"
            assert said.model_extra == {"reasoning_content": "Both."}
            calls = [call.model_dump() for call in said.tool_calls or ()]
            assert [json.loads(c["function"]["arguments"])["origin"] for c in calls] == ["Oslo", "Tromsø"]
            sent.append({"role": "assistant", "content": said.content, "tool_calls": calls})
            answers = zip(calls, ("F1", "none"), strict=True)
            sent += [{"role": "tool", "tool_call_id": call["id"], "content": text} for call, text in answers]
            for meant in (dialogue[4], dialogue[6]):
                shown: dict[str, str] = {}
                stream = api.chat.completions.create(model="policy", messages=sent, tools=[TOOL], stream=True)  # type: ignore[list-item]
                for chunk in stream:
                    for name, text in chunk.choices[0].delta.model_dump(exclude_none=True).items():
                        shown[name] = shown.get(name, "") + text
                assert shown["content"] == meant["content"]
                assert shown.get("reasoning_content", "") == meant["reasoning_content"]
                sent += [{"role": "assistant", "content": shown["content"]}, dialogue[5]]
            with pytest.raises(openai.BadRequestError, match="multipleOf"):
                strange = {"type": "function", "function": {"name": "find_flights", "parameters": {"multipleOf": 3}}}
                api.chat.completions.create(model="policy", messages=sent, tools=[strange], tool_choice="required")  # type: ignore[list-item]
    sequence = token_sequences(sqlite_log, ["s"])["s"]
    assert [*sequence.prompt_ids, *sequence.completion_ids] == ids
    found = check_log(sqlite_log)
    assert not found.damaged and found.forked == 0
    assert [len(turn.steps) for turn in get_turns(sqlite_log, "s")] == [2, 1]
    assert get_turns(sqlite_log, "s")[0].steps[0].calls[0].response == "F1"
