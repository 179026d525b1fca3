"""A LangGraph agent whose model may make several tool calls in one answer; ToolNode runs them at the same time.

OPENAI_BASE_URL=http://127.0.0.1:8080/sessions/trip-1/v1 OPENAI_API_KEY=none python parallel_tools.py
"""

import sys
from typing import Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode, tools_condition

City = Literal["Oslo", "Rome", "Lima"]
DEGREES = {"Oslo": -3, "Rome": 14, "Lima": 22}
ROOMS = {"Oslo": 140, "Rome": 95, "Lima": 60}


@tool
def temperature_in(city: City) -> str:
    """The temperature in a city, in degrees Celsius."""
    return f"{DEGREES[city]} °C"


@tool
def price_of_a_room(city: City) -> str:
    """The price of a hotel room in a city, in euros a night."""
    return f"{ROOMS[city]} EUR"


class State(MessagesState):
    remaining_steps: RemainingSteps


tools = [temperature_in, price_of_a_room]
llm = ChatOpenAI(model="policy", max_tokens=96).bind_tools(tools)


def call_model(state: State) -> dict:
    return {"messages": [llm.invoke(state["messages"])]}


def route(state: State) -> str:
    return END if state["remaining_steps"] <= 2 else tools_condition(state)


builder = StateGraph(State)
builder.add_node("model", call_model)
builder.add_node("tools", ToolNode(tools))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", route, ["tools", END])
builder.add_edge("tools", "model")
graph = builder.compile()


if __name__ == "__main__":
    question = " ".join(sys.argv[1:]) or "Compare the weather and the hotel prices of Oslo and Rome."
    state = graph.invoke({"messages": [("user", question)]}, {"recursion_limit": 6})
    for message in state["messages"]:
        if message.type == "tool":
            print(f"[{message.name}: {message.text}]")
    print(state["messages"][-1].text)
