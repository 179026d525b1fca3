"""What checkloop adds to vLLM's worker (`--worker-extension-cls`); runs inside the server's process, on the CPU.

On the CPU vLLM packs each linear layer's weights for oneDNN when it loads them. `reload_weights` packs them again, but
not those of an output layer that shares the embedding's weights (tie_word_embeddings): that one goes on answering with
the old weights (vLLM 0.31).

Without compilation vLLM's CPU build takes a norm apart into eight PyTorch operations, each a pass over memory and a
meeting of all threads, though it brings a kernel for it; and it samples a token by drawing one random number for every
word of the vocabulary. Together they are a quarter of a small model's step. (Its kernel for the activation is slower
than PyTorch's: it stays unused.)
"""

from types import MethodType
from typing import Any

import torch

BLOCK = 256
"""Words summed at once by `draw_tokens`."""


class CpuWorker:
    """Mixed into the worker class."""

    model_runner: Any

    def repack_output_layer(self) -> None:
        """Packs the output layer's present weights. Call it after `reload_weights`; a few hundredths of a second."""
        head = getattr(self.model_runner.get_model(), "lm_head", None)
        if head is not None and hasattr(head, "quant_method"):
            head.quant_method.process_weights_after_loading(head)

    def use_own_kernels(self) -> None:
        """One kernel for each norm, two random numbers for each token. Call it once, after the start."""
        from vllm.model_executor.layers.layernorm import RMSNorm
        from vllm.v1.sample.ops import topk_topp_sampler

        for layer in self.model_runner.get_model().modules():
            if type(layer) is RMSNorm and layer.has_weight and layer.variance_size_override is None:
                layer._forward_method = MethodType(rms_norm, layer)
        topk_topp_sampler.compiled_random_sample = draw_from_logits


def rms_norm(
    layer: Any, x: torch.Tensor, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """x (tokens, hidden) normed and weighed by `layer`; with a residual their sum is, in place, and is returned too."""
    if not x.is_contiguous() or x.dtype != layer.weight.dtype:
        return layer.forward_native(x, residual)
    if residual is None:
        out = torch.empty(x.shape, dtype=x.dtype)
        torch.ops._C.rms_norm(out, x, layer.weight.data, layer.variance_epsilon)
        return out
    torch.ops._C.fused_add_rms_norm(x, residual, layer.weight.data, layer.variance_epsilon)
    return x, residual


def draw_from_logits(logits: torch.Tensor) -> torch.Tensor:
    """One token for each row of logits (rows, vocabulary), by its probability: (rows,) int64."""
    return draw_tokens(logits.softmax(dim=-1, dtype=torch.float32))


def draw_tokens(probabilities: torch.Tensor) -> torch.Tensor:
    """One token for each row of probabilities (rows, vocabulary), float32: (rows,) int64.

    A block of words is drawn by its sum, then a word in it, each by where a uniform number falls among the running
    sums. What has no probability is never drawn.
    """
    rows, words = probabilities.shape
    if rest := -words % BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, rest))
    blocks = probabilities.view(rows, -1, BLOCK)
    block = _draw(blocks.sum(-1))
    word = _draw(blocks[torch.arange(rows), block])
    return block * BLOCK + word


def _draw(weights: torch.Tensor) -> torch.Tensor:
    """The index of one weight for each row, weights (rows, n)."""
    sums = weights.cumsum(-1)
    at = torch.rand(len(weights), 1) * sums[:, -1:]
    drawn = torch.searchsorted(sums, at, right=True).squeeze(1)
    # The uniform number may round up to the whole sum, behind the last weight.
    return torch.where(drawn < weights.shape[1], drawn, weights.argmax(-1))
