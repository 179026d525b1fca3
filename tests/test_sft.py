"""train_sft learns the tokens in the loss, leaves a loadable version, and leaves nothing when it cannot."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from agent.proof import read_probe
from store.training_settings import SftSettings
from tests.tiny_model import VOCABULARY, load_tiny_model, write_tiny_model
from train import checkpoints, sft
from train.checkpoints import CheckpointError, check_files, write_probe
from train.packed import use_packed_attention
from train.sft import SftExample, train_sft
from train.training_run import TrainingError

torch.set_num_threads(1)

SETTINGS = SftSettings(learning_rate=1e-2, epochs=3, batch_size=8)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def dialogues(count: int, seed: int = 0) -> list[SftExample]:
    """After any prompt the assistant says 10 11 12 13; the rest is noise that cannot be learnt."""
    rng = random.Random(seed)
    examples = []
    for _ in range(count):
        prompt = [rng.randrange(20, VOCABULARY) for _ in range(rng.randrange(3, 9))]
        examples.append(SftExample([*prompt, 10, 11, 12, 13, 14], [0] * len(prompt) + [1] * 4 + [0]))
    return examples


def test_learns_what_the_assistant_says(model_dir: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    examples = dialogues(32)
    result = train_sft(model_dir, tmp_path / "v1", examples, SETTINGS, 0, lambda *args: seen.append(args))

    assert [(step, steps) for step, steps, _ in seen] == [(n, 12) for n in range(1, 13)]
    assert seen[-1][2]["loss"] < 0.3 < seen[0][2]["loss"]
    assert result.steps == 12
    assert result.tokens == 3 * sum(len(e.ids) for e in examples)
    assert result.loss == pytest.approx(sum(metrics["loss"] for _, _, metrics in seen[-4:]) / 4)

    trained = load_tiny_model(tmp_path / "v1")
    following = []
    prompt = [30, 31, 32, 10]
    for _ in range(3):
        following.append(int(trained(torch.tensor([prompt + following])).logits[0, -1].argmax()))
    assert following == [11, 12, 13]


def test_the_version_is_whole_hashed_and_float32(model_dir: Path, tmp_path: Path) -> None:
    result = train_sft(model_dir, tmp_path / "v1", dialogues(8), SETTINGS, 0)
    check_files(tmp_path / "v1", result.files)
    weights = load_file(tmp_path / "v1" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert AutoTokenizer.from_pretrained(tmp_path / "v1").eos_token == "w2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1"]


def test_the_probe_is_the_trained_models_and_the_weights_are_loaded_once(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[30, 31, 32, 10], [40, 10, 11]]
    train_sft(model_dir, tmp_path / "plain", dialogues(8), SETTINGS, 0)
    write_probe(tmp_path / "plain", prompts)
    loads = []
    load = sft.load_policy
    monkeypatch.setattr(sft, "load_policy", lambda path: loads.append(path) or load(path))
    monkeypatch.setattr(checkpoints, "load_policy", lambda path: loads.append(path) or load(path))
    train_sft(model_dir, tmp_path / "probed", dialogues(8), SETTINGS, 0, probe_ids=prompts)
    assert loads == [model_dir]
    wanted, found = read_probe(tmp_path / "plain"), read_probe(tmp_path / "probed")
    assert wanted is not None and found is not None and found.ids == wanted.ids
    for one, other in zip(found.logprobs, wanted.logprobs, strict=True):
        assert list(one) == pytest.approx(list(other), abs=1e-3)


def test_same_seed_same_weights_other_seed_other_weights(model_dir: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_sft(model_dir, tmp_path / name, dialogues(24), SETTINGS, seed)
        weights.append(load_file(tmp_path / name / "model.safetensors")["model.norm.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_gradient_of_a_batch_does_not_depend_on_micro_batches(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    losses: dict[int, list[float]] = {4096: [], 20: []}
    for room, of_room in losses.items():
        monkeypatch.setattr(sft, "MICRO_BATCH_TOKENS", room)

        def keep(step: int, steps: int, metrics: dict[str, float], kept: list[float] = of_room) -> None:
            kept.append(metrics["loss"])

        train_sft(model_dir, tmp_path / str(room), dialogues(16), SETTINGS, 0, keep)
    assert len(sft._collate([{"input_ids": [1] * 12, "labels": [-100] + [1] * 11}] * 3)["micro_batches"]) == 3
    assert losses[20] == pytest.approx(losses[4096], rel=0.05)


def test_loss_is_the_mean_over_all_tokens_in_the_loss_of_the_batch(model_dir: Path, tmp_path: Path) -> None:
    examples = dialogues(8)
    first: list[float] = []
    train_sft(model_dir, tmp_path / "v1", examples, SETTINGS, 0, lambda a, b, m: first.append(m["loss"]))
    model = load_tiny_model(model_dir)
    nats, count = 0.0, 0
    for example in examples:
        logprobs = model(torch.tensor([example.ids])).logits[0].log_softmax(-1).detach()
        for i, kept in enumerate(example.loss_mask):
            if kept:
                nats -= float(logprobs[i - 1, example.ids[i]])
                count += 1
    assert first[0] == pytest.approx(nats / count, rel=0.02)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no dialogues"),
        ([SftExample([1, 2], [0])], "loss mask of 1"),
        ([SftExample([1, 2], [1, 1])], "prompt without loss"),
        ([SftExample([1, 2], [0, 0])], "at least one token in the loss"),
        ([SftExample([1, VOCABULARY], [0, 1])], f"token id {VOCABULARY}"),
    ],
)
def test_examples_that_cannot_be_trained_on_are_refused(
    model_dir: Path, tmp_path: Path, examples: list[SftExample], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train_sft(model_dir, tmp_path / "v1", examples, SETTINGS, 0)
    assert not (tmp_path / "v1").exists()


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"there is no model in .*nowhere"):
        train_sft(tmp_path / "nowhere", tmp_path / "v1", dialogues(2), SETTINGS, 0)


def test_a_version_is_never_overwritten(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    with pytest.raises(CheckpointError, match="immutable"):
        train_sft(model_dir, tmp_path / "v1", dialogues(2), SETTINGS, 0)


def test_loss_that_is_not_a_number_stops_the_run(model_dir: Path, tmp_path: Path) -> None:
    broken = load_tiny_model(model_dir)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    for file in model_dir.glob("tokenizer*"):
        (tmp_path / "broken" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(TrainingError, match="step 1: loss nan"):
        train_sft(tmp_path / "broken", tmp_path / "v1", dialogues(8), SETTINGS, 0)
    assert not (tmp_path / "v1").exists()


def test_packed_attention_is_not_written_into_the_version(model_dir: Path, tmp_path: Path) -> None:
    train_sft(model_dir, tmp_path / "v1", dialogues(2), SETTINGS, 0)
    loaded = load_tiny_model(tmp_path / "v1")
    assert loaded.config._attn_implementation == "sdpa"
    use_packed_attention(loaded)
