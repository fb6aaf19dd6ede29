import functools

import pytest
import torch
from plain_ranking import lists

from learned_surrogates import ranking


def make(kind):
    torch.manual_seed(0)
    if kind == "lstm":
        return ranking.LSTMSorter(hidden=8)
    return ranking.ConvSorter(length=20).eval()


@pytest.mark.parametrize("kind", ["lstm", "conv"])
def test_learned_sorters_are_trained_by_any_loss_of_ranks(kind):
    sorter = make(kind)
    scores, targets = lists("numbers", dtype=torch.float32)
    scores.requires_grad_()
    ranks = sorter(scores)
    assert ranks.shape == scores.shape
    for loss in (ranking.squared_rank_loss, ranking.rank_sum_loss, ranking.rank_margin_loss):
        loss(scores, targets, sorter=sorter).backward()
        assert scores.grad.abs().sum() > 0
        assert all(part.grad is not None for part in sorter.parameters())
    assert not torch.allclose(ranks.flip(1), sorter(scores.flip(1)))  # the order counts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sorter(scores), ranks)


def test_a_convolutional_sorter_is_for_one_length():
    with pytest.raises(ValueError, match=r"lists \(lists, 20\); got \(4, 30\)"):
        make("conv")(torch.randn(4, 30))
    with pytest.raises(ValueError, match="kernel must be odd"):
        ranking.ConvSorter(kernel=4)
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        ranking.LSTMSorter(hidden=0)


def test_a_sorter_is_anything_that_ranks():
    scores, targets = lists("numbers")
    noisy = functools.partial(ranking.expected_ranks, noise=0.3)
    found = ranking.squared_rank_loss(scores, targets, sorter=noisy)
    assert found < ranking.squared_rank_loss(scores, targets, sorter=ranking.ranks)
