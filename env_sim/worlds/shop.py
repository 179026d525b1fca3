"""Shop orders: products, orders, parcels, returns."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import CITIES, DATES
from env_sim.worlds.world import Pool, ToolError, World, same, tool, words

ITEMS = words(
    "desk lamp, rain jacket, coffee mug, tennis racket, yoga mat, wall clock, backpack, garden hose, frying pan, "
    "bath towel, office chair, sports bag, hair dryer, water bottle, board game, wool scarf, tool box, flower pot",
    "bread knife, sleeping bag, bike helmet, picture frame, toaster, leather belt, phone case, beach umbrella, kettle",
)
STATES = words("packed, shipped, delivered, on hold", "in customs, waiting, dispatched")
CARRIERS = words("Postline, QuickBox, NordShip, BlueVan", "Parcelo, SwiftCart, Hermia")
CHANGEABLE = ("packed", "on hold", "waiting")


class Shop(World):
    name = "shop"
    title = "Shop orders"
    tools = (
        tool("find_product", "Find a product by its name", item="string"),
        tool("place_order", "Order a product by its id", product="string", quantity="integer"),
        tool("get_order", "Status of an order", order="string"),
        tool("track_parcel", "Where an order's parcel is", order="string"),
        tool("cancel_order", "Cancel an order not yet shipped", order="string"),
        tool("return_item", "Make a return label for an order", order="string", reason="string"),
    )

    def fill(self) -> None:
        states = self.values(STATES)
        self.orders = {code: states[n % len(states)] for n, code in enumerate(self.codes("A", 8))}
        items = self.values(ITEMS)
        self.products = dict(zip(items, self.codes("P", len(items)), strict=True))
        self.gone = set(self.random.sample(items, len(items) // 3))

    def state_of(self, order: str) -> tuple[str, str]:
        for code, state in self.orders.items():
            if same(code, order):
                return code, state
        raise ToolError(f"no order {order}")

    def find_product(self, item: str) -> dict[str, Any]:
        for name, product in self.products.items():
            if same(name, item):
                return {"product": product, "price": self.number(5, 140, name), "stock": self.stock(name)}
        raise ToolError(f"no product {item}")

    def stock(self, name: str) -> int:
        return self.number(2, 60, "stock", name)

    def place_order(self, product: str, quantity: int) -> dict[str, Any]:
        name = next((name for name, code in self.products.items() if same(code, product)), None)
        if name is None:
            raise ToolError(f"no product {product}")
        if quantity > self.stock(name):
            raise ToolError(f"only {self.stock(name)} left", self.stock(name))
        return {"order": self.code("A", product, quantity), "arrives": self.pick(self.values(DATES), product, quantity)}

    def get_order(self, order: str) -> dict[str, Any]:
        code, state = self.state_of(order)
        return {"order": code, "status": state, "total": self.number(10, 320, code)}

    def track_parcel(self, order: str) -> dict[str, Any]:
        code, _ = self.state_of(order)
        city = self.pick(self.values(CITIES), code)
        return {"carrier": self.pick(self.values(CARRIERS), code), "city": city}

    def cancel_order(self, order: str) -> dict[str, Any]:
        code, state = self.state_of(order)
        if state == "canceled":
            raise ToolError(f"order {code} is already canceled")
        if state not in CHANGEABLE:
            raise ToolError(f"order {code} is {state}", "return_item")
        self.orders[code] = "canceled"
        return {"order": code, "refund": self.number(10, 320, code)}

    def return_item(self, order: str, reason: str) -> dict[str, Any]:
        code, _ = self.state_of(order)
        return {"label": self.code("L", code), "carrier": self.pick(self.values(CARRIERS), code)}


def item(world: Shop, random: Random) -> Arguments:
    return {"item": random.choice(list(world.products))}


def purchase(world: Shop, random: Random, too_many: bool = False) -> Arguments:
    name, product = random.choice(list(world.products.items()))
    stock = world.stock(name)
    quantity = stock + random.randint(1, 40) if too_many else random.randint(2, min(stock, 12))
    return {"product": product, "quantity": quantity, "item": name}


def order(world: Shop, random: Random) -> Arguments:
    return {"order": random.choice(list(world.orders))}


def fresh_order(world: Shop, random: Random) -> Arguments:
    return {"order": random.choice([code for code, state in world.orders.items() if state in CHANGEABLE])}


REASONS = words(
    "too small, too big, broken, wrong color, not needed, came late, scratched", "wrong size, torn, a double, too loud"
)


def unwanted(world: Shop, random: Random, sent: bool = False) -> Arguments:
    codes = [code for code, state in world.orders.items() if not sent or state not in CHANGEABLE]
    return {"order": random.choice(codes), "reason": random.choice(world.values(REASONS))}


FIND_PRODUCT = Intent(
    tool="find_product",
    requests=Pool(
        (
            "[find|look up|search] a {item} [in the shop|for me|]",
            "[check|see] whether you have a {item}",
            "[Do you have|Do you sell] a {item}? [What does it cost?|How much is it?|]",
            "What's the price of a {item}?",
            "I'm looking for a {item}.",
        ),
        ("see if a {item} is in stock", "A {item} is what I'm after. Any left?", "tell me about the {item} you sell"),
    ),
    draw=item,
    thinking="look up the {item}",
    replies=("Yes, {product} costs ${price}; {stock} in stock.", "The {item} is {product} at ${price}, {stock} left."),
    facts=("product", "price"),
)

PLACE_ORDER = Intent(
    tool="place_order",
    requests=Pool(
        (
            "order {quantity} pieces of {product}",
            "[buy|order] product {product}, quantity {quantity}",
            "I take product {product}, {quantity} [pieces|of them]. [Place the order.|Order it.]",
        ),
        ("put in an order over {quantity} units of {product}", "send me {product}, {quantity} times"),
    ),
    draw=purchase,
    thinking="order {quantity} of {product}",
    replies=("Order {order} is placed and arrives {arrives}.", "Done, order {order}, it arrives {arrives}."),
    facts=("order", "arrives"),
    missing=(
        Missing(
            "quantity",
            Pool(
                ("order product {product}", "I want to buy product {product}.", "[place an order|order] for {product}"),
                ("put in an order over {product}",),
            ),
            "How many do you want?",
            ("many", "quantity", "pieces", "number"),
            Pool(
                ("{quantity} pieces.", "{quantity}", "I need {quantity}.", "{quantity}, please."),
                ("Make it {quantity}.",),
            ),
        ),
        Missing(
            "product",
            Pool(
                ("order {quantity} pieces", "I'd like to order {quantity} pieces of something."),
                ("put in an order over {quantity} units",),
            ),
            "Which product do you want?",
            ("product", "item"),
            Pool(("Product {product}.", "{product}", "It is product {product}."), ("I mean {product}.",)),
        ),
    ),
)

GET_ORDER = Intent(
    tool="get_order",
    requests=Pool(
        (
            "[check|look up] [the status of order|order] {order}",
            "tell me [how order {order} is doing|the status of order {order}]",
            "What's the status of [my order|order] {order}?",
            "I ordered something, number {order}. What is its status?",
        ),
        ("see what is going on with order {order}", "{order} is my order. Has anything happened to it yet?"),
    ),
    draw=order,
    thinking="get order {order}",
    replies=("Order {order} is {status}, total ${total}.", "It is {status}; the total is ${total}."),
    facts=("status", "total"),
    missing=(
        Missing(
            "order",
            Pool(
                ("check the status of my order", "What's the status of my order?", "tell me how my order is doing"),
                ("see what is going on with my order",),
            ),
            "What is the order number?",
            ("order", "number", "id"),
            Pool(("It's {order}.", "{order}", "Order {order}.", "The number is {order}."), ("Should be {order}.",)),
        ),
    ),
)

TRACK_PARCEL = Intent(
    tool="track_parcel",
    requests=Pool(
        (
            "[track|locate] the parcel of order {order}",
            "[find out|see] where the parcel for order {order} is",
            "Where is the parcel of order {order} [now|]?",
            "Which city has the parcel of order {order} reached?",
        ),
        ("tell me how far parcel {order} has come", "Who carries the package of order {order}, and where is it?"),
    ),
    draw=order,
    thinking="track the parcel of {order}",
    replies=("The parcel is in {city} with {carrier}.", "{carrier} has it in {city}."),
    facts=("city", "carrier"),
    missing=(
        Missing(
            "order",
            Pool(
                ("track my parcel", "Where is my parcel?", "find out where my package is"),
                ("tell me how far my parcel has come",),
            ),
            "Which order number is it?",
            ("order", "number", "id"),
            Pool(("Order {order}.", "{order}", "It's order {order}."), ("That'd be {order}.",)),
        ),
    ),
)

CANCEL_ORDER = Intent(
    tool="cancel_order",
    requests=Pool(
        (
            "cancel order {order}",
            "[stop|call off] order {order}",
            "I don't want order {order} any more. [Cancel it.|Please cancel.]",
        ),
        ("withdraw order {order}", "Order {order} was a mistake, scrap it."),
    ),
    draw=fresh_order,
    thinking="cancel {order}",
    replies=("Order {order} is canceled; you get ${refund} back.", "Canceled {order}, refund ${refund}."),
    facts=("refund",),
)

RETURN_ITEM = Intent(
    tool="return_item",
    requests=Pool(
        (
            "[return|send back] order {order}, it is {reason}",
            "make a return label for order {order}; the reason is: {reason}",
            "Order {order} is {reason}. I want to return it.",
        ),
        ("take back order {order}, reason: {reason}", "It's {reason}, so order {order} goes back to you."),
    ),
    draw=unwanted,
    thinking="make a label for {order}",
    replies=("Use label {label} with {carrier}.", "Your return label is {label}, carrier {carrier}."),
    facts=("label", "carrier"),
    unchecked=("reason",),
    missing=(
        Missing(
            "reason",
            Pool(
                ("return order {order}", "I want to send order {order} back.", "make a return label for order {order}"),
                ("take back order {order}",),
            ),
            "What is the reason for the return?",
            ("reason", "why", "wrong"),
            Pool(("It is {reason}.", "{reason}", "Because it is {reason}."), ("Well, it's {reason}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=Shop,
    intents=(FIND_PRODUCT, PLACE_ORDER, GET_ORDER, TRACK_PARCEL, CANCEL_ORDER, RETURN_ITEM),
    chains=(
        Chain(
            FIND_PRODUCT,
            PLACE_ORDER,
            {"product": "product"},
            Pool(
                (
                    "[order|buy] {quantity} pieces of the {item}",
                    "find the {item} and order {quantity} of it",
                    "I need a {item}, quantity {quantity}. Order it.",
                ),
                ("get me the {item}, {quantity} pieces, ordered today",),
            ),
            Pool(
                ("order {quantity} of it", "Good, I take {quantity}.", "buy {quantity} pieces"),
                ("{quantity} of those, order them",),
            ),
        ),
    ),
    recoveries=(
        Recovery(
            PLACE_ORDER,
            lambda world, random: purchase(world, random, too_many=True),
            Pool(
                (
                    "order {quantity} pieces of {product}, or as many as there are",
                    "I need {quantity} of product {product}; if that's too many, order what is left",
                ),
                ("send me {quantity} units of {product}, or whatever number you still have",),
            ),
            "quantity",
        ),
        Recovery(
            CANCEL_ORDER,
            lambda world, random: unwanted(world, random, sent=True),
            Pool(
                (
                    "cancel order {order}, or return it if it's too late: it is {reason}",
                    "Order {order} is {reason}. Cancel it, and if that's impossible, return it.",
                ),
                ("get rid of order {order}, by canceling or else by a return; it is {reason}",),
            ),
            None,
            RETURN_ITEM,
        ),
    ),
    unserved=Pool(
        (
            Unserved("gift-wrap my parcel", ("gift", "wrap")),
            Unserved("write a product review", ("review",)),
            Unserved("apply a discount code", ("discount", "code")),
            Unserved("change my password", ("password",)),
        ),
        (Unserved("repair my headphones", ("headphones", "repair")), Unserved("send me a gift card", ("gift", "card"))),
    ),
)
