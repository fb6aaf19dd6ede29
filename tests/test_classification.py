"""Contrastive losses of classification, beside loops over the thesis's equations."""

import math

import pytest
import torch
from torch import nn

from learned_surrogates.classification import SPCE, ESupCon, SupCon, Tightness
from learned_surrogates.retrieval import large_batch

CLASSES, DIM = 4, 5
LOSSES = {
    "SupCon": SupCon,
    "SPCE": SPCE,
    "SPCE, K": lambda: SPCE(CLASSES),
    "Tightness": lambda: Tightness(CLASSES, DIM),
    "ESupCon": lambda: ESupCon(CLASSES, DIM),
}


def batch(n=11, present=CLASSES, seed=0):
    """Normalised features, as an even mix of classes; the last one is alone with its label."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(n, DIM, generator=random, dtype=torch.float64)
    labels = torch.arange(n) % (present - 1)
    labels[-1] = present - 1
    return features / features.norm(dim=1, keepdim=True), labels


def lists(features, labels):
    return features.tolist(), labels.tolist()


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def supcon_of_loops(features, labels, tau):
    """Eq. 6.5 of each sample, None where it has no positive."""
    z, y = lists(features, labels)
    losses = []
    for i in range(len(z)):
        log = math.log(sum(math.exp(dot(z[i], z[j]) / tau) for j in range(len(z)) if j != i))
        positives = [p for p in range(len(z)) if p != i and y[p] == y[i]]
        pairs = [-dot(z[i], z[p]) / tau + log for p in positives]
        losses.append(sum(pairs) / len(pairs) if pairs else None)
    return losses


def pairs_of_loops(features, labels, prototypes, tau):
    """Eq. 6.12 of each sample and its class's prototype."""
    z, y = lists(features, labels)
    theta = (prototypes / prototypes.norm(dim=1, keepdim=True)).tolist()
    return [
        -dot(z[i], theta[y[i]]) / tau
        + math.log(
            sum(math.exp(dot(z[i], each) / tau) for each in theta)
            + sum(math.exp(dot(z[i], z[j]) / tau) for j in range(len(z)) if j != i)
        )
        for i in range(len(z))
    ]


def esupcon_of_loops(features, labels, prototypes, tau):
    """Eq. 6.14 and 6.15 of what is there."""
    pairs = pairs_of_loops(features, labels, prototypes, tau)
    y = labels.tolist()
    total = 0.0
    for k in set(y):
        of_class = [pair for pair, label in zip(pairs, y) if label == k]
        total += sum(of_class) / len(of_class)
    samples = [loss for loss in supcon_of_loops(features, labels, tau) if loss is not None]
    return (total + sum(samples)) / (len(set(y)) + len(samples))


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_supcon_is_that_of_loops(tau):
    features, labels = batch()
    losses = [loss for loss in supcon_of_loops(features, labels, tau) if loss is not None]
    assert len(losses) == len(labels) - 1
    found = SupCon(tau)(3.0 * features, labels).item()
    assert found == pytest.approx(sum(losses) / len(losses), abs=1e-12)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("present", [2, 3, CLASSES])
def test_esupcon_is_that_of_loops(tau, present):
    features, labels = batch(present=present)
    criterion = ESupCon(CLASSES, DIM, tau=tau).double()
    expected = esupcon_of_loops(features, labels, criterion.prototypes.detach(), tau)
    assert criterion(0.1 * features, labels).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_a_pair_joins_cross_entropy_and_supcon(tau):
    """Eq. 6.17: exp(l) = exp(l_CE) + exp(l_SupCon) - 1, the prototype in SupCon's pool; and thus
    l is at least the larger of the two."""
    features, labels = batch()
    criterion = ESupCon(CLASSES, DIM, tau=tau).double()
    prototypes = criterion.prototypes.detach()
    unit = prototypes / prototypes.norm(dim=1, keepdim=True)
    for i, pair in enumerate(pairs_of_loops(features, labels, prototypes, tau)):
        logits = features[i] @ unit.T / tau
        entropy = nn.functional.cross_entropy(logits, labels[i])
        others = features[i] @ features[torch.arange(len(labels)) != i].T / tau
        own = logits[labels[i]]
        supcon = -own + torch.cat([others, own[None]]).logsumexp(0)
        joined = torch.log(entropy.exp() + supcon.exp() - 1)
        assert pair == pytest.approx(joined.item(), abs=1e-12)
        assert pair >= max(entropy, supcon)
        torch.testing.assert_close(
            criterion.log_probabilities(features[i : i + 1])[0], logits.log_softmax(0)
        )


