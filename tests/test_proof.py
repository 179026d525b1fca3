"""The proof after a swap, on hand-made logprobs."""

import random

from agent.proof import PROBE_PROMPTS, PROBE_TOKENS, probe_of, weigh_proof

OLD = [[-1.0, -2.0, -0.5, -3.0]]
NEW = [[-0.8, -2.2, -0.3, -3.2]]


def test_the_new_weights_are_recognized() -> None:
    """server = new + 0.01: closeness = sum(0.21*0.2 + -0.19*-0.2 + ...)/(4*0.04) = 0.16/0.16 = 1."""
    proof = weigh_proof([[x + 0.01 for x in NEW[0]]], NEW, OLD)
    assert proof.accepted
    assert abs((proof.closeness or 0) - 1.0) < 1e-9
    assert abs(proof.error - 0.01) < 1e-9
    assert abs((proof.change or 0) - 0.2) < 1e-9


def test_a_server_that_kept_the_old_weights_is_refused() -> None:
    proof = weigh_proof(OLD, NEW, OLD)
    assert not proof.accepted
    assert proof.closeness == 0.0
    assert "old weights" in proof.reason


def test_a_server_with_other_weights_is_refused() -> None:
    assert not weigh_proof([[-5.0, -0.1, -6.0, -0.1]], NEW, OLD).accepted


def test_a_layer_that_kept_its_old_weights_is_seen_above_the_rounding_noise() -> None:
    """The server moved most of the way, but is 0.1 nats off where rounding alone made 0.02: 0.1 > 2 * 0.02 + 0.03."""
    server = [[x + 0.1 for x in NEW[0]]]
    assert weigh_proof(server, NEW, OLD).accepted
    assert weigh_proof(server, NEW, OLD, noise=0.05).accepted
    proof = weigh_proof(server, NEW, OLD, noise=0.02)
    assert not proof.accepted
    assert "some of its weights" in proof.reason


def test_missing_logprobs_are_refused() -> None:
    assert "2 logprobs for 4" in weigh_proof([[-1.0, -2.0]], NEW, OLD).reason


def test_a_training_step_below_the_rounding_noise_is_still_seen() -> None:
    """Noise of 0.02 nats a token, a step of 0.005: 1,000 tokens tell old from new all the same."""
    draw = random.Random(1)
    old = [[draw.uniform(-4, 0) for _ in range(1000)]]
    new = [[x + draw.choice((-0.005, 0.005)) for x in old[0]]]
    server_new = [[x + draw.gauss(0, 0.02) for x in new[0]]]
    server_old = [[x + draw.gauss(0, 0.02) for x in old[0]]]
    assert weigh_proof(server_new, new, old).accepted
    assert not weigh_proof(server_old, new, old).accepted


def test_equal_weights_pass_and_say_so() -> None:
    assert "alike" in weigh_proof(OLD, OLD, OLD).reason


def test_a_probe_is_how_the_first_dialogues_end() -> None:
    """Of ten dialogues the one of a single token cannot be probed; the last of the others is one too many."""
    dialogues = [[7], *([n] * 10 + list(range(1000, 1000 + PROBE_TOKENS)) for n in range(PROBE_PROMPTS + 1))]
    prompts = probe_of(dialogues)
    assert prompts == [list(range(1000, 1000 + PROBE_TOKENS))] * PROBE_PROMPTS
    assert probe_of([[7], [1, 2, 3]]) == [[1, 2, 3]]
