"""Writes a scenario's turns: plays the reference calls against the world and derives each turn's checklist from them.

Every item carries a check, points at its evidence in the reference, and is satisfied by any procedure with the same
verifiable result. Reads a world; writes only the state of that world.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from env_sim.worlds.intents import Unfit
from env_sim.worlds.world import CombinedWorld
from store.records import (
    Called,
    CallOrder,
    Evidence,
    Item,
    NotCalled,
    RecordedCall,
    ReferenceStep,
    ReplyAsks,
    ReplyMentions,
    ResponseReceived,
    ScenarioTurn,
    canonical_json,
)
from store.vocabulary import FocusOn

REFUSALS = (
    "can't", "cannot", "can not", "unable", "not able", "no tool", "couldn't", "don't have", "isn't possible",
    "not possible", "not something I can",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A value that the reply must mention, and the tool whose response it comes from."""

    name: str
    value: str | int
    tool: str


@dataclass
class TurnWriter:
    """One turn in the making. Calls are executed at once; `finish_*` add the reply and return the turn."""

    world: CombinedWorld
    user: str
    steps: list[ReferenceStep] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    def call(self, thinking: str, *calls: tuple[str, Mapping[str, Any]], fails: bool = False) -> list[dict[str, Any]]:
        """Plays one step of parallel calls; returns the fields of each response.

        Raises Unfit when a call is answered with an error, or with `fails`, when it is not or names no suggestion.
        """
        recorded, answers = [], []
        for name, arguments in calls:
            response = self.world.call(name, arguments)
            fields = response.fields
            if response.is_error != fails or (fails and "try" not in fields):
                raise Unfit(f"{name}({canonical_json(arguments)}) -> {response.text}")
            recorded.append(
                RecordedCall(name=name, arguments=dict(arguments), response=response.text, is_error=response.is_error)
            )
            answers.append(fields)
        self.steps.append(ReferenceStep(thinking=thinking, calls=tuple(recorded)))
        return answers

    def require_call(self, tool: str, arguments: Mapping[str, Any], weight: float, *, strict: bool = True) -> str:
        """An item for a successful call with these arguments; returns its id."""
        given = ", ".join(f"{name} = {value}" for name, value in arguments.items())
        return self._add(
            f"call_{tool}",
            FocusOn.TOOL_CALLS,
            f"Did the assistant successfully call {tool} with {given}?",
            f"A call to {tool} with {given} that is not answered with an error.",
            (f"{tool} is not called", f"{tool} is called with another {next(iter(arguments), 'tool')}"),
            Called(tool=tool, arguments=dict(arguments)),
            weight,
            snippet=tool,
            strict=strict,
        )

    def require_order(self, first: str, then: str, weight: float) -> str:
        return self._add(
            "order",
            FocusOn.TOOL_CALLS,
            f"Did the assistant call {then} only after {first} had answered?",
            f"The successful call to {then} comes after a successful call to {first}.",
            (f"{then} is called first",),
            CallOrder(first=first, then=then),
            weight,
            snippet=then,
        )

    def require_response(self, facts: Sequence[Fact], weight: float) -> str:
        """An item for a response of the facts' tool that contains them; returns its id."""
        tool, values = facts[0].tool, tuple(str(fact.value) for fact in facts)
        return self._add(
            f"response_{tool}",
            FocusOn.TOOL_RESPONSE,
            f"Did {tool} answer with {' and '.join(fact.name for fact in facts)} {', '.join(values)}?",
            f"A response of {tool} that is no error and contains {', '.join(values)}.",
            (f"{tool} answers with an error",),
            ResponseReceived(tool=tool, values=values),
            weight,
            snippet=values[0],
        )

    def require_mention(self, fact: Fact, depends_on: Sequence[str], weight: float) -> str:
        return self._add(
            f"reply_{fact.name}",
            FocusOn.REPLY,
            f"Does the reply tell the user the {fact.name.replace('_', ' ')} {fact.value}?",
            f"The user-visible reply mentions {fact.value}.",
            (f"the reply leaves {fact.value} out", "the reply names another value"),
            ReplyMentions(all_of=((str(fact.value),),)),
            weight,
            snippet=str(fact.value),
            depends_on=depends_on,
        )

    def require_question(self, parameter: str, about: tuple[str, ...], weight: float, snippet: str) -> str:
        return self._add(
            f"asks_{parameter}",
            FocusOn.REPLY,
            f"Does the reply ask the user for the missing {parameter}?",
            f"The reply asks a question about the {parameter}.",
            ("the reply asks for something else", f"the {parameter} is made up"),
            ReplyAsks(about=about),
            weight,
            snippet=snippet,
            strict=True,
        )

    def require_refusal(self, clause: str, subject: tuple[str, ...], snippet: str) -> None:
        self._add(
            "declines",
            FocusOn.REPLY,
            f"Does the reply say that the assistant cannot {clause}?",
            "The reply says that this is not possible here.",
            ("the reply claims to have done it",),
            ReplyMentions(all_of=(REFUSALS,)),
            4,
            snippet="can't",
            strict=True,
        )
        self._add(
            "names_subject",
            FocusOn.REPLY,
            f"Does the reply say what is not possible ({subject[0]})?",
            f"The reply mentions {' or '.join(subject)}.",
            ("the reply is a general refusal",),
            ReplyMentions(all_of=(subject,)),
            4,
            snippet=snippet,
        )

    def forbid_calls(self, tools: tuple[str, ...], weight: float, why: str) -> str:
        """An item against calls to `tools` (empty: to any)."""
        named = " or ".join(tools) if tools else "any tool"
        return self._add(
            "no_calls",
            FocusOn.TOOL_CALLS,
            f"Did the assistant refrain from calling {named}, {why}?",
            f"No call to {named} in the turn.",
            (f"{tools[0] if tools else 'a tool'} is called with made-up arguments",),
            NotCalled(tools=tools),
            weight,
        )

    def finish(self, thinking: str, reply: str) -> ScenarioTurn:
        """Adds the reply, makes the weights add to exactly 1 and returns the turn."""
        self.steps.append(ReferenceStep(thinking=thinking, reply=reply))
        return ScenarioTurn(user=self.user, reference=tuple(self.steps), checklist=tuple(self._finished_items()))

    def _finished_items(self) -> list[Item]:
        total = sum(item.weight for item in self.items)
        hundredths = [round(100 * item.weight / total) for item in self.items]
        hundredths[hundredths.index(max(hundredths))] += 100 - sum(hundredths)
        return [
            item.model_copy(update={"weight": part / 100, "evidence": self._located(item)})
            for item, part in zip(self.items, hundredths, strict=True)
        ]

    def _located(self, item: Item) -> tuple[Evidence, ...]:
        """The item's evidence at the first step of the reference that shows it."""
        found = []
        for evidence in item.evidence:
            for index, step in enumerate(self.steps):
                if evidence.snippet in _shown(step, evidence.channel):
                    found.append(evidence.model_copy(update={"step": index}))
                    break
        return tuple(found)

    def _add(
        self,
        item_id: str,
        focus_on: FocusOn,
        question: str,
        pass_condition: str,
        failure_examples: tuple[str, ...],
        check: Called | NotCalled | ResponseReceived | ReplyMentions | ReplyAsks | CallOrder,
        weight: float,
        *,
        snippet: str | None = None,
        strict: bool = False,
        depends_on: Sequence[str] = (),
    ) -> str:
        taken = {item.id for item in self.items}
        unique = next(name for n in range(1, 10) if (name := item_id if n == 1 else f"{item_id}_{n}") not in taken)
        self.items.append(
            Item(
                id=unique,
                focus_on=focus_on,
                question=question,
                pass_condition=pass_condition,
                failure_examples=failure_examples,
                evidence=() if snippet is None else (Evidence(step=0, channel=focus_on, snippet=snippet),),
                required_for_next_turn=strict,
                depends_on=tuple(depends_on),
                weight=weight,
                check=check,
            )
        )
        return unique


def _shown(step: ReferenceStep, channel: FocusOn) -> str:
    """What of a reference step the channel shows."""
    if channel is FocusOn.REPLY:
        return step.reply or ""
    if channel is FocusOn.THINKING:
        return step.thinking
    if channel is FocusOn.TOOL_RESPONSE:
        return "\n".join(call.response for call in step.calls if not call.is_error)
    return "\n".join(f"{call.name} {canonical_json(call.arguments)}" for call in step.calls if not call.is_error)
