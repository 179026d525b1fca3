"""Whether the newest versions are better, as HTML: a row a pair, with the way to what it stands on. Pure."""

from collections.abc import Sequence
from datetime import datetime

from dashboard.format import ago, moment
from dashboard.links import COMPARE, GATE_DECISIONS, TRAINING, address
from dashboard.text import escape, link, soft, state_badge
from dashboard.theme import ACCENT, CONTRAST, NEUTRAL
from reward.newest_evidence import Finding, HeldAgainst
from store.vocabulary import Origin

LONGEST = 400
"""Characters of a row's words: the gate's reasons are in full on the page Training."""
_MARKS = {
    Finding.BETTER: ("▲", ACCENT),
    Finding.WORSE: ("▼", CONTRAST),
    Finding.UNCLEAR: ("■", NEUTRAL),
    Finding.TOO_FEW: ("?", NEUTRAL),
}


def evidence_rows(found: Sequence[HeldAgainst], now: datetime) -> str:
    """What is known of each pair: in words, the difference with its interval, on how much, since when, where."""
    return "".join(_row(one, now) for one in found)


def _row(one: HeldAgainst, now: datetime) -> str:
    pair = {"c_origin": Origin.EVALUATION.value, "c_before": one.before, "c_after": one.after}
    if one.evidence is None:
        asked = f"queue evaluate version={one.before} and evaluate version={one.after}, or a gate"
        return f'<div class="cl-row">{state_badge(one.state)}<b>{escape(one.words)}</b>{soft(asked)}</div>'
    found = one.evidence
    symbol, color = ("✗", CONTRAST) if found.passed is False else _MARKS[found.finding]
    words = one.words if len(one.words) <= LONGEST else one.words[:LONGEST] + " …"
    parts = [f"<b>{escape(words)}</b>", soft(f"{found.figures} · {moment(found.at)} UTC ({ago(found.at, now)})")]
    if found.unit == "scenario":  # what chats showed stands in no comparison of played scenarios
        parts.append(link("compare", address(COMPARE, **pair)))
    if found.decision is not None:
        parts.append(link("gate decision", f"{address(TRAINING, gate=found.decision)}#{GATE_DECISIONS}"))
    mark = f'<span style="color:{color}">{symbol}</span>'
    return f'<div class="cl-row">{state_badge(one.state)}{mark}{"".join(parts)}</div>'
