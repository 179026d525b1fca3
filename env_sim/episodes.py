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
    fill,
    is_clause,
    make_choices,
    sentence,
)
from env_sim.worlds import build_world
from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Recovery, Unfit, Unserved
from env_sim.worlds.world import CombinedWorld, Pool, World
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
    facts: World = field(init=False)
    """The initial state, from which requests are drawn."""

    def __post_init__(self) -> None:
        self.world = build_world(self.ref, [spec.name for spec in self.domain.world.tools])
        self.facts = self.domain.world(self.ref.seed)

    def draw(self, intent: Intent) -> Arguments:
        return intent.draw(self.facts, self.random)

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

    def arguments(self, tool: str, slots: Mapping[str, Any]) -> Arguments:
        """The slots that are parameters of `tool`."""
        spec = next(spec for spec in self.domain.world.tools if spec.name == tool)
        return {name: slots[name] for name in spec.parameters["properties"]}

    def clause(self, intent: Intent, slots: Mapping[str, Any]) -> str:
        """A request of the intent that can be part of a sentence."""
        clauses = Pool(
            tuple(phrasing for phrasing in intent.requests.train if _starts_clause(phrasing)),
            tuple(phrasing for phrasing in intent.requests.held_out if _starts_clause(phrasing)),
        )
        return fill(self.choose(clauses), slots)

    def reply(self, intent: Intent, slots: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
        return fill(self.random.choice(intent.replies), {**slots, **answer})


def single(dialogue: Dialogue) -> None:
    """One call, one reply."""
    intent = dialogue.random.choice(dialogue.domain.asked)
    slots = dialogue.draw(intent)
    turn = dialogue.open(dialogue.choose(intent.requests), slots)
    _serve(dialogue, turn, intent, slots, fill(intent.thinking, slots))


def missing_parameter(dialogue: Dialogue) -> None:
    """The user leaves a parameter out; the assistant asks, and serves the request in the next turn."""
    intent = dialogue.random.choice([intent for intent in dialogue.domain.asked if intent.missing])
    gap = dialogue.random.choice(intent.missing)
    slots = dialogue.draw(intent)
    turn = dialogue.open(dialogue.choose(gap.without), slots)
    question = make_choices(gap.question, dialogue.random)
    turn.require_question(gap.parameter, gap.about, 7, question)
    turn.forbid_calls((intent.tool,), 3, f"as the {gap.parameter} is not known yet")
    dialogue.turns.append(turn.finish(f"{gap.parameter} is missing, ask", question))
    turn = dialogue.open(dialogue.choose(gap.answers), slots, answer=True)
    _serve(dialogue, turn, intent, slots, fill(f"now {intent.thinking}", slots))


def chained(dialogue: Dialogue) -> None:
    """Two calls in one turn; an argument of the second comes from the first one's response."""
    chain = dialogue.random.choice(dialogue.domain.chains)
    slots, second = _chain_slots(dialogue, chain)
    turn = dialogue.open(dialogue.choose(chain.requests), slots)
    arguments = dialogue.arguments(chain.first.tool, slots)
    (answer,) = turn.call(fill(chain.first.thinking, slots), (chain.first.tool, arguments))
    turn.require_call(chain.first.tool, arguments, 2, strict=False)
    second |= {parameter: answer[name] for parameter, name in chain.link.items()}
    _serve(dialogue, turn, chain.then, second, _link_thinking(chain, second), weights=(4, 0, 4))


def chained_turns(dialogue: Dialogue) -> None:
    """Two turns; an argument of the second turn's call comes from the first turn's response."""
    chain = dialogue.random.choice(dialogue.domain.chains)
    slots, second = _chain_slots(dialogue, chain)
    turn = dialogue.open(dialogue.choose(chain.first.requests), slots)
    answer = _serve(dialogue, turn, chain.first, slots, fill(chain.first.thinking, slots))
    second |= {parameter: answer[name] for parameter, name in chain.link.items()}
    turn = dialogue.open(dialogue.choose(chain.follow_ups), slots)
    _serve(dialogue, turn, chain.then, second, _link_thinking(chain, second))


def parallel(dialogue: Dialogue) -> None:
    """Two independent requests in one message: two calls in one step."""
    first, second = _two_intents(dialogue)
    requests = [(intent, dialogue.draw(intent)) for intent in (first, second)]
    calls = [(intent.tool, dialogue.arguments(intent.tool, slots)) for intent, slots in requests]
    if calls[0] == calls[1]:
        raise Unfit("twice the same call")
    clauses = [dialogue.clause(intent, slots) for intent, slots in requests]
    turn = dialogue.open(fill(dialogue.choose(JOINS), {"first": clauses[0], "second": clauses[1]}), {})
    same_tool = first.tool == second.tool
    answers = turn.call(f"two {first.tool} calls" if same_tool else "two requests, call both", *calls)
    _close_pair(dialogue, turn, requests, calls, answers, (3, 3, 2, 2))


def ordered(dialogue: Dialogue) -> None:
    """Two requests that the user wants done one after the other."""
    first, second = _two_intents(dialogue)
    if first.tool == second.tool:
        raise Unfit("an order needs two tools")
    requests = [(intent, dialogue.draw(intent)) for intent in (first, second)]
    calls = [(intent.tool, dialogue.arguments(intent.tool, slots)) for intent, slots in requests]
    clauses = [dialogue.clause(intent, slots) for intent, slots in requests]
    turn = dialogue.open(fill(dialogue.choose(IN_ORDER), {"first": clauses[0], "second": clauses[1]}), {})
    answers = turn.call(f"{first.tool} comes first", calls[0])
    answers += turn.call(f"now {second.tool}", calls[1])
    turn.require_order(first.tool, second.tool, 1)
    _close_pair(dialogue, turn, requests, calls, answers, (3, 3, 0, 3))


def error_recovery(dialogue: Dialogue) -> None:
    """A call is answered with an error and a suggestion, which the assistant takes."""
    recovery = dialogue.random.choice(dialogue.domain.recoveries)
    slots = recovery.draw(dialogue.facts, dialogue.random)
    turn = dialogue.open(dialogue.choose(recovery.requests), slots)
    tool = recovery.intent.tool
    (error,) = turn.call(fill(recovery.intent.thinking, slots), (tool, dialogue.arguments(tool, slots)), fails=True)
    intent, slots = _corrected(recovery, slots, error["try"])
    thinking, excuse = f"failed, try {error['try']}", error["error"][0].upper() + error["error"][1:]
    if recovery.parameter is None:
        _serve(dialogue, turn, intent, slots, thinking, before=f"{excuse}. ")
    else:
        instead = Fact(recovery.parameter, error["try"], tool)
        before = f"{excuse}, so I took {error['try']}. "
        _serve(dialogue, turn, intent, slots, thinking, before=before, instead=instead)


def no_tool(dialogue: Dialogue) -> None:
    """A request that no tool serves: the assistant says so."""
    pool = dialogue.domain.unserved if dialogue.random.random() < 0.5 else UNSERVED
    unserved: Unserved = dialogue.random.choice(pool.of(dialogue.held_out))
    turn = dialogue.open(unserved.clause, {})
    reply = f"Sorry, I can't {as_seen_by_assistant(unserved.clause)}."
    named = next(word for word in unserved.subject if word in reply)
    turn.require_refusal(unserved.clause, unserved.subject, named)
    turn.forbid_calls((), 2, "as none fits")
    dialogue.turns.append(turn.finish(f"no tool for {named}, decline", reply))


def _serve(
    dialogue: Dialogue,
    turn: TurnWriter,
    intent: Intent,
    slots: Mapping[str, Any],
    thinking: str,
    weights: tuple[float, float, float] = (4, 1.5, 4.5),
    before: str = "",
    instead: Fact | None = None,
) -> dict[str, Any]:
    """Calls the intent's tool, replies with its facts, ends the turn; weights of call, response and reply items.

    `before` opens the reply; `instead` is a fact that it holds, demanded in place of the response's second one.
    """
    arguments = dialogue.arguments(intent.tool, slots)
    (answer,) = turn.call(thinking, (intent.tool, arguments))
    important = {name: value for name, value in arguments.items() if name not in intent.unchecked}
    call_item = turn.require_call(intent.tool, important, weights[0])
    facts = [Fact(name, answer[name], intent.tool) for name in intent.facts]
    source = turn.require_response(facts, weights[1]) if weights[1] else call_item
    if instead is not None:
        facts = [instead, facts[0]]
    for fact in facts:
        turn.require_mention(fact, (source,), weights[2] / len(facts))
    reply = before + dialogue.reply(intent, slots, answer)
    dialogue.turns.append(turn.finish(f"tell {' and '.join(fact.name for fact in facts)}", reply))
    return answer


def _close_pair(
    dialogue: Dialogue,
    turn: TurnWriter,
    requests: Sequence[tuple[Intent, Arguments]],
    calls: Sequence[tuple[str, Arguments]],
    answers: Sequence[Mapping[str, Any]],
    weights: tuple[float, float, float, float],
) -> None:
    """Items and reply for two served requests; weights of the two call items and the two reply items (0: none)."""
    sources = []
    for (intent, _), (tool, arguments), weight in zip(requests, calls, weights[:2], strict=True):
        important = {name: value for name, value in arguments.items() if name not in intent.unchecked}
        sources.append(turn.require_call(tool, important, weight))
    replies = []
    for (intent, slots), answer, source, weight in zip(requests, answers, sources, weights[2:], strict=True):
        replies.append(dialogue.reply(intent, slots, answer))
        if weight:
            name = intent.facts[0]
            turn.require_mention(Fact(name, answer[name], intent.tool), (source,), weight)
    told = " and ".join(dict.fromkeys(intent.facts[0] for intent, _ in requests))
    dialogue.turns.append(turn.finish(f"tell {told}", " ".join(replies)))


def _two_intents(dialogue: Dialogue) -> tuple[Intent, Intent]:
    """Half of the time the same intent twice."""
    intents = [intent for intent in dialogue.domain.asked if any(map(_starts_clause, intent.requests.train))]
    first = dialogue.random.choice(intents)
    return first, first if dialogue.random.random() < 0.5 else dialogue.random.choice(intents)


def _chain_slots(dialogue: Dialogue, chain: Chain) -> tuple[Arguments, Arguments]:
    """Slots for the chain's phrasings (both draws; see Chain.requests) and the second call's own."""
    slots, second = dialogue.draw(chain.first), dialogue.draw(chain.then)
    merged = dict(slots)
    for name, value in second.items():
        if name in chain.link:
            continue
        if name in slots and slots[name] == value:
            raise Unfit(f"both calls have the {name} {value}")
        merged[f"new_{name}" if name in slots else name] = value
    return merged, second


def _link_thinking(chain: Chain, second: Mapping[str, Any]) -> str:
    return fill(f"have the {next(iter(chain.link))}, {chain.then.thinking}", second)


def _corrected(recovery: Recovery, slots: Arguments, suggestion: str | int) -> tuple[Intent, Arguments]:
    if recovery.parameter is not None:
        return recovery.intent, {**slots, recovery.parameter: suggestion}
    if recovery.other is None or recovery.other.tool != suggestion:
        raise Unfit(f"the world suggests {suggestion}")
    return recovery.other, slots


def _starts_clause(phrasing: str) -> bool:
    return is_clause(phrasing.lstrip("[")) and "?" not in phrasing


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
