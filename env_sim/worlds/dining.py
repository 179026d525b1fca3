"""Dining (unseen in training): restaurants, tables, menus, takeaway."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import CITIES, TIMES
from env_sim.worlds.world import Pool, ToolError, World, tool, words

CUISINES = words(
    "Thai, Greek, Indian, Italian, French", "Korean, Turkish, Peruvian, Lebanese, Polish, Mexican, Vietnamese"
)
NAMES = words("Olivo, The Spoon, Blue Plate, Casa Nova", "Ember, Little Fig, The Copper Pot, Saffron, North Table")
DISHES = words(
    "lasagne, green curry, moussaka, lentil soup",
    "bibimbap, ceviche, pierogi, fish tacos, falafel plate, pho, lamb skewers, baked eggplant",
)


class Dining(World):
    name = "dining"
    title = "Dining"
    tools = (
        tool("find_restaurant", "Find a restaurant by cuisine", cuisine="string", city="string"),
        tool("book_table", "Book a table at a restaurant id", restaurant="string", guests="integer", time="string"),
        tool("get_special", "Dish of the day at a restaurant", restaurant="string"),
        tool("order_dish", "Order a dish to take away", dish="string", portions="integer"),
        tool("cancel_table", "Cancel a table reservation", reservation="string"),
    )

    def fill(self) -> None:
        self.canceled: set[str] = set()

    def find_restaurant(self, cuisine: str, city: str) -> dict[str, Any]:
        name = self.pick(self.values(NAMES), cuisine, city)
        return {"restaurant": self.code("R", cuisine, city), "name": name, "stars": self.number(2, 5, cuisine, city)}

    def is_full(self, restaurant: str, time: str) -> bool:
        return self.number(1, 4, "full", restaurant, time) == 1

    def book_table(self, restaurant: str, guests: int, time: str) -> dict[str, Any]:
        _expect("restaurant", "R", restaurant)
        if self.is_full(restaurant, time):
            free = next((other for other in self.values(TIMES) if not self.is_full(restaurant, other)), "21:00")
            raise ToolError(f"{restaurant} is full at {time}", free)
        key = (restaurant, guests, time)
        return {"reservation": self.code("T", *key), "table": self.number(1, 40, "table", *key)}

    def get_special(self, restaurant: str) -> dict[str, Any]:
        _expect("restaurant", "R", restaurant)
        return {"dish": self.pick(self.values(DISHES), restaurant), "price": self.number(7, 38, restaurant)}

    def left(self, dish: str) -> int:
        return self.number(2, 8, "left", dish)

    def order_dish(self, dish: str, portions: int) -> dict[str, Any]:
        if portions > self.left(dish):
            raise ToolError(f"only {self.left(dish)} portions left", self.left(dish))
        return {"order": self.code("D", dish, portions), "ready": self.clock(11, 21, dish, portions)}

    def cancel_table(self, reservation: str) -> dict[str, Any]:
        _expect("reservation", "T", reservation)
        if reservation.upper() in self.canceled:
            raise ToolError(f"{reservation} is already canceled")
        self.canceled.add(reservation.upper())
        return {"receipt": self.code("C", reservation), "fee": self.number(1, 20, "fee", reservation)}


def _expect(what: str, letter: str, text: str) -> None:
    if not (len(text) == 3 and text[0].upper() == letter and text[1:].isdigit()):
        raise ToolError(f"no {what} {text}")


def taste(world: Dining, random: Random) -> Arguments:
    return {"cuisine": random.choice(world.values(CUISINES)), "city": random.choice(world.values(CITIES))}


def table(world: Dining, random: Random, full: bool = False) -> Arguments:
    while True:
        restaurant, time = f"R{random.randint(10, 99)}", random.choice(world.values(TIMES))
        if world.is_full(restaurant, time) == full:
            return {"restaurant": restaurant, "guests": random.randint(2, 9), "time": time}


def restaurant(world: Dining, random: Random) -> Arguments:
    return {"restaurant": f"R{random.randint(10, 99)}"}


def meal(world: Dining, random: Random, too_many: bool = False) -> Arguments:
    dish = random.choice(world.values(DISHES))
    left = world.left(dish)
    return {"dish": dish, "portions": left + random.randint(1, 9) if too_many else random.randint(2, left)}


def reserved(world: Dining, random: Random) -> Arguments:
    return {"reservation": f"T{random.randint(10, 99)}"}


FIND_RESTAURANT = Intent(
    tool="find_restaurant",
    requests=Pool(
        (
            "[find|look for] a {cuisine} restaurant in {city}",
            "I'm hungry for {cuisine} food in {city}. Where can I go?",
            "Is there a {cuisine} restaurant in {city}?",
        ),
        ("hunt down {cuisine} cooking in {city}", "{city}, {cuisine} kitchen: what is there?"),
    ),
    draw=taste,
    thinking="find {cuisine} food in {city}",
    replies=("Try {name} ({restaurant}) with {stars} stars.", "{restaurant}, {name}, has {stars} stars."),
    facts=("restaurant", "name"),
    missing=(
        Missing(
            "city",
            Pool(
                ("find a {cuisine} restaurant", "I'm hungry for {cuisine} food. Where can I go?"),
                ("hunt down {cuisine} cooking",),
            ),
            "In which city?",
            ("city", "where", "place"),
            Pool(("In {city}.", "{city}", "{city}, please."), ("Around {city}.",)),
        ),
    ),
)

BOOK_TABLE = Intent(
    tool="book_table",
    requests=Pool(
        (
            "book a table at restaurant {restaurant} for {guests} at {time}",
            "reserve at {restaurant}: {guests} guests, {time}",
            "We are {guests} and want to eat at {restaurant} at {time}. Book a table.",
        ),
        (
            "get {guests} of us into restaurant {restaurant} at {time}",
            "{time}, {guests} guests, restaurant {restaurant}. Book it.",
        ),
    ),
    draw=table,
    thinking="book {restaurant} for {guests}",
    replies=("Table {table} is booked, reservation {reservation}.", "Reservation {reservation}, table {table}."),
    facts=("reservation", "table"),
    missing=(
        Missing(
            "guests",
            Pool(
                (
                    "book a table at restaurant {restaurant} at {time}",
                    "I want to eat at {restaurant} at {time}. Book a table.",
                ),
                ("get us into restaurant {restaurant} at {time}",),
            ),
            "For how many guests?",
            ("guests", "people", "many", "persons"),
            Pool(("{guests} guests.", "{guests}", "We are {guests}.", "For {guests}."), ("{guests} of us.",)),
        ),
        Missing(
            "time",
            Pool(
                (
                    "book a table at restaurant {restaurant} for {guests}",
                    "We are {guests}. Book a table at {restaurant}.",
                ),
                ("get {guests} of us into restaurant {restaurant}",),
            ),
            "At what time?",
            ("time", "when", "hour"),
            Pool(("At {time}.", "{time}", "{time}, please."), ("Around {time}.",)),
        ),
    ),
)

GET_SPECIAL = Intent(
    tool="get_special",
    requests=Pool(
        (
            "[check|tell me] the dish of the day at restaurant {restaurant}",
            "What's the special at {restaurant} today?",
            "see what restaurant {restaurant} cooks today",
        ),
        ("find out what {restaurant} serves today and for how much", "Today's dish at {restaurant}?"),
    ),
    draw=restaurant,
    thinking="get the special of {restaurant}",
    replies=("Today it's {dish} for ${price}.", "The special is {dish}, ${price}."),
    facts=("dish", "price"),
)

ORDER_DISH = Intent(
    tool="order_dish",
    requests=Pool(
        (
            "order {portions} portions of {dish} to take away",
            "I'd like {dish} to go, {portions} portions.",
            "get me {portions} portions of {dish}",
        ),
        ("pack {portions} portions of {dish} for me", "{dish}, {portions} times, to go."),
    ),
    draw=meal,
    thinking="order {portions} {dish}",
    replies=("Order {order} is ready at {ready}.", "It's order {order}; pick it up at {ready}."),
    facts=("order", "ready"),
    missing=(
        Missing(
            "portions",
            Pool(("order {dish} to take away", "I'd like {dish} to go."), ("pack some {dish} for me",)),
            "How many portions?",
            ("many", "portions", "number"),
            Pool(("{portions} portions.", "{portions}", "{portions}, please."), ("Let's say {portions}.",)),
        ),
    ),
)

CANCEL_TABLE = Intent(
    tool="cancel_table",
    requests=Pool(
        ("cancel reservation {reservation}", "We can't come. Cancel reservation {reservation}."),
        ("take reservation {reservation} off the list", "{reservation} is our table, but we stay home. Cancel it."),
    ),
    draw=reserved,
    thinking="cancel {reservation}",
    replies=("Canceled, receipt {receipt}, fee ${fee}.", "Receipt {receipt}: canceled for ${fee}."),
    facts=("receipt", "fee"),
    missing=(
        Missing(
            "reservation",
            Pool(("cancel my table", "We can't come. Cancel our table."), ("take our table off the list",)),
            "What is the reservation number?",
            ("reservation", "number", "id"),
            Pool(("It's {reservation}.", "{reservation}", "Reservation {reservation}."), ("We have {reservation}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=Dining,
    intents=(FIND_RESTAURANT, BOOK_TABLE, GET_SPECIAL, ORDER_DISH, CANCEL_TABLE),
    chains=(
        Chain(
            FIND_RESTAURANT,
            BOOK_TABLE,
            {"restaurant": "restaurant"},
            Pool(
                (
                    "find a {cuisine} restaurant in {city} and book a table for {guests} at {time}",
                    "We are {guests} and want {cuisine} food in {city} at {time}. Book a table.",
                ),
                ("get {guests} of us a {cuisine} dinner in {city} at {time}",),
            ),
            Pool(
                ("book a table for {guests} at {time}", "Good. A table there for {guests} at {time}, please."),
                ("get {guests} of us in there at {time}",),
            ),
        ),
        Chain(
            FIND_RESTAURANT,
            GET_SPECIAL,
            {"restaurant": "restaurant"},
            Pool(
                ("find a {cuisine} restaurant in {city} and tell me its dish of the day",),
                ("I want {cuisine} food in {city}. What does the restaurant there cook today?",),
            ),
            Pool(("tell me its dish of the day", "What do they cook today?"), ("And today's dish there?",)),
        ),
    ),
    recoveries=(
        Recovery(
            BOOK_TABLE,
            lambda world, random: table(world, random, full=True),
            Pool(
                ("book a table at {restaurant} for {guests} at {time}, or when there is room",),
                ("get {guests} of us into {restaurant} at {time}; another time is fine if it's full",),
            ),
            "time",
        ),
        Recovery(
            ORDER_DISH,
            lambda world, random: meal(world, random, too_many=True),
            Pool(
                ("order {portions} portions of {dish}, or as many as there are",),
                ("pack {portions} portions of {dish} for me, or whatever number is left",),
            ),
            "portions",
        ),
    ),
    unserved=Pool(
        (Unserved("cook dinner at my house", ("cook", "dinner")),),
        (
            Unserved("send a waiter to my party", ("waiter",)),
            Unserved("hire a band for the evening", ("band",)),
            Unserved("teach me a recipe", ("recipe",)),
        ),
    ),
)
