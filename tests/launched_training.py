"""What one of several processes does, as a launcher starts them: a GRPO run, or passes of a sharded model."""

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaForCausalLM

from store.training_settings import GrpoSettings
from tests.tiny_model import load_tiny_model
from train.groups import TrainingGroup
from train.grpo import train_grpo
from train.packed import Family, pack, token_logprobs, use_packed_attention
from train.processes import fill, follow, in_all_processes, is_first, leading, through_root, whole_weights
from train.training_run import checkpoint_layers


def run(
    rank: int, count: int, port: int, home: Path, model_dir: Path, groups: list[TrainingGroup], settings: GrpoSettings
) -> None:
    start(rank, count, port)
    if not is_first():
        follow()
        return
    seen: list[dict[str, Any]] = []
    options: dict[str, Any] = {"run_dir": home / "run", "checkpoint_every": 2}
    notes = {"on_step": lambda step, steps, metrics: seen.append(metrics)}
    with leading():
        in_all_processes(train_grpo, model_dir, home / "made", groups, settings, 1, here=notes, **options)
    (home / "metrics.json").write_text(json.dumps(seen))


def run_sharded(rank: int, count: int, port: int, home: Path, model_dir: Path) -> None:
    """What FSDP2 does to the packed passes, on the CPU: gradients as of a whole model, weights that come back whole."""
    start(rank, count, port)
    dist.init_process_group("gloo")
    ids = list(range(60))
    row, sources, targets = pack([Family(ids)]), torch.arange(59), torch.tensor(ids[1:])

    def backward(model: LlamaForCausalLM) -> None:
        through_root(model, lambda: token_logprobs(model, row, sources, targets))[0].sum().backward()

    whole, sharded = load_tiny_model(model_dir), load_tiny_model(model_dir)
    mesh = init_device_mesh("cpu", (count,))
    for model in (whole, sharded):
        use_packed_attention(model)
    checkpoint_layers(sharded)
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    # As accelerate does it with tied weights.
    fully_shard([sharded.model.embed_tokens, sharded.model.norm, sharded.lm_head], mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for model in (whole, sharded):
        backward(model)
        backward(model)
    for (name, weight), (_, part) in zip(whole.named_parameters(), sharded.named_parameters(), strict=True):
        assert torch.allclose(part.grad.full_tensor(), weight.grad, rtol=1e-4, atol=1e-5), name
        assert part.to_local().numel() < weight.numel(), name
    with torch.no_grad():
        for weight in sharded.parameters():
            weight.add_(1.0)
    weights = whole_weights(sharded)
    if is_first():
        fill(whole, weights)
        whole.save_pretrained(home / "whole")
    dist.destroy_process_group()


def start(rank: int, count: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
