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

from agent.library_rendering import KNOWN_FORMATS, PROBE_DIALOGUE, PROBE_TOOL, LibraryRenderer, without_unknown
from agent.rendering import Renderer, RenderingError
from agent.template_rendering import TemplateRenderer

AUTO, TEMPLATE = "auto", "template"

logger = logging.getLogger(__name__)


def load_renderer(model_dir: Path, wanted: str = AUTO) -> Renderer:
    """The renderer of a model directory; `wanted` is the setting `model.renderer`. One per directory and setting is
    kept. Raises RenderingError.
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
    if wanted == TEMPLATE:
        return TemplateRenderer(_tokenizer(path))
    if wanted != AUTO:
        return LibraryRenderer(without_unknown(_tokenizer(path)), wanted)
    tokenizer = without_unknown(_tokenizer(path))
    for name in KNOWN_FORMATS:
        try:
            renderer = LibraryRenderer(tokenizer, name)
            if _is_own(renderer, tokenizer):
                return renderer
        except RenderingError:
            continue
    return TemplateRenderer(_tokenizer(path))


def _is_own(renderer: LibraryRenderer, tokenizer: Any) -> bool:
    """Whether the model's chat template renders the probe dialogue, up to two of its prompts, to the same ids."""
    for end in (2, 4):
        try:
            own = tokenizer.apply_chat_template(
                renderer.prepared(PROBE_DIALOGUE[:end]),
                tools=[PROBE_TOOL],
                add_generation_prompt=True,
                return_dict=False,
                **renderer.template_settings,
            )
        except (TemplateError, ValueError, TypeError, KeyError):
            return False
        if list(own) != renderer.open(PROBE_DIALOGUE[:end], [PROBE_TOOL]):
            return False
    return True


def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True)
