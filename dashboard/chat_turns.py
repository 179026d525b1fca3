"""A chat's turns as HTML, the same whether they are being said or come from the log: what is said, calls folded.

Pure: from records and events to escaped HTML. Whatever a model, tool or user wrote goes through dashboard.text.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dashboard.dialogue import TOOL_SOURCE, error_badge
from dashboard.format import plural
from dashboard.text import chip, escape, mono, prose, soft, tidy_json
from store.browsing import StepFigures
from store.ratings import Rating
from store.records import TurnRecord

if TYPE_CHECKING:
    from agent.chat import ChatEvent, ToolAnswered

PREVIEW = 90
"""Characters of a folded call's arguments that its line shows."""


@dataclass(frozen=True)
class Said:
    """Text of the agent; `thinking` is folded."""

    text: str
    thinking: bool = False


@dataclass(frozen=True)
class Called:
    """A call, and its answer once there is one."""

    call_id: str
    name: str
    arguments: str
    """JSON, or the text as sampled where it is none."""
    malformed: bool = False
    response: str | None = None
    is_error: bool = False
    source: str | None = None
    latency_ms: float | None = None


Part = Said | Called


def parts_of_turn(turn: TurnRecord, sampled: Mapping[str, str]) -> list[Part]:
    """What the agent did in a logged turn. `sampled`: call id to its arguments as sampled."""
    parts: list[Part] = []
    for step in turn.steps:
        if step.thinking.strip():
            parts.append(Said(step.thinking, thinking=True))
        if step.content.strip():
            parts.append(Said(step.content))
        for call in step.calls:
            malformed = call.arguments is None
            text = sampled.get(call.call_id, "") if malformed else _json(call.arguments)
            parts.append(
                Called(
                    call.call_id,
                    call.name,
                    text,
                    malformed,
                    call.response,
                    call.is_error,
                    call.source,
                    call.latency_ms,
                )
            )
    return parts


def parts_of_events(events: Sequence["ChatEvent"], begun: Sequence[Part] = ()) -> list[Part]:
    """What the agent has done so far in a turn that is being said. `begun`: what it did before a person was asked."""
    from agent.chat import TokenSaid, ToolAnswered, ToolCalled

    parts = list(begun)
    for event in events:
        if isinstance(event, TokenSaid):
            last = parts[-1] if parts else None
            if isinstance(last, Said):
                parts[-1] = Said(last.text + event.text)
            else:
                parts.append(Said(event.text))
        elif isinstance(event, ToolCalled):
            malformed = isinstance(event.arguments, str)
            text = event.arguments if isinstance(event.arguments, str) else _json(event.arguments)
            parts.append(Called(event.call_id, event.name, text, malformed))
        elif isinstance(event, ToolAnswered):
            parts = [_answered(part, event) if isinstance(part, Called) else part for part in parts]
    return parts


def turn_html(parts: Sequence[Part], *, running: bool = False, asked: Sequence[str] = ()) -> str:
    """The agent's side of a turn. `asked`: ids of calls that wait for a person, whose line says so."""
    shown = [_said(part) if isinstance(part, Said) else call_html(part, part.call_id in asked) for part in parts]
    if running and isinstance(parts[-1] if parts else None, Said):
        shown[-1] = shown[-1].removesuffix("</div>") + '<span class="cl-caret"></span></div>'
    elif running:
        shown.append(f'<span class="cl-busy">{soft("working")}</span>')
    if not shown:
        shown.append(soft("nothing was said"))
    return f'<div class="cl-turn">{"".join(shown)}</div>'


def call_html(call: Called, asked: bool = False) -> str:
    """A call on one line: its name, the beginning of its arguments, how long it took; opened, all of it."""
    line = " ".join(call.arguments.split())
    preview = line if len(line) <= PREVIEW else line[:PREVIEW] + "…"
    marks = [chip("not valid JSON")] if call.malformed else []
    if call.is_error:
        marks.append(error_badge())
    if asked:
        marks.append(chip("asks first"))
    if call.response is None:
        marks.append(soft("waits for you" if asked else "no response yet"))
    elif call.latency_ms is not None:
        marks.append(soft(took(call.latency_ms)))
    head = (
        f'<summary><span class="cl-call">{escape(call.name)}</span><span class="cl-preview">{escape(preview)}</span>'
        f'<span class="cl-marks">{"".join(marks)}</span></summary>'
    )
    body = f'<div class="cl-label">Arguments</div>{mono(tidy_json(call.arguments))}'
    if call.response is not None:
        source = TOOL_SOURCE.get(call.source or "", call.source or "unknown source")
        body += f'<div class="cl-label">Result · {escape(source)}</div>{mono(tidy_json(call.response))}'
    return f'<details class="cl-tool">{head}<div class="cl-block">{body}</div></details>'


def took(milliseconds: float) -> str:
    """ "0.4 ms", "120 ms", "2.4 s"."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def cost_html(turn: TurnRecord, figures: Mapping[tuple[int, int], StepFigures]) -> str:
    """Which version answered, in how many steps and tokens; that the turn was said anew, if it was."""
    of_turn = [figures[turn.index, step.index] for step in turn.steps if (turn.index, step.index) in figures]
    if not of_turn:
        return ""
    versions = " → ".join(dict.fromkeys(step.version for step in of_turn))
    tokens = sum(step.sampled_tokens for step in of_turn)
    seconds = sum(step.latency_ms for step in of_turn)
    note = soft(f"{versions} · {plural(len(of_turn), 'step')} · {plural(tokens, 'token')} · {took(seconds)}")
    return note + (chip("said anew") if any(step.fork for step in of_turn) else "")


def rating_html(rating: Rating) -> str:
    """A person's thumbs and comment, as they stand beside verdicts."""
    up = rating.value > 0
    color = "#0072B2" if up else "#B85000"
    badge = f'<span class="cl-badge" style="background:{color}">{"▲ thumbs up" if up else "▼ thumbs down"}</span>'
    said = f'<div class="cl-quote">{prose(rating.comment)}</div>' if rating.comment else ""
    who = soft(f"{rating.person} · {rating.created_at:%Y-%m-%d %H:%M} UTC")
    return f'<div class="cl-item" style="border-left-color:{color}"><div class="cl-row">{badge}{who}</div>{said}</div>'


def _answered(call: Called, said: "ToolAnswered") -> Called:
    if call.call_id != said.call_id:
        return call
    return replace(call, response=said.text, is_error=said.is_error, source=said.source, latency_ms=said.latency_ms)


def _said(part: Said) -> str:
    if not part.thinking:
        return prose(part.text)
    words = plural(len(part.text.split()), "word")
    return f'<details class="cl-thinking"><summary>Thinking · {words}</summary>{prose(part.text)}</details>'


def _json(arguments: object) -> str:
    return json.dumps(dict(arguments) if isinstance(arguments, Mapping) else arguments, ensure_ascii=False)
