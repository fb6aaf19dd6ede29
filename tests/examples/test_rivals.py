"""Rows of other packages in the benchmarks: what is said without them, and what they return."""

import sys

import pytest
import torch

from benchmarks import digit_masks
from learned_surrogates import classification, ranking
from lib import rivals

SCORES = torch.tensor([[2.0, -1.0, 0.5, 3.0], [0.0, 1.0, 2.0, -5.0]])


@pytest.mark.parametrize("package", rivals.PACKAGES)
def test_a_package_that_is_missing_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rivals.PACKAGES[package] + ".*pip install"):
        rivals.rival(package)


@pytest.mark.parametrize(
    ("package", "sorter"),
    [
        ("torchsort", lambda scores: rivals.torchsort_ranks(scores, strength=0.01)),
        ("diffsort", lambda scores: rivals.diffsort_ranks(scores, steepness=200.0)),
    ],
)
def test_sorters_of_other_packages_count_from_the_largest(package, sorter):
    pytest.importorskip(package)
    torch.testing.assert_close(sorter(SCORES), ranking.ranks(SCORES), atol=0.05, rtol=0)
    scores = SCORES.clone().requires_grad_()
    ranking.squared_rank_loss(scores, -SCORES, sorter=sorter).backward()
    assert scores.grad.isfinite().all()


def test_the_place_in_a_list_does_not_pull_a_score():
    """As it does in a sorting network whose items come in the order of the list."""
    pytest.importorskip("diffsort")
    scores = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rivals.diffsort_ranks(scores, steepness=10.0).square().mean().backward()
    by_place = scores.grad.mean(0) * 4000  # of lists that are drawn alike: none but by chance
    assert by_place.abs().max() < 5 * scores.grad.std() * 4000 / 4000**0.5


@pytest.mark.parametrize("name", digit_masks.RIVALS)
def test_losses_of_masks_are_lower_where_masks_are_found(name):
    package = digit_masks.SMP if name.startswith("smp") else "monai"
    pytest.importorskip(package)
    masks = (torch.arange(64).view(1, 1, 8, 8) % 5 == 0).float()
    loss = digit_masks.RIVALS[name]()
    assert loss(8 * masks - 4, masks) < loss(4 - 8 * masks, masks) - 0.5


def test_supcon_is_that_of_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature in (0.1, 0.5):
        own = classification.SupCon(tau=temperature)(features, labels)
        theirs = losses.SupConLoss(temperature=temperature)(features, labels)
        torch.testing.assert_close(own, theirs, atol=1e-9, rtol=0)


def test_their_smooth_average_precision_has_the_query_among_its_positives():
    """And takes its positives in blocks of as many as there are classes: right for 4 of 4 only."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    random = torch.Generator().manual_seed(0)
    for classes, alike in ((4, True), (8, False)):
        labels = torch.arange(classes).repeat_interleave(4)
        embeddings = torch.randn(len(labels), 8, generator=random)
        found = losses.SmoothAPLoss()(embeddings, labels)
        close = abs(found - with_itself(embeddings, labels)) < 1e-5
        assert bool(close) == alike


def with_itself(embeddings, labels):
    unit = torch.nn.functional.normalize(embeddings)
    similarities = unit @ unit.T
    found = []
    for query, row in enumerate(similarities):
        positive = labels == labels[query]
        above = ((row - row[positive, None]) / 0.01).sigmoid()
        above[torch.arange(4), positive.nonzero()[:, 0]] = 1.0
        found.append((above[:, positive].sum(1) / above.sum(1)).mean())
    return 1 - torch.stack(found).mean()
