"""Travel: flights, trains, hotels, weather."""

import re
from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import CITIES, DATES, PEOPLE
from env_sim.worlds.world import Pool, ToolError, World, tool, words

HOTELS = words(
    "Aurora, Central, Riverside, Bellevue, Park Inn, Old Mill, Harbour, Astoria, Garden House, Metropole",
    "Lakeview, Continental, Station Inn, Rosehill, Palace, Seaview",
)
SKIES = words("sunny, rain, snow, cloudy, storm, fog", "windy, hail, clear, showers")
FLIGHT = re.compile(r"F\d\d", re.IGNORECASE)
HOTEL = re.compile(r"H\d\d", re.IGNORECASE)


class Travel(World):
    name = "travel"
    title = "Travel"
    tools = (
        tool("find_flights", "Search flights between two cities", origin="string", destination="string", date="string"),
        tool("book_flight", "Book a flight for a passenger", flight="string", passenger="string"),
        tool("find_trains", "Search trains between two cities", origin="string", destination="string", date="string"),
        tool("find_hotel", "Find a free hotel in a city", city="string", date="string"),
        tool("book_hotel", "Book a hotel by its id", hotel="string", nights="integer"),
        tool("get_weather", "Weather forecast for a city", city="string", date="string"),
    )

    def fill(self) -> None:
        self.booked: set[tuple[str, str]] = set()

    def find_flights(self, origin: str, destination: str, date: str) -> dict[str, Any]:
        if not self.has_flights(origin, destination, date):
            raise ToolError(f"no flights to {destination} on {date}", "find_trains")
        cheapest, earliest = (self.open_flight(kind, origin, destination, date) for kind in ("cheap", "early"))
        price = self.number(40, 290, "fare", origin, destination, date)
        departs = self.clock(5, 9, origin, destination, date)
        return {"cheapest": cheapest, "price": price, "earliest": earliest, "departs": departs}

    def has_flights(self, origin: str, destination: str, date: str) -> bool:
        return self.number(1, 6, "flights", origin, destination, date) > 1

    def open_flight(self, *key: str) -> str:
        return next(code for turn in range(100) if not self.is_full(code := self.code("F", turn, *key)))

    def is_full(self, flight: str) -> bool:
        return self.number(1, 3, "full", flight) == 1

    def book_flight(self, flight: str, passenger: str) -> dict[str, Any]:
        if not FLIGHT.fullmatch(flight):
            raise ToolError(f"no flight {flight}")
        if self.is_full(flight):
            raise ToolError(f"flight {flight} is full", self.open_flight("instead", flight))
        if (flight.upper(), passenger.casefold()) in self.booked:
            raise ToolError(f"{passenger} already has a seat on {flight}")
        self.booked.add((flight.upper(), passenger.casefold()))
        return {"booking": self.code("B", flight, passenger), "seat": self.seat(flight, passenger)}

    def seat(self, flight: str, passenger: str) -> str:
        return f"{self.number(1, 30, 'row', flight, passenger)}{self.pick('ABCDEF', 'seat', flight, passenger)}"

    def find_trains(self, origin: str, destination: str, date: str) -> dict[str, Any]:
        key = (origin, destination, date)
        return {"train": self.code("T", *key), "departs": self.clock(6, 19, "train", *key)}

    def find_hotel(self, city: str, date: str) -> dict[str, Any]:
        hotel = self.pick(self.values(HOTELS), city, date)
        return {"hotel": self.code("H", city, date), "name": hotel, "price": self.number(35, 180, city, date)}

    def book_hotel(self, hotel: str, nights: int) -> dict[str, Any]:
        if not HOTEL.fullmatch(hotel):
            raise ToolError(f"no hotel {hotel}")
        return {"booking": self.code("B", hotel, nights), "room": self.number(101, 560, hotel, nights)}

    def get_weather(self, city: str, date: str) -> dict[str, Any]:
        return {"sky": self.pick(self.values(SKIES), city, date), "high": self.number(-5, 34, city, date)}


