"""Calendar and mail: events, contacts, messages."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import DATES, PEOPLE, TIMES
from env_sim.worlds.world import Pool, ToolError, World, same, tool, words

TITLES = words(
    "dentist, team lunch, piano lesson, budget review, haircut, eye test, yoga class, car service, book club, "
    "job interview, parents evening, design review, gym, staff meeting, tax appointment",
    "vet visit, choir practice, sales call, flu shot, photo shoot, chess night, tire change, board meeting",
)
MAIL_HOSTS = words("lark.org, finch.net, heron.com, swift.io", "robin.org, crane.net")
SUBJECTS = words(
    "running late, invoice, holiday plans, new address, thank you, meeting notes, birthday party, price list",
    "lost keys, contract draft, weekend trip, broken printer, garden party",
)


class CalendarMail(World):
    name = "calendar"
    title = "Calendar and mail"
    tools = (
        tool("next_event", "First calendar event of a day", date="string"),
        tool("add_event", "Add an event to the calendar", title="string", date="string", time="string"),
        tool("move_event", "Move an event to a date", event="string", date="string"),
        tool("find_contact", "Email address of a person", name="string"),
        tool("send_mail", "Send a mail", to="string", subject="string"),
        tool("last_mail", "Newest mail from a person", sender="string"),
    )

    def fill(self) -> None:
        self.added: set[tuple[str, str]] = set()

    def next_event(self, date: str) -> dict[str, Any]:
        title = self.pick(self.values(TITLES), date)
        return {"event": self.code("E", date), "title": title, "time": self.pick(self.values(TIMES), date)}

    def is_taken(self, date: str, time: str) -> bool:
        return (date.casefold(), time) in self.added or self.number(1, 4, "taken", date, time) == 1

    def free_time(self, date: str) -> str:
        return next((time for time in self.values(TIMES) if not self.is_taken(date, time)), "21:00")

    def add_event(self, title: str, date: str, time: str) -> dict[str, Any]:
        if self.is_taken(date, time):
            raise ToolError(f"{time} on {date} is taken", self.free_time(date))
        self.added.add((date.casefold(), time))
        return {"event": self.code("E", title, date, time), "reminder": self.clock(6, 7, title, date)}

    def move_event(self, event: str, date: str) -> dict[str, Any]:
        if not (len(event) == 3 and event[0] in "Ee" and event[1:].isdigit()):
            raise ToolError(f"no event {event}")
        return {"event": event, "time": self.pick(self.values(TIMES), event, date)}

    def find_contact(self, name: str) -> dict[str, Any]:
        known = next((person for person in self.values(PEOPLE) if same(person, name)), None)
        if known is None:
            raise ToolError(f"no contact {name}")
        return {"name": known, "email": f"{known.lower()}@{self.pick(self.values(MAIL_HOSTS), known)}"}

    def send_mail(self, to: str, subject: str) -> dict[str, Any]:
        if "@" not in to:
            raise ToolError(f"{to} is no email address", "find_contact")
        return {"mail": self.code("M", to, subject), "sent": self.clock(8, 19, to, subject)}

    def last_mail(self, sender: str) -> dict[str, Any]:
        return {"subject": self.pick(self.values(SUBJECTS), sender), "date": self.pick(self.values(DATES), sender)}


def day(world: CalendarMail, random: Random) -> Arguments:
    return {"date": random.choice(world.values(DATES))}


def appointment(world: CalendarMail, random: Random, taken: bool = False) -> Arguments:
    while True:
        date, time = random.choice(world.values(DATES)), random.choice(world.values(TIMES))
        if world.is_taken(date, time) == taken:
            return {"title": random.choice(world.values(TITLES)), "date": date, "time": time}


def shift(world: CalendarMail, random: Random) -> Arguments:
    return {"event": f"E{random.randint(10, 99)}", "date": random.choice(world.values(DATES))}


def person(world: CalendarMail, random: Random) -> Arguments:
    return {"name": random.choice(world.values(PEOPLE))}


def sender(world: CalendarMail, random: Random) -> Arguments:
    return {"sender": random.choice(world.values(PEOPLE))}


def letter(world: CalendarMail, random: Random) -> Arguments:
    name = random.choice(world.values(PEOPLE)).lower()
    to = f"{name}@{random.choice(world.values(MAIL_HOSTS))}"
    return {"to": to, "subject": random.choice(world.values(SUBJECTS))}


NEXT_EVENT = Intent(
    tool="next_event",
    requests=Pool(
        (
            "[check|tell me] what is first [on|in] my calendar on {date}",
            "[What do I have|What's planned] on {date}?",
            "look up my first appointment on {date}",
            "What's the first thing on my schedule for {date}?",
        ),
        ("see how my {date} begins", "{date}: is there anything in my diary?"),
    ),
    draw=day,
    thinking="look at {date}",
    replies=("Your first event is {title} at {time}.", "On {date} you have {title} at {time}."),
    facts=("title", "time"),
    missing=(
        Missing(
            "date",
            Pool(
                ("look up my first appointment", "What's the first thing on my schedule?", "check my calendar"),
                ("see how my day begins",),
            ),
            "For which day?",
            ("day", "date", "when"),
            Pool(("{date}.", "On {date}.", "I mean {date}.", "{date}, please."), ("Take {date}.",)),
        ),
    ),
)

ADD_EVENT = Intent(
    tool="add_event",
    requests=Pool(
        (
            "[add|put] {title} [to|in] my calendar on {date} at {time}",
            "[schedule|plan] {title} for {date}, {time}",
            "I have {title} on {date} at {time}. [Add it.|Put it in my calendar.]",
            "block {time} on {date} for {title}",
        ),
        ("note {title} down, {date} at {time}", "At {time} on {date} there's {title}. It should be in my diary."),
    ),
    draw=appointment,
    thinking="add {title} on {date}",
    replies=("Added as {event}, reminder at {reminder}.", "{title} is event {event}; reminder {reminder}."),
    facts=("event", "reminder"),
    missing=(
        Missing(
            "time",
            Pool(
                (
                    "[add|put] {title} [to|in] my calendar on {date}",
                    "schedule {title} for {date}",
                    "I have {title} on {date}. Add it.",
                ),
                ("note {title} down for {date}",),
            ),
            "At what time?",
            ("time", "hour", "when"),
            Pool(("At {time}.", "{time}", "It's at {time}.", "{time}, please."), ("Starts {time}.",)),
        ),
        Missing(
            "date",
            Pool(
                (
                    "add {title} at {time} to my calendar",
                    "schedule {title} at {time}",
                    "I have {title} at {time}. Add it.",
                ),
                ("note {title} down for {time}",),
            ),
            "On which date?",
            ("date", "day", "when"),
            Pool(("On {date}.", "{date}", "It's on {date}."), ("That's {date}.",)),
        ),
    ),
)

MOVE_EVENT = Intent(
    tool="move_event",
    requests=Pool(
        (
            "move event {event} to {date}",
            "[shift|postpone] event {event} to {date}",
            "I can't make event {event}. Move it to {date}.",
        ),
        ("push event {event} to {date}", "{date} suits me better for event {event}, change it."),
    ),
    draw=shift,
    thinking="move {event} to {date}",
    replies=("Event {event} is now at {time}.", "Moved {event}; it starts at {time}."),
    facts=("time",),
    missing=(
        Missing(
            "date",
            Pool(
                ("move event {event}", "I can't make event {event}. Move it.", "postpone event {event}"),
                ("push event {event} back",),
            ),
            "To which date?",
            ("date", "day", "when"),
            Pool(("To {date}.", "{date}", "{date}, please."), ("{date} would be good.",)),
        ),
    ),
)

FIND_CONTACT = Intent(
    tool="find_contact",
    requests=Pool(
        (
            "[find|look up] {name}'s email address",
            "[tell me|give me] the mail address of {name}",
            "What's {name}'s email [address|]?",
            "I need to write to {name}. What's the address?",
        ),
        ("dig out how to mail {name}", "Which email does {name} use?"),
    ),
    draw=person,
    thinking="look up {name}",
    replies=("{name}'s address is {email}.", "It is {email}."),
    facts=("email",),
)

SEND_MAIL = Intent(
    tool="send_mail",
    requests=Pool(
        (
            '[send a mail|write] to {to} with the subject "{subject}"',
            "mail {to}, subject {subject}",
            "I want to write to {to}. The subject is {subject}.",
        ),
        ("drop {to} a line about {subject}", "{subject} is the subject, {to} gets the mail. Send it."),
    ),
    draw=letter,
    thinking="send it to {to}",
    replies=("Sent as {mail} at {sent}.", "Mail {mail} went out at {sent}."),
    facts=("mail", "sent"),
    missing=(
        Missing(
            "subject",
            Pool(
                ("send a mail to {to}", "I want to write to {to}.", "mail {to}"),
                ("drop {to} a line",),
            ),
            "What is the subject?",
            ("subject", "about", "topic", "title"),
            Pool(("{subject}", "The subject is {subject}.", "It's about {subject}."), ("Make that {subject}.",)),
        ),
    ),
)

LAST_MAIL = Intent(
    tool="last_mail",
    requests=Pool(
        (
            "[check|see] what {sender} wrote last",
            "[show me|look up] the newest mail from {sender}",
            "Has {sender} sent me a mail? [What is it about?|]",
            "What did {sender} write to me [last|about]?",
        ),
        ("look if there's mail from {sender}", "{sender} mailed me. When, and about what?"),
    ),
    draw=sender,
    thinking="newest mail from {sender}",
    replies=("{sender} wrote about {subject} on {date}.", 'The newest is "{subject}" from {date}.'),
    facts=("subject", "date"),
)

DOMAIN = Domain(
    world=CalendarMail,
    intents=(NEXT_EVENT, ADD_EVENT, MOVE_EVENT, FIND_CONTACT, SEND_MAIL, LAST_MAIL),
    chains=(
        Chain(
            FIND_CONTACT,
            SEND_MAIL,
            {"to": "email"},
            Pool(
                (
                    "send {name} a mail with the subject {subject}",
                    "write to {name}, the subject is {subject}",
                    "I need to mail {name} about {subject}. [Send it.|]",
                ),
                ("let {name} know by mail, subject {subject}",),
            ),
            Pool(
                ("send a mail there with the subject {subject}", "write to that address, subject {subject}"),
                ("use it to mail about {subject}",),
            ),
        ),
        Chain(
            NEXT_EVENT,
            MOVE_EVENT,
            {"event": "event"},
            Pool(
                (
                    "move my first event on {date} to {new_date}",
                    "I'm ill on {date}. Move my first appointment to {new_date}.",
                ),
                ("shift whatever comes first on {date} to {new_date}",),
            ),
            Pool(
                ("move it to {new_date}", "I can't make that. Put it on {new_date}."),
                ("have it on {new_date} instead",),
            ),
        ),
    ),
    recoveries=(
        Recovery(
            ADD_EVENT,
            lambda world, random: appointment(world, random, taken=True),
            Pool(
                (
                    "add {title} on {date} at {time}, or at the next free time",
                    "schedule {title} for {date}, {time}; another time that day is fine too",
                    "I want {title} on {date}, best at {time}, else when I'm free. Add it.",
                ),
                ("squeeze {title} in on {date}, {time} or whenever it fits",),
            ),
            "time",
        ),
    ),
    unserved=Pool(
        (
            Unserved("print my calendar", ("print",)),
            Unserved("translate a mail into French", ("translate", "translation", "French")),
            Unserved("call my boss", ("call",)),
            Unserved("block a spam sender", ("spam", "block")),
        ),
        (
            Unserved("record a voice message", ("voice message", "voice", "record")),
            Unserved("sign a contract", ("contract", "sign")),
        ),
    ),
)
