"""One forward pass over many dialogues without padding, with what they share computed once.

A GRPO group is G continuations of one prompt. Laid out as rows of a padded batch, the prompt is computed G times and
the padding besides. Here a batch is one row of families: a family is a prefix and its continuations, which attend to
the prefix and to themselves. Positions restart in every family, so the result is that of separate sequences (tested to
float32 rounding). Logits exist only where a token is scored, a few hundred positions at a time: a 49,000-word
vocabulary over all positions would not fit in memory.

Works with every transformers model that calls the attention interface and attends to all earlier tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "checkloop_packed"
"""Name of the attention in `model.set_attn_implementation`."""

LOGIT_ROWS = 512
"""Positions whose logits, or their gradients, exist at one time: 512 x 49,158 float32 are 100 MB."""


@dataclass(frozen=True)
class Family:
    """Token ids of a prefix and of its continuations; `continuations` may be empty (one plain sequence)."""

    prefix: Sequence[int]
    continuations: tuple[Sequence[int], ...] = ()

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(map(len, self.continuations))


Piece = tuple[int, int, tuple[int, int], Tensor]
"""(start, stop, (start, stop) of the prefix it continues, what of itself it must not look at: bool (C, C))"""


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a packed row lie; made by `pack`."""

    families: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]
    """(start, stop) of the prefix, then (start, stop) of each continuation."""
    masks: tuple[Tensor, ...]
    """For every piece in order."""

    def pieces(self) -> Iterator[Piece]:
        masks = iter(self.masks)
        for start, stop, spans in self.families:
            yield start, stop, (start, start), next(masks)
            for begin, end in spans:
                yield begin, end, (start, stop), next(masks)


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
    masks: list[Tensor] = []
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
        masks += [_later(prefix), *(_later(stop - begin) for begin, stop in spans)]
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
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"])
    softcap = [name for name in ("attn_logit_softcapping", "final_logit_softcapping") if getattr(config, name, None)]
    if kinds != {"full_attention"} or softcap:
        raise ValueError(
            f"{config.model_type} has layers {sorted(kinds)} and {softcap or 'no soft caps'}: "
            "the trainers support models of plain full attention only"
        )
    model.set_attn_implementation(ATTENTION)


def _later(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)


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
    if dropout:
        raise ValueError("packed attention has no dropout: set attention_dropout to 0")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast, rotation leaves queries and keys in float32.
    return _PackedAttention.apply(query.to(value.dtype), key.to(value.dtype), value, packed_layout, scale), None


AttentionInterface.register(ATTENTION, _packed_attention)