def route(world: Travel, random: Random, flights: bool = True) -> Arguments:
    while True:
        origin, destination = random.sample(world.values(CITIES), 2)
        date = random.choice(world.values(DATES))
        if world.has_flights(origin, destination, date) == flights:
            return {"origin": origin, "destination": destination, "date": date}


def place(world: Travel, random: Random) -> Arguments:
    return {"city": random.choice(world.values(CITIES)), "date": random.choice(world.values(DATES))}


def seat_for(world: Travel, random: Random, full: bool = False) -> Arguments:
    flight = random.choice([code for code in (f"F{n}" for n in range(10, 100)) if world.is_full(code) == full])
    return {"flight": flight, "passenger": random.choice(world.values(PEOPLE))}


def stay(world: Travel, random: Random) -> Arguments:
    return {"hotel": f"H{random.randint(10, 99)}", "nights": random.randint(2, 9)}


FIND_FLIGHTS = Intent(
    tool="find_flights",
    requests=Pool(
        (
            "[find|search|look up] flights from {origin} to {destination} on {date}",
            "[check|see] [what|which] flights go to {destination} from {origin} on {date}",
            "[show me|list] the flights on {date} from {origin} to {destination}",
            "I [want|have|need] to fly from {origin} to {destination} on {date}. [What is there?|What are my options?]",
            "[Which|What] flights are there on {date}, {origin} to {destination}?",
        ),
        (
            "{date} is when I must be in {destination}, and I start from {origin}. Any flights?",
            "look whether a plane goes from {origin} to {destination} on {date}",
            "get me flight options for {date}: leaving {origin}, landing in {destination}",
        ),
    ),
    draw=route,
    thinking="search flights {origin} to {destination}",
    replies=(
        "The cheapest flight is {cheapest} for ${price}; the earliest is {earliest} at {departs}.",
        "{cheapest} is the cheapest at ${price}, and {earliest} leaves first, at {departs}.",
    ),
    facts=("cheapest", "earliest"),
    missing=(
        Missing(
            "date",
            Pool(
                (
                    "[find|search] [a flight|flights] from {origin} to {destination}",
                    "I want to fly from {origin} to {destination}. What flights are there?",
                    "see how I can fly to {destination} from {origin}",
                ),
                ("get me flight options from {origin} to {destination}", "A flight, {origin} to {destination}: any?"),
            ),
            "[On which date|Which date] do you want to fly?",
            ("date", "day", "when"),
            Pool(
                ("On {date}.", "{date}", "{date}, please.", "I leave on {date}."),
                ("It has to be {date}.", "{date} works."),
            ),
        ),
        Missing(
            "origin",
            Pool(
                (
                    "[find|search] [a flight|flights] to {destination} on {date}",
                    "I need to be in {destination} on {date}. Which flights are there?",
                ),
                ("get me flights on {date} that land in {destination}",),
            ),
            "Which city do you fly from?",
            ("from", "origin", "departure", "leave", "leaving", "start"),
            Pool(("From {origin}.", "{origin}", "I start in {origin}.", "{origin}, please."), ("Leaving {origin}.",)),
        ),
    ),
)

FIND_TRAINS = Intent(
    tool="find_trains",
    requests=Pool(
        (
            "[find|search|look up] [a train|trains] from {origin} to {destination} on {date}",
            "see which train goes to {destination} from {origin} on {date}",
            "I'd rather go by train on {date}, from {origin} to {destination}. When does it leave?",
            "tell me when the train from {origin} to {destination} leaves on {date}",
        ),
        (
            "look whether a train runs to {destination} on {date}, coming from {origin}",
            "{origin} to {destination} by rail on {date}: which train is it?",
        ),
    ),
    draw=route,
    thinking="search trains {origin} to {destination}",
    replies=("Train {train} leaves {origin} at {departs}.", "You can take train {train} at {departs}."),
    facts=("train", "departs"),
)

