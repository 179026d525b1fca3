"""A small reference dialogue and sound items for it, for tests of annotation."""

from typing import Any

from store.records import (
    Called,
    Evidence,
    Item,
    RecordedCall,
    ReferenceStep,
    ReplyMentions,
    ResponseReceived,
    Scenario,
    ScenarioTurn,
    ToolSpec,
)
from store.vocabulary import FocusOn, Split


def tool(name: str, **properties: str) -> ToolSpec:
    rules = {key: {"type": kind} for key, kind in properties.items()}
    return ToolSpec(name=name, description=name, parameters={"type": "object", "properties": rules})


TOOLS = (tool("find_flights", origin="string", seats="integer"), tool("book_flight", flight="string"))

TURNS = (
    ScenarioTurn(
        user="Which flight leaves Oslo? I need 2 seats. Use bullet points.",
        reference=(
            ReferenceStep(
                thinking="Oslo may be misspelt; try.",
                calls=(
                    RecordedCall(
                        name="find_flights",
                        arguments={"origin": "Osl"},
                        response='{"error":"unknown city"}',
                        is_error=True,
                    ),
                ),
            ),
            ReferenceStep(
                calls=(
                    RecordedCall(
                        name="find_flights",
                        arguments={"origin": "Oslo", "seats": 2},
                        response='{"flight":"F84","price":1200}',
                    ),
                )
            ),
            ReferenceStep(reply="Flight F84 leaves Oslo; it costs 1,200 euro."),
        ),
        checklist=(),
    ),
    ScenarioTurn(user="Thanks!", reference=(ReferenceStep(reply="Shall I book F84?"),), checklist=()),
)


def trip(name: str = "trip", **changes: Any) -> Scenario:
    fields: dict[str, Any] = {
        "name": name,
        "domain": "travel",
        "source": "test",
        "split": Split.TRAIN,
        "seed": 1,
        "system": "You help.",
        "tools": TOOLS,
        "turns": TURNS,
    }
    return Scenario(**fields | changes)


def item(key: str, focus_on: FocusOn, step: int, snippet: str, **changes: Any) -> Item:
    fields: dict[str, Any] = {
        "id": key,
        "focus_on": focus_on,
        "question": f"Does {key} hold?",
        "pass_condition": f"{key} holds.",
        "evidence": (Evidence(step=step, channel=focus_on, snippet=snippet),),
        "weight": 1.0,
    }
    return Item(**fields | changes)


CALL = item(
    "right_call",
    FocusOn.TOOL_CALLS,
    1,
    '"origin":"Oslo"',
    question="Did the assistant call find_flights with origin Oslo and seats 2?",
    check=Called(tool="find_flights", arguments={"origin": "Oslo", "seats": 2}),
)
RESPONSE = item(
    "flight_found",
    FocusOn.TOOL_RESPONSE,
    1,
    "F84",
    question="Did find_flights answer with flight F84?",
    check=ResponseReceived(tool="find_flights", values=("F84",)),
)
REPLY = item(
    "price_told",
    FocusOn.REPLY,
    2,
    "1,200 euro",
    question="Does the reply tell the price 1200?",
    depends_on=("flight_found",),
    weight=2.0,
    check=ReplyMentions(all_of=(("1200",),)),
)
OFFER = item("offers_booking", FocusOn.REPLY, 0, "Shall I book", question="Does the reply offer to book the flight?")
FIRST_TURN = (CALL, RESPONSE, REPLY)
SECOND_TURN = (OFFER,)
