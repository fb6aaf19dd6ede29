"""The contracts of a task, kept by ours, and each broken by a task that is written wrongly."""

import random

import numpy as np
import pytest
import torch
from conftest import ALPHABET, make_arguments, make_loss
from tags import NAMES, Tags, call
from torch import nn

from learned_surrogates import Batch, SampledTask, Tensors, boxes, check_task, text
from learned_surrogates._contract import contracts
from learned_surrogates._contract.call import Call, NotAsked
from learned_surrogates._contract.check_task import CONTRACTS
from learned_surrogates._contract.compare import equal

TASKS = {
    "tensors": (Tensors(), "tensors"),
    "tensors, a surrogate of values": (Tensors(smoothing=0), "tensors"),
    "CTC": (text.CTC(ALPHABET), "ctc"),
    "CTC, even": (text.CTC(ALPHABET, layout="even"), "ctc"),
    "CTC, blank within": (text.CTC(ALPHABET, blank=3, fold=str.lower), "ctc"),
    "characters": (text.PerPosition(ALPHABET), "characters"),
    "characters, end within": (text.PerPosition(ALPHABET, end=3), "characters"),
    "boxes": (boxes.Rotated(), "boxes"),
    "boxes, noise": (boxes.Rotated(noise=0.1), "boxes"),
}


@pytest.mark.parametrize("name", TASKS)
def test_our_tasks_keep_the_contracts(name):
    task, case = TASKS[name]
    prediction, target, *rest = make_arguments(case, seed=3)
    if name == "CTC, blank within":
        target = target - (target <= 3).long()
    assert not check_task(task, prediction, target, *rest).failed


def test_classes_last_keep_the_contracts():
    input, target = make_arguments("characters")
    task = text.PerPosition(ALPHABET, classes_last=True)
    assert not check_task(task, input.transpose(1, 2), target).failed


def test_upright_boxes_keep_the_contracts():
    prediction, target = make_arguments("boxes")
    centres = prediction[:, :4], target[:, :4]
    assert not check_task(boxes.AxisAligned("cxcywh", noise=0.1), *centres).failed
    corners = [torch.cat([b[:, :2], b[:, :2] + b[:, 2:].abs()], 1) for b in centres]
    assert not check_task(boxes.AxisAligned(), *corners).failed
    turned = [
        torch.cat([b[:, :2], b[:, :1], b[:, 3:], b[:, 2:], b[:, 2:3], b[:, 1:2]], 1)
        for b in corners
    ]
    assert not check_task(boxes.Corners(noise=0.1), *turned).failed


def test_one_sample_without_a_batch_and_one_of_a_batch_are_asked_less():
    input, target = make_arguments("characters", batch=1)
    for arguments in ((input, target), (input[0], target[0])):
        check = check_task(text.PerPosition(ALPHABET), *arguments)
        skipped = {contract.name for contract in check.contracts if contract.state == "skipped"}
        assert skipped == {"alone", "order", "independent", "cut"}


def test_a_task_that_is_written_rightly_passes_and_its_arguments_stay():
    logits, tags = call()
    before = logits.detach().clone(), [set(each) for each in tags]
    streams = torch.get_rng_state(), random.getstate()
    check = check_task(Tags(NAMES), logits, tags=tags)
    assert str(check).startswith("Tags: 22 passed, 0 failed, 3 skipped\npassed   settings: ")
    assert torch.equal(logits, before[0])
    assert tags == before[1]
    assert logits.grad is None
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]


class Renamed(Tags):
    """Holds what pickle does not take."""

    def __init__(self, names):
        super().__init__(names)
        self.order = lambda tags: sorted(tags)


def remembering(self, batch):
    self.last = batch
    return self.sets(batch.prediction > 0), self.sets(batch.target > 0)


def sorted_by_size(self, logits, tags):
    logits, tags = logits, sorted(tags, key=len)
    return Batch(prediction=logits, target=self.rows(tags))


def emptied(self, logits, tags):
    target = self.rows(tags)
    tags.clear()
    return Batch(prediction=logits, target=target)


def noisy(self, batch):
    predictions = self.sets(batch.prediction + torch.randn(batch.prediction.shape) > 0)
    return predictions, self.sets(batch.target > 0)


def of_the_world(self, batch, random):
    return self.sets(torch.rand(batch.prediction.shape) < 0.5), self.sets(batch.target > 0)


