"""TRL's GRPO trainer, loaded without vLLM.

Where vLLM is installed TRL imports all of it, to generate with: 8 CPU seconds and 180 MiB of every training process.
Here what is trained on comes from the log.
"""

import trl.import_utils as import_utils

import_utils.is_vllm_available = lambda min_version=None: False

from trl import GRPOConfig, GRPOTrainer  # noqa: E402  (after that is known)

__all__ = ["GRPOConfig", "GRPOTrainer"]
