"""The bundled model after half a minute of fine-tuning on how the agents of examples/agents call their tools, served.

By itself it hardly ever calls a tool.
"""

import json
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent.bundled_model import prepare_bundled_model
from agent.renderer_choice import load_renderer
from store.training_settings import SftSettings
from store.versions import add_version
from tests.serving import MODEL, Serving
from train.sft import SftExample, train_sft

AGENTS = Path(__file__).resolve().parent.parent / "examples" / "agents"
DICE = {
    "type": "function",
    "function": {
        "name": "roll_dice",
        "description": "Rolls dice and gives their sum.",
        "parameters": {"type": "object", "properties": {"dice": {"type": "integer"}}, "required": ["dice"]},
    },
}

Calls = list[tuple[str, dict[str, Any]]]

TAUGHT: list[tuple[str, str, str, Calls]] = [
    (
        "two_node_graph",
        "You work in a fruit shop. Look things up before you answer. Be brief.",
        "Do you have plums?",
        [("stock_of", {"fruit": "plums"})],
    ),
    ("streaming", "You tell the time. Be brief.", "What time is it in Oslo?", [("time_in", {"zone": "Europe/Oslo"})]),
    (
        "async_graph",
        "You are the front desk of a library. Be brief.",
        "Where is Emma?",
        [("find_book", {"title": "Emma"})],
    ),
    (
        "parallel_tools",
        "",
        "Compare Oslo and Rome.",
        [("temperature_in", {"city": "Oslo"}), ("temperature_in", {"city": "Rome"})],
    ),
    ("openai_loop", "You add numbers with your tool.", "What is 12 + 30?", [("add", {"numbers": [12, 30]})]),
    ("dice", "You roll dice with your tool. Be brief.", "Roll two dice for me.", [("roll_dice", {"dice": 2})]),
]
"""(example, system message, question, calls that the model shall answer with)."""


VERSION = "v0100"
"""Of the taught model in the log of `serving`."""


@contextmanager
def calling_policy_live(serving: Serving, home: Path) -> Iterator[None]:
    """The taught model is live in the servers that run; the model as it comes is again afterwards."""
    bundled = prepare_bundled_model(MODEL)
    renderer = load_renderer(bundled)
    lessons = [SftExample(*renderer.dialogue(*lesson(*taught))) for taught in TAUGHT]
    train_sft(bundled, home / "taught", lessons, SftSettings(learning_rate=5e-4, epochs=12, batch_size=2), seed=0)
    add_version(serving.log, VERSION, parent="v0001", path=str(home / "taught"), files={})
    assert serving.gateway.promote(VERSION, "taught")["accepted"]
    try:
        yield
    finally:
        assert serving.gateway.promote("v0001", "as it comes")["accepted"]


def lesson(example: str, system: str, question: str, calls: Calls) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(messages, tools) of a dialogue that ends with the calls."""
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(calls)
    ]
    said = [{"role": "system", "content": system}] if system else []
    asked = {"role": "user", "content": question}
    return [*said, asked, {"role": "assistant", "content": "", "tool_calls": made}], tools_of(example)


def tools_of(example: str) -> list[dict[str, Any]]:
    """The tools of an example as its requests have them."""
    if example == "dice":
        return [DICE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")
        loaded = runpy.run_path(str(AGENTS / f"{example}.py"))
    if "TOOLS" in loaded:
        return list(loaded["TOOLS"])
    found = loaded.get("tools") or [one for one in loaded.values() if getattr(one, "args_schema", None)]
    return [convert_to_openai_tool(one) for one in found]
