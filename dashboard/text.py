"""Shows text that models, tools and users wrote as text: never as HTML, never as Markdown.

Everything here returns escaped HTML for `st.html`, which renders no Markdown; so an image link, a script or a heading
in a tool's answer appears as the characters it is made of. Pages pass such text through here, through `st.text`,
`st.code` or cells of a dataframe, and through nothing else.
"""

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

import pandas as pd
import streamlit as st

from dashboard.theme import MARKS, STATE_COLORS, STATUS_MARKS
from store.vocabulary import Outcome, VersionState

LONGEST = 20_000
"""Characters of one text that are shown; the rest is counted."""

_VISIBLE_CONTROLS = {"\n", "\t"}


def escape(text: str) -> str:
    """`text` as HTML that shows exactly its characters; control characters appear as their symbols."""
    return html.escape(visible(text), quote=True)


def visible(text: str) -> str:
    """`text` with what cannot be seen made visible, cut at LONGEST; for places that take plain text, such as cells."""
    shown = text[:LONGEST]
    rest = len(text) - len(shown)
    # What can be printed holds nothing that is to be made visible; nearly every text is, and a page shows thousands.
    seen = shown if shown.isprintable() else "".join(map(_visible, shown))
    return seen + (f" … ({rest:,} more characters)" if rest else "")


def visible_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every text in it made visible."""
    return frame.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)


def _visible(character: str) -> str:
    if character in _VISIBLE_CONTROLS:
        return character
    category = unicodedata.category(character)
    if category == "Cc":
        return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "\N{REPLACEMENT CHARACTER}"
    # Direction overrides can make a text read differently from what it says.
    if category in {"Cf", "Cs"} and character not in "\u200c\u200d":
        return f"<U+{ord(character):04X}>"
    return character


def prose(text: str) -> str:
    """A text block with its line breaks."""
    return f'<div class="cl-text">{escape(text)}</div>'


def mono(text: str) -> str:
    """A block in the code font, scrolling when long."""
    return f'<div class="cl-mono">{escape(text)}</div>'


def tidy_json(text: str) -> str:
    """JSON indented for reading; text that is no JSON, or is short, as it came."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if len(text) <= 90:
        return text
    return json.dumps(value, indent=2, ensure_ascii=False)


def badge(outcome: Outcome) -> str:
    """The badge of an outcome: symbol, word and colour."""
    mark = MARKS[outcome]
    return f'<span class="cl-badge" style="background:{mark.color}">{mark.symbol} {outcome.value}</span>'


def state_badge(state: str) -> str:
    color = STATE_COLORS[VersionState(state)]
    return f'<span class="cl-badge" style="background:{color}">{escape(state)}</span>'


def status_badge(status: str) -> str:
    """The badge of a job's, run's or gate decision's status; symbols, for those who do not see the colours."""
    symbol, color = STATUS_MARKS[status]
    return f'<span class="cl-badge" style="background:{color}">{symbol} {escape(status)}</span>'


def chip(text: str) -> str:
    """A small outlined label."""
    return f'<span class="cl-chip">{escape(text)}</span>'


def soft(text: str) -> str:
    return f'<span class="cl-soft">{escape(text)}</span>'


def advice(text: str) -> str:
    """Words of our own to the reader; what stands between backticks is set as code."""
    return f'<span class="cl-soft">{_with_code(text)}</span>'


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def link(label: str, href: str) -> str:
    """A link in the same tab; `href` is one of our own addresses (dashboard.links)."""
    return f'<a href="{html.escape(href, quote=True)}" target="_self">{escape(label)}</a>'


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = (), *, fill: bool = False
) -> str:
    """A table; cells are HTML made by the functions above.

    `numeric` are the columns set to the right; with `fill` the last column takes the width that the others leave.
    """
    right = set(numeric)

    def classes(index: int) -> str:
        return ' class="num"' if index in right else ""

    look = ' class="cl-fill"' if fill else ""
    head = "".join(f"<th{classes(i)}>{escape(name)}</th>" for i, name in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(f"<td{classes(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="cl-scroll"><table{look}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def escape_markdown(text: str) -> str:
    """As text where Streamlit renders Markdown (messages, labels, headings): what it quotes may be anything."""
    marks = "\\`*_{}[]()#+-.!|<>$~:&"
    return "".join(f"\\{character}" if character in marks else character for character in visible(text))


def show_code(text: str) -> None:
    """A block of text as it is, wrapped: what went wrong, what a server said."""
    st.code(visible(text), language=None, wrap_lines=True)


def show(*parts: str) -> None:
    """Puts HTML made by the functions above on the page."""
    st.html(f'<div class="cl">{"".join(parts)}</div>')


def show_empty(title: str, hint: str, command: str | None = None) -> None:
    """An empty state that says what to do first."""
    code = f"<p><code>{escape(command)}</code></p>" if command else ""
    show(f'<div class="cl-empty"><h4>{escape(title)}</h4><div class="cl-soft">{_with_code(hint)}</div>{code}</div>')