def test_esupcon_is_zero_only_where_both_of_its_parts_are():
    features = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]]
    labels = torch.tensor([0, 0, 1, 1])
    criterion = ESupCon(2, 2, tau=0.01).double()
    criterion.prototypes.data = torch.eye(2, dtype=torch.float64)
    # A pair: own prototype and own neighbour, equally near: log 2; SupCon: nothing but its own.
    assert criterion(features, labels).item() == pytest.approx(2 * math.log(2) / 6, abs=1e-12)
    alone = criterion(features[[0, 2]], labels[[0, 2]])
    assert alone.item() == pytest.approx(0.0, abs=1e-12)


def spce_of_loops(features, labels, classes):
    """Eq. 6.7, and 6.8 of each sample."""
    z, y = lists(features, labels)
    n, posteriors = len(z), []
    for i in range(n):
        sums = [math.exp(sum(dot(z[j], z[i]) for j in range(n) if y[j] == k) / n) for k in classes]
        posteriors.append([each / sum(sums) for each in sums])
    own = [p[list(classes).index(label)] for p, label in zip(posteriors, y, strict=True)]
    return -sum(map(math.log, own)) / n, posteriors


@pytest.mark.parametrize(("argument", "classes"), [(None, (0, 1, 2)), (CLASSES, range(CLASSES))])
def test_spce_is_that_of_loops(argument, classes):
    """A class that the batch lacks is left out, or counts as the equation has it."""
    features, labels = batch(present=3)
    expected, posteriors = spce_of_loops(features, labels, classes)
    criterion = SPCE(argument)
    assert criterion(2.0 * features, labels).item() == pytest.approx(expected, abs=1e-12)
    found = criterion.log_probabilities(features, labels).exp()
    torch.testing.assert_close(found, torch.tensor(posteriors, dtype=torch.float64))
    torch.testing.assert_close(found.sum(1), torch.ones(len(labels), dtype=torch.float64))


def test_tightness_is_that_of_loops_and_leaves_features_alone():
    features, labels = batch()
    features.requires_grad_()
    criterion = Tightness(CLASSES, DIM).double()
    loss = criterion(features, labels)
    loss.backward()
    theta = criterion.prototypes.detach()
    theta = theta / theta.norm(dim=1, keepdim=True)
    pairs = [-dot(z, theta[y].tolist()) for z, y in zip(*lists(features.detach(), labels))]
    assert loss.item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert features.grad is None


def test_tightness_moves_prototypes_by_the_sum_of_their_class():
    """Eq. 6.10 and 6.11, as far as the direction goes: normalised, the part along the prototype
    is taken out of the gradient."""
    features, labels = batch()
    criterion = Tightness(CLASSES, DIM).double()
    criterion(features, labels).backward()
    theta = criterion.prototypes.detach()
    for k in range(CLASSES):
        gradient = -features[labels == k].sum(0) / len(labels)
        across = gradient - (gradient @ theta[k]) * theta[k] / theta[k].square().sum()
        torch.testing.assert_close(criterion.prototypes.grad[k], across / theta[k].norm())