BOOK_FLIGHT = Intent(
    tool="book_flight",
    requests=Pool(
        (
            "book flight {flight} for {passenger}",
            "[get|reserve] {passenger} a seat on flight {flight}",
            "put {passenger} on flight {flight}",
            "I want flight {flight} booked. The passenger is {passenger}.",
        ),
        ("buy {passenger} a ticket for flight {flight}", "{passenger} should be on {flight}. Book that flight."),
    ),
    draw=seat_for,
    thinking="book {flight} for {passenger}",
    replies=("Booked: {booking}, seat {seat}.", "{passenger} has seat {seat}, booking {booking}."),
    facts=("booking", "seat"),
    missing=(
        Missing(
            "passenger",
            Pool(
                ("book [a seat on |]flight {flight}", "I'd like to book flight {flight}.", "reserve flight {flight}"),
                ("get me one ticket for flight {flight}", "{flight} is the flight I want. Book it."),
            ),
            "What is the passenger's name?",
            ("name", "passenger", "who", "whom"),
            Pool(("For {passenger}.", "{passenger}", "The passenger is {passenger}."), ("It's for {passenger}.",)),
        ),
    ),
)

FIND_HOTEL = Intent(
    tool="find_hotel",
    requests=Pool(
        (
            "find [a hotel|a room|a place to stay] in {city} for {date}",
            "look for a hotel in {city} on {date}",
            "I need somewhere to sleep in {city} on {date}. [What is free?|Which hotel has room?]",
            "[Is there|Do you see] a free hotel in {city} on {date}?",
        ),
        ("{date} I arrive in {city}. Which hotel could take me?", "hunt down a bed in {city} for {date}"),
    ),
    draw=place,
    thinking="find a hotel in {city}",
    replies=("Hotel {name} ({hotel}) is free for ${price}.", "{hotel}, the {name}, costs ${price}."),
    facts=("hotel", "price"),
    missing=(
        Missing(
            "date",
            Pool(
                ("find [a hotel|a room] in {city}", "I need a hotel in {city}. What is free?"),
                ("hunt down a bed in {city}", "Which hotel in {city} could take me?"),
            ),
            "For which date do you need the hotel?",
            ("date", "day", "when", "night"),
            Pool(("For {date}.", "{date}", "{date}, please.", "We come on {date}."), ("Starting {date}.",)),
        ),
    ),
)

BOOK_HOTEL = Intent(
    tool="book_hotel",
    requests=Pool(
        (
            "book hotel {hotel} for {nights} nights",
            "reserve {nights} nights at hotel {hotel}",
            "We stay {nights} nights. Book hotel {hotel}.",
        ),
        ("get us into hotel {hotel} for {nights} nights", "hold hotel {hotel}, {nights} nights"),
    ),
    draw=stay,
    thinking="book {hotel}, {nights} nights",
    replies=("Done, booking {booking}, room {room}.", "You have room {room}, booking {booking}."),
    facts=("booking", "room"),
    missing=(
        Missing(
            "nights",
            Pool(
                ("book hotel {hotel}", "reserve a room at hotel {hotel}", "I want to stay at hotel {hotel}."),
                ("get us into hotel {hotel}",),
            ),
            "For how many nights?",
            ("nights", "night", "long"),
            Pool(("{nights} nights.", "For {nights} nights.", "{nights}"), ("We stay {nights} nights.",)),
        ),
    ),
)

