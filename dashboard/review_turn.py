"""A turn under review as HTML: the dialogue so far, its steps with quotes marked, its items, the reviewer's progress.

Pure: from records to escaped HTML. Whatever a model, tool or user wrote goes through dashboard.text.
"""

from collections.abc import Mapping

from dashboard.dialogue import FOCUS, grounds, turn_html, user_html
from dashboard.format import plural
from dashboard.links import TRAJECTORIES, address
from dashboard.quotes import Quote
from dashboard.text import badge, chip, escape, link, prose, soft
from dashboard.theme import MARKS
from reward.review import ItemToReview, TurnToReview
from store.browsing import StepFigures
from store.records import TurnRecord
from store.review_claims import Pace

COUNTED = 200
"""Open turns are counted no further: the number would cost more than it tells."""


def dialogue_html(
    shown: TurnToReview,
    focused: str | None,
    figures: Mapping[tuple[int, int], StepFigures],
    sampled: Mapping[str, str],
) -> str:
    """What was said before, folded turn by turn; then the turn, with the quotes of its items marked."""
    earlier = [_folded(turn, figures, sampled) for turn in shown.earlier]
    label = f'<div class="cl-label">Turn {shown.turn.index + 1}, to be reviewed</div>'
    return "".join([_heading(shown), *earlier, label, turn_html(shown.turn, figures, sampled, quotes(shown, focused))])


def quotes(shown: TurnToReview, focused: str | None) -> list[Quote]:
    """Of the verdicts that count, where they say they were taken from."""
    reached = {step.index for step in shown.turn.steps}
    return [
        Quote(one.shown.quote, one.shown.step_index if one.shown.step_index in reached else None, key == focused)
        for one in shown.items
        if (key := one.item.id) and one.shown is not None and one.shown.quote.strip()
    ]


def _heading(shown: TurnToReview) -> str:
    summary = shown.summary
    title = summary.scenario_name or summary.title or summary.id
    tags = [chip(part) for part in (summary.origin, summary.domain, summary.version) if part]
    opened = link("whole trajectory", address(TRAJECTORIES, trajectory=summary.id))
    tags.append(soft(f"turn {shown.turn.index + 1}") + f'<span class="cl-soft">{opened}</span>')
    return f'<div class="cl-title">{escape(title)}</div><div class="cl-row cl-under">{"".join(tags)}</div>'


def _folded(turn: TurnRecord, figures: Mapping[tuple[int, int], StepFigures], sampled: Mapping[str, str]) -> str:
    """A turn that came before: what was asked and answered at a glance, its steps behind a click."""
    said = next((step.content for step in reversed(turn.steps) if step.content.strip()), "")
    reply = f'<div class="cl-label">Reply</div>{prose(said)}' if said else soft("no reply")
    steps = "".join(turn_html(turn, figures, sampled).split(user_html(turn.user), 1))
    folded = f"<details><summary>{plural(len(turn.steps), 'step')}</summary>{steps}</details>"
    label = f'<div class="cl-label">Turn {turn.index + 1}</div>'
    return f'{label}{user_html(turn.user)}<div class="cl-folded">{reply}{folded}</div>'


def item_html(one: ItemToReview, focused: bool) -> str:
    """An item: question, pass condition, verdict, why, quote; what a person said stands above what the judge said."""
    verdict = one.shown
    color = MARKS[verdict.outcome].color if verdict else "transparent"
    tags = [chip(FOCUS[one.item.focus_on]), chip(f"weight {one.item.weight:.2f}")]
    if one.item.required_for_next_turn:
        tags.append(chip("strict"))
    if one.item.must_not:
        tags.append(chip("must not"))
    top = badge(verdict.outcome) if verdict else chip("no verdict")
    if one.said is not None:
        top += soft(f"by {one.said.judge}")
        if one.judged is not None and one.judged.outcome is not one.said.outcome:
            top += soft(f"judge: {one.judged.outcome.value}")
    parts = [
        f'<div class="cl-row">{top}{"".join(tags)}</div>',
        f'<div class="cl-question cl-text">{escape(one.item.question)}</div>',
    ]
    if one.item.pass_condition:
        parts.append(f'<div class="cl-soft cl-text">PASS if: {escape(one.item.pass_condition)}</div>')
    if verdict is not None:
        parts += grounds(verdict, one.verdicts)
    if one.said is not None and one.judged is not None and one.judged.reason:
        parts.append(f'<div class="cl-soft cl-text">{escape(f"{one.judged.judge}: {one.judged.reason}")}</div>')
    look = "cl-item cl-now" if focused else "cl-item"
    return f'<div class="{look}" style="border-left-color:{color}">{"".join(parts)}</div>'


def progress_html(pace: Pace, left: int, others: int, note: str | None) -> str:
    """What this reviewer did today, how fast, how much is left; and what the last key did.

    `left` is counted no further than COUNTED: from there on there is no bar."""
    speed = f" · {pace.per_hour:.0f} turns/h" if pace.per_hour is not None else ""
    many = left >= COUNTED
    rest = f"{COUNTED}+ open" if many else f"{left} open"
    company = f" · {plural(others, 'other reviewer')} at work" if others else ""
    share = pace.turns_today / max(1, pace.turns_today + left)
    # Of a queue that was not counted to its end nobody knows which share is done.
    bar = "" if many else f'<div class="cl-track cl-thin"><i style="width:{100 * share:.1f}%"></i></div>'
    text = f"<b>{plural(pace.turns_today, 'turn')} today</b>{soft(f'{speed} · {rest}{company}'.removeprefix(' · '))}"
    done = f'<div class="cl-row">{chip("✓ " + note)}</div>' if note else ""
    return f'<div class="cl-row">{text}</div>{bar}{done}'
