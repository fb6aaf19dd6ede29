"""A recogniser's metric: its mean over random readings, what of it is known and measured."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ALPHABET, assert_identical, make_arguments, make_loss, snapshot, step, train
from rapidfuzz.distance import Levenshtein
from torch import nn
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, Workers, text
from learned_surrogates._evaluation.measurement import Measurement
from learned_surrogates._metric.metric import Metric
from learned_surrogates.text._controls import Controls
from learned_surrogates.text._readings import ReadingDraws

LETTERS = "ab"
TASKS = {"ctc": text.CTC(LETTERS), "characters": text.PerPosition(LETTERS)}
HEADS = pytest.mark.parametrize("head", TASKS)


def surprise(predictions, targets):
    """A metric that has something in common with edit distance, and more that it has not."""
    return [
        (len(p) - len(t)) ** 2 + 2.0 * p.startswith("b") + (p != t)
        for p, t in zip(predictions, targets, strict=True)
    ]


def outputs(head, count, seed=0, positions=4, scale=1.5):
    """The same random output and target, so many times; what the loss is called with."""
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(positions, 1, 3, generator=random).expand(-1, count, -1)
    if head == "ctc":
        lengths = torch.full((count,), positions), torch.full((count,), 2)
        return logits.clone().requires_grad_(), torch.tensor([[1, 2]]).expand(count, 2), *lengths
    target = torch.tensor([1, 2, 0, 0][:positions])
    return logits.permute(1, 2, 0).clone().requires_grad_(), target.expand(count, -1)


def exact(head, metric, arguments):
    """The expected metric's gradient of one sample, by going through all readings."""
    task = TASKS[head].for_surrogate("auto")
    batch = task.read(*arguments)
    logits = batch.logits.double().requires_grad_()
    log_probs = logits.log_softmax(1)[0]
    paths = torch.tensor(list(itertools.product(range(3), repeat=logits.shape[2])))
    shares = log_probs.T.gather(1, paths.T).sum(0).exp()
    errors = torch.as_tensor(metric(task.texts(paths), batch.texts[:1] * len(paths))).double()
    (gradient,) = torch.autograd.grad((shares * errors).sum(), logits)
    return gradient[0].float()


@HEADS
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_unbiased_whatever_is_made_of_the_controls(head, share):
    """Random weights, a share that is wrong, and one in four samples measured.

    The mean over 40 calls of 256 samples, each of 4 readings; 4 standard errors.
    """
    arguments = outputs(head, 256)
    task = TASKS[head].for_surrogate("auto")
    batch = task.read(*arguments)
    random = torch.Generator().manual_seed(1)
    controls = Controls(task, batch)
    weights = torch.randn(len(Controls.ridge(task)), generator=random)
    found = []
    for _ in range(40):
        drawn = task.random_classes(batch, 4, random)
        draws = ReadingDraws(task, batch, drawn, controls, weights.double(), share)
        values = torch.tensor([surprise(*pair) for pair in draws.pairs])
        chosen = torch.zeros(256, dtype=torch.bool)
        chosen[torch.randperm(256, generator=random)[:64]] = True
        values = values.where(chosen, torch.nan)
        measured = Measurement(values=values, usable=chosen, arrived=chosen, stands_for=4.0)
        gradient = task.logits(sum(draws.gradient(measured)))
        found.append(gradient.mean(0))
    found = torch.stack(found)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact(head, surprise, arguments)).abs() < 4 * error + 1e-6).all()


def test_how_many_are_drawn():
    """None where values are fitted, or the mean is known, unless nothing shall be."""
    for surrogate, metric, count in (
        ("auto", surprise, 4),
        ("auto", text.edit_distance, 0),
        ("none", text.edit_distance, 4),
        ("embedding", surprise, 0),
    ):
        given = Metric(metric, False, 0.0, True, "raise")
        assert TASKS["ctc"].for_surrogate(surrogate).draws_of(given) == count


