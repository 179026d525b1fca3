"""Tokenizers that speak formats of the library `renderers`: the bundled model's with the format's tokens added."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import trl

from agent.library_rendering import LibraryRenderer, without_unknown
from agent.rendering import RenderingError

_MISSING = re.compile(r"oken (?:for )?'(.*?)'(?: not found|, got)")


def speaking(tokenizer: Any, name: str) -> Any:
    """A copy of `tokenizer` with every token that the format asks for."""
    copied = without_unknown(deepcopy(tokenizer))
    while True:
        try:
            LibraryRenderer(copied, name)
        except RenderingError as error:
            found = _MISSING.search(str(error))
            if found is None or copied.add_tokens([found.group(1)], special_tokens=True) == 0:
                raise
        else:
            return copied


def template_of(family: str) -> str:
    """A model family's own chat template, as TRL ships it."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text()
