"""GRPO tokens a second (optimizer step included) and peak memory, against two peers over the same dialogues.

* A bare forward and backward pass, what one would write first: the Hugging Face model under the same autocast,
  dialogues padded in batches of four, cross-entropy on the sampled tokens, no optimizer.
* TRL's GRPOTrainer as it comes (benchmarks/stock_grpo.py), in micro-batches of four.

Tokens are counted without padding, a shared prompt once for each dialogue, on all sides. Each runs in a process of its
own, so that peak memory is its own.
"""

import multiprocessing
import random
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from agent.precision import native_precision
from benchmarks.line import Line
from benchmarks.stock_grpo import stock_speed
from store.settings import load_settings
from store.training_settings import AlertSettings, GrpoSettings
from train.groups import TrainingGroup, TrainingMember
from train.grpo import train_grpo
from train.registry import model_directory
from train.training_run import keep_freed_memory

GROUPS, MEMBERS, PROMPT, BATCH, GROUPS_A_STEP = 8, 8, 130, 4, 2


def measure(home: Path) -> list[Line]:
    model_dir = model_directory(load_settings(home=home.parent))
    groups = _groups()
    all_layers, memory = _apart(_ours, model_dir, groups, home, 0)
    defaults, memory_of_defaults = _apart(_ours, model_dir, groups, home, GrpoSettings().trained_layers)
    bare, _ = _apart(_bare, model_dir, [member for group in groups for member in group.members])
    stock, stock_memory = _apart(stock_speed, model_dir, groups, home / "stock", GROUPS_A_STEP)
    few = GrpoSettings().trained_layers
    lines = []
    for peer, speed, aim in (("bare forward+backward", bare, "≥ 0.9"), ("TRL's GRPOTrainer", stock, "≥ 1.5")):
        for what, ours in (("all layers", all_layers), (f"the {few} layers that the demo trains", defaults)):
            name = f"GRPO on {what}: tokens a second"
            lines.append(Line(name, f"{ours:.0f}/s", f"{peer} {speed:.0f}/s", f"{ours / speed:.2f}", aim))
    for what, ours in (("all layers", memory), (f"{few} layers", memory_of_defaults)):
        peer = f"TRL's GRPOTrainer {stock_memory:.1f} GiB"
        lines.append(Line(f"GRPO on {what}: peak memory", f"{ours:.1f} GiB", peer, f"{ours / stock_memory:.2f}", "≤ 1"))
    return lines


def _apart(work: Callable[..., float], *arguments: object) -> tuple[float, float]:
    """What `work` gives in a process of its own, and that process's peak resident GiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments), pool.apply(_peak_gib)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _ours(model_dir: Path, groups: Sequence[TrainingGroup], home: Path, trained_layers: int) -> float:
    """Tokens a second with the optimizer step."""
    out = home / "grpo"
    shutil.rmtree(out, ignore_errors=True)
    steps: list[dict[str, float]] = []
    # Random ids are far from what any policy samples: a run of them would be stopped.
    never = AlertSettings(entropy_share=0, mismatch_kl=0)
    settings = GrpoSettings(scenarios_per_step=GROUPS_A_STEP, trained_layers=trained_layers, kl=0.0, alerts=never)
    train_grpo(model_dir, out / "made", groups, settings, 1, lambda step, count, metrics: steps.append(metrics))
    shutil.rmtree(out, ignore_errors=True)
    # The first step warms up allocators and kernels, as the peers' first ones do.
    measured = steps[1:]
    return sum(m["tokens"] for m in measured) / sum(m["seconds"] for m in measured)


def _groups() -> list[TrainingGroup]:
    """Random ids in the shape of the demo's dialogues: about 340 tokens, 110 of them sampled, in four steps."""
    draw = random.Random(1)
    groups = []
    for g in range(GROUPS):
        prompt = tuple(draw.randrange(20, 49000) for _ in range(PROMPT))
        members = []
        for m in range(MEMBERS):
            step_of_token = [s for n in range(draw.choice((3, 4, 5))) for s in (*[n] * 28, *[-1] * 25)][:-25]
            mask = tuple(int(step >= 0) for step in step_of_token)
            ids = tuple(draw.randrange(20, 49000) for _ in mask)
            members.append(
                TrainingMember(
                    trajectory_id=f"{g}-{m}",
                    reward=draw.random(),
                    prompt_ids=prompt,
                    completion_ids=ids,
                    in_loss=mask,
                    logprobs=tuple(-10.5 if scored else 0.0 for scored in mask),
                    turn_of_token=tuple(0 if scored else -1 for scored in mask),
                    step_of_token=tuple(step_of_token),
                    turn_values=(0.5,),
                    versions=("v0001",),
                )
            )
        groups.append(TrainingGroup(g, f"scenario-{g}", tuple(members)))
    return groups


def _bare(model_dir: Path, members: Sequence[TrainingMember]) -> float:
    keep_freed_memory()
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model.train()
    tokens, began = 0, time.perf_counter()
    for start in range(0, len(members), BATCH):
        if start == BATCH:
            tokens, began = 0, time.perf_counter()
        batch = members[start : start + BATCH]
        rows = [[*m.prompt_ids, *m.completion_ids] for m in batch]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        present = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        scored = torch.zeros_like(ids, dtype=torch.bool)
        for n, member in enumerate(batch):
            mask = torch.tensor(member.in_loss, dtype=torch.bool)
            scored[n, PROMPT : PROMPT + len(mask)] = mask
        with torch.autocast("cpu", torch.bfloat16, enabled=native_precision() == "bfloat16"):
            logits = model(input_ids=ids, attention_mask=present).logits
        cross_entropy(logits[:, :-1][scored[:, 1:]].float(), ids[:, 1:][scored[:, 1:]]).backward()
        model.zero_grad()
        tokens += sum(map(len, rows))
    return tokens / (time.perf_counter() - began)
