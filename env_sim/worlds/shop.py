"""Shop orders: products that are ordered and returned."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.world import Pool, tool, words

ITEMS = words(
    "desk lamp, rain jacket, coffee mug, tennis racket, yoga mat, wall clock, backpack, garden hose, frying pan, "
    "bath towel, office chair, sports bag, hair dryer, water bottle, board game, wool scarf, tool box, flower pot",
    "bread knife, sleeping bag, bike helmet, picture frame, toaster, leather belt, phone case, beach umbrella, kettle",
)


class Shop(Catalogue):
    name = "shop"
    title = "Shop orders"
    noun = "product"
    letter = "P"
    names = ITEMS
    taken = "sold out"
    tools = (
        tool("find_product", "Find a product by its name", query="string"),
        tool("get_product", "Stock of a product", id="string"),
        tool("order_product", "Order a product", id="string", count="integer"),
        tool("return_product", "Return a product", id="string"),
    )

    def find_product(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "price": self.number(5, 140, code)}

    def get_product(self, id: str) -> dict[str, Any]:
        return {"stock": self.number(2, 90, self.known(id))}

    def order_product(self, id: str, count: int) -> dict[str, Any]:
        return {"order": self.code("A", self.take(id), count)}

    def return_product(self, id: str) -> dict[str, Any]:
        return {"label": self.code("L", self.drop(id))}


DOMAIN = Domain(
    world=Shop,
    things=Things(
        by_id=Pool(("product {id}", "{id}", "item {id}"), ("article {id}",)),
        by_name=Pool(("the {query}", "a {query}", "your {query}"), ("one {query}",)),
        it=Pool(("it", "that product", "that one"), ("this product",)),
        unnamed=Pool(("the product", "my item", "a product"), ("the article",)),
    ),
    find=Intent(
        tool="find_product",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Do you have {thing}?"),
            ("Where do I get {thing}?", "see if you sell {thing}"),
        ),
        thinking="find {query}",
        replies=("It is product {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_product",
        requests=Pool(
            ("How many of {thing} are left?", "check the stock of {thing}", "tell me how much of {thing} you have"),
            ("Is {thing} in stock?", "look up the stock of {thing}"),
        ),
        thinking="check {id}",
        replies=("There are {stock} left.", "{stock} of {id} are in stock."),
        fact="stock",
    ),
    act=Action(
        tool="order_product",
        requests=Pool(
            (
                "order {count} of {thing}",
                "[buy|get] {thing}, {count} pieces",
                "I need {count} of {thing}. Order them.",
                "order {thing}, count {count}",
            ),
            ("send me {thing}, {count} pieces", "I'll take {count} of {thing}."),
        ),
        thinking="order {count} of {id}",
        replies=("Ordered as {order}.", "{count} of {id} ordered, order {order}."),
        fact="order",
        parameter="count",
        values=Pool(tuple(range(2, 40)), tuple(range(40, 60))),
        without=Pool(("order {thing}", "[buy|get me] {thing}"), ("send me {thing}",)),
        missing=Missing(
            "count",
            "What count should I order?",
            ("count", "many", "quantity", "number"),
            Pool(("{count}", "{count} of them.", "I want {count}."), ("Make it {count}.",)),
        ),
        otherwise=Pool(
            ("or another one if it is sold out", "or something like it if that is gone", "else another one"),
            ("and if there is none, a different one",),
        ),
    ),
    drop=Intent(
        tool="return_product",
        requests=Pool(
            ("return {thing}", "send back {thing}", "I don't want {thing}. Return it."),
            ("give {thing} back", "I no longer need {thing}. Return it."),
        ),
        thinking="return {id}",
        replies=("Return label {label} is ready.", "Use label {label}."),
        fact="label",
    ),
    which=Missing(
        "id",
        "Which product id?",
        ("product", "id", "number"),
        Pool(("{id}", "It's {id}.", "Product {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("wrap it as a gift", ("gift", "wrap")),
            Unserved("repair my headphones", ("headphones",)),
            Unserved("open a shop account", ("account",)),
            Unserved("print a catalog", ("catalog",)),
        ),
        (
            Unserved("sharpen my knives", ("knives",)),
            Unserved("fit my curtains", ("curtains",)),
        ),
    ),
)
