"""When a question to an endpoint is asked again, after which pause, and whether a try without an answer may be billed.

The rules are the client library's, whose own tries nobody outside can count, hold back to a rate, or pay for. Pure.
"""

import time
from email.utils import mktime_tz, parsedate_tz
from random import Random

import openai

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Before the second try, and before any: it doubles from one to the next."""
_JITTER = 0.25
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""By name: which HTTP library the client is built on is its own business."""

Failure = openai.APIConnectionError | openai.APIStatusError
"""What a single try may end with: no response at all (a timeout, too), or one with an error's status."""


def may_pass(error: Failure) -> bool:
    """Whether another try may do better: after lost connections, timeouts, 408, 409, 429 and 5xx."""
    if not isinstance(error, openai.APIStatusError):
        return True
    told = error.response.headers.get("x-should-retry")
    if told in ("true", "false"):
        return bool(told == "true")
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def may_be_billed(error: Failure) -> bool:
    """Whether the endpoint may have worked on it: it was sent, and no status says that it was refused."""
    return not isinstance(error, openai.APIStatusError) and type(error.__cause__).__name__ not in _NEVER_SENT


def pause_s(error: Failure, tries: int, random: Random) -> float:
    """Seconds before the next try, after so many: what the endpoint asks for (Retry-After), else ever longer."""
    asked = _retry_after_s(error) if isinstance(error, openai.APIStatusError) else None
    if asked is not None:
        return asked
    return min(FIRST_PAUSE_S * 2.0 ** (tries - 1), LONGEST_PAUSE_S) * (1 - _JITTER * random.random())


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: a quarter of its bytes."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    """RFC 9110 10.2.3: seconds or a date; some endpoints say milliseconds in a header of their own."""
    headers = error.response.headers
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) * scale)
        except ValueError:
            continue
    date = parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(0.0, mktime_tz(date) - time.time())
