"""bfloat16 passes with float32 weights: a twin of the model computes, the model itself learns.

Autocast keeps the residual stream in float32 and casts every weight in every pass. The twin is bfloat16 throughout, as
the server's copy is, so that its logprobs are the server's and its activations take half the room. Gradients are added
up in float32 on the model, which the optimizer steps (an update of 2e-5 would vanish in bfloat16).
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class Bfloat16Twin:
    """`model` is the twin to run forward and backward; its gradients appear on the parameters of `master`.

    With `wanted` false (a run in float32 throughout) `model` is the master itself.
    """

    def __init__(self, master: PreTrainedModel, wanted: bool = True) -> None:
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.model: PreTrainedModel = copy.deepcopy(master) if wanted else master
        if not wanted:
            return
        for wide, narrow in zip(master.parameters(), self.model.parameters(), strict=True):
            # Parameters only: a rotary embedding's frequencies are a buffer and must stay float32.
            narrow.data = narrow.data.to(torch.bfloat16)
            if wide.requires_grad:
                self._pairs.append((wide, narrow))
                narrow.register_post_accumulate_grad_hook(_hand_over(wide))

    def refresh(self) -> None:
        """Take over the weights of the master that learn: before every step."""
        with torch.no_grad():
            for wide, narrow in self._pairs:
                narrow.copy_(wide)


def _hand_over(wide: nn.Parameter) -> Callable[[Tensor], None]:
    def add(narrow: Tensor) -> None:
        assert narrow.grad is not None
        gradient, narrow.grad = narrow.grad, None
        if wide.grad is None:
            wide.grad = gradient.to(wide.dtype)
        else:
            wide.grad.add_(gradient)

    return add
