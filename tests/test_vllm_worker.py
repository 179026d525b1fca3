"""How tokens are drawn on the CPU (agent/vllm_worker.py)."""

import pytest
import torch

from agent.vllm_worker import BLOCK, draw_from_logits, draw_tokens


@pytest.mark.parametrize("words", [10, BLOCK, 2 * BLOCK + 7])
def test_tokens_are_drawn_by_their_probability(words: int) -> None:
    """100,000 draws of a random distribution: Pearson's statistic over the words that are expected 20 times or more
    lies within five standard deviations of its degrees of freedom."""
    torch.manual_seed(1)
    probabilities = torch.randn(words).mul(1.5).softmax(-1)
    draws = draw_tokens(probabilities.expand(100_000, words))
    counts = torch.bincount(draws, minlength=words)
    expected = 100_000 * probabilities
    often = expected >= 20
    statistic = ((counts - expected)[often] ** 2 / expected[often]).sum().item()
    freedom = int(often.sum())
    assert freedom >= 10
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_a_word_that_is_masked_is_never_drawn() -> None:
    torch.manual_seed(1)
    logits = torch.full((20_000, 3 * BLOCK + 5), float("-inf"))
    logits[:, [3, BLOCK - 1, 2 * BLOCK]] = 1.0
    assert set(draw_from_logits(logits).tolist()) == {3, BLOCK - 1, 2 * BLOCK}


def test_a_number_rounded_up_to_the_whole_sum_draws_a_word_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.rand is below 1, its product with the sum need not be."""
    monkeypatch.setattr(torch, "rand", torch.ones)
    probabilities = torch.zeros(2, 2 * BLOCK)
    probabilities[0, 5] = probabilities[1, BLOCK + 9] = 1.0
    assert draw_tokens(probabilities).tolist() == [5, BLOCK + 9]


def test_rows_are_drawn_apart() -> None:
    probabilities = torch.eye(600)
    assert draw_tokens(probabilities).tolist() == list(range(600))
