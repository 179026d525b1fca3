"""What the difference between the policy that sampled and the one that learns does to a token's weight. Pure.

A logged token was sampled by a behaviour policy mu (an older version, or the same one in a server's arithmetic) and is
trained on under pi. Its PPO loss carries the ratio pi / mu; here is what bounds it. The names are those of TRL's
`vllm_importance_sampling_mode`: *_truncate is truncated importance sampling (CM2, token level), *_mask drops what lies
outside of an interval (IcePop), sequence_* takes one ratio for all tokens of a trajectory. Of these, "product" is the
importance weight of the whole sequence (TRL), "geometric" its length-normalized form (GSPO, equation 7); each token
keeps its own advantage and gradient (GSPO-token, equation 13).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from store.training_settings import GrpoSettings

LOG_LIMIT = 30.0
"""Of a sequence's log ratio, either way: beyond it float32 has no number for the ratio."""


@dataclass(frozen=True)
class Correction:
    """B trajectories, T completion tokens; nothing carries a gradient."""

    log_ratio: Tensor
    """(B, T): of the ratio that PPO clips; with sequence_* the same for all tokens of a trajectory."""
    factor: Tensor
    """(B, T): times the token's PPO loss, whose gradient carries the ratio already: min(ratio, cap) / ratio, or 1 where
    a mask keeps it. 0 outside of the loss."""
    vetoed: Tensor
    """(B,): some token in the loss has a ratio below `importance_veto`."""
    masked: Tensor
    """(B, T): in the loss, not vetoed, and left out by a mask."""


def correct(logprobs: Tensor, behaviour: Tensor, mask: Tensor, settings: GrpoSettings) -> Correction:
    """The correction that `settings.correction` names, of logprobs (B, T) under pi and under mu; `mask` (B, T) is true
    on tokens in the loss."""
    of_token = logprobs - behaviour
    vetoed = ((of_token.exp() < settings.importance_veto) & mask).any(dim=1)
    log_ratio = _of_sequence(of_token, mask, settings) if settings.correction.startswith("sequence_") else of_token
    ratio = log_ratio.exp()
    kept = mask & ~vetoed[:, None]
    if settings.correction.endswith("_mask"):
        inside = (ratio >= settings.importance_low) & (ratio <= settings.importance_cap)
        factor = inside.to(ratio.dtype)
    else:
        inside = torch.ones_like(kept)
        factor = ratio.clamp(max=settings.importance_cap) / ratio.clamp(min=1e-30)
    return Correction(log_ratio, torch.where(kept, factor, torch.zeros_like(factor)), vetoed, kept & ~inside)


def _of_sequence(of_token: Tensor, mask: Tensor, settings: GrpoSettings) -> Tensor:
    total = (of_token * mask).sum(dim=1, keepdim=True)
    if settings.sequence_ratio == "geometric":
        total = total / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return total.clamp(-LOG_LIMIT, LOG_LIMIT).expand_as(of_token)
