"""Calendar and mail: events, and invitations to them."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.values import PEOPLE
from env_sim.worlds.world import Pool, tool, words

TITLES = words(
    "dentist, team lunch, piano lesson, budget review, haircut, eye test, yoga class, car service, book club, "
    "job interview, parents evening, design review, gym, staff meeting, tax appointment",
    "vet visit, choir practice, sales call, flu shot, photo shoot, chess night, tire change, board meeting",
)


class CalendarMail(Catalogue):
    name = "calendar"
    title = "Calendar and mail"
    noun = "event"
    letter = "E"
    names = TITLES
    taken = "crowded"
    tools = (
        tool("find_event", "Find an event by its title", query="string"),
        tool("get_event", "Start of an event", id="string"),
        tool("mail_event", "Mail an event to a person", id="string", person="string"),
        tool("delete_event", "Delete an event", id="string"),
    )

    def find_event(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "room": self.number(2, 90, code)}

    def get_event(self, id: str) -> dict[str, Any]:
        return {"starts": self.clock(8, 19, self.known(id))}

    def mail_event(self, id: str, person: str) -> dict[str, Any]:
        return {"mail": self.code("M", self.take(id), person)}

    def delete_event(self, id: str) -> dict[str, Any]:
        return {"receipt": self.code("R", self.drop(id))}


DOMAIN = Domain(
    world=CalendarMail,
    things=Things(
        by_id=Pool(("event {id}", "{id}", "appointment {id}"), ("the event {id}",)),
        by_name=Pool(("the {query}", "my {query}", "the {query} event"), ("that {query} appointment",)),
        it=Pool(("it", "that event", "that one"), ("this event",)),
        unnamed=Pool(("my event", "the appointment", "an event"), ("the meeting",)),
    ),
    find=Intent(
        tool="find_event",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Which event is {thing}?"),
            ("Where is {thing} in my calendar?", "see if I have {thing}"),
        ),
        thinking="find {query}",
        replies=("It is event {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_event",
        requests=Pool(
            ("When does {thing} start?", "check the start of {thing}", "tell me when {thing} begins"),
            ("What time is {thing}?", "look up when {thing} starts"),
        ),
        thinking="check {id}",
        replies=("{id} starts at {starts}.", "It starts at {starts}."),
        fact="starts",
    ),
    act=Action(
        tool="mail_event",
        requests=Pool(
            (
                "mail {thing} to {person}",
                "[send|mail] {person} {thing}",
                "{person} should know about {thing}. Mail it.",
                "invite {person} to {thing} by mail",
            ),
            ("write to {person} about {thing}", "{person} must get a mail about {thing}."),
        ),
        thinking="mail {id} to {person}",
        replies=("Sent as {mail}.", "{person} got mail {mail}."),
        fact="mail",
        parameter="person",
        values=PEOPLE,
        without=Pool(("mail {thing} to somebody", "[send|mail] {thing}"), ("write a mail about {thing}",)),
        missing=Missing(
            "person",
            "To which person?",
            ("person", "who", "whom", "name"),
            Pool(("To {person}.", "{person}", "It's for {person}."), ("{person} gets it.",)),
        ),
        otherwise=Pool(
            ("or another one if it is crowded", "or any other event if that is crowded", "else another one"),
            ("and if it has no room, a different one",),
        ),
    ),
    drop=Intent(
        tool="delete_event",
        requests=Pool(
            ("delete {thing}", "cancel {thing}", "I won't go to {thing}. Delete it."),
            ("get rid of {thing}", "I no longer need {thing}. Delete it."),
        ),
        thinking="delete {id}",
        replies=("{id} is deleted, receipt {receipt}.", "Deleted, receipt {receipt}."),
        fact="receipt",
    ),
    which=Missing(
        "id",
        "Which event id?",
        ("event", "id", "number"),
        Pool(("{id}", "It's {id}.", "Event {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("print my photos", ("photos",)),
            Unserved("set an alarm clock", ("alarm",)),
            Unserved("translate a letter", ("letter", "translate")),
            Unserved("shorten my speech", ("speech",)),
        ),
        (
            Unserved("record a voice message", ("voice", "message")),
            Unserved("scan my passport", ("passport",)),
        ),
    ),
)
