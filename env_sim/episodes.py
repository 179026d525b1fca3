"""Episodes: the pieces of one or two turns that dialogues are made of, each exercising one skill.

An episode draws an intent, words the user's request, plays the reference calls against the world and writes the
turn's checklist. Reads a domain (env_sim/worlds) and a Random; appends to the Dialogue that it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from env_sim.checklist_writer import Fact, TurnWriter
from env_sim.wording import (
    IN_ORDER,
    JOINS,
    UNSERVED,
    as_message,
    as_seen_by_assistant,
    choose,
    clauses_of,
    fill,
    is_clause,
    make_choices,
    sentence,
)
from env_sim.worlds import build_world
from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Arguments, Domain, Intent, Missing, Unfit, Unserved
from env_sim.worlds.world import CombinedWorld, Pool
from store.records import ScenarioTurn, WorldRef


@dataclass
class Dialogue:
    """A dialogue in the making: the world it is played in and the turns so far."""

    domain: Domain
    ref: WorldRef
    held_out: bool
    random: Random
    turns: list[ScenarioTurn] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    world: CombinedWorld = field(init=False)
    """Where the reference calls are played; changes with them."""
    facts: Catalogue = field(init=False)
    """The initial state, from which requests are drawn."""

    def __post_init__(self) -> None:
        self.world = build_world(self.ref, [spec.name for spec in self.domain.world.tools])
        self.facts = self.domain.world(self.ref.seed)

    def draw(self, *, taken: bool = False) -> Arguments:
        """A thing (`id`, `query`) and a value of the action's parameter."""
        act = self.domain.act
        return {**self.facts.draw(self.random, taken), act.parameter: self.random.choice(self.facts.values(act.values))}

    def choose(self, pool: Pool[str]) -> str:
        return choose(pool, self.held_out, self.random)

    def open(self, phrasing: str, slots: Mapping[str, Any], *, answer: bool = False) -> TurnWriter:
        """Starts a turn with the user's request, or with `answer`, their bare answer to a question."""
        request = fill(sentence(phrasing, self.held_out, self.random), slots)
        if request in self.said:
            raise Unfit(f"the user already said {request!r}")
        self.said.add(request)
        if not answer:
            request = as_message(request, not self.turns, self.held_out, self.random)
        return TurnWriter(self.world, request)

    def request(self, intent: Intent, things: Pool[str], *, clause: bool = False) -> str:
        """What the user says, the thing named by one of `things`; with `clause`, a part of a sentence."""
        return self.named(clauses_of(intent.requests) if clause else intent.requests, things)

    def named(self, requests: Pool[str], things: Pool[str]) -> str:
        """A request with the thing in it; a whole sentence stays one where the thing opens it."""
        request = self.choose(requests)
        said = request.replace("{thing}", self.choose(things))
        return said if is_clause(request) else said[0].upper() + said[1:]

    def thing_of(self, intent: Intent) -> Pool[str]:
        """How the user names the thing where one call serves the intent."""
        return self.domain.things.by_name if intent is self.domain.find else self.domain.things.by_id

    def arguments(self, intent: Intent, slots: Mapping[str, Any]) -> Arguments:
        """The slots that are parameters of the intent's tool."""
        spec = next(spec for spec in self.domain.world.tools if spec.name == intent.tool)
        return {name: slots[name] for name in spec.parameters["properties"]}

    def reply(self, intent: Intent, slots: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
        return fill(self.random.choice(intent.replies), {**slots, **answer})


def single(dialogue: Dialogue) -> None:
    """One call, one reply."""
    intent = dialogue.random.choice((dialogue.domain.find, *dialogue.domain.on_id))
    slots = dialogue.draw()
    turn = dialogue.open(dialogue.request(intent, dialogue.thing_of(intent)), slots)
    _serve(dialogue, turn, intent, slots, fill(intent.thinking, slots))


def missing_parameter(dialogue: Dialogue) -> None:
    """The user leaves a parameter out; the assistant asks, and serves the request in the next turn."""
    domain, slots = dialogue.domain, dialogue.draw()
    if dialogue.random.random() < 0.5:
        intent: Intent = domain.act
        phrasing = dialogue.named(domain.act.without, domain.things.by_id)
        gap: Missing = domain.act.missing
    else:
        intent, gap = dialogue.random.choice(domain.on_id), domain.which
        phrasing = dialogue.request(intent, domain.things.unnamed)
    turn = dialogue.open(phrasing, slots)
    question = make_choices(gap.question, dialogue.random)
    turn.require_question(gap.parameter, gap.about, 7, question)
    turn.forbid_calls((intent.tool,), 3, f"as the {gap.parameter} is not known yet")
    dialogue.turns.append(turn.finish(f"no {gap.parameter}, ask", question))
    turn = dialogue.open(dialogue.choose(gap.answers), slots, answer=True)
    _serve(dialogue, turn, intent, slots, fill(f"now {intent.thinking}", slots))


def chained(dialogue: Dialogue) -> None:
    """Two calls in one turn: the id that the second needs comes from the first one's response."""
    intent = _on_id(dialogue)
    slots = dialogue.draw()
    turn = dialogue.open(dialogue.request(intent, dialogue.domain.things.by_name), slots)
    find = dialogue.domain.find
    turn.call(fill(f"no id, {find.thinking}", slots), (find.tool, dialogue.arguments(find, slots)))
    turn.require_call(find.tool, dialogue.arguments(find, slots), 4, strict=False)
    _serve(dialogue, turn, intent, slots, fill(f"now {intent.thinking}", slots), weights=(3, 0, 3))


def chained_turns(dialogue: Dialogue) -> None:
    """Two turns; the id of the second turn's call comes from the first turn's response."""
    intent = _on_id(dialogue)
    find, slots = dialogue.domain.find, dialogue.draw()
    turn = dialogue.open(dialogue.request(find, dialogue.domain.things.by_name), slots)
    _serve(dialogue, turn, find, slots, fill(find.thinking, slots))
    turn = dialogue.open(dialogue.request(intent, dialogue.domain.things.it), slots)
    _serve(dialogue, turn, intent, slots, fill(intent.thinking, slots))


def parallel(dialogue: Dialogue) -> None:
    """Two independent requests in one message: two calls in one step."""
    requests, clauses = _two_requests(dialogue)
    turn = dialogue.open(dialogue.choose(JOINS).format(first=clauses[0], second=clauses[1]), {})
    answers = turn.call("two calls", *[(intent.tool, dialogue.arguments(intent, slots)) for intent, slots in requests])
    _close_pair(dialogue, turn, requests, answers, (3, 3, 2, 2))


def ordered(dialogue: Dialogue) -> None:
    """Two requests that the user wants done one after the other."""
    requests, clauses = _two_requests(dialogue)
    (first, slots), (second, other) = requests
    if first.tool == second.tool:
        raise Unfit("an order needs two tools")
    turn = dialogue.open(dialogue.choose(IN_ORDER).format(first=clauses[0], second=clauses[1]), {})
    answers = turn.call(fill(f"first {first.thinking}", slots), (first.tool, dialogue.arguments(first, slots)))
    answers += turn.call(fill(f"now {second.thinking}", other), (second.tool, dialogue.arguments(second, other)))
    turn.require_order(first.tool, second.tool, 1)
    _close_pair(dialogue, turn, requests, answers, (3, 3, 0, 3))


def error_recovery(dialogue: Dialogue) -> None:
    """A call is answered with an error and a suggestion, which the assistant takes."""
    act: Action = dialogue.domain.act
    slots = dialogue.draw(taken=True)
    request = dialogue.request(act, dialogue.domain.things.by_id, clause=True)
    turn = dialogue.open(f"{request}, {dialogue.choose(act.otherwise)}", slots)
    (error,) = turn.call(fill(act.thinking, slots), (act.tool, dialogue.arguments(act, slots)), fails=True)
    slots = {**slots, "id": error["try"]}
    instead = Fact("id", error["try"], act.tool)
    _serve(dialogue, turn, act, slots, f"try {error['try']}", before=f"I took {error['try']}. ", instead=instead)


def no_tool(dialogue: Dialogue) -> None:
    """A request that no tool serves: the assistant says so."""
    pool = dialogue.domain.unserved if dialogue.random.random() < 0.5 else UNSERVED
    unserved: Unserved = dialogue.random.choice(pool.of(dialogue.held_out))
    turn = dialogue.open(unserved.clause, {})
    reply = f"Sorry, I can't {as_seen_by_assistant(unserved.clause)}."
    named = next(word for word in unserved.subject if word in reply)
    turn.require_refusal(unserved.clause, unserved.subject, named)
    turn.forbid_calls((), 2, "as none fits")
    dialogue.turns.append(turn.finish("no tool, decline", reply))


def _serve(
    dialogue: Dialogue,
    turn: TurnWriter,
    intent: Intent,
    slots: Mapping[str, Any],
    thinking: str,
    weights: tuple[float, float, float] = (4, 1.5, 4.5),
    before: str = "",
    instead: Fact | None = None,
) -> None:
    """Calls the intent's tool, replies with its fact, ends the turn; weights of call, response and reply items.

    `before` opens the reply; `instead` is a fact that it holds beside the response's.
    """
    arguments = dialogue.arguments(intent, slots)
    (answer,) = turn.call(thinking, (intent.tool, arguments))
    call_item = turn.require_call(intent.tool, arguments, weights[0])
    facts = [Fact(intent.fact, answer[intent.fact], intent.tool)]
    source = turn.require_response(facts, weights[1]) if weights[1] else call_item
    if instead is not None:
        facts = [instead, *facts]
    for fact in facts:
        turn.require_mention(fact, (source,), weights[2] / len(facts))
    dialogue.turns.append(turn.finish("", before + dialogue.reply(intent, slots, answer)))


def _close_pair(
    dialogue: Dialogue,
    turn: TurnWriter,
    requests: Sequence[tuple[Intent, Arguments]],
    answers: Sequence[Mapping[str, Any]],
    weights: tuple[float, float, float, float],
) -> None:
    """Items and reply for two served requests; weights of the two call items and the two reply items (0: none)."""
    sources = [
        turn.require_call(intent.tool, dialogue.arguments(intent, slots), weight)
        for (intent, slots), weight in zip(requests, weights[:2], strict=True)
    ]
    replies = []
    for (intent, slots), answer, source, weight in zip(requests, answers, sources, weights[2:], strict=True):
        replies.append(dialogue.reply(intent, slots, answer))
        if weight:
            turn.require_mention(Fact(intent.fact, answer[intent.fact], intent.tool), (source,), weight)
    dialogue.turns.append(turn.finish("", " ".join(replies)))


def _two_requests(dialogue: Dialogue) -> tuple[list[tuple[Intent, Arguments]], list[str]]:
    """Two intents with their slots, half of the time the same intent twice, and their clauses."""
    intents = (dialogue.domain.find, *dialogue.domain.on_id)
    first = dialogue.random.choice(intents)
    second = first if dialogue.random.random() < 0.5 else dialogue.random.choice(intents)
    requests = [(intent, dialogue.draw()) for intent in (first, second)]
    if requests[0][1]["id"] == requests[1][1]["id"]:
        raise Unfit("twice the same thing")
    clauses = [fill(dialogue.request(i, dialogue.thing_of(i), clause=True), slots) for i, slots in requests]
    return requests, clauses


def _on_id(dialogue: Dialogue) -> Intent:
    """Half of the time the action, which takes a value from the user beside the id."""
    domain = dialogue.domain
    return domain.act if dialogue.random.random() < 0.5 else dialogue.random.choice((domain.get, domain.drop))


Episode = Callable[[Dialogue], None]

EPISODES: dict[str, tuple[Episode, ...]] = {
    "single_call": (single,),
    "chained": (chained, chained_turns),
    "parallel": (parallel,),
    "ordered": (ordered,),
    "missing_parameter": (missing_parameter,),
    "error_recovery": (error_recovery,),
    "no_tool": (no_tool,),
}

TWO_TURNS: frozenset[Episode] = frozenset({missing_parameter, chained_turns})
"""The episodes that take two turns; the others take one."""
