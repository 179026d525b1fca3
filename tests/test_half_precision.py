"""The bfloat16 twin: float32 gradients that add up on the model, weights that follow it."""

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from tests.tiny_model import VOCABULARY, load_tiny_model, write_tiny_model
from train.half_precision import Bfloat16Twin
from train.packed import Family, pack, token_logprobs, use_packed_attention


def loss_of(model: PreTrainedModel, seed: int) -> Tensor:
    ids = [random.Random(f"{seed} {i}").randrange(VOCABULARY) for i in range(24)]
    sources = torch.arange(len(ids) - 1)
    logprobs, _ = token_logprobs(model, pack([Family(ids)]), sources, torch.tensor(ids[1:]))
    return -logprobs.mean()


def model_and_twin(folder: Path) -> tuple[PreTrainedModel, Bfloat16Twin]:
    model = load_tiny_model(write_tiny_model(folder, 0))
    use_packed_attention(model)
    return model, Bfloat16Twin(model)


def test_gradients_of_several_passes_add_up_on_the_model_in_float32(tmp_path: Path) -> None:
    model, twin = model_and_twin(tmp_path / "m")
    exact = load_tiny_model(tmp_path / "m")
    use_packed_attention(exact)
    for seed in (1, 2, 3):
        loss_of(exact, seed).backward()
        loss_of(twin.model, seed).backward()
    for (name, mine), wanted in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert mine.grad is not None and wanted.grad is not None, name
        assert mine.grad.dtype == torch.float32
        assert cosine_similarity(mine.grad.flatten(), wanted.grad.flatten(), dim=0) > 0.99, name
        assert 0.95 < mine.grad.norm() / wanted.grad.norm() < 1.05, name
    assert all(parameter.grad is None for parameter in twin.model.parameters())


def test_updates_too_small_for_bfloat16_add_up_and_reach_the_twin(tmp_path: Path) -> None:
    model, twin = model_and_twin(tmp_path / "m")
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.fill_(0.5)
    twin.refresh()
    narrow = twin.model.model.layers[0].mlp.up_proj.weight
    seen = []
    for _ in range(200):
        with torch.no_grad():
            weight += 2e-5
        twin.refresh()
        seen.append(narrow[0, 0].item())
    assert seen[0] == 0.5, "one step is less than bfloat16 can hold"
    assert abs(seen[-1] - 0.504) < 0.002


def test_the_twin_is_bfloat16_but_for_frequencies_and_keeps_tied_embeddings(tmp_path: Path) -> None:
    model, twin = model_and_twin(tmp_path / "m")
    assert all(parameter.dtype == torch.bfloat16 for parameter in twin.model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert twin.model.get_output_embeddings().weight is twin.model.get_input_embeddings().weight
    frequencies = [buffer for name, buffer in twin.model.named_buffers() if "inv_freq" in name]
    assert frequencies and all(buffer.dtype == torch.float32 for buffer in frequencies)