def test_what_is_drawn_behind_the_end_of_a_text_adds_no_noise():
    """The texts vary, but all of them end at the third place or before."""
    task = text.PerPosition("ab").for_surrogate("none")
    logits = torch.zeros(8, 3, 6)
    logits[:, task.alphabet.special, 2] = 50.0
    batch = task.read(logits, torch.ones(8, 6, dtype=torch.long))
    drawn = task.random_classes(batch, 4, torch.Generator().manual_seed(0))
    nothing = torch.zeros(0, dtype=torch.float64)
    draws = ReadingDraws(task, batch, drawn, None, nothing, 0.0)
    values = torch.tensor([surprise(*pair) for pair in draws.pairs])
    everywhere = torch.ones(8, dtype=torch.bool)
    measured = Measurement(values=values, usable=everywhere, arrived=everywhere, stands_for=1.0)
    gradient = task.logits(draws.gradient(measured)[1])
    assert gradient[:, :, :2].abs().sum() > 0
    assert not gradient[:, :, 3:].any()
    _, _, score = task.sample_with_score(batch, torch.Generator().manual_seed(0))
    assert score[:, :, 0].abs().sum() > 0 and not score[:, :, 3:].any()


@HEADS
def test_the_controls_gradients_are_those_of_their_means(head):
    """By going through all readings; the edit distance's closed form is near, the others exact."""
    arguments = outputs(head, 1, seed=2)
    task = TASKS[head].for_surrogate("auto")
    batch = task.read(*arguments)
    controls = Controls(task, batch)
    logits = batch.logits.double().requires_grad_()
    log_probs = logits.log_softmax(1)[0]
    paths = torch.tensor(list(itertools.product(range(3), repeat=logits.shape[2])))
    shares = log_probs.T.gather(1, paths.T).sum(0).exp()
    drawn = paths[:, None]
    columns = controls.columns(drawn, task.readings(drawn, batch)).double()[:, 0]
    for column in range(columns.shape[1]):
        (truth,) = torch.autograd.grad(
            (shares * columns[:, column]).sum(), logits, retain_graph=True
        )
        weights = torch.zeros(columns.shape[1], dtype=torch.float64)
        weights[column] = 1
        close = 0.06 if column < 3 else 1e-4
        torch.testing.assert_close(
            controls.gradient(weights), truth.float(), atol=close, rtol=close
        )


def fitted(metric, head="characters", calls=40, **options):
    """A loss after some calls with outputs that differ, and what a further call is made with."""
    criterion = make_loss(f"{head}-auto", metric, draws=4, **options)
    train_on = [make_arguments(head, seed, batch=64) for seed in range(calls)]
    for arguments in train_on:
        step(criterion, arguments)
    return criterion


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("head", ["ctc", "characters"])
def test_a_users_own_edit_distance_is_found_to_be_one(head, by_length):
    """Then all of it is known, and the draws add no noise."""

    def unit(target):
        return 2.0 / max(1, len(target)) if by_length else 2.0

    def mine(prediction, target):
        return unit(target) * Levenshtein.distance(prediction, target)

    criterion = fitted(mine, head, calls=10)
    assert criterion.stats["surrogate/r2"] == pytest.approx(1, abs=1e-3)
    assert criterion.stats["gradient/effective_draws"] > 500
    arguments = make_arguments(head, 99, batch=8)
    _, gradient = step(criterion, arguments)
    known = text.ExpectedEditDistance(criterion.task, reduction="none")(*arguments)
    _, meant = criterion.task.decode(criterion.task.read(*arguments))
    units = torch.tensor([unit(target) for target in meant])
    (truth,) = torch.autograd.grad((units * known).mean(), arguments[0])
    torch.testing.assert_close(gradient, truth, atol=1e-3, rtol=1e-2)


def right_or_wrong_of(prediction, target):
    return float(prediction != target)


