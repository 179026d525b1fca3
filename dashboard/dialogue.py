"""A trajectory as HTML: what was said, step by step, and beside each turn its checklist with verdicts.

Pure: from records to escaped HTML. Whatever a model, tool or user wrote goes through dashboard.text.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from dashboard.format import plural
from dashboard.text import badge, chip, escape, mono, prose, soft, tidy_json
from dashboard.theme import MARKS
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


def turn_html(turn: TurnRecord, figures: Mapping[tuple[int, int], StepFigures], sampled: Mapping[str, str]) -> str:
    """The user message and every step of a turn. `sampled`: call id to its arguments as sampled."""
    steps = [step_html(step, figures.get((turn.index, step.index)), sampled) for step in turn.steps]
    return user_html(turn.user) + "".join(steps)


def user_html(text: str) -> str:
    return f'<div class="cl-user"><div class="cl-label">User</div>{prose(text)}</div>'


def step_html(step: StepRecord, figures: StepFigures | None, sampled: Mapping[str, str]) -> str:
    """One assistant message: thinking folded, calls with responses, the reply."""
    sections = []
    if step.thinking.strip():
        words = plural(len(step.thinking.split()), "word")
        sections.append(f"<details><summary>Thinking · {words}</summary>{prose(step.thinking)}</details>")
    sections += [call_html(call, sampled.get(call.call_id)) for call in step.calls]
    if step.content.strip():
        label = "Reply" if step.is_reply else "Text"
        sections.append(f'<div class="cl-label">{label}</div>{prose(step.content)}')
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


def call_html(call: CallRecord, sampled: str | None = None) -> str:
    """A tool call with its arguments, and its response with where it came from."""
    if call.arguments is None:
        arguments = sampled or ""
        problem = f" {chip('not valid JSON')}"
    else:
        arguments, problem = json.dumps(dict(call.arguments), ensure_ascii=False), ""
    head = f'<div class="cl-row"><span class="cl-call">{escape(call.name)}</span>{problem}</div>'
    called = f'{head}<div class="cl-block">{mono(tidy_json(arguments))}</div>'
    if call.response is None:
        return called + f'<div class="cl-block">{soft("no response yet")}</div>'
    source = TOOL_SOURCE.get(call.source or "", call.source or "unknown source")
    took = f" · {call.latency_ms:,.0f} ms" if call.latency_ms is not None else ""
    failed = error_badge() if call.is_error else ""
    label = f'<div class="cl-row">{failed}{soft("answered by " + source + took)}</div>'
    return f'{called}<div class="cl-block">{label}{mono(tidy_json(call.response))}</div>'


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
    if item.depends_on:
        tags.append(chip("after " + ", ".join(item.depends_on)))
    top = badge(verdict.outcome) if verdict else chip("no verdict")
    parts = [
        f'<div class="cl-row">{top}{"".join(tags)}</div>',
        f'<div class="cl-question cl-text">{escape(item.question)}</div>',
    ]
    if verdict:
        parts += _grounds(verdict, said)
    return f'<div class="cl-item" style="border-left-color:{color}">{"".join(parts)}</div>'


def _grounds(verdict: Verdict, said: int) -> list[str]:
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
