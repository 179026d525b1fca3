"""LoRA adapters on the bundled model as PEFT writes them, with the probe that a version carries."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from agent.proof import PROBE_FILE


def make_adapter(base: Path, place: Path, probe: list[list[int]], seed: int, *, scale: float = 0.05) -> Path:
    """An adapter of rank 8 with random weights; `probe.json` holds its own logprobs of the probe's prompts."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=scale)
        rows = []
        for ids in probe:
            logprobs = adapted(torch.tensor([ids])).logits[0].log_softmax(-1)
            rows.append([float(logprobs[i, token]) for i, token in enumerate(ids[1:])])
    adapted.save_pretrained(str(place))
    (place / PROBE_FILE).write_text(json.dumps({"ids": probe, "logprobs": rows}))
    return place
