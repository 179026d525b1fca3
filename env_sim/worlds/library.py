"""Library (unseen in training): books, reservations, returns."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.values import PEOPLE
from env_sim.worlds.world import Pool, tool, words

TITLES = words(
    "Silent River, The Glass Door, Winter Roads, Green Island, The Last Train, Salt and Sand, Night Garden",
    "Paper Boats, The Blue Ladder, Stone Harvest, Seven Lamps, The Quiet Coast, Iron Orchard, A Second Moon, "
    "Borrowed Light, The Hollow Hill, Copper Wings",
)
SHELVES = words("north hall, south hall, cellar, gallery", "east wing, tower, reading room, mezzanine")


class Library(Catalogue):
    name = "library"
    title = "Library"
    noun = "book"
    letter = "B"
    names = TITLES
    taken = "lent"
    tools = (
        tool("find_book", "Find a book by its title", query="string"),
        tool("get_book", "Shelf of a book", id="string"),
        tool("reserve_book", "Reserve a book for a person", id="string", person="string"),
        tool("return_book", "Return a book", id="string"),
    )

    def find_book(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "pages": self.number(90, 700, code)}

    def get_book(self, id: str) -> dict[str, Any]:
        return {"shelf": self.pick(self.values(SHELVES), self.known(id))}

    def reserve_book(self, id: str, person: str) -> dict[str, Any]:
        return {"reservation": self.code("R", self.take(id), person)}

    def return_book(self, id: str) -> dict[str, Any]:
        return {"fine": self.number(2, 40, self.drop(id))}


DOMAIN = Domain(
    world=Library,
    things=Things(
        by_id=Pool(("book {id}", "{id}", "book number {id}"), ("the book {id}",)),
        by_name=Pool(("the book {query}", "{query}", "your copy of {query}"), ("a copy of {query}",)),
        it=Pool(("it", "that book", "that one"), ("this book",)),
        unnamed=Pool(("my book", "the book", "a book"), ("a copy",)),
    ),
    find=Intent(
        tool="find_book",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Do you have {thing}?"),
            ("Which number has {thing}?", "see if there is {thing}"),
        ),
        thinking="find {query}",
        replies=("It is book {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_book",
        requests=Pool(
            ("Where is {thing}?", "check the shelf of {thing}", "tell me where {thing} stands"),
            ("Which shelf has {thing}?", "look up the place of {thing}"),
        ),
        thinking="check {id}",
        replies=("It stands in {shelf}.", "{id} is in {shelf}."),
        fact="shelf",
    ),
    act=Action(
        tool="reserve_book",
        requests=Pool(
            (
                "reserve {thing} for {person}",
                "[keep|hold] {thing} for {person}",
                "{person} wants {thing}. Reserve it.",
                "put {person} down for {thing}",
            ),
            ("set {thing} aside for {person}", "{thing} should go to {person}."),
        ),
        thinking="reserve {id} for {person}",
        replies=("Reserved as {reservation}.", "{person} gets {id}, reservation {reservation}."),
        fact="reservation",
        parameter="person",
        values=PEOPLE,
        without=Pool(("reserve {thing}", "[keep|hold] {thing}"), ("set {thing} aside",)),
        missing=Missing(
            "person",
            "For which person?",
            ("person", "who", "whom", "name"),
            Pool(("For {person}.", "{person}", "It's for {person}."), ("{person} will read it.",)),
        ),
        otherwise=Pool(
            ("or another one if it is lent", "or any other book if that is lent", "else another one"),
            ("and if it is out, a different one",),
        ),
    ),
    drop=Intent(
        tool="return_book",
        requests=Pool(
            ("return {thing}", "give back {thing}", "I'm done with {thing}. Return it."),
            ("take {thing} back", "I have read {thing}. Return it."),
        ),
        thinking="return {id}",
        replies=("{id} is returned, fine ${fine}.", "Returned, the fine is ${fine}."),
        fact="fine",
    ),
    which=Missing(
        "id",
        "Which book id?",
        ("book", "id", "number"),
        Pool(("{id}", "It's {id}.", "Book {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (Unserved("copy a chapter", ("chapter", "copy")),),
        (
            Unserved("read a story to me", ("story",)),
            Unserved("donate my old clothes", ("donate", "clothes")),
            Unserved("print my essay", ("print", "essay")),
        ),
    ),
)
