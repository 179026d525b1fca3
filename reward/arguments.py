"""Whether two argument values are the same up to case, spacing and number form. Pure; reads and writes nothing.

"3" = 3 = 3.0, "1,200.00" = 1200, "TRUE" = true, " new  york" = "New York". A string of digits with a leading zero
("0042") is a name, not a number. Lists compare in order, objects by all of their keys. What is nested so deeply that
Python cannot walk through it equals nothing: whoever writes such arguments must not end the judging of a whole log.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


def canonical_value(value: Any) -> Any:
    """Decimal for numbers in any form, bool for booleans, folded text for strings; lists and objects by element."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        return _canonical_text(value)
    if isinstance(value, Mapping):
        return {str(key): canonical_value(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [canonical_value(entry) for entry in value]
    raise TypeError(f"{value!r} of type {type(value).__name__} is no JSON value")


def equal_values(expected: Any, actual: Any, tolerance: float = 0.0) -> bool:
    """Whether both are the same value; numbers, nested ones too, may differ by `tolerance` (absolute)."""
    try:
        return _equal(canonical_value(expected), canonical_value(actual), Decimal(repr(tolerance)))
    except (RecursionError, ArithmeticError):  # nested too deeply; a number beyond what Decimal subtracts
        return False


def first_difference(expected: Mapping[str, Any], actual: Mapping[str, Any], tolerance: float = 0.0) -> str | None:
    """The first of the `expected` arguments that `actual` lacks or gives another value; None if it includes them all.

    An expected null is also met by an absent argument. Arguments that are not expected are free.
    """
    for name, value in expected.items():
        if not equal_values(value, actual.get(name), tolerance):
            return name
    return None


def _canonical_text(text: str) -> Any:
    folded = " ".join(text.split()).casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFC", folded)
    if folded in _BOOLEANS:
        return _BOOLEANS[folded]
    return Decimal(folded.replace(",", "")) if _NUMBER.fullmatch(folded) else folded


def _equal(expected: Any, actual: Any, tolerance: Decimal) -> bool:
    # bool is an int in Python, and Decimal(1) == True: types are compared first.
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, Decimal):
        return bool(abs(expected - actual) <= tolerance)
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(map(_equal, expected, actual, [tolerance] * len(expected)))
    if isinstance(expected, dict):
        return expected.keys() == actual.keys() and all(
            _equal(value, actual[key], tolerance) for key, value in expected.items()
        )
    return bool(expected == actual)
