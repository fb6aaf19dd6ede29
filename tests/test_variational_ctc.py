"""Variational CTC, beside sums over all paths and `nn.CTCLoss`."""

import itertools
import math

import pytest
import torch
from torch import nn

from learned_surrogates import LearnedSurrogateLoss, text

FEATURES, CLASSES = 3, 4
LABELS = torch.tensor([[1, 2, 2], [3, 0, 0], [2, 1, 0]])
FRAMES, COUNTS = [5, 4, 3], [3, 1, 2]


def head(seed=0, **options):
    """In float64, in evaluation mode: without dropout."""
    torch.manual_seed(seed)
    return text.VariationalCTC(FEATURES, CLASSES, embedding=5, **options).double().eval()


def features(time=5, batch=3, seed=1):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(time, batch, FEATURES, generator=random, dtype=torch.float64)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def affine(layer, inputs):
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    rows = zip(layer.weight.tolist(), bias, strict=True)
    return [b + sum(w * x for w, x in zip(row, inputs, strict=True)) for row, b in rows]


def by_paths(layer, frames, label, blank):
    """Eq. 6 to 8 of one sample in loops: its loss, a sum over all paths and the divergence."""
    post = layer.posterior
    embeddings = [post.label.weight[c].tolist() for c in label]
    mean = [sum(each) / len(label) for each in zip(*embeddings, strict=True)]
    chances, divergence = [], 0.0
    for frame in frames.tolist():
        of_frame = affine(post.frame, frame)
        q = sigmoid(affine(post.weight, [f * y for f, y in zip(of_frame, mean, strict=True)])[0])
        b = sigmoid(affine(layer.prior, frame)[0])
        divergence += q * math.log(q / b) + (1 - q) * math.log((1 - q) / (1 - b))
        exponentials = [math.exp(value) for value in affine(layer.characters, frame)]
        row = [(1 - q) * value / sum(exponentials) for value in exponentials]
        chances.append([*row[:blank], q, *row[blank:]])
    total = 0.0
    for path in itertools.product(range(layer.classes), repeat=len(chances)):
        if [key for key, _ in itertools.groupby(path) if key != blank] == label:
            total += math.prod(row[key] for row, key in zip(chances, path, strict=True))
    return divergence - math.log(total), divergence


@pytest.mark.parametrize("blank", [0, 2, CLASSES - 1])
def test_the_loss_is_a_sum_over_paths_and_the_divergence(blank):
    layer, inputs = head(blank=blank, reduction="none"), features()
    others = [c for c in range(CLASSES) if c != blank]
    labels = [[others[c - 1] for c in row[:n]] for row, n in zip(LABELS.tolist(), COUNTS)]
    losses = layer(inputs, torch.tensor([*itertools.chain(*labels)]), FRAMES, COUNTS)
    for sample, (label, frames) in enumerate(zip(labels, FRAMES, strict=True)):
        expected, divergence = by_paths(layer, inputs[:frames, sample], label, blank)
        assert losses[sample].item() == pytest.approx(expected, abs=1e-12)
        assert divergence > 1e-3


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, 2])
def test_mml_ctc_is_the_loss_of_its_log_probs(blank, reduction):
    layer = head(posterior=False, blank=blank, reduction=reduction)
    inputs = features().requires_grad_()
    labels = LABELS.where(LABELS.ne(blank), 1)
    plain = nn.CTCLoss(blank, reduction)
    expected = plain(layer.log_probs(inputs), labels, torch.tensor(FRAMES), torch.tensor(COUNTS))
    found = layer(inputs, labels, FRAMES, COUNTS)
    torch.testing.assert_close(found, expected)
    each = [inputs, *layer.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), each), torch.autograd.grad(expected.sum(), each)
    ):
        torch.testing.assert_close(ours, theirs)


def test_where_the_posterior_is_the_prior_there_is_no_divergence():
    torch.manual_seed(0)
    layer = text.VariationalCTC(FEATURES, CLASSES, embedding=1).double().eval()
    layer.posterior.label.weight.data.fill_(1.0)
    layer.posterior.weight.weight.data.fill_(1.0)
    layer.posterior.frame.load_state_dict(layer.prior.state_dict())
    mml = text.VariationalCTC(FEATURES, CLASSES, posterior=False).double()
    mml.load_state_dict(layer.state_dict(), strict=False)
    arguments = features(), LABELS, FRAMES, COUNTS
    torch.testing.assert_close(layer(*arguments), mml(*arguments), rtol=1e-12, atol=0)
    # The least that it can be: any other posterior of these logits adds to it.
    layer.posterior.frame.bias.data += 0.5
    apart = layer.posterior(features(), LABELS).sigmoid()
    prior = layer.prior(features()).squeeze(2).sigmoid()
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(apart), torch.distributions.Bernoulli(prior)
    )
    plain = nn.functional.ctc_loss(
        layer._compose(features(), apart.logit()), LABELS, (5, 5, 5), COUNTS, reduction="none"
    )
    layer.reduction = "none"
    found = layer(features(), LABELS, [5, 5, 5], COUNTS) - plain
    torch.testing.assert_close(found, divergence.sum(0))
    assert (found > 0).all()


