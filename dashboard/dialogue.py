"""A trajectory as HTML: what was said, step by step, and beside each turn its checklist with verdicts.

Pure: from records to escaped HTML. Whatever a model, tool or user wrote goes through dashboard.text.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from dashboard.format import plural
from dashboard.quotes import Quote, marked, of_step, quoted_in
from dashboard.text import badge, chip, escape, mono, prose, soft, tidy_json
from dashboard.theme import MARKS
from reward.checks import quote_call
from store.browsing import StepFigures
from store.records import CallRecord, Item, StepRecord, TurnRecord
from store.verdicts import Verdict
from store.vocabulary import FocusOn, Outcome, ToolSource, VerdictSource

FOCUS: Mapping[FocusOn, str] = {
    FocusOn.TOOL_CALLS: "tool calls",
    FocusOn.THINKING: "thinking",
    FocusOn.REPLY: "reply",
    FocusOn.TOOL_RESPONSE: "tool response",
}

TOOL_SOURCE: Mapping[str, str] = {
    ToolSource.RECORDED: "recorded response",
    ToolSource.WORLD: "simulated world",
    ToolSource.LLM: "LLM simulator",
    ToolSource.REAL: "real tool",
    ToolSource.VALIDATION: "refused: arguments",
    ToolSource.CLIENT: "seen from the client",
    ToolSource.PERSON: "refused by a person",
}


def turn_html(
    turn: TurnRecord,
    figures: Mapping[tuple[int, int], StepFigures],
    sampled: Mapping[str, str],
    quotes: Sequence[Quote] = (),
) -> str:
    """The user message and every step of a turn. `sampled`: call id to its arguments as sampled; `quotes` are marked
    where they occur."""
    steps = [
        step_html(step, figures.get((turn.index, step.index)), sampled, of_step(quotes, step.index))
        for step in turn.steps
    ]
    return user_html(turn.user) + "".join(steps)


def user_html(text: str) -> str:
    return f'<div class="cl-user"><div class="cl-label">User</div>{prose(text)}</div>'


def step_html(
    step: StepRecord, figures: StepFigures | None, sampled: Mapping[str, str], quotes: Sequence[Quote] = ()
) -> str:
    """One assistant message: thinking folded (unless the quote that is looked at stands in it), calls with responses,
    the reply."""
    sections = []
    if step.thinking.strip():
        words = plural(len(step.thinking.split()), "word")
        unfolded = " open" if any(quote.focused for quote in quoted_in(step.thinking, quotes)) else ""
        text = f'<div class="cl-text">{marked(step.thinking, quotes)}</div>'
        sections.append(f"<details{unfolded}><summary>Thinking · {words}</summary>{text}</details>")
    sections += [call_html(call, sampled.get(call.call_id), quotes) for call in step.calls]
    if step.content.strip():
        label = "Reply" if step.is_reply else "Text"
        sections.append(f'<div class="cl-label">{label}</div><div class="cl-text">{marked(step.content, quotes)}</div>')
    if not sections:
        sections.append(soft("an empty message"))
    if step.finish_reason == "length":
        sections.append(soft("cut off at the token limit"))
    body = "".join(f"<section>{section}</section>" for section in sections)
    return f'<div class="cl-step"><header><b>Step {step.index + 1}</b>{_cost(figures)}</header>{body}</div>'


def _cost(figures: StepFigures | None) -> str:
    if figures is None:
        return ""
    parts = [
        figures.version,
        f"{figures.context_tokens:,} → {figures.sampled_tokens:,} tokens",
        f"{figures.latency_ms:,.0f} ms",
    ]
    if figures.fork:
        parts.append("fork: history was rewritten")
    if not figures.trainable:
        parts.append(f"not trained on: {figures.untrainable_reason or 'unknown'}")
    return soft(" · ".join(parts))


def call_html(call: CallRecord, sampled: str | None = None, quotes: Sequence[Quote] = ()) -> str:
    """A tool call with its arguments, and its response with where it came from. A quote of the call in its canonical
    form (as checks quote it) marks the whole call."""
    if call.arguments is None:
        arguments = sampled or ""
        problem = f" {chip('not valid JSON')}"
    else:
        arguments, problem = json.dumps(dict(call.arguments), ensure_ascii=False), ""
    head = f'<div class="cl-row"><span class="cl-call">{escape(call.name)}</span>{problem}</div>'
    whole = [quote.focused for quote in quoted_in(quote_call(call), quotes) if not quoted_in(arguments, [quote])]
    look = (" cl-focus" if any(whole) else " cl-quoted") if whole else ""
    called = f'{head}<div class="cl-block{look}">{_code(arguments, quotes)}</div>'
    if call.response is None:
        return called + f'<div class="cl-block">{soft("no response yet")}</div>'
    source = TOOL_SOURCE.get(call.source or "", call.source or "unknown source")
    took = f" · {call.latency_ms:,.0f} ms" if call.latency_ms is not None else ""
    failed = error_badge() if call.is_error else ""
    label = f'<div class="cl-row">{failed}{soft("answered by " + source + took)}</div>'
    return f'{called}<div class="cl-block">{label}{_code(call.response, quotes)}</div>'


def _code(text: str, quotes: Sequence[Quote]) -> str:
    """Indented, unless a quote occurs only in the text as it came."""
    tidy = tidy_json(text)
    shown = text if len(quoted_in(text, quotes)) > len(quoted_in(tidy, quotes)) else tidy
    return f'<div class="cl-mono">{marked(shown, quotes)}</div>'


def error_badge() -> str:
    return f'<span class="cl-badge" style="background:{MARKS[Outcome.FAIL].color}">! error</span>'


def checklist_html(items: Sequence[Item], verdicts: Mapping[str, Verdict], said: Mapping[str, int]) -> str:
    """A turn's items with their verdicts. `verdicts` and `said` (how many verdicts were given) go by item id."""
    return "".join(item_html(item, verdicts.get(item.id), said.get(item.id, 0)) for item in items)


