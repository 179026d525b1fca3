"""The graph that `langgraph dev` serves (langgraph.json): the policy behind the gateway, with two small real tools.

Compiled without a checkpointer: the server brings its own. Each thread of the server is a session of the gateway, so
what is said there is in the log. Reads the settings for the gateway's address; `checkloop up` must be running.
"""

import ast
import operator
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import openai
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph.state import CompiledStateGraph

from agent.graph import build_graph
from agent.policy import connect_policy, open_connections
from store.settings import load_settings

OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


@tool
async def current_time(timezone: str) -> str:
    """The present date and time in a time zone such as Europe/Berlin."""
    return datetime.now(ZoneInfo(timezone)).isoformat(timespec="minutes")


@tool
async def calculate(expression: str) -> str:
    """The value of an arithmetic expression of numbers, + - * / and parentheses."""
    return f"{_value(ast.parse(expression, mode='eval').body):g}"


def graph(config: RunnableConfig) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent for one thread of the server (`thread_id`)."""
    settings = load_settings()
    thread = config.get("configurable", {}).get("thread_id") or uuid4()
    policy = connect_policy(
        settings.gateway_url,
        f"thread-{thread}",
        _connections(settings.gateway.request_timeout_s),
        temperature=0.0,
        max_tokens=settings.rollout.max_tokens_per_step,
    )
    return build_graph(policy, [current_time, calculate])


@cache
def _connections(timeout_s: float) -> openai.DefaultAsyncHttpxClient:
    """One pool for the server's event loop, which calls `graph` for every run."""
    return open_connections(timeout_s)


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError(f"not an arithmetic expression: {ast.unparse(node)}")
