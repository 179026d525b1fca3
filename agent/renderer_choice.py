"""Which renderer speaks a model's format: the library's, if one of its formats is the model's own, else its template.

Reads a model directory's tokenizer and chat template. A format of the library counts as the model's own if it renders a
dialogue of ours token for token as the model's chat template does; so a fine-tuned or renamed model keeps its renderer,
and one whose template was changed is not given a wrong one. The choice depends on the directory's content and the
setting `model.renderer` alone: every version of a policy, the gateway and the trainer make the same one.
"""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from agent.bundled_model import ModelError
from agent.call_form import PROBE_NAME
from agent.library_rendering import KNOWN_FORMATS, PROBE_TOOL, LibraryRenderer, without_unknown
from agent.rendering import Message, Renderer, RenderingError
from agent.template_rendering import TemplateRenderer

AUTO, TEMPLATE = "auto", "template"

_CALL = {"name": PROBE_NAME, "arguments": {"probe": 1, "exact": True, "among": ["a", "b"], "within": {"least": 0.5}}}
_DIALOGUE: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "A look.",
        "tool_calls": [{"id": "call_0", "type": "function", "function": _CALL}],
    },
    {"role": "tool", "tool_call_id": "call_0", "name": PROBE_NAME, "content": '{"found": 1}'},
    {"role": "assistant", "content": "It is one.", "reasoning_content": "Seen."},
    {"role": "user", "content": "Sure?"},
]

logger = logging.getLogger(__name__)


def load_renderer(model_dir: Path, wanted: str = AUTO) -> Renderer:
    """The renderer of a model directory; `wanted` is the setting `model.renderer`. One per directory and setting is
    kept. Raises RenderingError, ModelError.
    """
    return _load(str(Path(model_dir).resolve()), wanted)


@lru_cache(maxsize=8)
def _load(path: str, wanted: str) -> Renderer:
    if wanted not in (AUTO, TEMPLATE, *KNOWN_FORMATS):
        raise RenderingError(
            f"model.renderer is {wanted!r}: it must be auto, template or a format of the library renderers: "
            + ", ".join(KNOWN_FORMATS)
        )
    chosen = _chosen(path, wanted)
    logger.info("%s is rendered by %s", path, chosen.name)
    return chosen


def _chosen(path: str, wanted: str) -> Renderer:
    tokenizer = without_unknown(_tokenizer(path))
    if wanted == TEMPLATE:
        return TemplateRenderer(tokenizer)
    if wanted != AUTO:
        return _own_form(tokenizer, wanted) or LibraryRenderer(tokenizer, wanted)
    for name in KNOWN_FORMATS:
        try:
            if renderer := _own_form(tokenizer, name):
                return renderer
        except RenderingError:
            continue
    return TemplateRenderer(tokenizer)


def _own_form(tokenizer: Any, name: str) -> LibraryRenderer | None:
    """The format with the choices that make it the model's own; None if there are none. Raises RenderingError."""
    default = LibraryRenderer(tokenizer, name)
    if _is_own(default, tokenizer):
        return default
    for choices in default.open_choices:
        renderer = LibraryRenderer(tokenizer, name, **choices)
        if _is_own(renderer, tokenizer):
            return renderer
    return None


def _is_own(renderer: LibraryRenderer, tokenizer: Any) -> bool:
    """Whether the model's chat template renders the prompts of a dialogue to the same ids."""
    for end in (2, 4, 6):
        try:
            own = tokenizer.apply_chat_template(
                renderer.prepared(_DIALOGUE[:end]),
                tools=[PROBE_TOOL],
                add_generation_prompt=True,
                return_dict=False,
                **renderer.template_settings,
            )
            rendered = renderer.open(_DIALOGUE[:end], [PROBE_TOOL])
        except (TemplateError, ValueError, TypeError, KeyError):
            return False
        if list(own) != rendered:
            return False
    return True


def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    if not Path(path).is_dir():
        raise ModelError(f"there is no model directory {path}")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise RenderingError(f"the tokenizer in {path} cannot be loaded: {error}") from error
