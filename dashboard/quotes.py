"""Marks the quotes of verdicts in the texts that they were taken from. Pure: escaped HTML, as dashboard.text makes it.

A quote matches as reward.people checks it: white space aside. What a quote holds is looked for, never interpreted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.text import LONGEST, escape


@dataclass(frozen=True)
class Quote:
    text: str
    step: int | None = None
    """The step of the turn that it was taken from; None: any."""
    focused: bool = False
    """Of the item that the reviewer looks at."""


def of_step(quotes: Sequence[Quote], step: int) -> list[Quote]:
    return [quote for quote in quotes if quote.step in (None, step) and quote.text.strip()]


def quoted_in(text: str, quotes: Sequence[Quote]) -> list[Quote]:
    """The quotes that occur in what is shown of the text."""
    return [quote for quote in quotes if _span(text[:LONGEST], quote) is not None]


def marked(text: str, quotes: Sequence[Quote]) -> str:
    """`text` as HTML that shows exactly its characters, with the first occurrence of each quote marked."""
    if not quotes:
        return escape(text)
    shown = text[:LONGEST]
    spans = [(*span, quote.focused) for quote in quotes if (span := _span(shown, quote)) is not None]
    cuts = sorted({0, len(shown), *(cut for span in spans for cut in span[:2])})
    parts = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        over = [focused for first, last, focused in spans if first <= start and end <= last]
        piece = escape(shown[start:end])
        parts.append(f'<mark class="{"cl-focus" if any(over) else "cl-quoted"}">{piece}</mark>' if over else piece)
    rest = len(text) - len(shown)
    return "".join(parts) + (f" … ({rest:,} more characters)" if rest else "")


def _span(shown: str, quote: Quote) -> tuple[int, int] | None:
    words = quote.text[:LONGEST].split()
    found = re.search(r"\s+".join(map(re.escape, words)), shown) if words else None
    return found.span() if found else None
