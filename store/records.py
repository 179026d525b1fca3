"""What a scenario is made of, as validated frozen records; also the JSON format of scenario files.

A scenario is immutable and addressed by the SHA-256 of its canonical JSON (`Scenario.hash`). Validation says what is
wrong and where; `extra="forbid"` makes a misspelt field an error instead of a silent no-op (invariant 7).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from store.vocabulary import FocusOn, Split


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolSpec(Record):
    """A tool as the policy sees it; `parameters` is a JSON Schema of type object."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str
    parameters: dict[str, Any]
    response_schema: dict[str, Any] | None = None
    """JSON Schema of a response, where the tool declares one (MCP's outputSchema); guides a simulating LLM only."""

    def as_openai(self) -> dict[str, Any]:
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


class RecordedCall(Record):
    """A tool call of the reference dialogue with the response it got (`response` is the JSON text)."""

    name: str
    arguments: dict[str, Any]
    response: str
    is_error: bool = False


class ReferenceStep(Record):
    """One assistant message of the reference dialogue: thinking, then calls or the reply."""

    thinking: str = ""
    calls: tuple[RecordedCall, ...] = ()
    reply: str | None = None

    @model_validator(mode="after")
    def _calls_or_reply(self) -> "ReferenceStep":
        if bool(self.calls) == (self.reply is not None):
            raise ValueError("a reference step has either calls or a reply, not both and not neither")
        return self


class Called(Record):
    """A call to `tool` whose arguments include `arguments` (equal up to case, spacing and number form).

    `tolerance` is absolute, for numbers. `succeeded` asks for a response that is no error. Satisfied at the step of the
    first such call, of the one with which there are `at_least`.
    """

    kind: Literal["called"] = "called"
    tool: str
    arguments: dict[str, Any] = {}
    tolerance: float = 0.0
    succeeded: bool = True
    at_most: int | None = None
    """At most so many matching calls in the turn; decided at the end of the turn."""
    at_least: int | None = Field(default=None, ge=1)
    """At least so many matching calls in the turn; None: one. Equal to `at_most`: exactly so many."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "Called":
        if self.at_least is not None and self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(f"at_most is {self.at_most}, less than at_least, {self.at_least}")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_bound(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Scenarios that were hashed before the field was there keep their hash.
        fields: dict[str, Any] = serialize(self)
        if self.at_least is None:
            fields.pop("at_least", None)
        return fields


class NotCalled(Record):
    """No call to any of `tools` in the turn (empty: no call at all); decided at the end of the turn."""

    kind: Literal["not_called"] = "not_called"
    tools: tuple[str, ...] = ()


class ResponseReceived(Record):
    """A response of `tool` that is no error and contains every one of `values`."""

    kind: Literal["response_received"] = "response_received"
    tool: str
    values: tuple[str, ...] = ()


class ReplyMentions(Record):
    """The user-visible reply mentions, for every entry of `all_of`, at least one alternative; and none of `none_of`.

    Compared case-insensitively on word boundaries, with numbers normalized (1,200.00 = 1200).
    """

    kind: Literal["reply_mentions"] = "reply_mentions"
    all_of: tuple[tuple[str, ...], ...] = ()
    none_of: tuple[str, ...] = ()


class ReplyRepeats(Record):
    """The reply mentions what the last response of `tool` in this turn that is no error has at each of `fields`.

    A field is a path into the response's JSON, with dots ("price", "items.0.name"); of a list or an object every value
    in it. Unlike `reply_mentions` it holds whatever values a simulator gives. Compared as there; decided at the end of
    the turn.
    """

    kind: Literal["reply_repeats"] = "reply_repeats"
    tool: str
    fields: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)


class ReplyAsks(Record):
    """The reply asks a question that names one of `about`."""

    kind: Literal["reply_asks"] = "reply_asks"
    about: tuple[str, ...]


class CallOrder(Record):
    """Every successful call to `then` comes after a successful call to `first`."""

    kind: Literal["call_order"] = "call_order"
    first: str
    then: str


Check = Annotated[
    Called | NotCalled | ResponseReceived | ReplyMentions | ReplyRepeats | ReplyAsks | CallOrder,
    Field(discriminator="kind"),
]


class Evidence(Record):
    """A pointer into the reference dialogue: `step` of this turn, channel, and a snippet that occurs there."""

    step: int = Field(ge=0)
    channel: FocusOn
    snippet: str


class Item(Record):
    """One yes/no criterion of a turn's checklist (CM2 'Words')."""

    id: str = Field(min_length=1)
    focus_on: FocusOn
    question: str = Field(min_length=1)
    pass_condition: str = ""
    failure_examples: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    required_for_next_turn: bool = False
    depends_on: tuple[str, ...] = ()
    weight: float = Field(ge=0)
    check: Check | None = None
    # Left out of the JSON where it is False: the hashes of scenarios from before it was there stay as they are.
    must_not: bool = Field(default=False, exclude_if=lambda marked: not marked)
    """It says that something does not happen: decided at the end of the turn, a PASS has nothing to quote. Where there
    is a check, the check decides."""

    @property
    def forbids(self) -> bool:
        """Whether all it asks for is that something does not happen, by its mark or by its check."""
        only_words = isinstance(self.check, ReplyMentions) and not self.check.all_of
        return self.must_not or only_words or isinstance(self.check, NotCalled)

    @property
    def words(self) -> tuple[Any, ...]:
        """What a verdict on it is about; two items of equal words may share verdicts whatever they weigh."""
        return self.focus_on, self.question, self.pass_condition, self.failure_examples, self.check, self.must_not


