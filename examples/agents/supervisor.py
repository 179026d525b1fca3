"""A LangGraph supervisor that delegates to a worker, which is a subgraph with a model and tools of its own.

Both share one session and are two agents in it: the worker says so by a header, which other endpoints ignore.

    OPENAI_BASE_URL=http://127.0.0.1:8080/sessions/desk-1/v1 OPENAI_API_KEY=none python supervisor.py
"""

import sys
from typing import Literal

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode, tools_condition

ORDERS = {"1001": "sent on Monday", "1002": "waits for payment"}


class State(MessagesState):
    remaining_steps: RemainingSteps


# --- the worker: looks things up ---


@tool
def state_of_order(number: str) -> str:
    """The state of an order."""
    return ORDERS.get(number, "no such order")


as_worker = {"X-Checkloop-Agent": "worker"}
worker_llm = ChatOpenAI(model="policy", max_tokens=48, default_headers=as_worker).bind_tools([state_of_order])


def work(state: State) -> dict:
    return {"messages": [worker_llm.invoke([("system", "You look orders up."), *state["messages"]])]}


def route(state: State) -> str:
    return END if state["remaining_steps"] <= 2 else tools_condition(state)


worker_builder = StateGraph(State)
worker_builder.add_node("model", work)
worker_builder.add_node("tools", ToolNode([state_of_order]))
worker_builder.add_edge(START, "model")
worker_builder.add_conditional_edges("model", route, ["tools", END])
worker_builder.add_edge("tools", "model")
worker = worker_builder.compile()


# --- the supervisor: delegates once, then replies ---


@tool
def delegate(order: Literal["1001", "1002"]) -> str:
    """Asks the worker about an order."""
    found = worker.invoke({"messages": [("user", f"What about order {order}?")]}, {"recursion_limit": 6})
    return found["messages"][-1].text or "nothing found"


supervisor_llm = ChatOpenAI(model="policy", max_tokens=48)
# One call an answer: two workers at once would be two dialogues of one agent.
delegating = supervisor_llm.bind_tools([delegate], tool_choice="delegate", parallel_tool_calls=False)
replying = supervisor_llm.bind_tools([delegate], parallel_tool_calls=False)


def supervise(state: State) -> dict:
    delegated = any(isinstance(message, ToolMessage) for message in state["messages"])
    message: AIMessage = (replying if delegated else delegating).invoke(state["messages"])
    return {"messages": [message]}


builder = StateGraph(State)
builder.add_node("supervisor", supervise)
builder.add_node("tools", ToolNode([delegate]))
builder.add_edge(START, "supervisor")
builder.add_conditional_edges("supervisor", route, ["tools", END])
builder.add_edge("tools", "supervisor")
graph = builder.compile()


if __name__ == "__main__":
    question = " ".join(sys.argv[1:]) or "Where is my order 1001?"
    state = graph.invoke({"messages": [("user", question)]}, {"recursion_limit": 6})
    print(state["messages"][-1].text)
