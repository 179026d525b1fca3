"""Proof that a server answers with the weights it should: logprobs of a probe batch (invariant 4).

Every version's directory holds `probe.json`: the same prompts' ids for all versions, and the trainer's logprobs of
them under that version's weights. After a swap the server is asked for the same numbers.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

PROBE_FILE = "probe.json"
PROBE_PROMPTS, PROBE_TOKENS = 16, 32
"""So many prompts of at most so many tokens. During a swap nobody is answered while the server takes a third of a
second for all of them on two cores; with an adapter, beside running steps, each takes about as long."""
MIN_CLOSENESS = 0.5
MAX_ERROR = 0.4
"""Nats: mean absolute difference that bfloat16 serving of fp32 weights stays below, even where the model is sure."""


@dataclass(frozen=True)
class Probe:
    """`ids`: prompts; `logprobs`: for each prompt, log p of every token after the first (nats, natural log)."""

    ids: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Proof:
    """`closeness`: where the server stands between the old (0) and the new (1) weights; None if they do not differ."""

    accepted: bool
    reason: str
    error: float
    """Mean absolute difference to the trainer's logprobs under the new weights, nats."""
    closeness: float | None
    change: float | None
    """Mean absolute difference between old and new, nats."""

    def figures(self) -> dict[str, Any]:
        """As JSON takes them: an error that could not be measured is None."""
        return asdict(self) | {"error": self.error if math.isfinite(self.error) else None}


def probe_of(dialogues: Iterable[Sequence[int]]) -> list[list[int]]:
    """Prompts to probe versions with: how the first dialogues end, where the policy's own words are, which training
    changes most. Any ids will do, as long as server and trainer are asked for the same."""
    ends = (list(ids[-PROBE_TOKENS:]) for ids in dialogues if len(ids) >= 2)
    return list(islice(ends, PROBE_PROMPTS))


def read_probe(version_dir: Path) -> Probe | None:
    """The probe of a version, or None where the version carries none (a model registered as it came)."""
    file = version_dir / PROBE_FILE
    if not file.is_file():
        return None
    value = json.loads(file.read_text())
    return Probe(tuple(map(tuple, value["ids"])), tuple(map(tuple, value["logprobs"])))


def mean_change(one: Probe, other: Probe) -> float:
    """Mean absolute difference of two versions' own logprobs of the same prompts, nats a token."""
    pairs = [(a, b) for x, y in zip(one.logprobs, other.logprobs, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / max(len(pairs), 1)


NOISE_FACTOR, NOISE_MARGIN = 2.0, 0.03
"""A server may be so much further from the trainer than it was before the swap (times, plus nats)."""


def weigh_proof(
    server: Sequence[Sequence[float]],
    new: Sequence[Sequence[float]],
    old: Sequence[Sequence[float]] | None,
    noise: float | None = None,
) -> Proof:
    """Whether `server`'s logprobs come from the new weights, all of them.

    `noise` is the error of the same server's last accepted proof: rounding. A layer that kept old weights (an output
    layer packed at start, say) shows as an error above it even where the rest has moved.

    The server's difference from the old logprobs is projected on the difference that training made:
    closeness = <server - old, new - old> / <new - old, new - old>. Rounding noise of the server is not aligned with
    the training step, so it averages out even when the step is smaller than the noise.
    """
    s, n = [x for row in server for x in row], [x for row in new for x in row]
    if len(s) != len(n):
        return Proof(False, f"the server answered {len(s)} logprobs for {len(n)} tokens", float("inf"), None, None)
    error = sum(abs(a - b) for a, b in zip(s, n, strict=True)) / max(len(n), 1)
    if error > MAX_ERROR:
        return Proof(
            False, f"the server is {error:.3f} nats a token away from the trainer's logprobs", error, None, None
        )
    if noise is not None and error > NOISE_FACTOR * noise + NOISE_MARGIN:
        return Proof(
            False,
            f"the server is {error:.3f} nats a token away from the trainer's logprobs, and was {noise:.3f} away before "
            "the swap: some of its weights are not the new ones",
            error,
            None,
            None,
        )
    if old is None:
        return Proof(True, "agrees with the trainer; there is no earlier version to tell it from", error, None, None)
    o = [x for row in old for x in row]
    change = sum(abs(a - b) for a, b in zip(n, o, strict=True)) / max(len(n), 1)
    norm = sum((a - b) ** 2 for a, b in zip(n, o, strict=True))
    if norm < 1e-12:
        return Proof(True, "agrees with the trainer; old and new weights answer alike", error, None, change)
    closeness = sum((a - c) * (b - c) for a, b, c in zip(s, n, o, strict=True)) / norm
    if closeness < MIN_CLOSENESS:
        return Proof(
            False, f"the server still answers like the old weights ({closeness:.2f})", error, closeness, change
        )
    return Proof(True, "agrees with the trainer and differs from the old weights", error, closeness, change)
