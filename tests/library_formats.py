"""Tokenizers that speak formats of the library `renderers`: the bundled model's with the format's tokens added."""

import inspect
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from agent.library_rendering import LibraryRenderer, without_unknown
from agent.rendering import RenderingError

_MISSING = re.compile(r"oken (?:for )?'(.*?)'(?: not found|, got)")
_WIDE = re.compile(r'"(<｜[^"]*?｜>)"')


def speaking(tokenizer: Any, name: str) -> Any:
    """A copy of `tokenizer` with every token that the format asks for."""
    copied = without_unknown(deepcopy(tokenizer))
    if name == "deepseek-v3":
        import renderers.deepseek_v3

        copied.add_tokens(sorted(set(_WIDE.findall(inspect.getsource(renderers.deepseek_v3)))), special_tokens=True)
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
    import trl

    assert trl.__file__ in {module.__file__ for module in sys.modules.values() if hasattr(module, "__file__")}
    return (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text()
