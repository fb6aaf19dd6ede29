"""The rival: minimum-risk training."""

import itertools

import torch

from learned_surrogates import text
from lib.minimum_risk import HalfAndHalf, expected_metric
from lib.recogniser import ALPHABET, read


def test_the_gradient_is_that_of_the_expected_metric():
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    logits = torch.full((1, len(ALPHABET) + 1, 2), -20.0)
    logits[:, :4] = torch.randn(1, 4, 2, generator=random)
    logits.requires_grad_()
    probabilities = logits.softmax(1)[0]
    expected = torch.zeros(())
    for path in itertools.product(range(4), repeat=2):
        one_hot = torch.nn.functional.one_hot(torch.tensor(path), logits.shape[1]).T[None]
        error = text.edit_distance(read(one_hot, "characters"), ["01"])[0]
        expected = expected + probabilities[list(path), range(2)].prod() * error
    (truth,) = torch.autograd.grad(expected, logits)

    loss = expected_metric(logits, ["01"], "characters", draws=4000)
    (estimate,) = torch.autograd.grad(loss, logits)
    cosine = torch.nn.functional.cosine_similarity(truth.flatten(), estimate.flatten(), 0)
    assert cosine > 0.99
    assert 0.9 < estimate.norm() / truth.norm() < 1.1


def test_half_and_half_weighs_gradients_of_one_norm():
    blend, output = HalfAndHalf(), torch.ones(2, requires_grad=True)
    for _ in range(2):
        loss = blend(10 * output[0], 2 * output[1], output)
        (gradient,) = torch.autograd.grad(loss, output)
        torch.testing.assert_close(gradient, torch.tensor([1.0, 1.0]))
