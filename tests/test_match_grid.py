import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import Tensor

from learned_surrogates import LearnedSurrogateLoss, text
from learned_surrogates.text._match_grid import CHANNELS, PACE, MatchGridNet


def grid_of(probabilities: Tensor, texts: list[list[int]], special: int = 0) -> Tensor:
    task = text.Characters("abcdefgh"[: probabilities.shape[1] - 1], end=special)
    return task.grid(probabilities, stored(texts))


def plain_grid(probabilities: Tensor, texts: list[list[int]], lengths: list[int], special: int):
    """Cell by cell, from the description of the channels."""
    batch, classes, length = probabilities.shape
    longest = max(map(len, texts))
    grid = torch.zeros(batch, CHANNELS, length, longest + 1)
    for n, word in enumerate(texts):
        for i in range(lengths[n]):
            column = probabilities[n, :, i]
            before = probabilities[n, :, i - 1] if i else torch.zeros(classes)
            characters = [c for c in range(classes) if c != special]
            for j in range(len(word) + 1):
                grid[n, 0, i, j] = 1
                grid[n, 1, i, j] = column[word[j - 1]] if j else 0
                grid[n, 2, i, j] = column[special]
                grid[n, 3, i, j] = sum(column[c] for c in characters if c not in word)
                grid[n, 4, i, j] = max(column[c] for c in characters)
                grid[n, 5, i, j] = sum(column[c] * before[c] for c in characters)
                grid[n, 6, i, j] = j > 1 and word[j - 1] == word[j - 2]
    return grid


def distributions(batch: int, classes: int, lengths: list[int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, max(lengths), generator=generator)
    present = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return logits.softmax(1) * present[:, None]


def stored(texts: list[list[int]]) -> Tensor:
    longest = max(map(len, texts))
    rows = [[c + 1 for c in word] + [0] * (longest - len(word)) for word in texts]
    return torch.tensor(rows, dtype=torch.long)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_channels_are_what_they_say(data):
    special = data.draw(st.integers(0, 3))
    characters = st.sampled_from([c for c in range(4) if c != special])
    texts = data.draw(st.lists(st.lists(characters, max_size=4), min_size=1, max_size=3))
    lengths = [data.draw(st.integers(1, 5)) for _ in texts]
    probabilities = distributions(len(texts), 4, lengths)
    grid = grid_of(probabilities, texts, special)
    torch.testing.assert_close(grid, plain_grid(probabilities, texts, lengths, special))


def test_padding_changes_neither_value_nor_gradient():
    torch.manual_seed(0)
    net = MatchGridNet()
    word, length = [1, 1, 2], 4
    alone = distributions(1, 4, [length]).requires_grad_()
    value = net(grid_of(alone, [word]), torch.empty(1, 0))
    (gradient,) = torch.autograd.grad(value.sum(), alone)

    other = distributions(1, 4, [7], seed=1)
    both = torch.cat([torch.nn.functional.pad(alone.detach(), (0, 3)), other]).requires_grad_()
    values = net(grid_of(both, [word, [3, 2, 1, 2, 3]]), torch.empty(2, 0))
    (gradients,) = torch.autograd.grad(values.sum(), both)
    torch.testing.assert_close(values[0], value[0])
    torch.testing.assert_close(gradients[0, :, :length], gradient[0])
    assert not gradients[0, :, length:].any()


def test_renaming_the_characters_changes_nothing():
    texts = [[1, 3, 3], [2, 1, 2]]
    probabilities = distributions(2, 4, [5, 5])
    order = torch.tensor([0, 3, 1, 2])  # class 0 is the special one
    renamed = [[order.tolist().index(c) for c in text] for text in texts]
    torch.testing.assert_close(
        grid_of(probabilities, texts),
        grid_of(probabilities[:, order], renamed),
    )


def test_values_are_never_negative_and_an_empty_target_has_one():
    values = MatchGridNet()(grid_of(distributions(2, 3, [4, 1]), [[], []]), torch.empty(2, 0))
    assert values.shape == (2,)
    assert (values >= 0).all()


def readings(make, random, length):
    """Outputs for 64 texts of 6 different characters, with doubts, as the loss is called with."""
    target = torch.randint(1, 7, (64, length), generator=random)
    sure = 6 * torch.rand(64, 1, 1, generator=random) + 2 * torch.rand(
        64, length, 1, generator=random
    )
    logits = sure * F.one_hot(target, 7) + torch.randn(64, length, 7, generator=random)
    if make is text.Characters:
        return logits.transpose(1, 2), target
    blanks = torch.zeros(64, length, 7)
    blanks[:, :, 0] = 6
    frames = torch.stack([logits, blanks], 2).flatten(1, 2)
    return frames.transpose(0, 1).log_softmax(2), target, [2 * length] * 64, [length] * 64


def errors_before_and_after(criterion, make, updates, length=5):
    random = torch.Generator().manual_seed(0)
    before = criterion.warm_up([readings(make, random, length)], updates=1)
    after = criterion.warm_up(
        (readings(make, random, length) for _ in range(updates)), updates=updates
    )
    return before["relative_error"], after["relative_error"]


@pytest.mark.parametrize("make", [text.CTC, text.Characters])
def test_it_finds_out_what_characters_are_worth(make):
    metric = text.WeightedEditDistance(characters={"a": 10})
    criterion = LearnedSurrogateLoss(metric, task=make("abcdef"), seed=0)
    before, after = errors_before_and_after(criterion, make, 500)
    of_a, *others = (PACE * criterion._core.learner.surrogate.importances[2:]).exp().tolist()
    assert after < 0.5 * before
    assert of_a > 4 * max(others)


@pytest.mark.parametrize("make", [text.CTC, text.Characters])
def test_it_finds_out_that_more_errors_are_no_worse(make):
    def is_wrong(predictions, targets):
        return [float(p != t) for p, t in zip(predictions, targets)]

    criterion = LearnedSurrogateLoss(is_wrong, task=make("abcdef"), seed=0)
    before, after = errors_before_and_after(criterion, make, 500, length=20)
    assert after < 0.5 < before
    assert criterion._core.learner.surrogate.saturation > 0


def test_without_saturation_it_is_the_sum_and_saturation_has_a_gradient():
    net = MatchGridNet()
    grid = grid_of(distributions(3, 4, [5, 5, 5]), [[1, 2], [3], [1, 1, 2]])
    plain = net(grid, torch.empty(3, 0))
    assert torch.autograd.grad(plain.sum(), net.saturation)[0] < 0
    for saturation in (1e-6, 0.1, 3.0):
        net.saturation.data.fill_(saturation)
        k = PACE * saturation
        expected = -torch.expm1(-k * plain.double()) / k
        torch.testing.assert_close(
            net(grid, torch.empty(3, 0)).double(), expected, rtol=1e-4, atol=0
        )
    net.saturation.data.fill_(-1.0)
    torch.testing.assert_close(net(grid, torch.empty(3, 0)), plain)
