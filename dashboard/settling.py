"""Keeps Python's garbage collector from going through everything that the server has imported.

A page's libraries (PyTorch, transformers, pandas) leave a quarter of a million objects that stay for good; a full
collection visits each of them and holds up whoever looks at a page for a third of a second.
"""

import gc

_settled: set[str] = set()


def settle(page: str) -> None:
    """After a page's first run in this process: what it has imported is not looked through again."""
    if page not in _settled:
        _settled.add(page)
        gc.collect()
        gc.freeze()
