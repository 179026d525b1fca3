"""bfloat16 where the hardware multiplies it, else float32; server and trainers follow it, or their setting."""

from pathlib import Path

import pytest

from agent import vllm_server
from agent.precision import cpu_precision
from agent.vllm_server import VllmServer
from store.settings import ServerSettings
from train import training_run
from train.training_run import shared_arguments


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({"avx512_f": True, "avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, "bfloat16"),
        ({"architecture": "aarch64", "neon": True}, "float32"),
    ],
)
def test_a_cpu_computes_in_what_it_multiplies(capabilities: dict[str, object], wanted: str) -> None:
    assert cpu_precision(capabilities) == wanted


@pytest.mark.parametrize("native", ["bfloat16", "float32"])
@pytest.mark.parametrize("said", ["auto", "bfloat16", "float32"])
def test_server_and_trainer_follow_it_or_their_setting(
    native: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (vllm_server, training_run):
        monkeypatch.setattr(module, "native_precision", lambda: native)
    wanted = native if said == "auto" else said
    command = VllmServer("live", 1, tmp_path, ServerSettings(dtype=said), tmp_path)._command()
    assert command[command.index("--dtype") + 1] == wanted
    assert shared_arguments(tmp_path, 0, 1e-4, said)["bf16"] is (wanted == "bfloat16")  # type: ignore[arg-type]
