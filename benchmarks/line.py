"""A line of the table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    what: str
    measured: str
    peer: str
    """The peer's figure in the same run, or the limit."""
    ratio: str
    aim: str
