"""The graph that `langgraph dev` serves (langgraph.json): the policy behind the gateway, with two small real tools.

Compiled without a checkpointer: the server brings its own. Each thread of the server is a session of the gateway, so
what is said there is in the log. Reads the settings for the gateway's address; `checkloop up` must be running.
"""

from functools import cache
from typing import Any
from uuid import uuid4

import openai
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from agent.graph import build_graph
from agent.policy import connect_policy, open_connections
from agent.real_tools import answer_really, real_specs
from agent.tools import make_tools
from store.settings import load_settings


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
    return build_graph(policy, make_tools(real_specs(), answer_really))


@cache
def _connections(timeout_s: float) -> openai.DefaultAsyncHttpxClient:
    """One pool for the server's event loop, which calls `graph` for every run."""
    return open_connections(timeout_s)