def test_tightness_ends_at_the_mean_directions():
    features, labels = batch(n=40)
    criterion = Tightness(CLASSES, DIM).double()
    optimizer = torch.optim.SGD(criterion.parameters(), lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(features, labels).backward()
        optimizer.step()
    means = torch.stack([features[labels == k].mean(0) for k in range(CLASSES)])
    cosine = nn.functional.cosine_similarity(criterion.prototypes, means)
    assert cosine.min() > 0.999
    assert torch.equal(
        criterion.predict(features), (features @ nn.functional.normalize(means).T).argmax(1)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right_and_reach_the_prototypes(name):
    features, labels = batch()
    criterion = LOSSES[name]().double()
    inputs = [
        *criterion.parameters(),
        *([features.requires_grad_()] if name != "Tightness" else []),
    ]
    assert torch.autograd.gradcheck(lambda *_: criterion(features, labels), inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_samples_does_not_matter(name):
    features, labels = batch()
    criterion = LOSSES[name]().double()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        criterion(features[order], labels[order]), criterion(features, labels)
    )


@pytest.mark.filterwarnings("ignore:no two samples")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (torch.ones(1, DIM), torch.tensor([2])),
        (torch.ones(6, DIM), torch.zeros(6, dtype=torch.long)),
        (torch.ones(6, DIM), torch.arange(6) % 3),
        (torch.zeros(6, DIM), torch.arange(6) % 3),
        (1e4 * torch.eye(DIM), torch.arange(DIM) % 2),
    ],
    ids=["one sample", "one class", "duplicates", "zeros", "large"],
)
def test_odd_batches_are_finite(name, features, labels):
    features = features.clone().requires_grad_()
    criterion = LOSSES[name]()
    loss = criterion(features, labels)
    loss.backward()
    assert loss.isfinite()
    grads = [features.grad, *(parameter.grad for parameter in criterion.parameters())]
    assert all(grad is None or grad.isfinite().all() for grad in grads)


def test_nothing_to_bring_together_is_zero_with_a_warning():
    with pytest.warns(UserWarning, match="nothing to bring together"):
        loss = SupCon()(torch.randn(3, 2), torch.arange(3))
    assert loss == 0


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_counts_in_float32(name):
    features, labels = batch()
    halves, criterion = features.bfloat16(), LOSSES[name]()
    with torch.autocast("cpu", torch.bfloat16):
        loss = criterion(halves, labels)
    torch.testing.assert_close(loss, criterion(halves.float(), labels))


def test_esupcon_trains_a_net_and_its_classifier_also_in_stages():
    torch.manual_seed(0)
    model, criterion = nn.Linear(6, DIM), ESupCon(3, DIM)
    optimizer = torch.optim.Adam([*model.parameters(), *criterion.parameters()], 0.03)
    labels = torch.arange(48) % 3
    inputs = torch.eye(6)[labels] + 0.2 * torch.randn(48, 6)
    for _ in range(60):
        optimizer.zero_grad()
        large_batch(model, inputs.split(20), lambda z: criterion(z, labels))
        optimizer.step()
    assert (criterion.predict(model(inputs)) == labels).all()


def test_prototypes_have_a_stream_of_their_own():
    state = torch.get_rng_state()
    one, same, other = (ESupCon(3, 2, seed=seed).prototypes for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: SupCon(0), ValueError, "tau must be above 0"),
        (lambda: SupCon("a"), TypeError, "tau must be a number"),
        (lambda: SPCE(0), ValueError, "classes must be at least 1"),
        (lambda: ESupCon(2.5, 3), TypeError, "classes must be an integer"),
        (lambda: ESupCon(2, 0), ValueError, "dim must be at least 1"),
        (lambda: SupCon()(torch.ones(2, 2), torch.ones(2)), TypeError, "labels must be integers"),
        (lambda: SPCE()(torch.ones(0, 2), torch.ones(0).long()), ValueError, "at least one sample"),
        (lambda: SPCE(2)(torch.ones(2, 2), torch.tensor([0, 2])), ValueError, "label 1 is 2"),
        (lambda: ESupCon(2, 3)(torch.ones(2, 2), torch.tensor([0, 1])), ValueError, r"\(n, 3\)"),
        (lambda: ESupCon(2, 3)(torch.ones(2, 3), torch.tensor([0, -1])), ValueError, "0 to 1"),
        (lambda: Tightness(2, 3).predict(torch.ones(3)), ValueError, r"shape \(n, d\)"),
    ],
)
def test_errors_name_the_argument(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize(
    "criterion", [SupCon(), SPCE(5), ESupCon(5, 3), Tightness(5, 3)], ids=lambda c: type(c).__name__
)
def test_labels_may_be_of_any_integer_type(criterion, dtype):
    features, labels = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(criterion(features, labels.to(dtype)), criterion(features, labels))


def test_more_classes_than_the_labels_type_has_numbers():
    features, labels = torch.randn(4, 3), torch.tensor([0, 100, 1, 100])
    for criterion in (SPCE(300), ESupCon(300, 3)):
        told = criterion(features, labels.to(torch.int8))
        torch.testing.assert_close(told, criterion(features, labels))
