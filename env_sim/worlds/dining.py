"""Dining out (unseen in training): tables and what is on the menu."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.values import TIMES
from env_sim.worlds.world import Pool, tool, words

NAMES = words(
    "Olivo, The Spoon, Blue Plate, Casa Nova, Red Door, Old Mill",
    "Ember, Little Fig, The Copper Pot, Saffron, North Table, Green Fork, Harbor View",
)
DISHES = words(
    "lasagne, green curry, moussaka, lentil soup",
    "bibimbap, ceviche, pierogi, fish tacos, falafel plate, pho, lamb skewers, baked eggplant",
)


class Dining(Catalogue):
    name = "dining"
    title = "Dining out"
    noun = "table"
    letter = "N"
    names = NAMES
    taken = "full"
    tools = (
        tool("find_table", "Find a table by its restaurant", query="string"),
        tool("get_table", "Dish of the day at a table", id="string"),
        tool("book_table", "Book a table at a time", id="string", time="string"),
        tool("cancel_table", "Cancel a table", id="string"),
    )

    def find_table(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "seats": self.number(2, 12, code)}

    def get_table(self, id: str) -> dict[str, Any]:
        return {"dish": self.pick(self.values(DISHES), self.known(id))}

    def book_table(self, id: str, time: str) -> dict[str, Any]:
        return {"booking": self.code("K", self.take(id), time)}

    def cancel_table(self, id: str) -> dict[str, Any]:
        return {"fee": self.number(2, 40, self.drop(id))}


DOMAIN = Domain(
    world=Dining,
    things=Things(
        by_id=Pool(("table {id}", "{id}", "table number {id}"), ("the table {id}",)),
        by_name=Pool(("a table at {query}", "the table at {query}", "our table at {query}"), ("the {query} table",)),
        it=Pool(("it", "that table", "that one"), ("this table",)),
        unnamed=Pool(("my table", "the table", "a table"), ("our table",)),
    ),
    find=Intent(
        tool="find_table",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Is there {thing}?"),
            ("Which number has {thing}?", "see if there is {thing}"),
        ),
        thinking="find {query}",
        replies=("It is table {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_table",
        requests=Pool(
            ("What is the dish at {thing}?", "check the dish of {thing}", "tell me what they serve at {thing}"),
            ("What's on the menu at {thing}?", "look up the dish at {thing}"),
        ),
        thinking="check {id}",
        replies=("The dish is {dish}.", "{id} has {dish}."),
        fact="dish",
    ),
    act=Action(
        tool="book_table",
        requests=Pool(
            (
                "book {thing} at {time}",
                "[reserve|get] {thing} at {time}",
                "We come at {time}. Book {thing}.",
                "reserve {thing} for {time}",
            ),
            ("keep {thing} for us at {time}", "We'd like {thing} at {time}."),
        ),
        thinking="book {id} at {time}",
        replies=("Booked as {booking}.", "{id} is yours at {time}, booking {booking}."),
        fact="booking",
        parameter="time",
        values=TIMES,
        without=Pool(("book {thing}", "[reserve|get] {thing} for us"), ("keep {thing} for us",)),
        missing=Missing(
            "time",
            "At what time?",
            ("time", "when", "hour"),
            Pool(("At {time}.", "{time}", "{time}, please."), ("From {time}.",)),
        ),
        otherwise=Pool(
            ("or another one if it is full", "or any other table if that is full", "else another one"),
            ("and if it is taken, a different one",),
        ),
    ),
    drop=Intent(
        tool="cancel_table",
        requests=Pool(
            ("cancel {thing}", "call off {thing}", "We can't come to {thing}. Cancel it."),
            ("get rid of {thing}", "We no longer need {thing}. Cancel."),
        ),
        thinking="cancel {id}",
        replies=("{id} is canceled, the fee is ${fee}.", "Canceled for ${fee}."),
        fact="fee",
    ),
    which=Missing(
        "id",
        "Which table id?",
        ("table", "id", "number"),
        Pool(("{id}", "It's {id}.", "Table {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("rate the cook", ("rate", "cook")),
            Unserved("send me a recipe", ("recipe",)),
        ),
        (
            Unserved("bring me a pizza", ("pizza",)),
            Unserved("hire a waiter", ("waiter",)),
            Unserved("teach me to cook", ("cook", "teach")),
        ),
    ),
)