class _PackedAttention(torch.autograd.Function):  # type: ignore[misc]
    """Softmax attention piece by piece; a piece is a prefix (causal) or a continuation (its prefix, then itself).

    Scores and softmax are float32, as in the server; the other products are in the type of the inputs. Query heads that
    share a key head are rows of one product, so keys are never repeated. Shapes: query (1, G * K, T, D), key and value
    (1, K, T, D), result (1, T, G * K, D). PyTorch's own CPU kernel is several times slower in the backward pass.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float
    ) -> Tensor:
        key_heads, length, width = key.shape[1:]
        query = (query[0] * scale).reshape(key_heads, -1, length, width)
        key, value = key[0], value[0]
        output = torch.empty(length, key_heads, query.shape[1], width, dtype=query.dtype, device=query.device)
        kept = []
        for begin, end, prefix, mask in layout.pieces():
            keys, values = _reach(key, prefix, begin, end), _reach(value, prefix, begin, end)
            rows = query[:, :, begin:end].reshape(key_heads, -1, width)
            scores = torch.bmm(rows.float(), keys.float().mT)
            own = scores.view(key_heads, -1, end - begin, scores.shape[-1])[..., begin - end :]
            own.masked_fill_(mask.to(scores.device), -torch.inf)
            weights = scores.softmax(dim=-1).to(query.dtype)
            output[begin:end] = torch.bmm(weights, values).view(key_heads, -1, end - begin, width).permute(2, 0, 1, 3)
            kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.layout, ctx.scale = layout, scale
        return output.view(1, length, -1, width)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        query, key, value, *kept = ctx.saved_tensors
        key_heads, groups, length, width = query.shape
        grad = grad.view(length, key_heads, groups, width).permute(1, 2, 0, 3).to(query.dtype).contiguous()
        grad_query = torch.empty_like(query)
        grad_key = torch.zeros(key.shape, dtype=torch.float32, device=key.device)
        grad_value = torch.zeros_like(grad_key)
        for (begin, end, prefix, _), weights in zip(ctx.layout.pieces(), kept, strict=True):
            keys, values = _reach(key, prefix, begin, end), _reach(value, prefix, begin, end)
            rows = query[:, :, begin:end].reshape(key_heads, -1, width)
            grad_rows = grad[:, :, begin:end].reshape(key_heads, -1, width)
            _add_reach(grad_value, torch.bmm(weights.mT, grad_rows), prefix, begin, end)
            grad_weights = torch.bmm(grad_rows, values.mT)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_query[:, :, begin:end] = torch.bmm(grad_scores, keys).view(key_heads, groups, end - begin, width)
            _add_reach(grad_key, torch.bmm(grad_scores.mT, rows), prefix, begin, end)
        grad_query = (grad_query * ctx.scale).view(1, -1, length, width)
        return grad_query, grad_key[None].to(key.dtype), grad_value[None].to(value.dtype), None, None


def _reach(tensor: Tensor, prefix: tuple[int, int], begin: int, end: int) -> Tensor:
    """Keys or values (K, T, D) that a piece may look at: those of its prefix, then its own."""
    own = tensor[:, begin:end]
    return own if prefix[0] == prefix[1] else torch.cat([tensor[:, prefix[0] : prefix[1]], own], dim=1)


def _add_reach(total: Tensor, part: Tensor, prefix: tuple[int, int], begin: int, end: int) -> None:
    """The transpose of `_reach`, added to `total`."""
    shared = prefix[1] - prefix[0]
    if shared:
        total[:, prefix[0] : prefix[1]] += part[:, :shared]
    total[:, begin:end] += part[:, shared:]


class _ScoredTokens(torch.autograd.Function):  # type: ignore[misc]
    """log p(target) and entropy from hidden states (N, H) and the head's weight (V, H); of the logits only the
    probabilities are kept."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        hidden_type = hidden.dtype
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        hidden, weight_c = hidden.to(dtype), weight.to(dtype)
        rows = min(LOGIT_ROWS, len(hidden))
        raw = torch.empty(rows, len(weight), dtype=dtype, device=hidden.device)
        wide = torch.empty(rows, len(weight), dtype=torch.float32, device=hidden.device)
        probabilities = torch.empty(len(hidden), len(weight), dtype=dtype, device=hidden.device)
        logprobs, entropies = hidden.new_empty(2, len(hidden), dtype=torch.float32)
        for start in range(0, len(hidden), LOGIT_ROWS):
            part = slice(start, min(start + LOGIT_ROWS, len(hidden)))
            count = part.stop - start
            torch.mm(hidden[part], weight_c.T, out=raw[:count])
            logits = wide[:count].copy_(raw[:count])
            if temperature != 1.0:
                logits.div_(temperature)
            chosen = logits.gather(1, targets[part, None])[:, 0]
            peak = logits.amax(dim=-1)
            softmax = logits.softmax(dim=-1)
            # The peak's probability is at least 1 / V, so its logarithm is exact enough to give the normalizer.
            normalizer = peak - softmax.amax(dim=-1).log()
            logprobs[part] = chosen - normalizer
            entropies[part] = normalizer - torch.linalg.vecdot(softmax, logits)
            probabilities[part] = softmax
        ctx.save_for_backward(hidden, weight_c, targets, probabilities)
        ctx.temperature, ctx.types = temperature, (hidden_type, weight.dtype)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_logprobs: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, targets, probabilities = ctx.saved_tensors
        hidden_type, weight_type = ctx.types
        factor = (grad_logprobs / ctx.temperature)[:, None]
        grad_hidden = torch.empty_like(hidden)
        learns = ctx.needs_input_grad[1]
        grad_weight = torch.zeros(weight.shape if learns else (0,), dtype=torch.float32, device=weight.device)
        for start in range(0, len(hidden), LOGIT_ROWS):
            part = slice(start, start + LOGIT_ROWS)
            gradient = probabilities[part] * factor[part].neg().to(probabilities.dtype)
            gradient.scatter_add_(1, targets[part, None], factor[part].to(gradient.dtype))
            torch.mm(gradient, weight, out=grad_hidden[part])
            if learns and gradient.dtype is torch.float32:
                grad_weight.addmm_(gradient.T, hidden[part])
            elif learns:
                grad_weight.add_(gradient.T @ hidden[part])
        return grad_hidden.to(hidden_type), grad_weight.to(weight_type) if learns else None, None, None
