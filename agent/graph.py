"""The agent: a LangGraph of two nodes, `model` and `tools`, for any chat model and any tools; reads and writes nothing.

    START -> model -> (tool calls?) -> tools -> model ... -> END

Calls to tools that a person must agree to (`ask_first`) interrupt the run before any call of their message is made;
with a checkpointer it goes on from there when the decisions are in (agent/approval.py).

What the policy did wrong is told to it as a tool would (arguments that are no JSON, an unknown tool, an exception in
a tool) and the loop goes on; what is not its fault (the model's server, ToolOutage) leaves as an exception. A turn
that stops before its reply says why in the state (`stop_reason`), never by a recursion error.

Read from `config["configurable"]`: `max_steps`, the most model calls of one turn (default 25); `seed`, from which each
call's sampling seed is made (none: the model's own).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, InvalidToolCall, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

from agent.approval import ask_person, refused_by_person
from agent.tools import SpecTool, ToolOutage
from store.trajectories import ToolAnswer
from store.vocabulary import StopReason, ToolSource

DEFAULT_MAX_STEPS = 25

OnRefusal = Callable[[ToolAnswer], Awaitable[None]]
"""Told of every call that the graph itself answered with an error, before the model sees that answer."""


class AgentState(TypedDict, total=False):
    """`messages`: the dialogue so far; `stop_reason`: why the turn ended without its reply, None if it has one."""

    messages: Annotated[list[AnyMessage], add_messages]
    stop_reason: str | None


def build_graph(
    model: BaseChatModel,
    tools: Sequence[BaseTool],
    checkpointer: BaseCheckpointSaver[Any] | None = None,
    *,
    ask_first: Collection[str] = (),
    on_refusal: OnRefusal | None = None,
    retry_policy: RetryPolicy | None = None,
) -> CompiledStateGraph[AgentState, None, AgentState, AgentState]:
    """Compile the graph; the tools are bound to the model once.

    Run it with `ainvoke` or `astream` on {"messages": [...]}. `retry_policy` says which failed model calls are made
    again. `on_refusal` lets a log record what only the graph knows: that it refused a call. `ask_first` names the tools
    whose calls a person decides on; that needs a checkpointer.
    """
    schemas = [tool.spec.as_openai() if isinstance(tool, SpecTool) else tool for tool in tools]
    policy = model.bind_tools(schemas) if schemas else model
    tool_node = ToolNode(list(tools), handle_tool_errors=_tell_the_policy)

    async def call_model(state: AgentState, config: RunnableConfig) -> AgentState:
        seed = config.get("configurable", {}).get("seed")
        steps_so_far = sum(isinstance(message, AIMessage) for message in state["messages"])
        # Another seed for each step: with one seed for all, the server would draw the same noise at every step.
        sampling = {} if seed is None else {"seed": seed + steps_so_far}
        message = await policy.ainvoke(state["messages"], config, **sampling)
        cut_short = message.response_metadata.get("finish_reason") == "length"
        return {"messages": [message], "stop_reason": StopReason.MAX_TOKENS.value if cut_short else None}

    async def call_tools(state: AgentState, config: RunnableConfig) -> AgentState:
        message = state["messages"][-1]
        assert isinstance(message, AIMessage)
        known = [call for call in message.tool_calls if call["name"] in tool_node.tools_by_name]
        # First of all: whatever stands before an interrupt runs again when the run goes on.
        decisions = ask_person([call for call in known if call["name"] in ask_first])
        declined = refused_by_person(known, decisions)
        agreed = [call for call in known if call["id"] not in {answer.call_id for _, answer in declined}]
        answered, refused = await asyncio.gather(
            _run_tools(tool_node, agreed, config),
            _refuse([*refusals(message, list(tool_node.tools_by_name)), *declined], on_refusal),
        )
        by_call = {answer.tool_call_id: answer for answer in [*answered, *refused]}
        # In the order in which the calls stand in the message, the unparsed ones last, as a client sends them back.
        call_ids = [call["id"] for call in message.tool_calls] + [call["id"] for call in message.invalid_tool_calls]
        answers: list[AnyMessage] = [by_call[call_id or ""] for call_id in call_ids]
        limit = config.get("configurable", {}).get("max_steps", DEFAULT_MAX_STEPS)
        stop = StopReason.MAX_STEPS.value if _steps_of_turn(state["messages"]) >= limit else None
        return {"messages": answers, "stop_reason": stop}

    graph = StateGraph(AgentState)
    graph.add_node("model", call_model, retry_policy=retry_policy)
    graph.add_node("tools", call_tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", _after_model, ["tools", END])
    graph.add_conditional_edges("tools", _after_tools, ["model", END])
    # Two supersteps a step; the limit on steps is `max_steps`, which a caller may set as high as it likes.
    return graph.compile(checkpointer=checkpointer).with_config(recursion_limit=100_000)


def refusals(message: AIMessage, known: Sequence[str]) -> list[tuple[str, ToolAnswer]]:
    """(tool name, error answer) for every call of `message` that no tool can be asked about."""
    answers = []
    for call in message.tool_calls:
        if call["name"] not in known:
            tools = ", ".join(known) or "none"
            answers.append(
                (call["name"], f"error: there is no tool {call['name']!r}; known tools: {tools}", call["id"])
            )
    for broken in message.invalid_tool_calls:
        answers.append((broken["name"] or "", malformed_text(broken), broken["id"]))
    return [
        (
            name,
            ToolAnswer(
                call_id=call_id or "", response=text, is_error=True, source=ToolSource.VALIDATION, latency_ms=0.0
            ),
        )
        for name, text, call_id in answers
    ]


def malformed_text(call: InvalidToolCall) -> str:
    """What a tool says to arguments that it cannot parse."""
    sampled = " ".join((call["args"] or "").split())
    shown = sampled if len(sampled) <= 200 else sampled[:200] + "…"
    return f"error: arguments are not valid JSON: {shown}"


async def _run_tools(node: ToolNode, calls: list[ToolCall], config: RunnableConfig) -> list[ToolMessage]:
    if not calls:
        return []
    result = await node.ainvoke({"messages": [AIMessage(content="", tool_calls=calls)]}, config)
    return list(result["messages"])


async def _refuse(answers: list[tuple[str, ToolAnswer]], on_refusal: OnRefusal | None) -> list[ToolMessage]:
    for _, answer in answers:
        if on_refusal is not None:
            await on_refusal(answer)
    return [
        ToolMessage(content=answer.response, name=name, tool_call_id=answer.call_id, status="error")
        for name, answer in answers
    ]


def _tell_the_policy(error: Exception) -> str:
    """ToolNode's handler of exceptions: the policy is told of all but outages."""
    if isinstance(error, ToolOutage):
        raise error
    return f"error: {error}"


def _steps_of_turn(messages: Sequence[AnyMessage]) -> int:
    steps = 0
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        steps += isinstance(message, AIMessage)
    return steps


async def _after_model(state: AgentState) -> str:  # async: a plain function would take a thread at every step
    message = state["messages"][-1]
    assert isinstance(message, AIMessage)
    calls = message.tool_calls or message.invalid_tool_calls
    return "tools" if calls and not state.get("stop_reason") else END


async def _after_tools(state: AgentState) -> str:
    return END if state.get("stop_reason") else "model"
