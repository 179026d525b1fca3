"""A random two-layer Llama with a word tokenizer: everything real but the size."""

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.serving import MODEL

VOCABULARY = 96


def write_tiny_model(directory: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w3"
    )
    tokenizer.save_pretrained(directory)
    return directory


def load_tiny_model(directory: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)


def write_moved_model(model_dir: Path, place: Path, seed: int = 5, scale: float = 0.03) -> Path:
    """Another version of the model: every weight a little elsewhere."""
    moved = load_tiny_model(model_dir)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in moved.parameters():
            weight += scale * torch.randn_like(weight)
    shutil.copytree(model_dir, place)
    moved.save_pretrained(place)
    return place


def write_small_base(model_dir: Path, base: Path) -> Path:
    """A tiny model with the bundled one's tokenizer and template."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    small = load_tiny_model(model_dir)
    small.config.max_position_embeddings = 4096
    small.resize_token_embeddings(len(tokenizer))
    small.save_pretrained(base)
    tokenizer.save_pretrained(base)
    return base
