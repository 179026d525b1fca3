"""A swap to weights whose embedding changed: the output layer, which shares it, answers with the new one too."""

import shutil
from pathlib import Path

import httpx
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from store.versions import add_version, get_version
from tests.serving import Serving

IDS = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173]


def test_the_output_layer_is_swapped_with_the_embedding_that_it_shares(serving: Serving, tmp_path: Path) -> None:
    first = Path(get_version(serving.log, "v0001").path)
    changed = tmp_path / "v0800"
    shutil.copytree(first, changed)
    weights = load_file(changed / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1.5
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    add_version(serving.log, "v0800", parent="v0001", path=str(changed), files={})
    model = AutoModelForCausalLM.from_pretrained(changed, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    assert serving.gateway.promote("v0800", "a test")["accepted"]
    try:
        body = {"model": "policy", "prompt": IDS, "max_tokens": 1, "prompt_logprobs": 0}
        url = f"http://127.0.0.1:{serving.settings.server.port}/v1/completions"
        rows = httpx.post(url, json=body, timeout=300).json()["choices"][0]["prompt_logprobs"]
    finally:
        serving.gateway.promote("v0001", "the end of a test")
    errors = [abs(rows[n][str(IDS[n])]["logprob"] - expected[n - 1, IDS[n]].item()) for n in range(1, len(IDS))]
    assert sum(errors) / len(errors) < 0.2, errors
