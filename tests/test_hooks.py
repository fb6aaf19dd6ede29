"""What is returned by a hook and is only just wrong, or only just right."""

import pytest
import torch
from tags import NAMES, Tags, call

from learned_surrogates import Batch
from learned_surrogates._contract import hooks

TASK = Tags(NAMES)
SIZES = torch.Size((7, 9)), torch.Size((4,))


def read_with(**changed):
    """What is read of a call of six samples by a task whose batch has something else in it."""

    class Own(Tags):
        def read(self, logits, tags):
            return Batch(**{"prediction": logits, "target": self.rows(tags), **changed})

    return hooks.read(Own(NAMES), call(), {})


def test_a_target_has_a_dimension():
    with pytest.raises(TypeError, match=r"Own.read must .*target a tensor of shape \(\)"):
        read_with(target=torch.ones(()))


@pytest.mark.parametrize("dim", [0, -2])
def test_dimensions_are_counted_from_both_ends(dim):
    assert read_with(batch_dim=dim).batch_dim == dim


@pytest.mark.parametrize("dim", [2, -3, 0.0])
def test_a_dimension_that_is_not_there_is_named(dim):
    with pytest.raises(ValueError, match=f"batch_dim={dim} for a prediction .* one of its"):
        read_with(batch_dim=dim)


def test_one_sample_without_a_dimension_has_one_target():
    with pytest.raises(ValueError, match=r"a prediction of 1 samples.*and a target of 6"):
        read_with(batch_dim=None)


class Twice(Tags):
    def draw(self, batch, count, random):
        return 2 * super().draw(batch, count, random)


def test_draws_are_counted():
    batch = hooks.read(TASK, call(), {})
    assert len(hooks.draw(TASK, batch, 3, torch.Generator())) == 3
    with pytest.raises(TypeError, match=r"Twice.draw must return .*a list of 6 \(tuple\)"):
        hooks.draw(Twice(NAMES), batch, 3, torch.Generator())


def test_a_score_is_of_the_predictions_shape():
    class Own(Tags):
        def sample_with_score(self, batch, random):
            return *self.sample(batch, random), torch.ones(len(batch.target), 1)

    batch = hooks.read(TASK, call(), {})
    with pytest.raises(TypeError, match=r"score a tensor of shape \(6, 1\).*shape is \(6, 5\)"):
        hooks.sample_with_score(Own(NAMES), batch, torch.Generator())


class Encoded(Tags):
    """Encodes as it is told."""

    def __init__(self, z, y, ragged):
        super().__init__(NAMES)
        self.encoded, self.ragged = (torch.zeros(z), torch.zeros(y)), ragged

    def encode(self, predictions, targets, shape):
        return self.encoded


@pytest.mark.parametrize(
    ("z", "y", "ragged"),
    [((3, 7, 9), (3, 4), False), ((3, 7, 9), (3, 4), True), ((3, 7, 12), (3, 6), True)],
)
def test_pairs_are_laid_out_as_samples_are(z, y, ragged):
    pair = hooks.encode(Encoded(z, y, ragged), "abc", "abc", SIZES)
    assert [part.shape for part in pair] == [z, y]


@pytest.mark.parametrize(
    ("z", "y", "ragged", "message"),
    [
        ((3, 7, 12), (3, 4), False, r"shape \(7, 12\) where represent gives \(7, 9\)"),
        ((3, 7, 9), (3, 6), False, r"shape \(6,\) where read gives \(4,\)"),
        # Only the first dimension of a sample of z must be the same.
        ((3, 6, 9), (3, 4), True, r"shape \(6, 9\) where represent gives \(7, 9\)"),
        ((3, 7), (3, 4), True, r"shape \(7,\) where represent gives"),
    ],
)
def test_pairs_that_are_laid_out_otherwise_are_named(z, y, ragged, message):
    with pytest.raises(ValueError, match=f"Encoded.encode gave samples of {message}"):
        hooks.encode(Encoded(z, y, ragged), "abc", "abc", SIZES)


@pytest.mark.parametrize("count", [2, 4])
def test_pairs_are_counted(count):
    for sizes in (((count, 7, 9), (3, 4)), ((3, 7, 9), (count, 4))):
        with pytest.raises(TypeError, match="There are 3 pairs"):
            hooks.encode(Encoded(*sizes, False), "abc", "abc", SIZES)


class Detached(Batch):
    def reduce(self, value, reduction):
        return value.mean().detach()


def test_a_reduction_keeps_the_graph_that_there_is():
    batch = Detached(prediction=torch.ones(2, 5), target=torch.ones(2, 5))
    assert hooks.reduce(batch, torch.tensor([1.0, 3.0]), "mean") == 2
    with pytest.raises(TypeError, match=r"Detached.reduce must return a tensor that depends"):
        hooks.reduce(batch, torch.ones(2, requires_grad=True), "mean")


@pytest.mark.parametrize("names", [(), ("embedding", 1), ["embedding"]])
def test_surrogates_are_a_tuple_of_names(names, monkeypatch):
    monkeypatch.setattr(Tags, "surrogates", names)
    with pytest.raises(TypeError, match=r"Tags.surrogates must be a tuple of names"):
        hooks.check_settings(TASK)


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (5,), ()])
def test_a_surrogate_has_one_number_a_sample(shape):
    with pytest.raises(ValueError, match=r"one value a sample, shape \(6,\); it returned .*tensor"):
        hooks.surrogate_value(torch.zeros(shape), torch.zeros(6, 2))
    assert hooks.surrogate_value(torch.zeros(6), torch.zeros(6, 2)).shape == (6,)
