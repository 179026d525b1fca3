"""One forward pass over many dialogues without padding, with what they share computed once.

A GRPO group is G continuations of one prompt. Laid out as rows of a padded batch, the prompt is computed G times and
the padding besides. Here a batch is one row of families: a family is a prefix and its continuations, which attend to
the prefix and to themselves. Positions restart in every family, so the result is that of separate sequences (tested to
float32 rounding). Logits exist only where a token is scored, a few hundred positions at a time: a 49,000-word
vocabulary over all positions would not fit in memory.

Works with every transformers model that calls the attention interface and attends to all earlier tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "checkloop_packed"
"""Name of the attention in `model.set_attn_implementation`."""

LOGIT_ROWS = 512
"""Positions whose logits exist at one time: 512 x 49,158 float32 are 100 MB."""


@dataclass(frozen=True)
class Family:
    """Token ids of a prefix and of its continuations; `continuations` may be empty (one plain sequence)."""

    prefix: Sequence[int]
    continuations: tuple[Sequence[int], ...] = ()

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(map(len, self.continuations))


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a packed row lie; made by `pack`."""

    families: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]
    """(start, stop) of the prefix, then (start, stop) of each continuation."""
    masks: tuple[tuple[Tensor, ...], ...]
    """For each continuation, bool (C, P + C): what it may look at."""


@dataclass(frozen=True)
class PackedRow:
    ids: Tensor
    """(1, T)"""
    positions: Tensor
    """(1, T)"""
    layout: Layout


def pack(families: Sequence[Family]) -> PackedRow:
    """Lay families out as one row. Raises ValueError for a family without a prefix or with an empty continuation."""
    ids: list[int] = []
    positions: list[int] = []
    places: list[tuple[int, int, tuple[tuple[int, int], ...]]] = []
    masks: list[tuple[Tensor, ...]] = []
    for family in families:
        prefix = len(family.prefix)
        if prefix == 0 or not all(map(len, family.continuations)):
            raise ValueError("a family needs a prefix of at least one token, and its continuations too")
        start = len(ids)
        ids.extend(family.prefix)
        positions.extend(range(prefix))
        spans = []
        for continuation in family.continuations:
            spans.append((len(ids), len(ids) + len(continuation)))
            ids.extend(continuation)
            positions.extend(range(prefix, prefix + len(continuation)))
        places.append((start, start + prefix, tuple(spans)))
        masks.append(tuple(_continuation_mask(prefix, stop - begin) for begin, stop in spans))
    return PackedRow(torch.tensor([ids]), torch.tensor([positions]), Layout(tuple(places), tuple(masks)))


def token_logprobs(
    model: PreTrainedModel, row: PackedRow, sources: Tensor, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of `targets` (N,) as predicted at the positions `sources` (N,) of the row, and entropies.

    float32; the entropies carry no gradient. Under autocast the projections run in its type, the softmax in float32.
    """
    hidden = model.base_model(
        input_ids=row.ids.to(model.device),
        position_ids=row.positions.to(model.device),
        use_cache=False,
        packed_layout=row.layout,
    ).last_hidden_state
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ValueError(f"the language-model head of {type(model).__name__} is not a linear layer without bias")
    scored = hidden[0].index_select(0, sources.to(model.device))
    logprobs, entropies = _ScoredTokens.apply(scored, head.weight, targets.to(model.device), temperature)
    return logprobs, entropies


def use_packed_attention(model: PreTrainedModel) -> None:
    """Switch the model to packed attention. Raises ValueError for models that do not attend to all earlier tokens."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    softcap = [name for name in ("attn_logit_softcapping", "final_logit_softcapping") if getattr(config, name, None)]
    if kinds != {"full_attention"} or softcap:
        raise ValueError(
            f"{config.model_type} has layers {sorted(kinds)} and {softcap or 'no soft caps'}: "
            "the trainers support models of plain full attention only"
        )
    model.set_attn_implementation(ATTENTION)


def _continuation_mask(prefix: int, length: int) -> Tensor:
    mask = torch.ones(length, prefix + length, dtype=torch.bool)
    return mask.tril(diagonal=prefix)


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over (1, heads, T, D) in the layout of the row; the output is (1, T, heads, D)."""
    if packed_layout is None or attention_mask is not None:
        raise ValueError("a model with packed attention is called through token_logprobs only")
    groups = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(groups, dim=1)
    value = value.repeat_interleave(groups, dim=1)
    pieces = []
    for (start, stop, spans), masks in zip(packed_layout.families, packed_layout.masks, strict=True):
        prefix_key, prefix_value = key[:, :, start:stop], value[:, :, start:stop]
        pieces.append(
            scaled_dot_product_attention(
                query[:, :, start:stop], prefix_key, prefix_value, dropout_p=dropout, scale=scaling, is_causal=True
            )
        )
        for (begin, end), mask in zip(spans, masks, strict=True):
            pieces.append(
                scaled_dot_product_attention(
                    query[:, :, begin:end],
                    torch.cat([prefix_key, key[:, :, begin:end]], dim=2),
                    torch.cat([prefix_value, value[:, :, begin:end]], dim=2),
                    attn_mask=mask.to(query.device),
                    dropout_p=dropout,
                    scale=scaling,
                )
            )
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _packed_attention)


class _ScoredTokens(torch.autograd.Function):
    """log p(target) and entropy from hidden states (N, H) and the head's weight (V, H); logits are made twice and
    never kept."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        hidden_c, weight_c = hidden.to(dtype), weight.to(dtype)
        normalizers, logprobs, entropies = [], [], []
        for chunk, target in zip(hidden_c.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
            logits = (chunk @ weight_c.T).float().div_(temperature)
            normalizer = logits.logsumexp(dim=-1)
            logprobs.append(logits.gather(1, target[:, None])[:, 0] - normalizer)
            probabilities = logits.sub(normalizer[:, None]).exp_()
            entropies.append(normalizer - probabilities.mul_(logits).sum(dim=-1))
            normalizers.append(normalizer)
        ctx.save_for_backward(hidden_c, weight_c, targets, torch.cat(normalizers) if normalizers else hidden.new_empty(0))
        ctx.temperature, ctx.types = temperature, (hidden.dtype, weight.dtype)
        empty = hidden.new_empty(0, dtype=torch.float32)
        result = (torch.cat([empty, *logprobs]), torch.cat([empty, *entropies]))
        ctx.mark_non_differentiable(result[1])
        return result

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_logprobs: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets, normalizers = ctx.saved_tensors
        hidden_type, weight_type = ctx.types
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        grad_hidden = torch.empty(hidden.shape, dtype=hidden_type, device=hidden.device)
        for start in range(0, len(hidden), LOGIT_ROWS):
            part = slice(start, start + LOGIT_ROWS)
            chunk, target = hidden[part], targets[part]
            gradient = (chunk @ weight.T).float().div_(ctx.temperature)
            gradient.sub_(normalizers[part, None]).exp_().neg_()
            gradient.scatter_add_(1, target[:, None], torch.ones_like(gradient[:, :1]))
            gradient.mul_(grad_logprobs[part, None] / ctx.temperature)
            narrow = gradient.to(weight.dtype)
            grad_hidden[part] = (narrow @ weight).to(hidden_type)
            grad_weight += narrow.T @ chunk
        return grad_hidden, grad_weight.to(weight_type), None, None