def check_checklist(items: Sequence[Item]) -> None:
    """Raises ValueError for ids that repeat, dependencies that are unknown or circular, weights that add to no 1."""
    ids = [item.id for item in items]
    if len(set(ids)) != len(ids):
        raise ValueError(f"item ids are not unique: {ids}")
    known = {item.id: set(item.depends_on) for item in items}
    for item in items:
        missing = known[item.id] - known.keys()
        if missing:
            raise ValueError(f"item {item.id!r} depends on unknown items {sorted(missing)}")
    resolved: set[str] = set()
    while ready := {i for i, deps in known.items() if i not in resolved and deps <= resolved}:
        resolved |= ready
    if resolved != known.keys():
        raise ValueError(f"items depend on each other in a cycle: {sorted(known.keys() - resolved)}")
    total = sum(item.weight for item in items)
    if items and abs(total - 1.0) > 1e-6:
        raise ValueError(f"weights of the turn's items add to {total:.6f}, not 1")


class ScenarioTurn(Record):
    user: str = Field(min_length=1)
    reference: tuple[ReferenceStep, ...] = ()
    checklist: tuple[Item, ...]

    @model_validator(mode="after")
    def _is_sound(self) -> "ScenarioTurn":
        check_checklist(self.checklist)
        if self.reference and (self.reference[-1].reply is None or any(s.reply for s in self.reference[:-1])):
            raise ValueError("a reference turn ends with its only reply")
        return self


class WorldRef(Record):
    """An executable world of env_sim by name, and the seed its initial state is built from."""

    name: str
    seed: int


class Scenario(Record):
    """What a dialogue is played from."""

    name: str
    domain: str
    source: str
    split: Split
    seed: int
    system: str
    tools: tuple[ToolSpec, ...]
    turns: tuple[ScenarioTurn, ...] = Field(min_length=1)
    world: WorldRef | None = None
    seen: bool = True
    """False for domains that training never plays."""
    tags: tuple[str, ...] = ()
    """Skills it asks for: chained, parallel, missing_parameter, no_tool, error_recovery …"""

    @model_validator(mode="after")
    def _tools_are_unique(self) -> "Scenario":
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"tool names are not unique: {names}")
        return self

    def canonical_json(self) -> str:
        return canonical_json(self.model_dump(mode="json"))

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class CallRecord(Record):
    """A tool call as it happened. `arguments` is None where the policy's JSON could not be parsed."""

    call_id: str
    name: str
    arguments: Mapping[str, Any] | None
    response: str | None
    is_error: bool = False
    source: str | None = None
    latency_ms: float | None = None


class StepRecord(Record):
    """One assistant message as it happened."""

    index: int
    thinking: str = ""
    content: str = ""
    calls: tuple[CallRecord, ...] = ()
    finish_reason: str | None = None

    @property
    def is_reply(self) -> bool:
        return not self.calls and self.finish_reason == "stop"


class TurnRecord(Record):
    """A turn as it happened; `complete` if it ended with a user-visible reply."""

    trajectory_id: str
    index: int
    user: str
    steps: tuple[StepRecord, ...]

    @property
    def complete(self) -> bool:
        return bool(self.steps) and self.steps[-1].is_reply

    @property
    def reply(self) -> str:
        return self.steps[-1].content if self.complete else ""
