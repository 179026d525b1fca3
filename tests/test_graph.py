"""The agent's graph with a scripted model: what the policy is told, when a turn ends, what stays an exception."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, InvalidToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import PrivateAttr

from agent import example_graph
from agent.graph import AgentState, build_graph
from agent.real_tools import answer_really
from agent.tools import ToolOutage, make_tools
from store.records import ToolSpec
from store.trajectories import ToolAnswer
from store.vocabulary import StopReason, ToolSource


class ScriptedModel(BaseChatModel):
    """Says the next message of its script; remembers what it was asked."""

    script: list[AIMessage]
    _tools: list[Any] = PrivateAttr(default_factory=list)
    _prompts: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _seeds: list[int | None] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        self._tools.extend(tools)
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._prompts.append(list(messages))
        self._seeds.append(kwargs.get("seed"))
        return ChatResult(generations=[ChatGeneration(message=self.script[len(self._prompts) - 1])])


def calls(*named: tuple[str, dict[str, Any]], finish_reason: str = "tool_calls") -> AIMessage:
    tool_calls = [{"name": name, "args": args, "id": f"{name}-{n}"} for n, (name, args) in enumerate(named)]
    return AIMessage(content="", tool_calls=tool_calls, response_metadata={"finish_reason": finish_reason})


def reply(text: str) -> AIMessage:
    return AIMessage(content=text, response_metadata={"finish_reason": "stop"})


SPEC = ToolSpec(
    name="find_room",
    description="Finds a room",
    parameters={
        "title": "kept",
        "type": "object",
        "properties": {"city": {"type": "string", "title": "City"}, "config": {"type": "string"}},
        "required": ["city"],
    },
)


async def echo(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
    return ToolAnswer(call_id=call_id, response=json.dumps(arguments), is_error=False, source=ToolSource.REAL)


def run(model: ScriptedModel, tools: list[BaseTool], config: dict[str, Any] | None = None, **options: Any) -> Any:
    graph = build_graph(model, tools, **options)
    state: AgentState = {"messages": [HumanMessage("hello")]}
    return asyncio.run(graph.ainvoke(state, RunnableConfig(configurable=config or {})))


def test_calls_are_answered_and_the_reply_ends_the_turn() -> None:
    model = ScriptedModel(script=[calls(("find_room", {"city": "Oslo"})), reply("found")])
    state = run(model, make_tools([SPEC], echo))
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][2].content == '{"city": "Oslo"}'
    assert state["stop_reason"] is None


def test_the_model_is_given_the_schema_as_the_spec_has_it() -> None:
    model = ScriptedModel(script=[reply("hi")])
    run(model, make_tools([SPEC], echo))
    assert model._tools == [SPEC.as_openai()]


def test_parameters_that_langchain_uses_itself_reach_the_tool() -> None:
    arguments = {"city": "Oslo", "config": "large", "run_manager": "made up"}
    model = ScriptedModel(script=[calls(("find_room", arguments)), reply("found")])
    state = run(model, make_tools([SPEC], echo))
    assert json.loads(state["messages"][2].content) == arguments


def test_arguments_that_are_no_json_are_answered_as_an_error_and_the_loop_goes_on() -> None:
    broken = AIMessage(
        content="",
        invalid_tool_calls=[
            InvalidToolCall(type="invalid_tool_call", name="find_room", args='{"city": ', id="x1", error="bad")
        ],
        response_metadata={"finish_reason": "tool_calls"},
    )
    refused: list[ToolAnswer] = []

    async def remember(answer: ToolAnswer) -> None:
        refused.append(answer)

    model = ScriptedModel(script=[broken, reply("sorry")])
    state = run(model, make_tools([SPEC], echo), on_refusal=remember)
    answer = state["messages"][2]
    assert answer.content == 'error: arguments are not valid JSON: {"city":'
    assert (answer.status, answer.tool_call_id) == ("error", "x1")
    assert state["messages"][-1].content == "sorry"
    assert [(r.call_id, r.is_error, r.source) for r in refused] == [("x1", True, ToolSource.VALIDATION)]


def test_an_unknown_tool_is_answered_with_the_known_ones() -> None:
    model = ScriptedModel(script=[calls(("find_rome", {}), ("find_room", {"city": "Oslo"})), reply("ok")])
    state = run(model, make_tools([SPEC], echo))
    unknown, known = state["messages"][2:4]
    assert unknown.content == "error: there is no tool 'find_rome'; known tools: find_room"
    assert known.content == '{"city": "Oslo"}'


def test_calls_of_one_step_run_at_the_same_time_and_are_answered_in_order() -> None:
    both_called = asyncio.Event()
    waiting: list[str] = []

    async def meet(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        waiting.append(arguments["city"])
        if len(waiting) == 2:
            both_called.set()
        await asyncio.wait_for(both_called.wait(), timeout=5)
        return await echo(name, arguments, call_id)

    model = ScriptedModel(script=[calls(("find_room", {"city": "A"}), ("find_room", {"city": "B"})), reply("ok")])
    state = run(model, make_tools([SPEC], meet))
    assert [message.content for message in state["messages"][2:4]] == ['{"city": "A"}', '{"city": "B"}']


def test_the_step_limit_ends_the_turn_with_its_last_calls_answered() -> None:
    model = ScriptedModel(script=[calls(("find_room", {"city": "A"})) for _ in range(9)])
    state = run(model, make_tools([SPEC], echo), {"max_steps": 3})
    assert state["stop_reason"] == StopReason.MAX_STEPS
    assert len(model._prompts) == 3
    assert state["messages"][-1].type == "tool"


def test_steps_of_earlier_turns_do_not_count() -> None:
    def ask() -> AIMessage:
        return calls(("find_room", {"city": "A"}))

    tools = make_tools([SPEC], echo)
    model = ScriptedModel(script=[make() for _ in range(2) for make in (ask, lambda: reply("ok"))])
    graph = build_graph(model, tools, InMemorySaver())
    config = RunnableConfig(configurable={"thread_id": "t", "max_steps": 2})

    async def two_turns() -> Any:
        await graph.ainvoke({"messages": [HumanMessage("first")]}, config)
        return await graph.ainvoke({"messages": [HumanMessage("second")]}, config)

    state = asyncio.run(two_turns())
    assert state["stop_reason"] is None
    assert len(state["messages"]) == 8


def test_a_message_cut_at_the_token_limit_ends_the_turn_without_running_its_calls() -> None:
    model = ScriptedModel(script=[calls(("find_room", {"city": "A"}), finish_reason="length")])
    state = run(model, make_tools([SPEC], echo))
    assert state["stop_reason"] == StopReason.MAX_TOKENS
    assert state["messages"][-1].type == "ai"


def test_an_exception_in_a_tool_is_told_but_an_outage_is_raised() -> None:
    @tool
    async def open_door(code: int) -> str:
        """Opens the door."""
        if code == 13:
            raise ToolOutage("no power")
        raise ValueError("wrong code")

    state = run(ScriptedModel(script=[calls(("open_door", {"code": 1})), reply("ok")]), [open_door])
    assert (state["messages"][2].content, state["messages"][2].status) == ("error: wrong code", "error")
    with pytest.raises(ToolOutage, match="no power"):
        run(ScriptedModel(script=[calls(("open_door", {"code": 13}))]), [open_door])


def test_every_step_is_sampled_with_a_seed_of_its_own() -> None:
    model = ScriptedModel(script=[calls(("find_room", {"city": "A"})), reply("ok")])
    run(model, make_tools([SPEC], echo), {"seed": 70})
    assert model._seeds == [70, 71]


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="find_room"):
        make_tools([SPEC, SPEC], echo)


def test_the_exported_graph_has_no_checkpointer_and_knows_its_tools() -> None:
    root = Path(__file__).parent.parent
    place, name = json.loads((root / "langgraph.json").read_text())["graphs"]["agent"].split(":")
    assert (root / place).samefile(example_graph.__file__)
    served = getattr(example_graph, name)({"configurable": {"thread_id": "t1"}})
    assert served.checkpointer is None
    assert set(served.get_graph().nodes) == {"__start__", "model", "tools", "__end__"}


def test_the_real_tools_do_what_they_say_and_nothing_else() -> None:
    def say(name: str, **arguments: Any) -> ToolAnswer:
        return asyncio.run(answer_really(name, arguments, "c1"))

    assert say("calculate", expression="2 * (3 + 4) / -7").response == "-2"
    for expression in ("__import__('os')", "1/0", "1+", "a"):
        assert say("calculate", expression=expression).is_error
    assert say("current_time", timezone="Europe/Berlin").response[:2] == "20"
    assert "no time zone" in say("current_time", timezone="../etc/passwd").response
    assert say("current_time", zone="UTC").is_error
