"""A LangGraph pipeline whose model calls give typed values: once by a JSON schema, once by a function call.

OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python structured_output.py
"""

import sys
from typing import Literal, TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel


class Triage(BaseModel):
    """What a customer's mail is about."""

    topic: Literal["billing", "delivery", "other"]
    urgent: bool


class Callback(BaseModel):
    """Books a callback for a customer."""

    day: Literal["today", "tomorrow", "next week"]
    team: Literal["billing", "logistics", "service"]


class State(TypedDict, total=False):
    mail: str
    triage: Triage
    callback: Callback


llm = ChatOpenAI(model="policy", max_tokens=96)
# response_format={"type": "json_schema", …}
triager = llm.with_structured_output(Triage, method="json_schema")
# tool_choice={"type": "function", "function": {"name": "Callback"}}
booker = llm.with_structured_output(Callback, method="function_calling")


def triage(state: State) -> State:
    return {"triage": triager.invoke([("system", "Sort the mail."), ("user", state["mail"])])}


def book(state: State) -> State:
    known = f"{state['mail']}\n\n(topic: {state['triage'].topic}, urgent: {state['triage'].urgent})"
    return {"callback": booker.invoke([("system", "Book a callback."), ("user", known)])}


builder = StateGraph(State)
builder.add_node("triage", triage)
builder.add_node("book", book)
builder.add_edge(START, "triage")
builder.add_edge("triage", "book")
builder.add_edge("book", END)
graph = builder.compile()


if __name__ == "__main__":
    mail = " ".join(sys.argv[1:]) or "My parcel has been lost for two weeks. I need it on Friday!"
    state = graph.invoke({"mail": mail})
    print(state["triage"].model_dump_json())
    print(state["callback"].model_dump_json())
