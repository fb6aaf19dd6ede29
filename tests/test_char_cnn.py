import pytest
import torch
import torch.nn.functional as F

from learned_surrogates.text import CharCNN


def make_net(bins=4, classes=5):
    torch.manual_seed(0)
    return CharCNN(classes, width=6, embedding_size=7, bins=bins)


def make_texts(lengths, classes=5, padded_to=None, seed=1):
    random = torch.Generator().manual_seed(seed)
    x = torch.zeros(len(lengths), classes, padded_to or max(lengths))
    for row, length in zip(x, lengths, strict=True):
        row[:, :length] = torch.randn(classes, length, generator=random).softmax(0)
    return x


def plain_bins(features, bins):
    """Means of `(channels, length)` over equal parts of the length, cut where they must be."""
    length, pooled = features.shape[1], []
    for b in range(bins):
        start, end = b * length / bins, (b + 1) * length / bins
        total = torch.zeros(len(features))
        for position in range(length):
            total += features[:, position] * max(0, min(end, position + 1) - max(start, position))
        pooled.append(total / (length / bins))
    return torch.stack(pooled, 1)


def plain_embedding(net, x):
    """One sample `(classes, length)`, without padding."""
    for convolution in net.convolutions:
        columns = F.pad(x, (1, 1)).unfold(1, 3, 1)
        x = torch.einsum("ilk,oik->ol", columns, convolution.weight) + convolution.bias[:, None]
        x = torch.where(x > 0, x, 0.01 * x)
    return net.head(plain_bins(x, net.bins).reshape(1, -1))[0]


@pytest.mark.parametrize("bins", [1, 3, 4, 16])
def test_embeddings_equal_explicit_loops(bins):
    net, lengths = make_net(bins), [1, 2, 3, 4, 5, 7, 12]
    x = make_texts(lengths)
    with torch.no_grad():
        expected = [plain_embedding(net, row[:, :n]) for row, n in zip(x, lengths, strict=True)]
        torch.testing.assert_close(net(x), torch.stack(expected))


def test_padding_changes_neither_embedding_nor_gradient():
    net = make_net()
    short = make_texts([4, 6]).requires_grad_()
    long = F.pad(short.detach(), (0, 9)).requires_grad_()
    results = []
    for x in (short, long):
        embedding = net(x)
        (gradient,) = torch.autograd.grad(embedding.square().sum(), x)
        results.append((embedding, gradient[..., :6]))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("bins", [2, 5])
def test_shares_are_the_overlap_of_positions_and_bins(bins):
    present = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1.0]])[:, None]
    shares = make_net(bins)._shares(present)
    assert shares.shape == (3, 6, bins)
    for row, share in zip(present[:, 0], shares, strict=True):
        count = int(row.sum())
        expected = torch.zeros(6, bins)
        expected[row > 0] = plain_bins(torch.eye(count), bins)
        torch.testing.assert_close(share, expected)


def test_nothing_but_padding_is_finite():
    x = torch.zeros(2, 5, 6, requires_grad=True)
    embedding = make_net()(x)
    assert embedding.isfinite().all()
    assert torch.autograd.grad(embedding.sum(), x)[0].isfinite().all()


def test_every_position_of_a_short_text_matters():
    net, x = make_net(bins=16), make_texts([16])
    embedding = net(x)
    for position in range(16):
        changed = x.clone()
        changed[0, :, position] = changed[0, :, position].roll(1)
        assert (net(changed) - embedding).abs().max() > 1e-6


def test_it_has_a_second_derivative():
    net, x = make_net(), make_texts([5]).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.convolutions[0].weight.grad.abs().sum() > 0
