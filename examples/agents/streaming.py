"""A LangGraph agent that is streamed: its words are printed as they are sampled, its tool calls as they are made.

OPENAI_BASE_URL=http://127.0.0.1:8080/sessions/clock-1/v1 OPENAI_API_KEY=none python streaming.py
"""

import sys
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def time_in(zone: str) -> str:
    """The time of day in a time zone such as Europe/Oslo."""
    if zone not in available_timezones():
        return f"there is no time zone {zone}"
    return datetime.now(ZoneInfo(zone)).strftime("%H:%M")


class State(MessagesState):
    remaining_steps: RemainingSteps


llm = ChatOpenAI(model="policy", max_tokens=48, stream_usage=True).bind_tools([time_in])


def call_model(state: State) -> dict:
    return {"messages": [llm.invoke(state["messages"])]}  # LangGraph streams it: stream_mode="messages" below


def route(state: State) -> str:
    return END if state["remaining_steps"] <= 2 else tools_condition(state)


builder = StateGraph(State)
builder.add_node("model", call_model)
builder.add_node("tools", ToolNode([time_in]))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", route, ["tools", END])
builder.add_edge("tools", "model")
graph = builder.compile()


if __name__ == "__main__":
    question = " ".join(sys.argv[1:]) or "What time is it in Oslo?"
    turn = {"messages": [("system", "You tell the time. Be brief."), ("user", question)]}
    for message, _ in graph.stream(turn, {"recursion_limit": 6}, stream_mode="messages"):
        if isinstance(message, AIMessageChunk):
            print(message.text, end="", flush=True)
        elif isinstance(message, ToolMessage):
            print(f"\n[{message.name}: {message.text}]")
    print()
