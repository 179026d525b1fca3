"""A checklist's dependencies as a graph in DOT, which the browser draws. Pure."""

from collections.abc import Sequence

from dashboard.text import visible
from dashboard.theme import ACCENT, CONTRAST
from store.records import Item

LONGEST = 40
"""Characters of a key that are shown."""


def dependency_graph(items: Sequence[Item]) -> str:
    """Items as boxes, an arrow from what has to hold first; strict ones are drawn in bold. Keys are quoted text."""
    names = {item.id: f"n{number}" for number, item in enumerate(items)}
    lines = ["digraph {", '  rankdir=LR; bgcolor="transparent";', "  node [shape=box, style=rounded, fontsize=11];"]
    for item in items:
        color, pen = (CONTRAST, 2) if item.required_for_next_turn else (ACCENT, 1)
        label = quoted(f"{visible(item.id[:LONGEST])}\n{item.weight:.2f}")
        lines.append(f'  {names[item.id]} [label={label}, color="{color}", penwidth={pen}];')
    for item in items:
        lines += [f"  {names[key]} -> {names[item.id]};" for key in item.depends_on if key in names]
    return "\n".join([*lines, "}"])


def quoted(text: str) -> str:
    """A DOT string that shows exactly this text: DOT reads backslashes and, in a label, entities."""
    safe = text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ")
    return '"' + safe.replace("\n", "\\n") + '"'
