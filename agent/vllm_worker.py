"""What checkloop adds to vLLM's worker (`--worker-extension-cls`); runs inside the server's process.

On the CPU vLLM packs each linear layer's weights for oneDNN when it loads them. `reload_weights` packs them again, but
not those of an output layer that shares the embedding's weights (tie_word_embeddings): that one goes on answering with
the old weights (vLLM 0.31).
"""

from typing import Any


class OutputLayer:
    """Mixed into the worker class."""

    model_runner: Any

    def repack_output_layer(self) -> None:
        """Packs the output layer's present weights. Call it after `reload_weights`; a few hundredths of a second."""
        head = getattr(self.model_runner.get_model(), "lm_head", None)
        if head is not None and hasattr(head, "quant_method"):
            head.quant_method.process_weights_after_loading(head)