def test_what_is_not_an_edit_distance_is_learned_in_part():
    vowels_count_tenfold = text.WeightedEditDistance(characters={"ae": 10})
    r2, of_distance, *_ = core_of(fitted(vowels_count_tenfold)).estimator.control.r2.tolist()
    assert of_distance + 0.05 < r2 < 1.0
    right_or_wrong = fitted(right_or_wrong_of).stats["surrogate/r2"]
    # Of such outputs hardly any is right.
    assert right_or_wrong > 0.95
    none = fitted(right_or_wrong_of, surrogate="none")
    assert none.stats["surrogate/weight"] == 0
    assert none.stats["surrogate/r2"] != none.stats["surrogate/r2"]


@HEADS
def test_an_edit_distance_is_known_and_the_metric_is_not_asked(head, monkeypatch):
    criterion = LearnedSurrogateLoss(text.edit_distance, task=TASKS[head], reduction="none")
    arguments = outputs(head, 5)
    monkeypatch.setattr(core_of(criterion).oracle.queue, "submit", None)
    loss, gradient = step(criterion, arguments)
    known = text.ExpectedEditDistance(TASKS[head], reduction="none")
    values = known(*arguments)
    (truth,) = torch.autograd.grad(values.sum(), arguments[0])
    torch.testing.assert_close(loss, values.detach())
    torch.testing.assert_close(gradient, truth)
    assert "known in closed form" in repr(criterion)
    assert criterion.stats["surrogate/r2"] == 1
    monkeypatch.undo()
    # As everywhere, without a gradient it is what the prediction itself reads.
    with torch.no_grad():
        reading = criterion(*arguments)
    assert (
        reading.tolist()
        == text.edit_distance(*criterion.task.decode(criterion.task.read(*arguments))).tolist()
    )


class OfFirstTwo(text.WeightedEditDistance):
    def __call__(self, predictions, targets):
        return super().__call__([each[:2] for each in predictions], [each[:2] for each in targets])


def test_whole_number_costs_are_known_and_others_are_not():
    task = text.CTC(ALPHABET)
    arguments = make_arguments("ctc")
    costly = text.WeightedEditDistance(additional=5, missing=1, wrong=5)
    _, gradient = step(LearnedSurrogateLoss(costly, task=task), arguments)
    known = text.ExpectedEditDistance(task, insertion=5, deletion=1, substitution=5)
    (truth,) = torch.autograd.grad(known(*arguments), arguments[0])
    torch.testing.assert_close(gradient, truth)
    others = (
        (text.WeightedEditDistance(wrong=1.5), task),
        (text.WeightedEditDistance(characters={"a": 2}), task),
        (text.normalized_edit_distance, task),
        (OfFirstTwo(), task),
        # Where two characters count as one, or one class is two characters.
        (text.edit_distance, text.CTC("abAB", fold=str.lower)),
        (text.edit_distance, text.CTC(["ab", "c"])),
        (text.edit_distance, text.CTC("abc", decode=lambda classes: "a" * len(classes))),
    )
    for metric, task in others:
        assert "draws: 4 readings" in repr(LearnedSurrogateLoss(metric, task=task))
    assert "draws: 2 readings" in repr(
        LearnedSurrogateLoss(text.edit_distance, task=text.CTC("ab"), draws=2)
    )


@pytest.mark.parametrize("metric", [text.edit_distance, text.normalized_edit_distance])
def test_the_base_loss_leads_until_most_is_read(metric):
    """And then has half of the gradient, where the metric is an edit distance."""
    task = text.PerPosition(ALPHABET)
    criterion = LearnedSurrogateLoss(metric, task=task, base_loss=nn.CrossEntropyLoss())
    target = torch.randint(1, 7, (64, 5), generator=torch.Generator().manual_seed(0))
    unsure = torch.zeros(64, 7, 5, requires_grad=True)
    _, gradient = step(criterion, (unsure, target))
    (base,) = torch.autograd.grad(nn.functional.cross_entropy(unsure, target), unsure)
    torch.testing.assert_close(gradient, base)
    sure = (4.0 * nn.functional.one_hot(target, 7).float()).transpose(1, 2).requires_grad_()
    step(criterion, (sure, target))
    # For good.
    _, gradient = step(criterion, (unsure, target))
    assert core_of(criterion).base_share == 0.5
    assert not torch.allclose(gradient, base)


