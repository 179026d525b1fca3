"""Whether a checklist that an annotator wrote may be stored: every reason why not, in words it can act on. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from reward.checks import decide_check
from reward.evidence import find_evidence
from reward.mentions import find_mention, tokenize
from store.records import Item, ReplyAsks, ReplyMentions, ResponseReceived, Scenario, TurnRecord
from store.vocabulary import FocusOn

_NUMBER = r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten)"
STEP_WORDS = re.compile(
    r"\b(?:steps?\s*(?:#|number|no\.?)?\s*\d+|(?:in|at|during|after|before|by|of) turns?\s*(?:#|number|no\.?)?\s*\d+"
    r"|(?:number|count) of (?:assistant )?(?:steps|turns|tool calls)"
    rf"|(?:in|within|at most|at least|exactly|only|fewer than|less than|more than|no more than) {_NUMBER} "
    r"(?:assistant )?(?:steps?|turns?)"
    r"|(?:first|second|third|fourth|last|final|next|previous|same) (?:assistant )?step"
    r"|(?:minimum|minimal|fewest) (?:number of )?(?:steps|calls|tool calls))\b",
    re.IGNORECASE,
)
"""Where an item stands in the reference, or how long that took. Counting calls of a tool is not among it: to pay twice
is a mistake."""
STYLE_WORDS = re.compile(
    r"\b(?:polite(?:ly|ness)?|impolite|friendl(?:y|iness)|tone|courte(?:ous|ously|sy)|empath(?:y|etic|etically)"
    r"|enthusias(?:m|tic|tically)|professional(?:ly|ism)?|concise(?:ly|ness)?|succinct(?:ly)?|verbos(?:e|ity)|wordy"
    r"|eloquent(?:ly)?|(?:well|nicely)[- ](?:written|formatted|structured|phrased|worded)|formatting|markdown"
    r"|bullet(?:ed)?(?: points?| lists?)|emojis?|grammar|grammatical(?:ly)?|punctuation|style|stylistic(?:ally)?"
    r"|readab(?:le|ility)|cheerful(?:ly)?|conversational)\b",
    re.IGNORECASE,
)
"""How something is said. Neither alarm is raised where the words stand in the dialogue or the tools themselves: a user
who asks for bullet points, a field named format or a pet-friendly hotel makes them the matter."""


def problems_of(items: Sequence[Item], reference: TurnRecord, background: str, trusted: bool) -> list[str]:
    """Every reason why these items are no checklist of the turn; empty if they are one.

    `background` is what was said in the dialogue up to the turn, and its tools (`spoken_text`). `trusted` False: the
    reference need not show what an item asks for, so evidence may be empty.
    """
    problems = _id_problems(items)
    if not any(item.focus_on is FocusOn.REPLY for item in items):
        problems.append("no item looks at the reply (user_visible_reply)")
    if items and not any(item.weight > 0 for item in items):
        problems.append("all weights are 0")
    for item in items:
        said = _wording_problems(item, background) + _evidence_problems(item, reference, trusted)
        problems += [f"item {item.id!r}: {problem}" for problem in said]
    return problems + _dependency_problems(items, reference)


def spoken_text(scenario: Scenario, turn_index: int) -> str:
    """What users, tools and the assistant's visible messages said up to the turn, the system prompt and the tools."""
    pieces = [scenario.system]
    pieces += [f"{tool.name} {tool.description} {tool.parameters}" for tool in scenario.tools]
    for spoken in scenario.turns[: turn_index + 1]:
        pieces.append(spoken.user)
        for step in spoken.reference:
            pieces += [step.reply or ""]
            pieces += [f"{call.name} {call.arguments} {call.response}" for call in step.calls]
    return "\n".join(pieces)


def holds_since(item: Item, reference: TurnRecord) -> int | None:
    """The step of the reference at which the item becomes true; None where that is not known."""
    if not reference.steps:
        return None
    if item.check is not None:
        try:
            return decide_check(item.check, reference).step_index
        except ValueError:  # nobody can decide it (`undecidable`)
            return None
    if item.focus_on is FocusOn.REPLY or item.must_not:
        return reference.steps[-1].index
    return max((e.step for e in item.evidence if e.channel is item.focus_on), default=None)


