"""The packed forward pass gives what separate sequences through the plain model give."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.tiny_model import VOCABULARY, load_tiny_model, write_tiny_model
from train.packed import Family, pack, token_logprobs, use_packed_attention

torch.set_num_threads(1)


def ids(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(VOCABULARY) for _ in range(length)]


def separately(model: LlamaForCausalLM, families: list[Family], temperature: float) -> tuple[Tensor, Tensor]:
    """Logprobs of every continuation token (or of a plain sequence's tokens after the first), and entropies."""
    logprobs, entropies = [], []
    for family in families:
        for continuation in family.continuations or ((),):
            sequence = [*family.prefix, *continuation]
            first = len(family.prefix) if continuation else 1
            logits = model(torch.tensor([sequence])).logits[0].div(temperature)
            distribution = torch.distributions.Categorical(logits=logits)
            logprobs += [distribution.logits[i - 1, sequence[i]] for i in range(first, len(sequence))]
            entropies += [distribution.entropy()[i - 1] for i in range(first, len(sequence))]
    return torch.stack(logprobs), torch.stack(entropies)


def scored_places(families: list[Family]) -> tuple[Tensor, Tensor]:
    sources: list[int] = []
    targets: list[int] = []
    for (start, stop, spans), family in zip(pack(families).layout.families, families, strict=True):
        if not spans:
            sources += range(start, stop - 1)
            targets += family.prefix[1:]
        for (begin, end), continuation in zip(spans, family.continuations, strict=True):
            sources += [stop - 1, *range(begin, end - 1)]
            targets += continuation
    return torch.tensor(sources), torch.tensor(targets)


@pytest.mark.parametrize(("seed", "rows"), [(0, 512), (1, 512), (2, 5), (3, 1)])
def test_logprobs_and_gradients_equal_those_of_separate_sequences(
    tmp_path: Path, seed: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many positions have their logits at one time."""
    monkeypatch.setattr("train.packed.LOGIT_ROWS", rows)
    rng = random.Random(seed)
    plain = load_tiny_model(write_tiny_model(tmp_path / "m", seed))
    packed = load_tiny_model(tmp_path / "m")
    use_packed_attention(packed)
    families = [
        Family(ids(rng, 7), tuple(ids(rng, rng.randrange(1, 9)) for _ in range(3))),
        Family(ids(rng, 6)),
        Family(ids(rng, 1), (ids(rng, 5),)),
    ]
    expected, expected_entropies = separately(plain, families, temperature=0.7)
    sources, targets = scored_places(families)
    logprobs, entropies = token_logprobs(packed, pack(families), sources, targets, temperature=0.7)
    assert torch.allclose(logprobs, expected, atol=2e-5)
    assert torch.allclose(entropies, expected_entropies, atol=2e-5)

    weights = torch.randn(len(expected), generator=torch.Generator().manual_seed(seed))
    (expected * weights).sum().backward()
    (logprobs * weights).sum().backward()
    for (name, mine), theirs in zip(packed.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=2e-4), name


def test_a_continuation_does_not_see_its_siblings(tmp_path: Path) -> None:
    model = load_tiny_model(write_tiny_model(tmp_path / "m"))
    use_packed_attention(model)
    rng = random.Random(1)
    prefix, first = ids(rng, 5), ids(rng, 4)
    found = []
    for sibling in (ids(rng, 4), ids(rng, 4)):
        families = [Family(prefix, (sibling, first))]
        sources, targets = scored_places(families)
        found.append(token_logprobs(model, pack(families), sources, targets)[0][4:])
    assert torch.equal(found[0], found[1])


def test_models_that_do_not_attend_to_all_earlier_tokens_are_refused() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = MistralConfig(vocab_size=8, num_hidden_layers=1, sliding_window=4, **sizes)
    with pytest.raises(ValueError, match="full attention only"):
        use_packed_attention(MistralForCausalLM(config))


def test_the_packed_model_refuses_a_plain_forward_pass(tmp_path: Path) -> None:
    model = load_tiny_model(write_tiny_model(tmp_path / "m"))
    use_packed_attention(model)
    with pytest.raises(ValueError, match="token_logprobs only"):
        model(torch.tensor([[1, 2, 3]]))


def test_head_with_other_vocabulary_than_the_embedding_keeps_its_own_gradient() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    use_packed_attention(model)
    families = [Family([1, 2, 3, 4])]
    logprobs, _ = token_logprobs(model, pack(families), *scored_places(families))
    logprobs.sum().backward()
    assert model.lm_head.weight.grad.abs().sum() > 0
    assert model.model.embed_tokens.weight.grad[5:].abs().sum() == 0
