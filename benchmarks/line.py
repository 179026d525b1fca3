"""A line of the table."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    what: str
    measured: str
    peer: str
    """The peer's figure in the same run, or the limit."""
    ratio: str
    aim: str

    def said(self) -> "Line":
        """Prints it at once, of a bench that takes long: what was measured is not lost with what comes later."""
        print(f"  {self.what}: {self.measured}, {self.ratio}", file=sys.stderr, flush=True)
        return self