@HEADS
def test_the_base_loss_has_no_part_where_the_metric_is_another(head):
    base = nn.CrossEntropyLoss() if head == "characters" else nn.CTCLoss(zero_infinity=True)
    criterion = fitted(surprise, head, calls=5, base_loss=base)
    core_of(criterion).record.leading = False
    assert core_of(criterion).base_share == 0
    akin = fitted(lambda p, t: float(Levenshtein.distance(p, t)), head, calls=5, base_loss=base)
    core_of(akin).record.leading = False
    assert core_of(akin).base_share == 0.5


def word_error_rate(prediction: str, target: str) -> float:
    said, meant = ([word for word in line.split("|") if word] for line in (prediction, target))
    return Levenshtein.distance(said, meant) / len(meant)


def test_a_rate_of_words_of_ones_own_is_akin_to_the_base_loss():
    """Though not to the edit distance: of lines of which hardly any word is right."""
    task = text.PerPosition("abcde|")
    base = nn.CrossEntropyLoss()
    criterion = LearnedSurrogateLoss(word_error_rate, task=task, base_loss=base)
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        target = torch.randint(1, 6, (64, 12), generator=random)
        target[:, [3, 7]] = 6
        noise = 2 * torch.randn(64, 7, 12, generator=random)
        logits = 3 * nn.functional.one_hot(target, 7).transpose(1, 2) + noise
        step(criterion, (logits.requires_grad_(), target))
    _, characters, _, words, _ = core_of(criterion).estimator.control.r2.tolist()
    assert characters < 0.8 <= words
    core_of(criterion).record.leading = False
    assert core_of(criterion).base_share == 0.5


def test_where_values_come_later_what_is_known_is_followed():
    later = Workers(ThreadPoolExecutor, lag=2)
    criterion = fitted(lambda p, t: 2.0 * Levenshtein.distance(p, t), executor=later)
    arguments = make_arguments("characters", 99, batch=64)
    _, gradient = step(criterion, arguments)
    known = text.ExpectedEditDistance(criterion.task)
    (truth,) = torch.autograd.grad(2 * known(*arguments), arguments[0])
    torch.testing.assert_close(gradient, truth, atol=1e-4, rtol=0.05)


@pytest.mark.parametrize("case", ["ctc-auto", "characters-auto"])
def test_a_resumed_loss_draws_and_knows_the_same(case):
    criterion, twin = make_loss(case), make_loss(case)
    train(criterion, case, range(3))
    twin.load_state_dict(criterion.state_dict())
    assert_identical(train(twin, case, range(3, 6)), train(criterion, case, range(3, 6)))
    assert_identical(snapshot(twin), snapshot(criterion))
    other = LearnedSurrogateLoss(text.normalized_edit_distance, task=text.CTC("xyz"))
    before = snapshot(other)
    with pytest.raises(RuntimeError, match="it is of a loss for"):
        other.load_state_dict(criterion.state_dict())
    assert_identical(snapshot(other), before)


def masked(logits):
    logits[:, 0, 2] = -torch.inf  # a class that the target does not have
    logits[1, 1, 0] = -torch.inf
    return logits