def undecidable(item: Item) -> list[str]:
    """Why its check cannot be decided by anyone: phrases without a word or number in them."""
    phrases: tuple[str, ...] = ()
    if isinstance(item.check, ReplyMentions):
        phrases = (*chain.from_iterable(item.check.all_of), *item.check.none_of)
    elif isinstance(item.check, ReplyAsks):
        phrases = item.check.about
    elif isinstance(item.check, ResponseReceived):
        phrases = item.check.values
    return [
        f"item {item.id!r}: its check asks for {phrase!r}, which has no word or number to look for"
        for phrase in phrases
        if not tokenize(phrase).spans
    ]


def with_scaled_weights(items: Sequence[Item]) -> tuple[Item, ...]:
    """Weights that add to 1, for items whose weights are 0 or more and not all 0."""
    total = sum(item.weight for item in items)
    return tuple(item.model_copy(update={"weight": item.weight / total}) for item in items)


def _id_problems(items: Sequence[Item]) -> list[str]:
    problems = [f"{n} items have the id {key!r}" for key, n in Counter(item.id for item in items).items() if n > 1]
    asked = Counter((item.focus_on, " ".join(item.question.casefold().split())) for item in items)
    return problems + [f"{n} items ask the same: {question!r}" for (_, question), n in asked.items() if n > 1]


def _wording_problems(item: Item, background: str) -> list[str]:
    problems = []
    if not item.question.rstrip().endswith("?"):
        problems.append(f"the question {item.question!r} is no question")
    text = "\n".join((item.question, item.pass_condition, *item.failure_examples))
    rules = ((STEP_WORDS, "about step numbers or how many steps there are"), (STYLE_WORDS, "about style"))
    for pattern, what in rules:
        for match in pattern.finditer(text):
            if find_mention(background, match.group()) is None:
                problems.append(f"it is {what}: {match.group()!r}")
                break
    return problems


def _evidence_problems(item: Item, reference: TurnRecord, trusted: bool) -> list[str]:
    problems = []
    for evidence in item.evidence:
        place = f"step {evidence.step}, {evidence.channel.value}"
        if evidence.step >= len(reference.steps):
            problems.append(f"evidence points at step {evidence.step}: the turn has {len(reference.steps)} steps")
        elif find_evidence(reference, evidence.channel, evidence.step, evidence.snippet) is None:
            problems.append(
                f"the snippet {evidence.snippet[:80]!r} does not occur in {place} (failed calls do not count)"
            )
    if trusted and not item.forbids and all(e.channel is not item.focus_on for e in item.evidence):
        problems.append(
            f"it has no evidence on its own channel, {item.focus_on.value}: quote what proves it in the reference, or "
            "mark what must not happen as must_not"
        )
    return problems


def _dependency_problems(items: Sequence[Item], reference: TurnRecord) -> list[str]:
    known = {item.id: item for item in items}
    problems = []
    for item in items:
        own = holds_since(item, reference)
        for key in item.depends_on:
            where = f"item {item.id!r} depends on {key!r}"
            if key not in known:
                problems.append(f"{where}, which is no item of the turn")
                continue
            on = known[key]
            if on.focus_on not in (FocusOn.TOOL_RESPONSE, FocusOn.TOOL_CALLS):
                problems.append(f"{where}, which looks at {on.focus_on.value}: depend on tool_response items only")
                continue
            since = holds_since(on, reference)
            if own is not None and since is not None and since >= own:
                problems.append(
                    f"{where}, which comes true in step {since}, not before it (step {own}): it could never pay"
                )
    problems += [f"items depend on each other in a cycle: {', '.join(cycle)}" for cycle in _cycles(items)]
    return problems


def _cycles(items: Sequence[Item]) -> Iterable[list[str]]:
    left = {item.id: set(item.depends_on) for item in items}
    while ready := [key for key, deps in left.items() if not deps & left.keys()]:
        for key in ready:
            del left[key]
    if left:
        yield sorted(left)
