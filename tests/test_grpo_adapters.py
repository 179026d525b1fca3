"""GRPO with an adapter, and with layers computed twice: what learns, what is frozen, what comes out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from store.training_settings import GrpoSettings, SftSettings
from tests.hand_losses import SETTINGS, assert_same, one_step
from tests.test_sft import dialogues
from tests.tiny_model import load_tiny_model, write_moved_model, write_tiny_model
from tests.training_groups import sampled_by, some_groups
from train.grpo import train_grpo
from train.packed import Family, pack, token_logprobs, use_packed_attention
from train.sft import train_sft
from train.training_run import TrainingError, checkpoint_layers, freeze_all_but

torch.set_num_threads(1)
LORA = GrpoSettings(learning_rate=1e-2, scenarios_per_step=2, method="lora", lora_rank=4, kl=0.0)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


class Killed(BaseException):
    """Stands for the process dying: nothing catches it."""


def test_an_adapter_learns_and_its_version_is_full_weights_of_the_same_shape(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(4))
    result = train_grpo(model_dir, tmp_path / "v2", groups, LORA, 1)
    assert result.steps == 2
    before, after = (load_file(place / "model.safetensors") for place in (model_dir, tmp_path / "v2"))
    assert {name: weight.shape for name, weight in after.items()} == {n: w.shape for n, w in before.items()}
    for name, weight in before.items():
        adapts = name.endswith(tuple(f"{module}.weight" for module in LORA.lora_modules))
        assert torch.equal(after[name], weight) != adapts, name
        if adapts:
            assert int(torch.linalg.matrix_rank(after[name] - weight, atol=1e-5)) <= LORA.lora_rank
    load_tiny_model(tmp_path / "v2")


def test_a_killed_run_with_an_adapter_goes_on_with_the_same_result(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(4))
    options: dict[str, Any] = {"run_dir": tmp_path / "run", "checkpoint_every": 1}
    train_grpo(model_dir, tmp_path / "whole", groups, LORA, 1)

    def kill(step: int, steps: int, metrics: dict[str, float]) -> None:
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(model_dir, tmp_path / "resumed", groups, LORA, 1, kill, **options)
    torch.manual_seed(77)  # another process begins with another random state
    train_grpo(model_dir, tmp_path / "resumed", groups, LORA, 1, **options)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name


def test_the_frozen_weights_are_what_the_penalty_is_held_against(model_dir: Path, tmp_path: Path) -> None:
    """At the start the adapter changes nothing, so there is no divergence; a step later there is one."""
    groups = sampled_by(load_tiny_model(model_dir), some_groups(4))
    settings = LORA.model_copy(update={"kl": 0.5})
    seen: list[dict[str, float]] = []
    train_grpo(model_dir, tmp_path / "v2", groups, settings, 1, lambda a, b, metrics: seen.append(metrics))
    assert seen[0]["kl"] == pytest.approx(0, abs=1e-9)
    assert seen[1]["kl"] > 1e-5
    other = [{"kl": 0.0} | m for m in _metrics(model_dir, tmp_path / "v3", groups, LORA)]
    assert seen[0]["loss"] == pytest.approx(other[0]["loss"])
    assert seen[1]["loss"] > other[1]["loss"]


def _metrics(model_dir: Path, out: Path, groups: list[Any], settings: GrpoSettings) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []
    train_grpo(model_dir, out, groups, settings, 1, lambda a, b, metrics: seen.append(metrics))
    return seen


def test_moments_of_another_adapter_are_refused(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(2))
    with pytest.raises(TrainingError, match="fresh one"):
        train_grpo(model_dir, tmp_path / "v2", groups, LORA, 1, optimizer_out=tmp_path / "moments.pt")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "lora", "trained_layers": 4}, "leave trained_layers out"),
        ({"method": "lora", "kl": 0.1, "reference": "v0001"}, "frozen weights are the reference"),
        ({"lora_rank": 8}, 'set method to "lora"'),
        ({"lora_modules": ("q_proj",)}, 'set method to "lora"'),
    ],
)
def test_settings_that_an_adapter_cannot_honour_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GrpoSettings(**given)


def test_a_module_that_the_model_lacks_is_refused_with_those_it_has(model_dir: Path, tmp_path: Path) -> None:
    groups = sampled_by(load_tiny_model(model_dir), some_groups(2))
    settings = LORA.model_copy(update={"lora_modules": ("c_attn",)})
    with pytest.raises(TrainingError, match=r"grpo\.lora_modules names c_attn.*q_proj"):
        train_grpo(model_dir, tmp_path / "v2", groups, settings, 1)


def test_settings_with_an_adapter_read_back_what_they_wrote() -> None:
    assert GrpoSettings(**LORA.model_dump()) == LORA
    assert LORA.trained_layers == 0
    assert GrpoSettings(**GrpoSettings().model_dump(mode="json")) == GrpoSettings()


def test_layers_computed_twice_give_the_same_gradient(model_dir: Path, tmp_path: Path) -> None:
    """Also of a group by an older version, whose ratios need the first pass's logprobs."""
    older = write_moved_model(model_dir, tmp_path / "older")
    groups = sampled_by(load_tiny_model(older), some_groups(3))
    plain = one_step(model_dir, tmp_path, groups, SETTINGS)
    twice = one_step(model_dir, tmp_path, groups, SETTINGS.model_copy(update={"gradient_checkpointing": True}))
    assert twice[0] == plain[0]
    assert_same(twice[1], plain[1])


def test_checkpointed_layers_keep_less_and_compute_again(model_dir: Path) -> None:
    """Counted where it happens: what the backward pass keeps, and how often a layer runs. Dropout stays off."""
    ids = list(range(60))

    def one(checkpointed: bool) -> tuple[int, int, bool]:
        model = load_tiny_model(model_dir)
        model.eval()
        use_packed_attention(model)
        freeze_all_but(model, 1)
        if checkpointed:
            checkpoint_layers(model)
        kept = ran = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        def count(*_: Any) -> None:
            nonlocal ran
            ran += 1

        model.model.layers[1].mlp.register_forward_pre_hook(count)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            row = pack([Family(ids)])
            logprobs, _ = token_logprobs(model, row, torch.arange(59), torch.tensor(ids[1:]))
        logprobs.sum().backward()
        assert model.model.layers[0].mlp.up_proj.weight.grad is None, "what is frozen needs no backward pass"
        return kept, ran, any(m.training for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Dropout))

    plain, checkpointed = one(False), one(True)
    assert checkpointed[0] < 0.6 * plain[0]
    assert (plain[1], checkpointed[1]) == (1, 2)
    assert not checkpointed[2]


def test_a_cold_start_with_layers_computed_twice_has_the_same_weights(model_dir: Path, tmp_path: Path) -> None:
    settings = SftSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    for name, twice in (("plain", False), ("twice", True)):
        wanted = settings.model_copy(update={"gradient_checkpointing": twice})
        train_sft(model_dir, tmp_path / name, dialogues(8), wanted, 0)
    plain, found = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "twice"))
    for name, weight in plain.items():
        assert torch.equal(found[name], weight), name
