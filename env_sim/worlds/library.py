"""Library (unseen in training): books, loans, reading rooms, fines."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import DATES, PEOPLE, TIMES
from env_sim.worlds.world import Pool, ToolError, World, tool, words

TITLES = words(
    "Silent River, The Glass Door, Winter Roads, Green Island, The Last Train, Salt and Sand, Night Garden",
    "Paper Boats, The Blue Ladder, Stone Harvest, Seven Lamps, The Quiet Coast, Iron Orchard, A Second Moon, "
    "Borrowed Light, The Hollow Hill, Copper Wings",
)
SHELVES = words("north hall, south hall, cellar, gallery", "east wing, tower, reading room, mezzanine")


class Library(World):
    name = "library"
    title = "Library"
    tools = (
        tool("search_book", "Find a book by its title", title="string"),
        tool("reserve_book", "Reserve a book for a member", book="string", member="string"),
        tool("renew_loan", "Renew a loan", loan="string"),
        tool("get_fine", "Open fine of a member", member="string"),
        tool("book_room", "Book a study room", date="string", time="string"),
    )

    def fill(self) -> None:
        self.renewed: set[str] = set()

    def search_book(self, title: str) -> dict[str, Any]:
        book = self.free_book(title)
        return {"book": book, "shelf": self.pick(self.values(SHELVES), title), "copies": self.number(1, 9, title)}

    def free_book(self, *key: str) -> str:
        return next(code for turn in range(100) if not self.is_lent(code := self.code("B", turn, *key)))

    def is_lent(self, book: str) -> bool:
        return self.number(1, 3, "lent", book) == 1

    def reserve_book(self, book: str, member: str) -> dict[str, Any]:
        if not _is_code("B", book):
            raise ToolError(f"no book {book}")
        if self.is_lent(book):
            raise ToolError(f"{book} is lent out", self.free_book("instead", book))
        return {"reservation": self.code("R", book, member), "until": self.pick(self.values(DATES), book, member)}

    def renew_loan(self, loan: str) -> dict[str, Any]:
        if not _is_code("L", loan):
            raise ToolError(f"no loan {loan}")
        if loan.upper() in self.renewed:
            raise ToolError(f"loan {loan} was already renewed")
        self.renewed.add(loan.upper())
        return {"due": self.pick(self.values(DATES), loan), "fee": self.number(1, 9, "fee", loan)}

    def get_fine(self, member: str) -> dict[str, Any]:
        return {"fine": self.number(2, 40, "fine", member), "loan": self.code("L", member)}

    def is_taken(self, date: str, time: str) -> bool:
        return self.number(1, 4, "taken", date, time) == 1

    def book_room(self, date: str, time: str) -> dict[str, Any]:
        if self.is_taken(date, time):
            free = next((other for other in self.values(TIMES) if not self.is_taken(date, other)), "21:00")
            raise ToolError(f"no room at {time} on {date}", free)
        return {"room": self.code("S", date, time), "key": self.number(100, 999, date, time)}


def _is_code(letter: str, text: str) -> bool:
    return len(text) == 3 and text[0].upper() == letter and text[1:].isdigit()


def title(world: Library, random: Random) -> Arguments:
    return {"title": random.choice(world.values(TITLES))}


def reservation(world: Library, random: Random, lent: bool = False) -> Arguments:
    books = [code for code in (f"B{n}" for n in range(10, 100)) if world.is_lent(code) == lent]
    return {"book": random.choice(books), "member": random.choice(world.values(PEOPLE))}


def loan(world: Library, random: Random) -> Arguments:
    return {"loan": f"L{random.randint(10, 99)}"}


def member(world: Library, random: Random) -> Arguments:
    return {"member": random.choice(world.values(PEOPLE))}


def slot(world: Library, random: Random, taken: bool = False) -> Arguments:
    while True:
        date, time = random.choice(world.values(DATES)), random.choice(world.values(TIMES))
        if world.is_taken(date, time) == taken:
            return {"date": date, "time": time}


SEARCH_BOOK = Intent(
    tool="search_book",
    requests=Pool(
        (
            "[find|look up|search] the book {title}",
            "[check|see] if you have {title}",
            "Where do I find the book {title}?",
        ),
        ("hunt down {title} on your shelves", "I'd love to read {title}. Where is it?"),
    ),
    draw=title,
    thinking="search {title}",
    replies=("It's book {book} in the {shelf}.", "{title} is {book}, {shelf}."),
    facts=("book", "shelf"),
)

RESERVE_BOOK = Intent(
    tool="reserve_book",
    requests=Pool(
        (
            "reserve book {book} for {member}",
            "[keep|hold] book {book} for {member}",
            "{member} wants book {book}. Reserve it.",
        ),
        ("put {member} down for book {book}", "Book {book} should go to {member}."),
    ),
    draw=reservation,
    thinking="reserve {book} for {member}",
    replies=("Reserved as {reservation} until {until}.", "Reservation {reservation} holds until {until}."),
    facts=("reservation", "until"),
    missing=(
        Missing(
            "member",
            Pool(
                ("reserve book {book}", "I want book {book} reserved.", "keep book {book}"),
                ("put somebody down for book {book}",),
            ),
            "For which member?",
            ("member", "name", "who", "whom"),
            Pool(("For {member}.", "{member}", "The member is {member}."), ("Put down {member}.",)),
        ),
    ),
)

RENEW_LOAN = Intent(
    tool="renew_loan",
    requests=Pool(
        ("renew loan {loan}", "[extend|prolong] loan {loan}", "I need more time for loan {loan}. Renew it."),
        ("let me keep loan {loan} longer", "Loan {loan} isn't read yet. Extend it."),
    ),
    draw=loan,
    thinking="renew {loan}",
    replies=("Loan {loan} is due {due}, fee ${fee}.", "Renewed until {due} for ${fee}."),
    facts=("due", "fee"),
    missing=(
        Missing(
            "loan",
            Pool(
                ("renew my loan", "I need more time for my book. Renew it.", "extend my loan"),
                ("let me keep my book longer",),
            ),
            "What is the loan number?",
            ("loan", "number", "id"),
            Pool(("It's {loan}.", "{loan}", "Loan {loan}.", "Number {loan}."), ("The slip says {loan}.",)),
        ),
    ),
)

GET_FINE = Intent(
    tool="get_fine",
    requests=Pool(
        (
            "[check|look up] the fine of {member}",
            "[see|tell me] what {member} owes",
            "How high is {member}'s fine?",
        ),
        ("find out whether {member} is in debt here", "{member} was late with a book. What's the fine?"),
    ),
    draw=member,
    thinking="check the fine of {member}",
    replies=("{member} owes ${fine} for loan {loan}.", "The fine is ${fine}, for loan {loan}."),
    facts=("fine", "loan"),
)

BOOK_ROOM = Intent(
    tool="book_room",
    requests=Pool(
        (
            "book a study room on {date} at {time}",
            "[get|reserve] me a study room for {date}, {time}",
            "I want to study on {date} at {time}. Book a room.",
        ),
        ("find me a quiet room at {time} on {date} and book it", "{date}, {time}: I need a study room."),
    ),
    draw=slot,
    thinking="book a room on {date}",
    replies=("Room {room} is yours, key {key}.", "You have room {room} with key {key}."),
    facts=("room", "key"),
    missing=(
        Missing(
            "time",
            Pool(
                ("book a study room on {date}", "I want to study on {date}. Book a room."),
                ("get me a quiet room for {date}",),
            ),
            "At what time?",
            ("time", "when", "hour"),
            Pool(("At {time}.", "{time}", "{time}, please."), ("From {time}.",)),
        ),
        Missing(
            "date",
            Pool(
                ("book a study room at {time}", "I need a study room at {time}."),
                ("get me a quiet room at {time}",),
            ),
            "On which date?",
            ("date", "day", "when"),
            Pool(("On {date}.", "{date}", "{date}, please."), ("It's for {date}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=Library,
    intents=(SEARCH_BOOK, RESERVE_BOOK, RENEW_LOAN, GET_FINE, BOOK_ROOM),
    chains=(
        Chain(
            SEARCH_BOOK,
            RESERVE_BOOK,
            {"book": "book"},
            Pool(
                ("find {title} and reserve it for {member}", "{member} wants to read {title}. Reserve it."),
                ("put {member} down for the book {title}", "keep {title} for {member}"),
            ),
            Pool(("reserve it for {member}", "{member} wants it. Reserve it."), ("put {member} down for it",)),
        ),
        Chain(
            GET_FINE,
            RENEW_LOAN,
            {"loan": "loan"},
            Pool(
                ("find the loan that {member} has a fine for and renew it",),
                ("{member} was fined. Look up which loan it is and renew it.",),
            ),
            Pool(("renew that loan", "Please extend this loan."), ("let the loan run longer",)),
        ),
    ),
    recoveries=(
        Recovery(
            RESERVE_BOOK,
            lambda world, random: reservation(world, random, lent=True),
            Pool(
                ("reserve book {book} for {member}, or another copy if it is lent out",),
                ("put {member} down for book {book}; any other copy is fine too",),
            ),
            "book",
        ),
        Recovery(
            BOOK_ROOM,
            lambda world, random: slot(world, random, taken=True),
            Pool(
                ("book a study room on {date} at {time}, or at the next free time",),
                ("get me a quiet room on {date}, {time} or whenever one is free",),
            ),
            "time",
        ),
    ),
    unserved=Pool(
        (Unserved("copy a chapter", ("chapter", "copy")),),
        (
            Unserved("read a story to me", ("story",)),
            Unserved("donate my old books", ("donate",)),
            Unserved("print my essay", ("print", "essay")),
        ),
    ),
)