class Normed(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * size, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def forward(self, z, y):
        return self.net(torch.cat([z, y], 1))[:, 0]


# Hook, what it is in place of, the contract that it breaks, and what is said of that.
BROKEN = {
    "represent: a mean over the batch": (
        "represent",
        lambda self, prediction, batch: prediction - prediction.mean(0),
        "independent",
        "z of sample 0 changes when other samples' predictions do",
    ),
    "represent: a softmax over the batch": (
        "represent",
        lambda self, prediction, batch: prediction.softmax(0),
        "independent",
        "a softmax over dimension 0",
    ),
    "represent: standardised by the targets of the batch": (
        "represent",
        lambda self, prediction, batch: prediction.sigmoid() - batch.target.mean(0),
        "cut",
        "z of samples .* when they are alone in a call",
    ),
    "represent: a threshold": (
        "represent",
        lambda self, prediction, batch: (prediction > 0).float() + 0 * prediction,
        "gradient",
        "gradient of z is zero.*probabilities",
    ),
    "represent: a root at zero": (
        "represent",
        lambda self, prediction, batch: (prediction - prediction).sqrt() + prediction,
        "gradient",
        "not finite",
    ),
    "represent: a logarithm of what is negative": (
        "represent",
        lambda self, prediction, batch: prediction.log(),
        "represent",
        "z is not finite",
    ),
    "represent: in float32": (
        "represent",
        lambda self, prediction, batch: prediction.float().sigmoid(),
        "precision",
        "z of a float64 prediction is torch.float32",
    ),
    "expand: a mean over the batch": (
        "expand",
        lambda self, target: target - target.mean(0),
        "expand",
        "y of sample 0 is another one when its target is expanded alone",
    ),
    "encode: another width": (
        "encode",
        lambda self, predictions, targets, shape: (
            self.rows(predictions).repeat(1, 2),
            self.rows(targets),
        ),
        "encode",
        r"Tags.encode gave samples of shape \(10,\)",
    ),
    "encode: targets of another type": (
        "encode",
        lambda self, predictions, targets, shape: (
            self.rows(predictions),
            self.rows(targets).long(),
        ),
        "encode",
        "encode's targets are torch.int64, and read's torch.float32",
    ),
    "encode: other targets": (
        "encode",
        lambda self, predictions, targets, shape: (
            self.rows(predictions),
            self.rows(targets).flip(1),
        ),
        "encode",
        "encode stores other targets than read does",
    ),
    "decode: as long as the prediction": (
        "decode",
        lambda self, batch: (batch.prediction.detach(), batch.target),
        "apart",
        "share memory with the call's",
    ),
    "decode: by chance": ("decode", noisy, "decode", "no chance in it"),
    "decode: a mean over the batch": (
        "decode",
        lambda self, batch: (
            self.sets(batch.prediction > batch.prediction.mean(0)),
            self.sets(batch.target > 0),
        ),
        "alone",
        "decode gives other predictions for samples",
    ),
    "decode: remembers": ("decode", remembering, "unchanged", "a hook changed the task"),
    "decode: bfloat16": (
        "decode",
        lambda self, batch: (batch.prediction.detach().clone(), batch.target.clone()),
        "half",
        "bfloat16.*float()",
    ),
    "decode: predictions and targets of two kinds": (
        "decode",
        lambda self, batch: (
            [sorted(tags) for tags in self.sets(batch.prediction > 0)],
            self.sets(batch.target > 0),
        ),
        "perfect",
        "predictions as list of list, targets as list of set",
    ),
    "read: another order": ("read", sorted_by_size, "order", "other targets for samples"),
    "read: empties the list": ("read", emptied, "read", "."),
    "read: what is computed": (
        "read",
        lambda self, logits, tags: Batch(prediction=2 * logits, target=self.rows(tags)),
        "argument",
        "the argument itself",
    ),
    "sample: of a global stream": (
        "sample",
        of_the_world,
        "draws",
        "take all chance from the argument `random`",
    ),
    "sample: keeps the generator": (
        "draw",
        lambda self, batch, count, random: [self.sample(batch, random) for _ in range(count + 1)][
            1:
        ],
        "draws",
        "draws together are not those one by one",
    ),
    "sample: no draw": (
        "sample",
        lambda self, batch, random: self.decode(batch),
        "draws",
        "8 draws are all the same",
    ),
    "sample: another form": (
        "sample",
        lambda self, batch, random: (
            torch.rand(batch.prediction.shape, generator=random),
            self.sets(batch.target > 0),
        ),
        "draws",
        "sample gives Tensor",
    ),
    "can_sample: not said": (
        "can_sample",
        False,
        "settings",
        "can_sample = True|can_sample is False",
    ),
    "build_surrogate: mixes the batch": (
        "build_surrogate",
        lambda self, z, y: Normed(z.shape[1]),
        "surrogate",
        "no BatchNorm|Expected more than 1 value",
    ),
    "build_surrogate: blind": (
        "build_surrogate",
        lambda self, z, y: nn.Sequential(),
        "surrogate",
        "The surrogate, Sequential, was called with z",
    ),
    "perfect: another form": (
        "perfect",
        lambda self, batch: [batch.target],
        "perfect",
        "perfect gives Tensor",
    ),
    "surrogates: a name": ("surrogates", "embedding", "settings", "with the comma"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_contract_is_found(broken, monkeypatch):
    hook, wrong, contract, message = BROKEN[broken]
    monkeypatch.setattr(Tags, hook, wrong)
    with pytest.raises(
        AssertionError, match=rf"(?s)failed   {contract}: [^\n]*\n +[^\n]*{message}"
    ):
        check_task(Tags(NAMES), *call())


def test_every_contract_can_be_broken():
    broken = {contract for _, _, contract, _ in BROKEN.values()}
    others = {"generator", "scores", "likelihood", "copies", "reduction", "padding"}
    assert {contract.__name__ for contract in CONTRACTS} == broken | others


def test_padding_that_shows_is_found(monkeypatch):
    monkeypatch.setattr(Tags, "ragged", True)
    monkeypatch.setattr(Tags, "expand", lambda self, target: 1 - target)
    with pytest.raises(AssertionError, match=r"failed   padding: .*\n.*padding shows in y"):
        check_task(Tags(NAMES), *call())


def test_a_task_that_cannot_be_pickled_is_found():
    with pytest.raises(AssertionError, match=r"failed   copies: .*\n.*no lambda"):
        check_task(Renamed(NAMES), *call())


def test_a_generator_of_other_things_is_found(monkeypatch):
    monkeypatch.setattr(
        Tags, "generator", lambda self: lambda count, rng: [np.ones((count, 5))] * 2
    )
    with pytest.raises(AssertionError, match=r"failed   generator: .*\n.*makes ndarray"):
        check_task(Tags(NAMES), *call())


def test_a_score_of_another_shape_is_found(monkeypatch):
    monkeypatch.setattr(Tags, "has_score", True)
    monkeypatch.setattr(
        Tags, "sample_with_score", lambda self, b, r: (*self.sample(b, r), b.target[0])
    )
    with pytest.raises(
        AssertionError, match=r"failed   scores: .*\n.*score a tensor of shape \(5,"
    ):
        check_task(Tags(NAMES), *call())


class Summed(Batch):
    def reduce(self, value, reduction):
        return value.sum()[None]


def test_a_reduction_of_another_shape_is_found(monkeypatch):
    read = lambda self, logits, tags: Summed(prediction=logits, target=self.rows(tags))  # noqa: E731
    monkeypatch.setattr(Tags, "read", read)
    with pytest.raises(AssertionError, match=r"failed   reduction: .*\n.*gives \(1,\) for 'mean'"):
        check_task(Tags(NAMES), *call())


def test_the_whole_table_is_shown_and_says_where_a_hook_raised(monkeypatch):
    monkeypatch.setattr(Tags, "encode", lambda self, predictions, targets, shape: 1 / 0)
    with pytest.raises(AssertionError, match=r"Tags: \d+ passed, \d failed") as caught:
        check_task(Tags(NAMES), *call())
    table = str(caught.value)
    assert "passed   order: " in table
    assert "ZeroDivisionError: division by zero Tags.encode raised this" in table
    assert "test_check_task.py, line" in table


def test_what_is_not_implemented_is_skipped(monkeypatch):
    def encode(self, predictions, targets, shape):
        raise NotImplementedError

    monkeypatch.setattr(Tags, "encode", encode)
    found = {c.name: c.state for c in check_task(Tags(NAMES), *call()).contracts}
    assert found["encode"] == "skipped"
    assert found["unchanged"] == "passed"


def test_nothing_else_is_asked_where_nothing_could_be_read():
    with pytest.raises(AssertionError, match=r"failed   read: .*\n.*is called as") as caught:
        check_task(Tags(NAMES), call()[0])
    assert str(caught.value).startswith("Tags: 1 passed, 1 failed, 0 skipped")


@pytest.mark.parametrize("value", [[1], (1,), {"a": 1}, np.ones(1), np.float64(1), torch.ones(1)])
def test_what_a_hook_remembers_is_not_the_nothing_that_was_there(value):
    assert not equal(value, None) and not equal(None, value)
    assert not equal(value, "text") and equal(value, value)


def test_no_task_is_refused():
    for wrong, message in ((Tags, "the class itself"), (None, "got None")):
        with pytest.raises(TypeError, match=message):
            check_task(wrong, *call())


class Choices(SampledTask):
    """A class, drawn from a softmax; its score as a subclass has it."""

    target_is_best = True

    def read(self, logits, target):
        return Batch(prediction=logits, target=target)

    def decode(self, batch):
        return batch.prediction.argmax(1), batch.target.clone()

    def sample_with_score(self, batch, random):
        p = batch.prediction.softmax(1)
        drawn = torch.multinomial(p, 1, generator=random)[:, 0]
        return drawn, batch.target.clone(), self.score(drawn, p)

    def score(self, drawn, p):
        return nn.functional.one_hot(drawn, 3) - p


WRONG_SCORES = {
    "sign": lambda drawn, p: p - nn.functional.one_hot(drawn, 3),
    "twice": lambda drawn, p: 2 * (nn.functional.one_hot(drawn, 3) - p),
    "of the mean": lambda drawn, p: (nn.functional.one_hot(drawn, 3) - p) / len(p),
    "of another sample": lambda drawn, p: (nn.functional.one_hot(drawn, 3) - p).flip(0),
    "none": lambda drawn, p: torch.zeros_like(p),
    "log-probabilities": lambda drawn, p: p.log(),
}


def choices(score=None):
    return type(
        "Choices", (Choices,), {} if score is None else {"score": lambda _, *s: score(*s)}
    )()


def likelihood(task, seed, sharpness=1.0):
    """What becomes of that contract."""
    random = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(6, 3, generator=random), torch.arange(6) % 3
    call = Call(task, (sharpness * logits, target), {})
    try:
        contracts.likelihood(call)
    except AssertionError as error:
        assert "A score is the gradient of the draws' summed log-likelihoods" in str(error)
        return False
    return True


def test_a_right_score_is_taken_as_right():
    assert all(likelihood(choices(), seed, 1.0 + seed % 4) for seed in range(8))


def test_of_the_score_what_baselines_take_out_may_be_left_out():
    assert likelihood(choices(lambda drawn, p: nn.functional.one_hot(drawn, 3).float()), 0)


@pytest.mark.parametrize("mistake", WRONG_SCORES)
def test_a_wrong_score_is_told(mistake):
    assert not any(likelihood(choices(WRONG_SCORES[mistake]), seed) for seed in range(2))


def test_draws_at_another_temperature_than_their_score_are_told():
    class Sharper(Choices):
        def sample_with_score(self, batch, random):
            drawn = torch.multinomial((3 * batch.prediction).softmax(1), 1, generator=random)[:, 0]
            p = batch.prediction.softmax(1)
            return drawn, batch.target.clone(), self.score(drawn, p)

    assert not any(likelihood(Sharper(), seed) for seed in range(2))


@pytest.mark.parametrize("case", ["ctc", "characters"])
def test_the_scores_of_readings_are_right(case):
    contracts.likelihood(Call(make_loss(case).task, make_arguments(case), {}))


class Noisy(SampledTask):
    """Gaussian noise on the prediction."""

    width = 1.0

    def read(self, z, target):
        return Batch(prediction=z, target=target)

    def decode(self, batch):
        return batch.prediction.detach().clone(), batch.target.clone()

    def sample_with_score(self, batch, random):
        noise = torch.randn(batch.prediction.shape, generator=random)
        drawn = batch.prediction.detach() + self.width * noise
        return drawn, batch.target.clone(), noise / self.width


class Words(Choices):
    """As many letters as the prediction has places; twice the score, if it is wrong."""

    factor = 1.0

    def decode(self, batch):
        return self.words(batch.prediction.argmax(-1)), batch.target.clone()

    def words(self, drawn):
        return ["".join("abcde"[c] for c in row) for row in drawn.tolist()]

    def sample_with_score(self, batch, random):
        p = batch.prediction.softmax(-1)
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=random).view(p.shape[:-1])
        score = self.factor * (nn.functional.one_hot(drawn, p.shape[-1]) - p)
        return self.words(drawn), batch.target.clone(), score


@pytest.mark.parametrize(("centre", "spread", "width"), [(50, 20, 1.0), (0, 1, 0.1), (0, 1, 0.01)])
def test_draws_may_be_narrow_beside_what_predictions_vary_by(centre, spread, width):
    task = Noisy()
    task.width = width
    z = centre + spread * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    contracts.likelihood(Call(task, (z, z.clone()), {}))


@pytest.mark.parametrize("sharpness", [1.0, 5.0])
def test_scores_of_texts_are_told_apart_by_their_letters(sharpness):
    random = torch.Generator().manual_seed(0)
    logits = sharpness * torch.randn(6, 7, 5, generator=random)
    call = Call(Words(), (logits, torch.zeros(6, 7)), {})
    contracts.likelihood(call)
    for factor in (-1.0, 1 / 6, 2.0):
        call.task.factor = factor
        with pytest.raises(AssertionError, match="draws follow with a slope"):
            contracts.likelihood(call)


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_predictions_that_are_nearly_alike_are_moved_until_draws_differ(spread):
    assert all(likelihood(choices(), seed, spread) for seed in range(2))
    assert not likelihood(choices(WRONG_SCORES["twice"]), 0, spread)


def test_draws_that_show_no_slope_are_not_asked():
    logits = 1e3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    call = Call(choices(), (logits, torch.arange(6) % 3), {})
    with pytest.raises(NotAsked, match="more than chance"):
        contracts.likelihood(call)
