"""What goes wrong when somebody writes a task, and what the loss says of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tags import NAMES, Tags, call, jaccard_distance, pairs
from torch import nn

from learned_surrogates import Batch, FitValues, LearnedSurrogateLoss, Tensors, boxes

WRITTEN = Tags(NAMES)


def make_loss(task=None, **options):
    options = {"generator": None, **options}
    values = {name: options.pop(name) for name in ("generator", "data") if name in options}
    fit = FitValues(every=1, batch_size=8, warm_up=2, **values)
    return LearnedSurrogateLoss(jaccard_distance, task=task or Tags(NAMES), fit=fit, **options)


def use(criterion):
    """What uses every hook: learning calls, one without gradients, and a gradient check."""
    for seed in range(2):
        criterion(*call(seed=seed)).backward()
    with torch.no_grad():
        criterion(*call())
    criterion.check([call()], draws=2)


def test_what_is_written_rightly_works():
    criterion = make_loss(generator=pairs, base_loss=lambda z, tags: z.square().mean())
    use(criterion)
    assert criterion.stats["updates"] == 2


def read_with(**changed):
    """A `read` whose batch has something else in it."""

    def read(self, logits, tags):
        values = {"prediction": logits, "target": self.rows(tags), **changed}
        made = {k: v(logits, self.rows(tags)) if callable(v) else v for k, v in values.items()}
        return Batch(**made)

    return read


def added_in_place(self, prediction, batch):
    return batch.prediction.detach().clamp_(-1, 1) + 0 * prediction


def cleaned_in_place(self, logits, tags):
    with torch.no_grad():
        logits.nan_to_num_()
    return Batch(prediction=logits, target=self.rows(tags))


@dataclass(frozen=True, kw_only=True)
class Masked(Batch):
    mask: torch.Tensor

    @property
    def weights(self):
        return self.mask


class Reduced(Batch):
    def reduce(self, value, reduction):
        return value.mean().item()


# Hook, what it is in place of, what is raised, and what that says.
MISTAKES = {
    "read: nothing": ("read", lambda self, z, t: None, TypeError, "Tags.read must .*Batch.*None"),
    "read: a tuple": ("read", lambda self, z, t: (z, t), TypeError, "returned a tuple of 2"),
    "read: integers": (
        "read",
        read_with(prediction=lambda z, y: (z > 0).long()),
        TypeError,
        "Tags.read must.*prediction a tensor.*int64.*before any argmax",
    ),
    "read: prediction as numpy": (
        "read",
        read_with(prediction=lambda z, y: z.detach().numpy()),
        TypeError,
        "prediction a numpy array",
    ),
    "read: detached": (
        "read",
        read_with(prediction=lambda z, y: z.detach()),
        ValueError,
        "Tags.read must return the prediction as it came.*without its graph",
    ),
    "read: target a list": (
        "read",
        lambda self, z, t: Batch(prediction=z, target=t),
        TypeError,
        r"target a list of 6 \(set\).*field of your own",
    ),
    "read: target as numpy": (
        "read",
        read_with(target=lambda z, y: y.numpy()),
        TypeError,
        "target a numpy array",
    ),
    "read: target with a graph": (
        "read",
        read_with(target=lambda z, y: z.sigmoid()),
        ValueError,
        "target with a graph: detach",
    ),
    "read: target elsewhere": (
        "read",
        read_with(target=lambda z, y: y.to("meta")),
        ValueError,
        "Tags.read returned target on meta.*prediction.device",
    ),
    "read: batch size": (
        "read",
        read_with(target=lambda z, y: y[:3]),
        ValueError,
        "Tags.read returned a prediction of 6 samples.*target of 3",
    ),
    "read: the wrong dimension": (
        "read",
        read_with(batch_dim=1),
        ValueError,
        "prediction of 5 samples.*batch_dim=1.*target of 6",
    ),
    "read: no dimension": ("read", read_with(batch_dim=2), ValueError, "batch_dim=2.*one of its"),
    "read: in place": ("read", cleaned_in_place, ValueError, "Tags.read changed.*in place.*clone"),
    "read: a mask of another shape": (
        "read",
        lambda self, z, t: Masked(prediction=z, target=self.rows(t), mask=self.rows(t) > 0),
        ValueError,
        r"Masked.weights must be one number a sample, shape \(6,\).*\(6, 5\)",
    ),
    "read: lengths forgotten": (
        "read",
        lambda self, z, t, lengths: None,
        TypeError,
        r"with Tags, the loss is called as criterion\(z, t, lengths\)",
    ),
    "read: reduces to a number": (
        "read",
        lambda self, z, t: Reduced(prediction=z, target=self.rows(t)),
        TypeError,
        "Reduced.reduce must return a tensor that depends",
    ),
    "represent: nothing": (
        "represent",
        lambda self, prediction, batch: None,
        TypeError,
        "Tags.represent must return z.*it returned None",
    ),
    "represent: a tuple": (
        "represent",
        lambda self, prediction, batch: (prediction, batch.target),
        TypeError,
        "returned a tuple of 2",
    ),
    "represent: numpy": (
        "represent",
        lambda self, prediction, batch: prediction.detach().numpy(),
        TypeError,
        "returned a numpy array",
    ),
    "represent: numpy of what has a graph": (
        "represent",
        lambda self, prediction, batch: prediction.numpy(),
        RuntimeError,
        "Tags.represent raised this; it must return z",
    ),
    "represent: one dimension": (
        "represent",
        lambda self, prediction, batch: prediction.sum(1),
        TypeError,
        r"two dimensions or more.*shape \(6,\)",
    ),
    "represent: batch size": (
        "represent",
        lambda self, prediction, batch: prediction[:3],
        TypeError,
        r"shape \(3, 5\).*The batch has 6 samples",
    ),
    "represent: integers": (
        "represent",
        lambda self, prediction, batch: (prediction > 0).long(),
        TypeError,
        "int64. Give it the prediction's dtype",
    ),
    "represent: detached": (
        "represent",
        lambda self, prediction, batch: prediction.detach().sigmoid(),
        ValueError,
        "Tags.represent returned z without a graph",
    ),
    "represent: of the batch's prediction": (
        "represent",
        lambda self, prediction, batch: batch.prediction.detach().sigmoid(),
        ValueError,
        "not from batch.prediction",
    ),
    "represent: elsewhere": (
        "represent",
        lambda self, prediction, batch: prediction.to("meta"),
        ValueError,
        "Tags.represent returned a tensor on meta",
    ),
    "represent: in place": ("represent", added_in_place, ValueError, "represent changed a tensor"),
    "expand: nothing": (
        "expand",
        lambda self, target: None,
        TypeError,
        "Tags.expand must return y",
    ),
    "expand: one dimension": (
        "expand",
        lambda self, target: target.sum(1),
        TypeError,
        "Tags.expand must return y.*two dimensions",
    ),
    "decode: predictions alone": (
        "decode",
        lambda self, batch: self.sets(batch.prediction > 0),
        TypeError,
        r"Tags.decode must return \(predictions, targets\).*list of 6 \(set\)",
    ),
    "decode: too few": (
        "decode",
        lambda self, batch: (self.sets(batch.prediction[:2] > 0), self.sets(batch.target)),
        ValueError,
        r"Tags.decode must give.*each of the 6 samples; it returned a list of 2 \(set\)",
    ),
    "decode: an iterator": (
        "decode",
        lambda self, batch: (iter(self.sets(batch.prediction > 0)), self.sets(batch.target)),
        TypeError,
        "Tags.decode must give.*list_iterator",
    ),
    "decode: with a graph": (
        "decode",
        lambda self, batch: (batch.prediction, batch.target),
        ValueError,
        "Tags.decode returned a tensor with a graph.*detach",
    ),
    "decode: in place": (
        "decode",
        lambda self, batch: (self.sets(batch.target.neg_()), self.sets(batch.target)),
        ValueError,
        "Tags.decode changed a tensor",
    ),
    "encode: z alone": (
        "encode",
        lambda self, predictions, targets, shape: self.rows(predictions),
        TypeError,
        r"Tags.encode must return \(z, stored targets\)",
    ),
    "encode: numpy": (
        "encode",
        lambda self, predictions, targets, shape: (
            np.ones((len(targets), 5)),
            np.ones((len(targets), 5)),
        ),
        TypeError,
        "Tags.encode must return.*ndarray",
    ),
    "encode: too few": (
        "encode",
        lambda self, predictions, targets, shape: (
            self.rows(predictions)[1:],
            self.rows(targets),
        ),
        TypeError,
        "Tags.encode.*There are 8 pairs",
    ),
    "encode: another width": (
        "encode",
        lambda self, predictions, targets, shape: (
            self.rows(predictions).repeat(1, 2),
            self.rows(targets),
        ),
        ValueError,
        r"Tags.encode gave samples of shape \(10,\) where represent gives \(5,\)",
    ),
    "encode: another width of targets": (
        "encode",
        lambda self, predictions, targets, shape: (
            self.rows(predictions),
            self.rows(targets)[:, :4],
        ),
        ValueError,
        r"Tags.encode gave samples of shape \(4,\) where read gives \(5,\)",
    ),
    "build_surrogate: a function": (
        "build_surrogate",
        lambda self, z, y: lambda z, y: (z - y).norm(dim=1),
        TypeError,
        r"Tags.build_surrogate must return an nn.Module S\(z, y\)",
    ),
    "build_surrogate: for another width": (
        "build_surrogate",
        lambda self, z, y: nn.Bilinear(4, 4, 1),
        RuntimeError,
        r"The surrogate, Bilinear, was called with z \(6, 5\) and y \(6, 5\)",
    ),
    "build_surrogate: (batch, 1)": (
        "build_surrogate",
        lambda self, z, y: nn.Bilinear(5, 5, 1),
        ValueError,
        r"one value a sample, shape \(6,\).*\(6, 1\)",
    ),
    "sample: predictions alone": (
        "sample",
        lambda self, batch, random: self.sets(batch.prediction > 0),
        TypeError,
        r"Tags.sample must return \(predictions, targets\)",
    ),
    "sample: too many": (
        "sample",
        lambda self, batch, random: (2 * self.sets(batch.prediction > 0), self.sets(batch.target)),
        ValueError,
        "Tags.sample must give.*6 samples.*list of 12",
    ),
    "perfect: not in a list": (
        "perfect",
        lambda self, batch: None,
        TypeError,
        "Tags.perfect must return a list",
    ),
    "perfect: the sets themselves": (
        "perfect",
        lambda self, batch: self.decode(batch)[1],
        TypeError,
        "Tags.perfect must give the metric.*returned a set",
    ),
    "warn_about: nothing": (
        "warn_about",
        lambda self, batch: None,
        TypeError,
        "Tags.warn_about must return True",
    ),
    "for_surrogate: nothing": (
        "for_surrogate",
        lambda self, name: None,
        TypeError,
        "Tags.for_surrogate must",
    ),
    "for_base_loss: nothing": (
        "for_base_loss",
        lambda self, loss: None,
        TypeError,
        "Tags.for_base_loss must return a",
    ),
    "generator: pairs": (
        "generator",
        lambda self: pairs(4, np.random.default_rng(0)),
        TypeError,
        "Tags.generator must return a generator",
    ),
    "surrogates: a name": ("surrogates", "embedding", TypeError, "tuple of names.*with the comma"),
    "can_sample: a function": (
        "can_sample",
        lambda self: 1,
        TypeError,
        "can_sample must be True or False",
    ),
    "draws: without samples": (
        "can_sample",
        False,
        TypeError,
        "Tags.draws is 2, and Tags.can_sample",
    ),
    "measured: without estimator": ("measured", True, TypeError, "must define estimator"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake, monkeypatch):
    hook, wrong, error, message = MISTAKES[mistake]
    monkeypatch.setattr(Tags, hook, wrong)
    options = {} if hook == "generator" else {"generator": pairs}
    with pytest.raises(error, match=f"(?s){message}"):
        use(make_loss(**options))


def test_a_loss_that_was_refused_is_as_it_was(monkeypatch):
    criterion = make_loss()
    with monkeypatch.context() as patch:
        patch.setattr(Tags, "represent", lambda self, prediction, batch: None)
        with pytest.raises(TypeError):
            criterion(*call())
    assert criterion.stats["calls"] == 0
    use(criterion)


def test_in_place_changes_are_named_without_gradients(monkeypatch):
    criterion = make_loss()
    for seed in range(2):  # it has warmed up
        criterion(*call(seed=seed)).backward()
    monkeypatch.setattr(Tags, "represent", lambda self, z, batch: z.sigmoid_())
    with torch.no_grad(), pytest.raises(ValueError, match=r"Tags.represent changed .* in place"):
        criterion(*call())


def test_samples_without_sample_are_named():
    class Own(Tags):
        sample = Tags.__mro__[1].sample

    with pytest.raises(TypeError, match=r"Own.can_sample is True: then it must define sample"):
        make_loss(Own(NAMES))


def test_a_hook_that_is_missing_is_named():
    class Own(Tags):
        encode = Tags.__mro__[1].encode

    with pytest.raises(TypeError, match="encode"):
        Own(NAMES)


def test_the_class_in_place_of_an_object_is_named():
    with pytest.raises(TypeError, match="the class itself: call it"):
        LearnedSurrogateLoss(jaccard_distance, task=Tags)


def test_a_constructor_that_does_not_call_the_one_it_inherits_is_named():
    class Own(boxes.Rotated):
        def __init__(self, scale):
            self.scale = scale
            self.can_sample, self.draws = True, 2

        def __repr__(self):
            return "Own()"

    criterion = LearnedSurrogateLoss(boxes.rotated_iou, task=Own(2.0))
    target = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.1]] * 2)
    message = r"Own.draw raised this.*Own has no 'noise': does its __init__ call super"
    with pytest.raises(AttributeError, match=message):
        criterion((target + 0.1).requires_grad_(), target)


def test_a_prediction_that_is_computed_is_named_where_a_base_loss_needs_it(monkeypatch):
    monkeypatch.setattr(Tags, "read", read_with(prediction=lambda z, y: 2 * z))
    make_loss()(*call()).backward()
    with pytest.raises(TypeError, match="none of the call's arguments, but computed from one"):
        make_loss(base_loss=lambda z, tags: z.square().mean())(*call())


def test_wrong_counts_are_named_where_the_gradient_is_measured():
    class Own(Tensors):
        def decode(self, batch):
            return super().decode(replace(batch, prediction=batch.prediction[:1]))

    prediction = torch.randn(4, 3, requires_grad=True)
    criterion = LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1), task=Own())
    with pytest.raises(ValueError, match=r"Own.decode must give.*4 samples.*shape \(1, 3\)"):
        criterion(prediction, torch.randn(4, 3))


def test_a_generators_pairs_are_counted():
    for wrong, message in ((lambda n, rng: pairs(n - 1, rng), "8"), (lambda n, rng: None, "None")):
        with pytest.raises((TypeError, ValueError), match=f"the generator must .*{message}"):
            use(make_loss(generator=wrong))
