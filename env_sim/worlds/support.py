"""Support desk: tickets and who works on them."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.values import PEOPLE
from env_sim.worlds.world import Pool, tool, words

TOPICS = words(
    "slow internet, lost password, wrong invoice, broken screen, noisy fan, login error, missing refund, "
    "blurry picture, full mailbox, dead battery, failed update, weak signal",
    "locked account, cracked cable, double charge, frozen app, paper jam, no sound",
)
STATES = words("open, waiting, solved, escalated, new", "reopened, pending, reviewed")


class Support(Catalogue):
    name = "support"
    title = "Support desk"
    noun = "ticket"
    letter = "T"
    names = TOPICS
    taken = "merged"
    tools = (
        tool("find_ticket", "Find a ticket by its topic", query="string"),
        tool("get_ticket", "Status of a ticket", id="string"),
        tool("assign_ticket", "Assign a ticket to a person", id="string", person="string"),
        tool("close_ticket", "Close a ticket", id="string"),
    )

    def find_ticket(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "age": self.number(2, 90, code)}

    def get_ticket(self, id: str) -> dict[str, Any]:
        return {"status": self.pick(self.values(STATES), self.known(id))}

    def assign_ticket(self, id: str, person: str) -> dict[str, Any]:
        return {"queue": self.code("Q", self.take(id), person)}

    def close_ticket(self, id: str) -> dict[str, Any]:
        return {"survey": self.code("V", self.drop(id))}


DOMAIN = Domain(
    world=Support,
    things=Things(
        by_id=Pool(("ticket {id}", "{id}", "case {id}"), ("the ticket {id}",)),
        by_name=Pool(
            ("the {query} ticket", "the ticket about {query}", "the ticket on {query}"), ("the {query} case",)
        ),
        it=Pool(("it", "that ticket", "that one"), ("this ticket",)),
        unnamed=Pool(("my ticket", "the ticket", "a ticket"), ("my case",)),
    ),
    find=Intent(
        tool="find_ticket",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Is there {thing}?"),
            ("Which number has {thing}?", "see if there is {thing}"),
        ),
        thinking="find {query}",
        replies=("It is ticket {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_ticket",
        requests=Pool(
            ("What's the status of {thing}?", "check the status of {thing}", "tell me how {thing} stands"),
            ("How far is {thing}?", "look up the state of {thing}"),
        ),
        thinking="check {id}",
        replies=("Its status is {status}.", "{id} is {status}."),
        fact="status",
    ),
    act=Action(
        tool="assign_ticket",
        requests=Pool(
            (
                "assign {thing} to {person}",
                "[give|hand] {thing} to {person}",
                "{person} should do {thing}. Assign it.",
                "let {person} work on {thing}",
            ),
            ("pass {thing} on to {person}", "{person} takes {thing}, please assign."),
        ),
        thinking="assign {id} to {person}",
        replies=("It is in queue {queue}.", "{person} has {id} in queue {queue}."),
        fact="queue",
        parameter="person",
        values=PEOPLE,
        without=Pool(("assign {thing} to somebody", "[assign|hand over] {thing}"), ("pass {thing} on",)),
        missing=Missing(
            "person",
            "To which person?",
            ("person", "who", "whom", "name"),
            Pool(("To {person}.", "{person}", "Give it to {person}."), ("{person} takes it.",)),
        ),
        otherwise=Pool(
            ("or another one if it is merged", "or the other ticket if that was merged", "else another one"),
            ("and if it was joined, a different one",),
        ),
    ),
    drop=Intent(
        tool="close_ticket",
        requests=Pool(
            ("close {thing}", "end {thing}", "I don't need {thing} any more. Close it."),
            ("get rid of {thing}", "{thing} is done. Close it."),
        ),
        thinking="close {id}",
        replies=("{id} is closed, survey {survey}.", "Closed, survey {survey}."),
        fact="survey",
    ),
    which=Missing(
        "id",
        "Which ticket id?",
        ("ticket", "id", "number"),
        Pool(("{id}", "It's {id}.", "Ticket {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("ship a new router", ("router", "ship")),
            Unserved("delete a customer", ("delete",)),
            Unserved("send a technician", ("technician",)),
            Unserved("pay out a bonus", ("bonus",)),
        ),
        (
            Unserved("restart the server", ("server", "restart")),
            Unserved("record this call", ("call", "record")),
        ),
    ),
)
