"""How users say things: expands phrasings, wraps clauses into sentences, adds greetings and small talk.

Reads the phrasings of env_sim/worlds; every choice comes from the Random that is handed in.
"""

import re
from collections.abc import Mapping
from random import Random
from typing import Any

from env_sim.worlds.intents import Unserved
from env_sim.worlds.world import Pool

CHOICE = re.compile(r"\[([^\[\]]*)\]")
HELD_OUT_SHARE = 0.3
"""Share of the phrasings in validation and test that training never saw."""

SENTENCES = Pool(
    (
        "Please {clause}.",
        "Can you {clause}?",
        "Could you {clause}?",
        "{Clause}.",
        "{Clause}, please.",
        "I need you to {clause}.",
        "I'd like you to {clause}.",
        "Can you please {clause}?",
    ),
    (
        "Kindly {clause}.",
        "Would you be able to {clause}?",
        "It would be great if you could {clause}.",
        "I was hoping you could {clause}.",
    ),
)
GREETINGS = Pool(
    ("Hi! ", "Hello. ", "Hey, it's me again. ", "Good morning! ", "Hi there. ", "Hello, hope you're well. "),
    ("Good evening. ", "Greetings! ", "Hiya. ", "Good to have you here. "),
)
LINKS = Pool(
    ("Thanks! ", "Great. ", "Perfect, thank you. ", "Okay. ", "One more thing. ", "Good, next. ", "That helps. "),
    ("Lovely. ", "Brilliant. ", "On to something else. ", "Cheers! "),
)
SMALL_TALK = Pool(
    (
        "It's been a long day.",
        "Sorry, I'm on my phone.",
        "I'm a bit in a hurry.",
        "My coffee is getting cold.",
        "I hate paperwork.",
        "The kids are loud today.",
        "I almost forgot about this.",
        "My boss keeps asking.",
        "I couldn't sleep last night.",
        "You were a great help last time.",
    ),
    (
        "My neighbor recommended you.",
        "I never get these things right.",
        "The dog is barking, sorry.",
        "What a week.",
        "I should have done this ages ago.",
    ),
)
JOINS = Pool(
    ("{first} and {second}", "{first}, and also {second}", "{first} and {second} too"),
    ("{first} as well as {second}", "{first}; besides, {second}"),
)
IN_ORDER = Pool(
    ("first {first}, and once you know, {second}", "{first} before you {second}", "{first}; only after that {second}"),
    ("don't {second} until you did this: {first}",),
)
STARTERS = ("Please", "Can", "Could", "What", "Which", "Is", "Do", "Find", "Check", "Book", "Order", "Hi", "Hello")
UNSERVED = Pool(
    (
        Unserved("order a pizza", ("pizza",)),
        Unserved("play some music", ("music",)),
        Unserved("write a poem about the sea", ("poem",)),
        Unserved("call my mother", ("call",)),
        Unserved("fix my bicycle", ("bicycle", "bike")),
        Unserved("paint a picture of a cat", ("picture", "paint")),
        Unserved("do my homework", ("homework",)),
        Unserved("sing a song", ("song", "sing")),
        Unserved("teach me chess", ("chess",)),
        Unserved("water my plants", ("plants",)),
        Unserved("find me a new job", ("job",)),
        Unserved("look after my dog", ("dog",)),
        Unserved("wash my car", ("car",)),
        Unserved("bake a cake", ("cake",)),
    ),
    (
        Unserved("build a website", ("website",)),
        Unserved("cut the grass", ("grass",)),
        Unserved("tune my piano", ("piano",)),
        Unserved("knit a sweater", ("sweater",)),
        Unserved("deliver some flowers", ("flowers",)),
        Unserved("edit my holiday video", ("video",)),
    ),
)


def choose(pool: Pool[str], held_out: bool, random: Random) -> str:
    """One phrasing with its choices made, slots still open; in a held-out split mostly one that training never saw."""
    options = pool.held_out if held_out and pool.held_out and random.random() < HELD_OUT_SHARE else pool.train
    return make_choices(random.choice(options), random)


def make_choices(phrasing: str, random: Random) -> str:
    return CHOICE.sub(lambda match: random.choice(match.group(1).split("|")), phrasing)


def fill(phrasing: str, slots: Mapping[str, Any]) -> str:
    """Raises KeyError for a slot that nobody filled."""
    return " ".join(phrasing.format_map(slots).split()).replace(" .", ".").replace(" ?", "?")


def is_clause(phrasing: str) -> bool:
    return phrasing.lstrip("[")[0].islower() and "?" not in phrasing


def clauses_of(pool: Pool[str]) -> Pool[str]:
    """The phrasings that can be part of a sentence."""
    return Pool(tuple(filter(is_clause, pool.train)), tuple(filter(is_clause, pool.held_out)))


def sentence(phrasing: str, held_out: bool, random: Random) -> str:
    """A whole sentence as it is, a clause inside one of the sentences that ask for it."""
    if not is_clause(phrasing):
        return phrasing
    frame = choose(SENTENCES, held_out, random)
    return frame.replace("{clause}", phrasing).replace("{Clause}", phrasing[0].upper() + phrasing[1:])


def as_seen_by_assistant(clause: str) -> str:
    """`fix my bicycle` as the one who is asked says it."""
    return re.sub(r"\bme\b", "you", re.sub(r"\bmy\b", "your", clause))


def as_message(text: str, first: bool, held_out: bool, random: Random) -> str:
    """The user's message around one request: greeting or link, small talk, careless typing."""
    if random.random() < 0.3 and text.startswith(STARTERS):
        return text[0].lower() + (text[1:] if random.random() < 0.5 else text[1:].rstrip(".?"))
    if random.random() < 0.1:
        chat = choose(SMALL_TALK, held_out, random)
        text = f"{chat} {text}" if random.random() < 0.5 else f"{text} {chat}"
    if random.random() < 0.35:
        text = choose(GREETINGS if first else LINKS, held_out, random) + text
    return text
