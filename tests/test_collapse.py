"""The distribution of CTC's collapsed text, against all paths."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from learned_surrogates.text._collapse import MOST_ADDITIONAL, collapse


def by_all_paths(probabilities: Tensor, target: list[int], blank: int) -> tuple[Tensor, Tensor]:
    """Every path of classes over the frames, collapsed, with its probability."""
    classes, time = probabilities.shape
    positions = len(target) + MOST_ADDITIONAL
    match, other = torch.zeros(positions, len(target)), torch.zeros(positions)
    for path in itertools.product(range(classes), repeat=time):
        share = probabilities[list(path), range(time)].prod()
        reading = [c for c, _ in itertools.groupby(path) if c != blank]
        for place, character in enumerate(reading):
            place = min(place, positions - 1)
            for column, wanted in enumerate(target):
                match[place, column] += share * (character == wanted)
            other[place] += share * (character not in target)
    return match, other


def distributions(classes: int, time: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(classes, time, generator=random)).softmax(0)


def stored(targets: list[list[int]]) -> Tensor:
    longest = max(map(len, targets))
    rows = [[c + 1 for c in target] + [0] * (longest - len(target)) for target in targets]
    return torch.tensor(rows, dtype=torch.int16).reshape(len(targets), longest)


@settings(max_examples=30)
@given(st.data())
def test_it_is_the_sum_over_all_paths(data):
    """Exact if at most one character is not the target's."""
    blank = data.draw(st.integers(0, 2))
    known = [c for c in range(3) if c != blank]
    target = data.draw(st.permutations(known).map(lambda p: p[:1])) + data.draw(
        st.lists(st.sampled_from(known), max_size=2)
    )
    time = data.draw(st.integers(1, 7))
    probabilities = distributions(3, time, data.draw(st.integers(0, 99)))
    match, other, exists = collapse(probabilities[None], stored([target]), blank)
    expected = by_all_paths(probabilities, target, blank)
    torch.testing.assert_close(match[0], expected[0])
    torch.testing.assert_close(other[0], expected[1])
    assert exists.all()


def test_other_characters_are_taken_together_with_a_small_error():
    """With three characters that the target lacks, off by at most .021 of a probability."""
    for seed in range(5):
        probabilities = distributions(5, 6, seed)
        match, other, _ = collapse(probabilities[None], stored([[1]]), 0)
        expected = by_all_paths(probabilities, [1], 0)
        assert (match[0] - expected[0]).abs().max() < 0.03
        assert (other[0] - expected[1]).abs().max() < 0.03


def test_each_sample_is_on_its_own():
    """Neither other samples, nor absent frames, nor a longer batch change values or gradients."""
    one = distributions(4, 6, 0)[None].requires_grad_()
    other = distributions(4, 9, 1)[None]
    both = torch.cat([torch.nn.functional.pad(one.detach(), (0, 3)), other]).requires_grad_()
    alone = collapse(one, stored([[1, 2]]), 0)
    together = collapse(both, stored([[1, 2], [3, 3, 1, 2]]), 0)
    positions = alone[2].shape[1]
    torch.testing.assert_close(together[0][:1, :positions, :2], alone[0])
    torch.testing.assert_close(together[1][:1, :positions], alone[1])
    assert together[2][0].sum() == positions
    weights = torch.rand(positions, 2, generator=torch.Generator().manual_seed(0))
    (own,) = torch.autograd.grad((alone[0][0] * weights).sum(), one)
    (joint,) = torch.autograd.grad((together[0][0, :positions, :2] * weights).sum(), both)
    torch.testing.assert_close(joint[0, :, :6], own[0])
    assert not joint[1].any()


@pytest.mark.parametrize("time", [1, 40])
def test_an_empty_target_has_positions_too(time):
    probabilities = distributions(3, time, 0)[None]
    match, other, exists = collapse(probabilities, stored([[]]), 0)
    assert match.shape == (1, MOST_ADDITIONAL, 0)
    assert exists.all()
    assert other.sum() > 0


def test_the_gradient_is_that_of_the_values():
    logits = distributions(4, 5, 3)[None].double().log().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: collapse(x.softmax(1), stored([[1, 2, 1]]), 0)[:2], logits
    )
