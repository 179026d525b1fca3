"""Support desk: customers, tickets, articles, plans."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import DATES, PEOPLE
from env_sim.worlds.world import Pool, ToolError, World, same, tool, words

TOPICS = words(
    "slow internet, lost password, wrong invoice, broken screen, noisy fan, login error, missing refund, "
    "blurry picture, full mailbox, dead battery, failed update, weak signal",
    "locked account, cracked cable, double charge, frozen app, paper jam, no sound",
)
PLANS = words("basic, plus, premium, student, team", "starter, deluxe, school")
TICKET_STATES = words("open, waiting, solved, escalated", "reopened, pending, reviewed")
GUIDES = words("Quick Fix, First Steps, Deep Clean, Safe Start", "Fresh Setup, Second Look")


class Support(World):
    name = "support"
    title = "Support desk"
    tools = (
        tool("find_customer", "Customer id and plan by name", customer_name="string"),
        tool("open_ticket", "Open a ticket for a customer id", customer="string", topic="string"),
        tool("get_ticket", "Status of a ticket", ticket="string"),
        tool("assign_ticket", "Give a ticket to an agent", ticket="string", agent="string"),
        tool("search_help", "Find a help article on a topic", topic="string"),
        tool("change_plan", "Change a customer's plan", customer="string", plan="string"),
    )

    def fill(self) -> None:
        self.assigned: dict[str, str] = {}

    def find_customer(self, customer_name: str) -> dict[str, Any]:
        return {"customer": self.code("C", customer_name), "plan": self.pick(self.values(PLANS), customer_name)}

    def open_ticket(self, customer: str, topic: str) -> dict[str, Any]:
        _expect("customer", "C", customer)
        return {"ticket": self.code("T", customer, topic), "answer_by": self.pick(self.values(DATES), customer, topic)}

    def get_ticket(self, ticket: str) -> dict[str, Any]:
        _expect("ticket", "T", ticket)
        agent = self.assigned.get(ticket.upper(), self.pick(self.values(PEOPLE), "agent", ticket))
        return {"status": self.pick(self.values(TICKET_STATES), ticket), "agent": agent}

    def is_away(self, agent: str) -> bool:
        return self.number(1, 3, "away", agent) == 1

    def stand_in(self, agent: str) -> str:
        names = self.values(PEOPLE)
        first = self.number(0, len(names) - 1, "stand-in", agent)
        order = names[first:] + names[:first]
        return next((name for name in order if not self.is_away(name) and not same(name, agent)), "desk")

    def assign_ticket(self, ticket: str, agent: str) -> dict[str, Any]:
        _expect("ticket", "T", ticket)
        if self.is_away(agent):
            raise ToolError(f"{agent} is away", self.stand_in(agent))
        self.assigned[ticket.upper()] = agent
        return {"agent": agent, "queue": self.code("Q", agent), "place": self.number(2, 30, ticket, agent)}

    def search_help(self, topic: str) -> dict[str, Any]:
        return {"article": self.code("H", topic), "title": self.pick(self.values(GUIDES), topic)}

    def change_plan(self, customer: str, plan: str) -> dict[str, Any]:
        _expect("customer", "C", customer)
        if not any(same(plan, known) for known in self.values(PLANS)):
            raise ToolError(f"no plan {plan}")
        return {
            "plan": plan,
            "price": self.number(5, 60, plan),
            "starts": self.pick(self.values(DATES), customer, plan),
        }


def _expect(what: str, letter: str, text: str) -> None:
    if not (len(text) == 3 and text[0].upper() == letter and text[1:].isdigit()):
        raise ToolError(f"no {what} {text}")


def customer(world: Support, random: Random) -> Arguments:
    return {"customer_name": random.choice(world.values(PEOPLE))}


def complaint(world: Support, random: Random) -> Arguments:
    return {"customer": f"C{random.randint(10, 99)}", "topic": random.choice(world.values(TOPICS))}


def ticket(world: Support, random: Random) -> Arguments:
    return {"ticket": f"T{random.randint(10, 99)}"}


def assignment(world: Support, random: Random, away: bool = False) -> Arguments:
    names = [name for name in world.values(PEOPLE) if world.is_away(name) == away]
    return {"ticket": f"T{random.randint(10, 99)}", "agent": random.choice(names)}


def topic(world: Support, random: Random) -> Arguments:
    return {"topic": random.choice(world.values(TOPICS))}


def contract(world: Support, random: Random) -> Arguments:
    return {"customer": f"C{random.randint(10, 99)}", "plan": random.choice(world.values(PLANS))}


FIND_CUSTOMER = Intent(
    tool="find_customer",
    requests=Pool(
        (
            "[find|look up] customer {customer_name}",
            "[tell me|check] which plan {customer_name} has",
            "What's the customer id of {customer_name}?",
            "{customer_name} is on the phone. Which customer is that?",
        ),
        ("pull up the record of {customer_name}", "Is {customer_name} in our files? Which plan?"),
    ),
    draw=customer,
    thinking="look up {customer_name}",
    replies=("{customer_name} is customer {customer} on the {plan} plan.", "It's {customer}, plan {plan}."),
    facts=("customer", "plan"),
)

OPEN_TICKET = Intent(
    tool="open_ticket",
    requests=Pool(
        (
            "open a ticket for customer {customer} about {topic}",
            "[report|file] {topic} for customer {customer}",
            "Customer {customer} complains about {topic}. [Open a ticket.|]",
        ),
        ("note {topic} as a new case for customer {customer}", "{topic} again! Write a ticket for {customer}."),
    ),
    draw=complaint,
    thinking="open a ticket for {customer}",
    replies=("Ticket {ticket} is open; answer by {answer_by}.", "It's ticket {ticket}, answered by {answer_by}."),
    facts=("ticket", "answer_by"),
    missing=(
        Missing(
            "topic",
            Pool(
                (
                    "open a ticket for customer {customer}",
                    "Customer {customer} needs a ticket.",
                    "file a complaint of {customer}",
                ),
                ("note a new case for customer {customer}",),
            ),
            "What is the topic of the ticket?",
            ("topic", "about", "problem", "issue"),
            Pool(("{topic}", "It's about {topic}.", "The topic is {topic}."), ("The trouble is {topic}.",)),
        ),
        Missing(
            "customer",
            Pool(
                ("open a ticket about {topic}", "I want to report {topic}.", "file a ticket on {topic}"),
                ("note {topic} as a new case",),
            ),
            "What is the customer id?",
            ("customer", "id", "who"),
            Pool(("It's {customer}.", "{customer}", "Customer {customer}."), ("The id would be {customer}.",)),
        ),
    ),
)

GET_TICKET = Intent(
    tool="get_ticket",
    requests=Pool(
        (
            "[check|look up] [the status of ticket|ticket] {ticket}",
            "tell me who works on ticket {ticket}",
            "What's the status of ticket {ticket}?",
            "Is ticket {ticket} solved? [Who has it?|]",
        ),
        ("see how far ticket {ticket} is", "Any progress on {ticket}?"),
    ),
    draw=ticket,
    thinking="get ticket {ticket}",
    replies=("Ticket {ticket} is {status}; {agent} has it.", "It is {status}, with {agent}."),
    facts=("status", "agent"),
    missing=(
        Missing(
            "ticket",
            Pool(
                ("check the status of my ticket", "What's the status of my ticket?", "tell me who works on my ticket"),
                ("see how far my ticket is",),
            ),
            "What is the ticket number?",
            ("ticket", "number", "id"),
            Pool(("It's {ticket}.", "{ticket}", "Ticket {ticket}.", "Number {ticket}."), ("I believe {ticket}.",)),
        ),
    ),
)

ASSIGN_TICKET = Intent(
    tool="assign_ticket",
    requests=Pool(
        (
            "[assign|give|hand] ticket {ticket} to {agent}",
            "make {agent} take ticket {ticket}",
            "{agent} should handle ticket {ticket}. [Assign it.|]",
        ),
        ("pass ticket {ticket} on to {agent}", "Ticket {ticket} is a job for {agent}."),
    ),
    draw=assignment,
    thinking="give {ticket} to {agent}",
    replies=("{agent} has it in queue {queue}, place {place}.", "Assigned to {agent}: queue {queue}, place {place}."),
    facts=("queue", "place"),
    missing=(
        Missing(
            "agent",
            Pool(
                ("assign ticket {ticket}", "Ticket {ticket} needs an agent.", "hand ticket {ticket} to somebody"),
                ("pass ticket {ticket} on",),
            ),
            "Which agent should get it?",
            ("agent", "who", "whom"),
            Pool(("{agent}", "Give it to {agent}.", "To {agent}.", "{agent}, please."), ("{agent} is the one.",)),
        ),
    ),
)

SEARCH_HELP = Intent(
    tool="search_help",
    requests=Pool(
        (
            "[find|search] a help article [on|about] {topic}",
            "[look up|see] what our help says about {topic}",
            "Is there an article on {topic}?",
            "I have trouble with {topic}. Which article helps?",
        ),
        ("dig out a guide for {topic}", "{topic}: what could I read about that?"),
    ),
    draw=topic,
    thinking="search help on {topic}",
    replies=('Article {article}, "{title}", covers it.', "See {article}: {title}."),
    facts=("article", "title"),
)

CHANGE_PLAN = Intent(
    tool="change_plan",
    requests=Pool(
        (
            "[change|switch|move] customer {customer} to the {plan} plan",
            "put {customer} on the {plan} plan",
            "Customer {customer} wants the {plan} plan. [Change it.|]",
        ),
        ("let customer {customer} have the {plan} plan", "The {plan} plan is what {customer} asked for."),
    ),
    draw=contract,
    thinking="move {customer} to {plan}",
    replies=("The {plan} plan starts {starts} at ${price}.", "Done: {plan} for ${price} from {starts}."),
    facts=("price", "starts"),
    missing=(
        Missing(
            "plan",
            Pool(
                (
                    "change the plan of customer {customer}",
                    "Customer {customer} wants another plan.",
                    "switch {customer} to a new plan",
                ),
                ("let customer {customer} have a new plan",),
            ),
            "Which plan should it be?",
            ("plan",),
            Pool(("The {plan} plan.", "{plan}", "{plan}, please."), ("Make it {plan}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=Support,
    intents=(FIND_CUSTOMER, OPEN_TICKET, GET_TICKET, ASSIGN_TICKET, SEARCH_HELP, CHANGE_PLAN),
    chains=(
        Chain(
            FIND_CUSTOMER,
            OPEN_TICKET,
            {"customer": "customer"},
            Pool(
                (
                    "open a ticket for {customer_name} about {topic}",
                    "{customer_name} complains about {topic}. Open a ticket.",
                    "{customer_name} called, it's about {topic}. Make a ticket.",
                ),
                ("write a case on {topic} for {customer_name}",),
            ),
            Pool(
                ("open a ticket about {topic} for that customer", "They have trouble with {topic}. Open a ticket."),
                ("write a case on {topic} for them",),
            ),
        ),
        Chain(
            FIND_CUSTOMER,
            CHANGE_PLAN,
            {"customer": "customer"},
            Pool(
                (
                    "[change|switch] {customer_name} to the {plan} plan",
                    "{customer_name} wants the {plan} plan. Change it.",
                ),
                ("let {customer_name} have the {plan} plan",),
            ),
            Pool(
                ("change that customer to the {plan} plan", "They want the {plan} plan now. Change it."),
                ("let them have the {plan} plan",),
            ),
        ),
        Chain(
            OPEN_TICKET,
            ASSIGN_TICKET,
            {"ticket": "ticket"},
            Pool(
                (
                    "open a ticket for {customer} about {topic} and assign it to {agent}",
                    "Customer {customer} reports {topic}. Open a ticket and give it to {agent}.",
                ),
                ("write a case on {topic} for {customer} that {agent} takes",),
            ),
            Pool(
                ("assign it to {agent}", "{agent} should take that ticket."),
                ("pass it on to {agent}",),
            ),
        ),
    ),
    recoveries=(
        Recovery(
            ASSIGN_TICKET,
            lambda world, random: assignment(world, random, away=True),
            Pool(
                (
                    "assign ticket {ticket} to {agent}, or to the stand-in if {agent} is away",
                    "give ticket {ticket} to {agent} or whoever replaces {agent}",
                    "{agent} or a replacement should take ticket {ticket}. Assign it.",
                ),
                ("pass ticket {ticket} on to {agent}; somebody else is fine too",),
            ),
            "agent",
        ),
    ),
    unserved=Pool(
        (
            Unserved("ship a new router", ("router", "ship")),
            Unserved("delete a customer", ("delete",)),
            Unserved("send a technician", ("technician",)),
            Unserved("pay out a bonus", ("bonus",)),
        ),
        (Unserved("restart the server", ("server", "restart")), Unserved("record this call", ("call", "record"))),
    ),
)