def test_frames_sum_to_one_whoever_decides_on_the_blank():
    layer, inputs = head(blank=1), 30 * features()
    for blank in (layer.prior(inputs).squeeze(2), layer.posterior(inputs, LABELS)):
        sums = layer._compose(inputs, blank).exp().sum(2)
        torch.testing.assert_close(sums, torch.ones(5, 3, dtype=torch.float64))
    torch.testing.assert_close(
        layer.log_probs(inputs)[..., 1].exp(), layer.prior(inputs).squeeze(2).sigmoid()
    )


def test_the_posterior_is_told_which_characters_there_are_and_the_prior_is_not():
    layer, inputs = head(), features()
    before, read = layer.posterior(inputs, LABELS), layer.log_probs(inputs)
    swapped = layer.posterior(inputs, LABELS[[1, 0, 2]])
    assert (swapped - before).abs()[:, :2].min() > 1e-3
    torch.testing.assert_close(swapped[:, 2], before[:, 2])
    torch.testing.assert_close(before, layer.posterior(inputs, LABELS.flip(1)))
    layer(inputs, LABELS, FRAMES, COUNTS).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
    torch.testing.assert_close(layer.log_probs(inputs), read, rtol=0, atol=0)


def test_parameters_are_those_of_table_6():
    """Mml-CTC has as many as CTC; 27,600 more are published, of which 50 are not explained."""
    counts = [
        sum(parameter.numel() for parameter in layer.parameters())
        for layer in (
            nn.Linear(512, 37),
            text.VariationalCTC(512, 37, posterior=False),
            text.VariationalCTC(512, 37),
        )
    ]
    assert counts[0] == counts[1]
    assert counts[2] - counts[1] == 27_600 - 50


@pytest.mark.parametrize("posterior", [True, False])
def test_gradients_are_right(posterior):
    layer = head(posterior=posterior, reduction="sum")
    inputs = [features().requires_grad_(), *layer.parameters()]
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, LABELS, FRAMES, COUNTS), inputs)


def test_padding_and_the_layout_of_labels_change_nothing():
    layer, inputs = head(), features().requires_grad_()
    value = layer(inputs, LABELS, FRAMES, COUNTS)
    (gradient,) = torch.autograd.grad(value, inputs)
    for sample, frames in enumerate(FRAMES):
        assert gradient[frames:, sample].eq(0).all()
    longer = torch.cat([inputs.detach(), features(2)]).requires_grad_()
    longer.data[4:, 1:] = 1e4
    padded = torch.tensor([[1, 2, 2, 9], [3, 9, -1, 0], [2, 1, 1, 1]])
    joined = torch.tensor([1, 2, 2, 3, 2, 1])
    for labels in (padded, joined, joined.int()):
        other = layer(longer, labels, torch.tensor(FRAMES), tuple(COUNTS))
        torch.testing.assert_close(other, value, rtol=1e-12, atol=0)
        (again,) = torch.autograd.grad(other, longer)
        torch.testing.assert_close(again[:5], gradient)
        assert again[5:].eq(0).all()


def test_nothing_to_read_is_all_blank():
    layer, inputs = head(reduction="none"), features(batch=2).requires_grad_()
    losses = layer(inputs, torch.zeros(2, 0, dtype=torch.long), [5, 0], [0, 0])
    # The mean of no embeddings is zero, and so is the posterior's logit.
    prior = layer.prior(inputs)[:, 0, 0].sigmoid()
    halves = torch.full_like(prior, 0.5)
    kl = halves * (halves / prior).log() + halves * (halves / (1 - prior)).log()
    torch.testing.assert_close(losses[0], 5 * math.log(2) + kl.sum())
    assert losses[1] == 0
    losses.sum().backward()
    assert inputs.grad.isfinite().all()


def test_what_cannot_be_spelt_is_infinite_or_costs_its_divergence():
    labels, frames, counts = LABELS[:1], [3], [3]  # a blank is missing between the twos
    inputs = features(batch=1)
    assert head(reduction="none")(inputs, labels, frames, counts) == math.inf
    layer = head(reduction="none", zero_infinity=True)
    prior, posterior = layer.prior(inputs[:3]).squeeze(2), layer.posterior(inputs[:3], labels)
    bernoulli = torch.distributions.Bernoulli
    kl = torch.distributions.kl_divergence(bernoulli(logits=posterior), bernoulli(logits=prior))
    torch.testing.assert_close(layer(inputs, labels, frames, counts), kl.sum(0))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_half_precision_and_large_features_are_counted_in_float32(scale):
    layer = head().float()
    inputs = (scale * features()).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = layer(inputs, LABELS, FRAMES, COUNTS)
        assert layer.log_probs(inputs).dtype == torch.float32
    torch.testing.assert_close(value, layer(inputs.float(), LABELS, FRAMES, COUNTS))
    value.backward()
    assert value.isfinite()
    assert inputs.grad.isfinite().all()


