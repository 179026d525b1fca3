"""An asynchronous LangGraph agent that answers several people at once, each in a dialogue of its own.

Nothing names the dialogues: a base_url without a session is enough.

    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python async_graph.py
"""

import asyncio
import sys

from langchain_core.messages import SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode, tools_condition

SYSTEM = SystemMessage("You are the front desk of a library. Be brief.")
SHELVES = {"emma": "B2", "dracula": "C7", "ulysses": "A1"}


@tool
async def find_book(title: str) -> str:
    """The shelf that a book stands on."""
    await asyncio.sleep(0.01)  # a database, say
    return SHELVES.get(title.lower(), "not in the catalogue")


class State(MessagesState):
    remaining_steps: RemainingSteps


llm = ChatOpenAI(model="policy", max_tokens=48).bind_tools([find_book])


async def call_model(state: State) -> dict:
    return {"messages": [await llm.ainvoke([SYSTEM, *state["messages"]])]}


def route(state: State) -> str:
    return END if state["remaining_steps"] <= 2 else tools_condition(state)


builder = StateGraph(State)
builder.add_node("model", call_model)
builder.add_node("tools", ToolNode([find_book]))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", route, ["tools", END])
builder.add_edge("tools", "model")
graph = builder.compile()


async def answer(question: str) -> str:
    """Two turns, so that the second one goes on with what was said in the first."""
    state = await graph.ainvoke({"messages": [("user", question)]}, {"recursion_limit": 6})
    said = [*state["messages"], ("user", "Is it the only copy?")]
    state = await graph.ainvoke({"messages": said}, {"recursion_limit": 6})
    return state["messages"][-1].text


async def main(questions: list[str]) -> None:
    for reply in await asyncio.gather(*map(answer, questions)):
        print(reply)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or [f"Where is {title.title()}?" for title in SHELVES]))
