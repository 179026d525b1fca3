"""Which arithmetic this machine is fast at: bfloat16 where the hardware multiplies it, else float32.

A CPU without such instructions takes a bfloat16 product apart: five to ten times slower than the same one in float32
(an AMD EPYC of the third generation: 12 against 110 GFLOP/s on two cores).
"""

from collections.abc import Mapping
from functools import cache
from typing import Literal

Precision = Literal["bfloat16", "float32"]

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities`: AVX-512 and AMX on x86, NEON's and SVE's on ARM."""


@cache
def native_precision() -> Precision:
    """Of the accelerator, if there is one that PyTorch can use, else of the CPU."""
    import torch  # here: whoever names a precision in the settings need not load it

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return cpu_precision(torch.cpu.get_capabilities())


def cpu_precision(capabilities: Mapping[str, object]) -> Precision:
    """Of a CPU with these capabilities, as `torch.cpu.get_capabilities` names them."""
    return "bfloat16" if any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS) else "float32"