GET_WEATHER = Intent(
    tool="get_weather",
    requests=Pool(
        (
            "[check|look up] the weather in {city} on {date}",
            "tell me what the weather in {city} will be on {date}",
            "[What's|How is] the weather in {city} on {date}?",
            "What forecast do you have for {city}, {date}?",
        ),
        ("see if I need an umbrella in {city} on {date}", "{date} in {city}: how warm will it get?"),
    ),
    draw=place,
    thinking="get the forecast for {city}",
    replies=("{city} gets {sky} with {high} degrees.", "Expect {sky} and {high} degrees in {city}."),
    facts=("sky", "high"),
    missing=(
        Missing(
            "city",
            Pool(
                ("check the weather on {date}", "What's the weather on {date}?", "tell me the forecast for {date}"),
                ("see if I need an umbrella on {date}",),
            ),
            "For which city?",
            ("city", "where", "place", "location"),
            Pool(("In {city}.", "{city}", "I mean {city}."), ("It's for {city}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=Travel,
    intents=(FIND_FLIGHTS, FIND_TRAINS, BOOK_FLIGHT, FIND_HOTEL, BOOK_HOTEL, GET_WEATHER),
    chains=(
        Chain(
            FIND_FLIGHTS,
            BOOK_FLIGHT,
            {"flight": "cheapest"},
            Pool(
                (
                    "book {passenger} the cheapest flight from {origin} to {destination} on {date}",
                    "find the cheapest flight on {date} from {origin} to {destination} and book it for {passenger}",
                    "{passenger} flies from {origin} to {destination} on {date}. Book the cheapest flight.",
                ),
                ("get {passenger} from {origin} to {destination} on {date} by the cheapest flight you can book",),
            ),
            Pool(
                ("book the cheapest one for {passenger}", "The cheapest is fine. Book it for {passenger}."),
                ("take the cheap one, {passenger} is flying",),
            ),
        ),
        Chain(
            FIND_FLIGHTS,
            BOOK_FLIGHT,
            {"flight": "earliest"},
            Pool(
                (
                    "book {passenger} the earliest flight from {origin} to {destination} on {date}",
                    "{passenger} must get from {origin} to {destination} early on {date}. Book the earliest flight.",
                ),
                ("find the earliest plane on {date}, {origin} to {destination}, and put {passenger} on it",),
            ),
            Pool(
                ("book the earliest one for {passenger}", "The earliest suits us. Book it for {passenger}."),
                ("take the early one, {passenger} is flying",),
            ),
        ),
        Chain(
            FIND_HOTEL,
            BOOK_HOTEL,
            {"hotel": "hotel"},
            Pool(
                (
                    "find a hotel in {city} for {date} and book it for {nights} nights",
                    "I'm in {city} from {date}, {nights} nights. Book me a hotel.",
                    "book a hotel in {city} from {date}, {nights} nights",
                ),
                ("sort out {nights} nights in a hotel in {city}, arriving {date}",),
            ),
            Pool(
                ("book it for {nights} nights", "Good, I take it for {nights} nights."),
                ("reserve that one, {nights} nights",),
            ),
        ),
    ),
    recoveries=(
        Recovery(
            BOOK_FLIGHT,
            lambda world, random: seat_for(world, random, full=True),
            Pool(
                (
                    "book flight {flight} for {passenger}, or another one if it is full",
                    "put {passenger} on flight {flight}; if it's full, take what is offered instead",
                    "{passenger} wants flight {flight}, but any other will do. Book it.",
                ),
                ("get {passenger} onto flight {flight}, or onto whichever still has seats",),
            ),
            "flight",
        ),
        Recovery(
            FIND_FLIGHTS,
            lambda world, random: route(world, random, flights=False),
            Pool(
                (
                    "find a flight from {origin} to {destination} on {date}, or a train if there is none",
                    "I must get from {origin} to {destination} on {date}, by plane or else by train. What is there?",
                ),
                ("look for a plane on {date}, {origin} to {destination}; failing that, rail is fine",),
            ),
            None,
            FIND_TRAINS,
        ),
    ),
    unserved=Pool(
        (
            Unserved("apply for a visa", ("visa",)),
            Unserved("rent a car", ("car",)),
            Unserved("buy travel insurance", ("insurance",)),
            Unserved("order a taxi to the airport", ("taxi",)),
        ),
        (Unserved("book a cruise", ("cruise",)), Unserved("upgrade my seat to business class", ("seat", "upgrade"))),
    ),
)
