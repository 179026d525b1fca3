"""What the policy sampled, token by token, each as surprising as it was to the policy itself; and what it was given.
Pure, but for the tokenizer, which is read from a version's directory.

Ids come from the log (invariant 1); text is only their look. An id that the tokenizer does not know is shown as its
number.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from dashboard.text import escape

SHOWN = 2_000
"""Tokens that are shown at once; the rest is counted."""
STRONGEST = 0.85
"""Share of colour behind a token that was all but impossible."""

TokenText = Callable[[int], str]


@lru_cache(maxsize=4)
def token_text(version_path: str) -> TokenText | None:
    """How a version's tokenizer writes an id; None where its directory is not on this machine."""
    file = Path(version_path) / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False)) or f"#{token}"


def heat_html(ids: Sequence[int], logprobs: Sequence[float], text_of: TokenText | None) -> str:
    """Sampled ids (T) with their logprobs (T) in nats; the less likely a token was, the stronger its colour."""
    spans = [_token(token, logprob, text_of) for token, logprob in zip(ids[:SHOWN], logprobs[:SHOWN], strict=True)]
    return _block(spans, len(ids))


def plain_html(ids: Sequence[int], text_of: TokenText | None) -> str:
    """Ids that the policy was given (T): as their text, with the number at the cursor."""
    spans = [f'<i title="{token}">{_shown(token, text_of)}</i>' for token in ids[:SHOWN]]
    return _block(spans, len(ids))


def _block(spans: Sequence[str], count: int) -> str:
    rest = f" … ({count - SHOWN:,} more tokens)" if count > SHOWN else ""
    return f'<div class="cl-heat">{"".join(spans)}{rest}</div>'


def _token(token: int, logprob: float, text_of: TokenText | None) -> str:
    known = math.isfinite(logprob)
    probability = math.exp(min(logprob, 0.0)) if known else 0.0
    note = f"{token} · logprob {logprob:.3f} · {100 * probability:.1f} %" if known else f"{token} · no logprob"
    shade = round(100 * STRONGEST * (1 - probability))
    color = f"background:color-mix(in srgb, #E69F00 {shade}%, transparent)"
    return f'<i title="{escape(note)}" style="{color}">{_shown(token, text_of)}</i>'


def _shown(token: int, text_of: TokenText | None) -> str:
    text = text_of(token) if text_of is not None else f"#{token}"
    return escape(text.replace("\n", "⏎\n").replace("\t", "⇥"))
