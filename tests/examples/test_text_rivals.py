"""Rivals of text, written out: N-best risk, group-relative gradient, soft edit distance."""

import itertools
import math

import pytest
import torch

from learned_surrogates import text
from lib.minimum_risk import expected_metric
from lib.nbest_risk import likeliest, nbest_risk
from lib.recogniser import CLASSES, read
from lib.soft_edit_distance import soft_edit_distance

# Classes that a frame may have: the blank or end, "0", "1" and "2".
USED, FRAMES, LABEL = 4, 4, "011"


def small(head, seed=0):
    """Logits of one text, in which the other classes have next to nothing."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.full((FRAMES, 1, CLASSES), -30.0, dtype=torch.float64)
    logits[..., :USED] = 2 * torch.randn(FRAMES, 1, USED, generator=random)
    if head == "characters":
        logits = logits.permute(1, 2, 0).contiguous()
    return logits.requires_grad_()


def by_reading(logits, head):
    """The probability of each reading: a sum over all paths."""
    rows = logits[:, 0] if head == "ctc" else logits[0].T
    probabilities, sums = rows.softmax(1), {}
    for path in itertools.product(range(USED), repeat=FRAMES):
        one_hot = torch.nn.functional.one_hot(torch.tensor(path), CLASSES)
        (reading,) = read(one_hot[:, None] if head == "ctc" else one_hot.T[None], head)
        chance = probabilities[range(FRAMES), list(path)].prod()
        sums[reading] = sums.get(reading, 0) + chance
    return sums


@pytest.mark.parametrize("head", ["ctc", "characters"])
def test_the_risk_is_that_of_the_likeliest_readings(head):
    logits = small(head)
    sums = by_reading(logits, head)
    best = sorted(sums, key=lambda reading: -sums[reading])[:5]
    errors = torch.tensor(text.edit_distance(best, [LABEL] * 5), dtype=torch.float64)
    chances = torch.stack([sums[reading] for reading in best])
    expected = (chances * errors).sum() / chances.sum()
    (truth,) = torch.autograd.grad(expected, logits)

    rows = (logits[:, 0] if head == "ctc" else logits[0].T).softmax(1).tolist()
    found = ["".join(str(index - 1) for index in one) for one in likeliest(rows, head, 5)]
    assert found == best
    loss = nbest_risk(logits, [LABEL], head, 5)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], truth, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("head", ["ctc", "characters"])
def test_the_group_relative_gradient_is_that_of_its_draws(head):
    logits = small(head, seed=1)
    torch.manual_seed(0)
    loss = expected_metric(logits, [LABEL], head, 6, relative=True)
    (gradient,) = torch.autograd.grad(loss, logits)

    torch.manual_seed(0)
    class_dim = 2 if head == "ctc" else 1
    rows = logits.detach().movedim(class_dim, -1).log_softmax(-1)
    paths = torch.distributions.Categorical(logits=rows).sample((6,)).reshape(6, FRAMES)
    chances, errors, slopes = rows.exp().reshape(FRAMES, CLASSES), [], []
    for path in paths:
        one_hot = torch.nn.functional.one_hot(path, CLASSES)
        (reading,) = read(one_hot[:, None] if head == "ctc" else one_hot.T[None], head)
        errors.append(float(text.edit_distance([reading], [LABEL])[0]))
        slopes.append(one_hot - chances)  # of the path's log-probability, in the logits
    mean = sum(errors) / 6
    deviation = math.sqrt(sum((error - mean) ** 2 for error in errors) / 6)
    assert deviation > 0
    expected = sum(
        (error - mean) / (deviation + 1e-4) / 6 * slope
        for error, slope in zip(errors, slopes, strict=True)
    )
    own = gradient[:, 0] if head == "ctc" else gradient[0].T
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("head", ["ctc", "characters"])
def test_the_soft_distance_is_over_all_ways_through_the_table(head):
    logits = small(head, seed=2)
    chances = (logits[:, 0] if head == "ctc" else logits[0].T).softmax(1)
    temperature, meant = 0.3, [int(character) + 1 for character in LABEL]

    def reads(frame):
        """The chance of a character that the frame before does not have."""
        chance = 1 - chances[frame, 0]
        if head == "ctc" and frame:
            chance = chance - (chances[frame, 1:] * chances[frame - 1, 1:]).sum()
        return chance

    def ways(frame, column):
        """What each way there has cost; whole first columns and rows have one."""
        if column == 0:
            return [sum((reads(i) for i in range(frame)), chances.new_zeros(()))]
        if frame == 0:
            return [chances.new_tensor(float(column))]
        here = chances[frame - 1, meant[column - 1]]
        return (
            [cost + 1 - here for cost in ways(frame - 1, column - 1)]
            + [cost + reads(frame - 1) for cost in ways(frame - 1, column)]
            + [cost + 1 for cost in ways(frame, column - 1)]
        )

    costs = torch.stack(ways(FRAMES, len(meant)))
    expected = -temperature * (costs / -temperature).logsumexp(0)
    loss = soft_edit_distance(logits, [LABEL], head, temperature)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("head", ["ctc", "characters"])
@pytest.mark.parametrize(
    "label, read_as, frames",
    [
        ("012", "0112", [1, 2, 0, 2, 3]),
        ("012", "02", [1, 1, 0, 3, 3]),
        ("1", "2", [3, 3, 0, 0, 0]),
        ("21", "21", [0, 3, 2, 2, 0]),
    ],
)
def test_of_certain_readings_it_is_the_distance_itself(head, label, read_as, frames):
    characters = [*(int(character) + 1 for character in read_as), 0, 0, 0, 0][:5]
    classes = frames if head == "ctc" else characters
    certain = 60.0 * torch.nn.functional.one_hot(torch.tensor(classes), CLASSES).double()
    logits = certain[:, None] if head == "ctc" else certain.T[None]
    value = soft_edit_distance(logits, [label], head, 1e-3)
    expected = float(text.edit_distance([read_as], [label])[0])
    assert value.item() == pytest.approx(expected, abs=0.01)
