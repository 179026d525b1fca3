"""A plain LangGraph agent: a model node and a tools node, in a loop until the model replies. Two turns of one dialogue.

OPENAI_BASE_URL=http://127.0.0.1:8080/sessions/fruit-1/v1 OPENAI_API_KEY=none python two_node_graph.py
"""

import sys

from langchain_core.messages import SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode, tools_condition

SYSTEM = SystemMessage("You work in a fruit shop. Look things up before you answer. Be brief.")
STOCK = {"apples": 12, "pears": 0, "plums": 40}
PRICES = {"apples": 0.45, "pears": 0.6, "plums": 0.2}


@tool
def stock_of(fruit: str) -> str:
    """How many pieces of a fruit are left."""
    return f"{STOCK[fruit]} left" if fruit in STOCK else f"we do not sell {fruit}"


@tool
def total_price(fruit: str, pieces: int) -> str:
    """What so many pieces of a fruit cost, in euros."""
    return f"{PRICES[fruit] * pieces:.2f} EUR" if fruit in PRICES else f"we do not sell {fruit}"


class State(MessagesState):
    remaining_steps: RemainingSteps


tools = [stock_of, total_price]
llm = ChatOpenAI(model="policy", max_tokens=48).bind_tools(tools)


def call_model(state: State) -> dict:
    return {"messages": [llm.invoke([SYSTEM, *state["messages"]])]}


def route(state: State) -> str:
    # Ends a turn that would run into the recursion limit, with what it has.
    return END if state["remaining_steps"] <= 2 else tools_condition(state)


builder = StateGraph(State)
builder.add_node("model", call_model)
builder.add_node("tools", ToolNode(tools))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", route, ["tools", END])
builder.add_edge("tools", "model")
graph = builder.compile(checkpointer=InMemorySaver())


if __name__ == "__main__":
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 8}
    for question in sys.argv[1:] or ["Do you have plums?", "What do ten of them cost?"]:
        state = graph.invoke({"messages": [("user", question)]}, config)
        print(state["messages"][-1].text)