def item_html(item: Item, verdict: Verdict | None, said: int = 0) -> str:
    """An item: question, badge, who says so, why, with which evidence, at which step."""
    color = MARKS[verdict.outcome].color if verdict else "transparent"
    tags = [chip(f"weight {item.weight:.2f}"), chip(FOCUS[item.focus_on])]
    if item.required_for_next_turn:
        tags.append(chip("strict"))
    if item.must_not:
        tags.append(chip("must not"))
    if item.depends_on:
        tags.append(chip("after " + ", ".join(item.depends_on)))
    top = badge(verdict.outcome) if verdict else chip("no verdict")
    parts = [
        f'<div class="cl-row">{top}{"".join(tags)}</div>',
        f'<div class="cl-question cl-text">{escape(item.question)}</div>',
    ]
    if verdict:
        parts += grounds(verdict, said)
    return f'<div class="cl-item" style="border-left-color:{color}">{"".join(parts)}</div>'


def grounds(verdict: Verdict, said: int) -> list[str]:
    """Why a verdict was given, its quote, and who says so."""
    parts = [prose(verdict.reason)] if verdict.reason else []
    if verdict.quote:
        parts.append(f'<div class="cl-quote">{mono(verdict.quote)}</div>')
    who = {VerdictSource.CODE: "code", VerdictSource.LLM: "LLM judge", VerdictSource.HUMAN: "a person"}[verdict.source]
    notes = [f"{who}: {verdict.judge}"]
    if verdict.step_index is not None:
        notes.append(f"first held at step {verdict.step_index + 1}")
    if verdict.votes:
        votes = Counter(vote.outcome.value for vote in verdict.votes)
        notes.append("votes: " + ", ".join(f"{count} {outcome}" for outcome, count in votes.most_common()))
    if verdict.share is not None:
        notes.append(f"pays {verdict.share:.0%} of its weight")
    if said > 1:
        notes.append(f"newest of {said} verdicts" if verdict.source != VerdictSource.HUMAN else f"{said} verdicts")
    return [*parts, soft(" · ".join(notes))]