@pytest.mark.filterwarnings("ignore:input_lengths are less than target_lengths")
@pytest.mark.parametrize(
    "change, targets, frames",
    [
        (torch.clone, [[1, 1], [1, 2], [2, 1], [1, 2]], [2, 4, 4, 4]),
        (torch.clone, [[1, 2], [1, 2], [2, 1], [1, 2]], [0, 4, 4, 4]),
        (torch.clone, [[0, 0], [1, 2], [2, 1], [1, 2]], [0, 4, 4, 4]),
        (masked, [[1, 1], [1, 2], [2, 1], [1, 1]], [4, 4, 4, 4]),
    ],
    ids=["no path", "no frames", "nothing", "masked"],
)
def test_what_ctc_has_no_number_for_has_a_gradient(change, targets, frames):
    z = change(torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0)))
    counts = [sum(map(bool, target)) for target in targets]
    criterion = LearnedSurrogateLoss(text.normalized_edit_distance, task=TASKS["ctc"])
    for _ in range(10):
        prediction = z.clone().requires_grad_()
        criterion(prediction, torch.tensor(targets), frames, counts).backward()
    assert core_of(criterion).estimator.weight > 0.5
    assert prediction.grad.isfinite().all()
    assert prediction.grad.any()
    past = torch.arange(4)[:, None] >= torch.tensor(frames)
    assert not prediction.grad[past].any()


def test_what_is_known_of_folded_letters_is_their_draws():
    """Where CTC does not merge what the metric does not tell apart."""

    def caseless(predictions, targets):
        lower = [[each.lower() for each in side] for side in (predictions, targets)]
        return [float(Levenshtein.distance(p, t)) for p, t in zip(*lower)]

    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1, 4, generator=random)
    logits[1:3, :, 1:3] += 2
    z = logits.expand(-1, 512, -1).clone().requires_grad_()
    arguments = torch.tensor([[1, 3]]).expand(512, 2), [4] * 512, [2] * 512
    means = []
    for surrogate in ("auto", "none"):
        criterion = LearnedSurrogateLoss(
            caseless, task=text.CTC("aAb", fold=str.lower), surrogate=surrogate, reduction="sum"
        )
        total = 0
        for call in range(30):
            z.grad = None
            criterion(z, *arguments).backward()
            total = total + (z.grad.sum(1) if call >= 5 else 0)
        means.append(total.flatten())
    assert torch.cosine_similarity(*means, dim=0) > 0.99
    assert means[0].norm() == pytest.approx(means[1].norm().item(), rel=0.1)


@pytest.mark.filterwarnings("ignore:input_lengths are less than target_lengths")
def test_how_likely_ctc_reads_a_text_with_few_frames():
    """Two characters in two frames, in one, and none in none."""
    z = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    arguments = torch.tensor([[1, 2], [1, 2], [0, 0]]), [2, 1, 0], [2, 2, 0]
    controls = Controls(TASKS["ctc"], TASKS["ctc"].for_surrogate("auto").read(z, *arguments))
    p = z.softmax(2)
    right = torch.stack([p[0, 0, 1] * p[1, 0, 2], torch.tensor(0.0), torch.tensor(1.0)])
    torch.testing.assert_close(controls.right, right)


def test_the_controls_of_folded_letters_have_the_gradients_of_their_means():
    """By going through all paths: near for the distance, exact for whether a text is right."""
    task = text.CTC("aAb", fold=str.lower).for_surrogate("auto")
    logits = torch.randn(4, 1, 4, generator=torch.Generator().manual_seed(0))
    batch = task.read(logits, torch.tensor([[1, 3]]), [4], [2])
    controls = Controls(task, batch)
    z = batch.logits.double().requires_grad_()
    paths = torch.tensor(list(itertools.product(range(4), repeat=4)))
    shares = z.log_softmax(1)[0].T.gather(1, paths.T).sum(0).exp()
    drawn = paths[:, None]
    columns = controls.columns(drawn, task.readings(drawn, batch)).double()[:, 0]
    for column, close in enumerate([0.02] * 3 + [1e-4] * 3):
        (truth,) = torch.autograd.grad((shares * columns[:, column]).sum(), z, retain_graph=True)
        weights = torch.zeros(columns.shape[1], dtype=torch.float64)
        weights[column] = 1
        torch.testing.assert_close(
            controls.gradient(weights), truth.float(), atol=close, rtol=close
        )