@pytest.mark.parametrize("posterior", [True, False])
def test_it_trains_a_recogniser_beside_the_edit_distance(posterior):
    """Half of each; in the base loss's place, what has no features cannot stand."""
    torch.manual_seed(0)
    alphabet = "abcd"
    layer = text.VariationalCTC(8, 5, posterior=posterior)
    criterion = LearnedSurrogateLoss(text.edit_distance, task=text.CTC(alphabet))
    backbone = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
    optimizer = torch.optim.Adam([*backbone.parameters(), *layer.parameters()], 0.03)
    labels = torch.randint(1, 5, (32, 3))
    frames = nn.functional.one_hot(labels.repeat_interleave(2, 1), 5).transpose(0, 1)
    inputs, lengths = frames + 0.2 * torch.randn(frames.shape), ([6] * 32, [3] * 32)

    def distance():
        return criterion.eval()(layer.log_probs(backbone(inputs)), labels, *lengths).item()

    with torch.no_grad():
        before = distance()
    for _ in range(60):
        columns = backbone(inputs)
        criterion.train()
        loss = criterion(layer.log_probs(columns), labels, *lengths)
        loss = (loss + layer(columns, labels, *lengths)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert distance() < 0.4 * before


FINE = (torch.ones(5, 2, FEATURES), torch.ones(2, 1).long(), [5, 5], [1, 1])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"features": 0}, ValueError, "features must be at least 1"),
        ({"classes": 1}, ValueError, "classes must be at least 2"),
        ({"blank": 4}, ValueError, r"blank must be a class index in 0\.\.3; got 4"),
        ({"embedding": 2.5}, TypeError, "embedding must be an integer"),
        ({"dropout": 1.5}, ValueError, "dropout must be at most 1"),
        ({"reduction": "max"}, ValueError, "reduction must be one of 'none', 'mean', 'sum'"),
    ],
)
def test_errors_name_the_argument(options, error, says):
    with pytest.raises(error, match=says):
        text.VariationalCTC(**{"features": FEATURES, "classes": CLASSES} | options)


@pytest.mark.parametrize(
    ("place", "value", "error", "says"),
    [
        (0, [1.0], TypeError, "features must be a tensor"),
        (0, torch.ones(5, 2, 3).long(), TypeError, "features must be floating-point"),
        (
            0,
            torch.ones(5, FEATURES),
            ValueError,
            r"\(time, batch, 3\); their shape is \(5, 3",
        ),
        (0, torch.ones(5, 2, 4), ValueError, r"shape \(time, batch, 3\)"),
        (0, torch.ones(0, 2, 3), ValueError, "features have no frames"),
        (0, torch.ones(5, 2, 3, device="meta"), TypeError, "features is on the meta device"),
        (1, torch.ones(2, 1), TypeError, "targets must be integers"),
        (1, torch.ones(3, 1).long(), ValueError, "targets have 3 rows for a batch of 2"),
        (1, torch.ones(3).long(), ValueError, "have 3 entries and target_lengths add up to 2"),
        (1, torch.ones(2, 1, 1).long(), ValueError, "targets must be padded"),
        (1, torch.tensor([[1], [4]]), ValueError, "targets of sample 1 have class 4"),
        (1, torch.tensor([[0], [1]]), ValueError, "targets of sample 0 have class 0; .* blank, 0"),
        (2, [5, 6], ValueError, r"input_lengths of sample 1 is 6; it must be in 0\.\.5"),
        (2, [5], ValueError, "input_lengths has 1 entries for a batch of 2"),
        (3, [1, -1], ValueError, r"target_lengths of sample 1 is -1; it must be in 0\.\.1"),
        (3, [1.0, 1.0], TypeError, "target_lengths must be integers"),
    ],
)
def test_errors_name_what_is_wrong_with_a_call(place, value, error, says):
    arguments = [*FINE[:place], value, *FINE[place + 1 :]]
    with pytest.raises(error, match=says):
        text.VariationalCTC(FEATURES, CLASSES)(*arguments)


def test_what_is_in_padding_has_no_part_in_a_gradient():
    layer = head()
    x = torch.randn(4, 2, FEATURES, dtype=torch.float64)
    gradients = []
    for padding in (0.0, torch.nan):
        layer.zero_grad()
        x[3, 1] = padding
        layer(x, torch.tensor([[1, 2], [1, 2]]), [4, 3], [2, 2]).backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_an_empty_batch_has_an_answer():
    x = torch.zeros(4, 0, FEATURES, dtype=torch.float64)
    found = {
        reduction: head(reduction=reduction)(x, torch.zeros(0, 2).long(), [], [])
        for reduction in ("none", "sum", "mean")
    }
    assert found["none"].shape == (0,)
    assert found["sum"] == 0
    assert found["mean"].isnan()
