"""Whether a text mentions a phrase: words and numbers compared, not characters. Pure; reads and writes nothing.

A text becomes tokens: words (case folded), numbers (1,200.00 = 1200 = 1200.0; a leading minus counts), and single
punctuation marks. Spaces, underscores, quotation marks and Markdown emphasis are no tokens, so `**A12**` mentions "A12"
and "in_transit" mentions "in transit". A phrase is mentioned where its tokens stand in the text in one piece; that is
what "on word boundaries" means here: "12" is not mentioned by "A12" or "12.5", but by "12 kg", "12kg" and "12:30".
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(
    # A number is taken whole or not at all (atomic), and may carry a unit of up to three letters ("12kg", "5pm").
    r"(?P<number>(?:(?<![\w)\]])[-−])?(?>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?)(?=(?:[^\W\d_]{1,3})?(?![^\W_])))"
    r"|(?P<word>[^\W_]+)"
    r"|(?P<mark>[^\s\w*`\"'“”‘’])"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\s*_\"'”’)]+|\n+")
_GAP = "\x1f"
_PHRASE, _LONGEST = 300, 100_000
"""Characters of what is remembered for long, and of what is remembered at all: tokens take some 35 bytes for each, so
that many responses of several hundred thousand would be gigabytes."""


@dataclass(frozen=True)
class Tokens:
    """A text as tokens: `joined` has the gap mark before, between and after them; spans are character offsets."""

    text: str
    joined: str
    spans: tuple[tuple[int, int], ...]


def number_form(digits: str) -> str:
    """The one spelling of a decimal number: no thousands commas, no superfluous zeros ("1,200.50" -> "1200.5")."""
    sign, body = ("-", digits[1:]) if digits[0] in "-−" else ("", digits.removeprefix("+"))
    whole, _, fraction = body.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    form = (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return form if form == "0" else sign + form


def tokenize(text: str) -> Tokens:
    """The text as tokens. Phrases are remembered, and of long texts the few that the items of a turn look at."""
    if len(text) <= _PHRASE:
        return _phrase_tokens(text)
    return _text_tokens(text) if len(text) <= _LONGEST else _tokenize(text)


@lru_cache(maxsize=8192)
def _phrase_tokens(text: str) -> Tokens:
    return _tokenize(text)


@lru_cache(maxsize=16)
def _text_tokens(text: str) -> Tokens:
    return _tokenize(text)


def _tokenize(text: str) -> Tokens:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    forms: list[str] = []
    spans: list[tuple[int, int]] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "number" and not _is_code(token):
            forms.append("#" + number_form(token))
        else:
            forms.append(token.casefold())
        spans.append(match.span())
    return Tokens(text, _GAP + _GAP.join(forms) + _GAP, tuple(spans))


def find_mention(text: str, phrase: str) -> str | None:
    """The literal piece of `text` that mentions `phrase`, or None. Raises ValueError if the phrase has no token."""
    wanted = tokenize(phrase)
    if not wanted.spans:
        raise ValueError(f"the phrase {phrase!r} has no word or number to look for; correct the check")
    found = tokenize(text)
    position = found.joined.find(wanted.joined)
    if position < 0:
        return None
    first = found.joined.count(_GAP, 0, position)
    return found.text[found.spans[first][0] : found.spans[first + len(wanted.spans) - 1][1]]


def questions(text: str) -> list[str]:
    """The sentences of `text` that end with a question mark."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence and sentence.rstrip().endswith("?")]


def _is_code(token: str) -> bool:
    # "0042" names something; "05" is a part of a date or a time, where 5 and 05 are the same.
    return token[0] == "0" and len(token) > 2 and token.isdigit()
