"""Travel: flights, found by where they go."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.values import CITIES, PEOPLE
from env_sim.worlds.world import Pool, tool


class Travel(Catalogue):
    name = "travel"
    title = "Travel"
    noun = "flight"
    letter = "F"
    names = CITIES
    taken = "full"
    tools = (
        tool("find_flight", "Find a flight by its city", query="string"),
        tool("get_flight", "Departure of a flight", id="string"),
        tool("book_flight", "Book a flight for a person", id="string", person="string"),
        tool("cancel_flight", "Cancel a flight", id="string"),
    )

    def find_flight(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "price": self.number(60, 400, code)}

    def get_flight(self, id: str) -> dict[str, Any]:
        return {"departs": self.clock(6, 21, self.known(id))}

    def book_flight(self, id: str, person: str) -> dict[str, Any]:
        return {"booking": self.code("B", self.take(id), person)}

    def cancel_flight(self, id: str) -> dict[str, Any]:
        return {"refund": self.number(20, 400, self.drop(id))}


DOMAIN = Domain(
    world=Travel,
    things=Things(
        by_id=Pool(("flight {id}", "{id}", "flight number {id}"), ("the flight {id}",)),
        by_name=Pool(("the flight to {query}", "a flight to {query}", "the plane to {query}"), ("the {query} flight",)),
        it=Pool(("it", "that flight", "that one"), ("this flight",)),
        unnamed=Pool(("my flight", "the flight", "a flight"), ("the plane",)),
    ),
    find=Intent(
        tool="find_flight",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Is there {thing}?"),
            ("Which number has {thing}?", "see if there is {thing}"),
        ),
        thinking="find {query}",
        replies=("It is flight {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_flight",
        requests=Pool(
            ("When does {thing} leave?", "check the departure of {thing}", "tell me when {thing} leaves"),
            ("What time is {thing}?", "look up when {thing} takes off"),
        ),
        thinking="check {id}",
        replies=("{id} leaves at {departs}.", "It leaves at {departs}."),
        fact="departs",
    ),
    act=Action(
        tool="book_flight",
        requests=Pool(
            (
                "book {thing} for {person}",
                "[reserve|get] {thing} for {person}",
                "{person} wants {thing}. Book it.",
                "put {person} on {thing}",
            ),
            ("get {person} a seat on {thing}", "{person} would like {thing}. Please book."),
        ),
        thinking="book {id} for {person}",
        replies=("Booked as {booking}.", "{person} is on {id}, booking {booking}."),
        fact="booking",
        parameter="person",
        values=PEOPLE,
        without=Pool(("book {thing}", "[reserve|get me] {thing}"), ("get a seat on {thing}",)),
        missing=Missing(
            "person",
            "For which person?",
            ("person", "who", "whom", "name"),
            Pool(("For {person}.", "{person}", "It's for {person}."), ("{person} will fly.",)),
        ),
        otherwise=Pool(
            ("or another one if it is full", "or any other flight if that is full", "else another one"),
            ("and if it has no seats, a different one",),
        ),
    ),
    drop=Intent(
        tool="cancel_flight",
        requests=Pool(
            ("cancel {thing}", "call off {thing}", "I can't take {thing}. Cancel it."),
            ("get rid of {thing}", "I no longer need {thing}. Cancel."),
        ),
        thinking="cancel {id}",
        replies=("{id} is canceled, refund ${refund}.", "Canceled, you get ${refund} back."),
        fact="refund",
    ),
    which=Missing(
        "id",
        "Which flight id?",
        ("flight", "id", "number"),
        Pool(("{id}", "It's {id}.", "Flight {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("apply for a visa", ("visa",)),
            Unserved("rent a car", ("car",)),
            Unserved("buy travel insurance", ("insurance",)),
            Unserved("order a taxi to the airport", ("taxi",)),
        ),
        (Unserved("book a cruise", ("cruise",)), Unserved("pack my suitcase", ("suitcase",))),
    ),
)
