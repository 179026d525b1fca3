"""GRPO tokens a second (optimizer step included) against a bare forward and backward pass over the same dialogues.

The peer is what one would write first: the Hugging Face model under the same autocast, dialogues padded in batches of
four, cross-entropy on the sampled tokens, no optimizer. Tokens are counted without padding, a shared prompt once for
each dialogue, on both sides.
"""

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from benchmarks.line import Line
from store.settings import load_settings
from store.training_settings import GrpoSettings
from train.groups import TrainingGroup, TrainingMember
from train.grpo import train_grpo
from train.registry import model_directory
from train.training_run import keep_freed_memory

GROUPS, MEMBERS, PROMPT, BATCH = 8, 8, 130, 4


def measure(home: Path) -> list[Line]:
    model_dir = model_directory(load_settings(home=home.parent))
    groups = _groups()
    everything, _ = _ours(model_dir, groups, home, trained_layers=0)
    defaults, memory = _ours(model_dir, groups, home, trained_layers=GrpoSettings().trained_layers)
    bare = _bare(model_dir, [member for group in groups for member in group.members])
    peer = f"bare forward+backward {bare:.0f}/s"
    return [
        Line("GRPO on all layers: tokens a second", f"{everything:.0f}/s", peer, f"{everything / bare:.2f}", "≥ 0.7"),
        Line("GRPO on the layers that the demo trains", f"{defaults:.0f}/s", peer, f"{defaults / bare:.2f}", "≥ 0.7"),
        Line("GRPO: peak memory of the process", f"{memory:.1f} GiB", "–", "–", "–"),
    ]


def _ours(model_dir: Path, groups: Sequence[TrainingGroup], home: Path, *, trained_layers: int) -> tuple[float, float]:
    """Tokens a second with the optimizer step, and the process's peak resident GiB so far."""
    out = home / "grpo"
    shutil.rmtree(out, ignore_errors=True)
    steps: list[dict[str, float]] = []
    settings = GrpoSettings(scenarios_per_step=2, trained_layers=trained_layers)
    train_grpo(model_dir, out / "made", groups, settings, 1, lambda step, count, metrics: steps.append(metrics))
    shutil.rmtree(out, ignore_errors=True)
    # The first step warms up allocators and kernels, as the peer's first batch does.
    measured = steps[1:]
    return sum(m["tokens"] for m in measured) / sum(m["seconds"] for m in measured), steps[-1]["peak_rss_gib"]


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
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=present).logits
        cross_entropy(logits[:, :-1][scored[:, 1:]].float(), ids[:, 1:][scored[:, 1:]]).backward()
        model.zero_grad()
        tokens += sum(map(len, rows))
    return tokens / (time.perf_counter() - began)
