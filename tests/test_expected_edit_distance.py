"""The expected edit distance in closed form, beside the exact one of `exact_edit_distance`."""

import copy
import importlib.util
import itertools
from types import SimpleNamespace

import pytest
import torch
from exact_edit_distance import UNIT, exact, over_all_paths
from rapidfuzz.distance import Levenshtein
from torch.nn.functional import cosine_similarity, one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from learned_surrogates import text
from learned_surrogates.text._closed_form import (
    column_steps,
    compiled,
    difference_rows,
    row_passes,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CTC, CHARACTERS = text.CTC(LETTERS[:5]), text.PerPosition(LETTERS[:5])
# Cases are small, and some have fewer frames than characters.
pytestmark = pytest.mark.filterwarnings("ignore:input_lengths are less than target_lengths")
no_numba = importlib.util.find_spec("numba") is None


class Conversions(TorchDispatchMode):
    """Counts what is copied to another device or type."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **kwargs or {})


def without_kernels(monkeypatch):
    """Leaves the passes on the CPU to PyTorch."""
    monkeypatch.setattr(row_passes.KERNELS, "failed_on", {row_passes.CPU})


@pytest.fixture(
    params=[
        "PyTorch",
        pytest.param("compiled", marks=pytest.mark.skipif(no_numba, reason="no Numba")),
    ]
)
def way(request, monkeypatch):
    """Which passes are taken in float32."""
    if request.param == "PyTorch":
        without_kernels(monkeypatch)
    return request.param


def costs_of(costs):
    return dict(zip(("insertion", "deletion", "substitution"), costs))


def random_of(seed):
    random = torch.Generator().manual_seed(seed)
    return random, lambda least, most: int(torch.randint(least, most + 1, (), generator=random))


def case(seed, ctc, letters, near):
    """Logits `(frames, classes)` and a target; the logits of a path that spells it are raised."""
    random, number = random_of(seed)
    classes, frames, length = number(*letters) + 1, number(2, 10), number(2, 6)
    scale = 0.3 + 3.7 * torch.rand((), generator=random).item()
    target = torch.randint(1, classes, (length,), generator=random)
    if near or not ctc:
        target = target[:frames]
    logits = scale * torch.randn(frames, classes, generator=random, dtype=torch.float64)
    path = torch.zeros(frames, dtype=torch.long)
    places = torch.randperm(frames, generator=random)[: len(target)].sort().values
    if near:
        path[places if ctc else slice(len(target))] = target
        logits += near * one_hot(path, classes)
    return logits, target


def call(logits, target, ctc, reduction="mean", **options):
    """The closed form of one case."""
    letters = LETTERS[: logits.shape[1] - 1]
    if ctc:
        criterion = text.ExpectedEditDistance(text.CTC(letters), **options)
        return criterion(logits, target, [len(logits)], [len(target)])
    criterion = text.ExpectedEditDistance(text.PerPosition(letters, classes_last=True), **options)
    padded = torch.zeros(len(logits), dtype=torch.long)
    padded[: len(target)] = target
    return criterion(logits, padded)


def compared(count, ctc, letters, near=0.0, costs=UNIT, dtype=torch.float64):
    """Relative errors of value and cosines of gradients, `(count,)` each."""
    errors, cosines = [], []
    for seed in range(count):
        logits, target = case(seed, ctc, letters, near)
        logits.requires_grad_()
        truth = exact(logits.softmax(1), target.tolist(), ctc, costs)
        value = call(logits.to(dtype), target, ctc, **costs_of(costs))
        (expected,), (found,) = (torch.autograd.grad(x, logits) for x in (truth, value))
        errors.append(abs(value / truth - 1).item())
        cosines.append(cosine_similarity(expected.flatten(), found.flatten(), dim=0).item())
    return torch.tensor(errors), torch.tensor(cosines)


@pytest.mark.parametrize("ctc", [False, True])
@pytest.mark.parametrize("costs", [UNIT, (2, 1, 2), (3, 2, 4)])
def test_the_reference_is_the_mean_over_all_paths(ctc, costs):
    logits, target = case(1, ctc, (2, 2), 0)
    logits, target = logits[:4], target[:3].tolist()
    probabilities = logits.softmax(1)
    # RapidFuzz's way leads from the target to the reading.
    distance = lambda read, meant: Levenshtein.distance(meant, read, weights=costs)  # noqa: E731
    expected = over_all_paths(probabilities, target, ctc, distance)
    assert exact(probabilities, target, ctc, costs).item() == pytest.approx(expected, rel=1e-9)


CASES = list(itertools.product((False, True), ((2, 6), (20, 26)), (0, 6)))


# As measured over 1,000 cases, with some room: what it costs that a column is independent of those
# before its left neighbour.
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        pytest.param(torch.float32, marks=pytest.mark.skipif(no_numba, reason="no Numba")),
    ],
    ids=["PyTorch", "compiled"],
)
@pytest.mark.parametrize(("ctc", "letters", "near"), CASES)
def test_value_and_gradient_are_about_the_exact_ones(dtype, ctc, letters, near):
    errors, cosines = compared(
        20 if dtype == torch.float64 else 80, ctc, letters, near, dtype=dtype
    )
    assert (errors < 0.01).double().mean() >= 0.99
    assert cosines.median() >= 0.99999
    assert cosines.quantile(0.05) >= 0.999
    assert cosines.min() >= 0.99


# And of all others. It costs least where there are many characters and the reading is about the
# target, as recognisers have it.
@pytest.mark.parametrize(
    ("ctc", "letters", "near", "within", "median", "twentieth", "worst"),
    [
        (False, (2, 6), 0, 0.94, 0.9999, 0.995, 0.97),
        (False, (2, 6), 6, 0.99, 0.99999, 0.9999, 0.999),
        (True, (2, 6), 0, 0.88, 0.9997, 0.98, 0.95),
        (True, (2, 6), 6, 0.98, 0.99999, 0.999, 0.93),
        (True, (20, 26), 0, 0.96, 0.9999, 0.998, 0.97),
        (True, (20, 26), 6, 0.99, 0.99999, 0.9999, 0.999),
    ],
)
def test_with_independent_columns_they_are_nearly_so(
    monkeypatch, ctc, letters, near, within, median, twentieth, worst
):
    without_kernels(monkeypatch)
    errors, cosines = compared(80, ctc, letters, near, dtype=torch.float32)
    assert (errors < 0.01).double().mean() >= within
    assert cosines.median() >= median
    assert cosines.quantile(0.05) >= twentieth
    assert cosines.min() >= worst


@pytest.mark.parametrize("ctc", [False, True])
@pytest.mark.parametrize("costs", [(2, 1, 2), (5, 1, 5), (1, 3, 2)])
def test_whole_number_costs_are_about_the_exact_ones(ctc, costs):
    errors, cosines = compared(25, ctc, (6, 12), 4.0, costs)
    assert errors.median() < 0.002
    assert cosines.median() > 0.999


@pytest.mark.parametrize("ctc", [False, True])
@pytest.mark.parametrize("length", [1, 2])
def test_what_has_no_other_column_is_exact(ctc, length):
    """One column is independent of what is not there; two are so at their first frame."""
    for seed in range(10):
        logits, target = case(seed, ctc, (1, 6), 0)
        logits, target = logits[: 8 if length == 1 else 1], target[:length]
        if not ctc:
            target = target[: len(logits)]
        # Whether others repeat is known of the frame before alone.
        expected = exact(logits.softmax(1), target.tolist(), ctc)
        found = call(logits, target, ctc)
        torch.testing.assert_close(found, expected, rtol=0.005 if ctc else 1e-9, atol=0)


@pytest.mark.parametrize("costs", [UNIT, (5, 1, 5), (2, 1, 3), (1, 4, 2), (10, 20, 20)])
@pytest.mark.parametrize("ctc", [False, True])
def test_a_certain_reading_has_the_distance_itself(way, ctc, costs):
    _, number = random_of(0)
    metric = text.WeightedEditDistance(additional=costs[0], missing=costs[1], wrong=costs[2])
    texts = [
        ["".join(LETTERS[number(0, 4)] for _ in range(number(0, 7))) for _ in range(40)]
        for _ in range(2)
    ]
    criterion = text.ExpectedEditDistance(
        CTC if ctc else CHARACTERS, reduction="none", **costs_of(costs)
    )
    labels = [[[LETTERS.index(c) + 1 for c in one] for one in side] for side in texts]
    frames = 15
    read = torch.zeros(40, frames, dtype=torch.long)
    meant = torch.zeros(40, frames, dtype=torch.long)
    for i, (of_read, of_meant) in enumerate(zip(*labels)):
        # A blank around each, so that those of the same kind stay apart.
        place = slice(1, 2 * len(of_read), 2) if ctc else slice(len(of_read))
        read[i, place] = torch.tensor(of_read, dtype=torch.long)
        meant[i, : len(of_meant)] = torch.tensor(of_meant, dtype=torch.long)
    logits = 200.0 * one_hot(read, 6)
    arguments = (logits.transpose(1, 2), meant)
    if ctc:
        lengths = [len(one) for one in labels[1]]
        arguments = (logits.transpose(0, 1), meant, [frames] * 40, lengths)
    expected = torch.from_numpy(metric(*texts)).float()
    torch.testing.assert_close(criterion(*arguments), expected, rtol=1e-5, atol=1e-5)


def batch(ctc, dtype=torch.float32, frames=9):
    """Targets of all lengths, one of them empty, one longer than its frames."""
    random, _ = random_of(3)
    shape = (frames, 4, 6) if ctc else (4, 6, frames)
    logits = 2 * torch.randn(shape, generator=random, dtype=dtype)
    if ctc:
        targets = torch.tensor([[1, 2, 2, 5], [3, 0, 0, 0], [0, 0, 0, 0], [1, 2, 1, 4]])
        return logits, targets, [frames, frames - 1, frames, 3], [4, 1, 0, 4]
    targets = torch.zeros(4, frames, dtype=torch.long)
    targets[0, :4] = torch.tensor([1, 2, 2, 5])
    targets[1, :2] = torch.tensor([3, -100])
    targets[3] = -100
    targets[3, :3] = torch.tensor([1, 2, 1])
    return logits, targets


def with_gradient(criterion, logits, *rest):
    logits = logits.detach().clone().requires_grad_()
    value = criterion(logits, *rest)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


@pytest.mark.parametrize("task", [CTC, CHARACTERS], ids=["ctc", "characters"])
@pytest.mark.parametrize("costs", [UNIT, (2, 1, 2), (1, 3, 2)])
def test_the_gradient_that_is_written_out_is_right(task, costs):
    criterion = text.ExpectedEditDistance(task, reduction="none", **costs_of(costs))
    logits, *rest = batch(task is CTC, torch.float64, frames=4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: criterion(logits, *rest), logits)


@pytest.mark.parametrize("task", [CTC, CHARACTERS], ids=["ctc", "characters"])
@pytest.mark.parametrize("costs", [UNIT, (2, 1, 3)])
@pytest.mark.parametrize(("kept", "at_a_time"), [(1, 1), (600, 200), (2**21, 300)])
def test_long_lines_in_parts_are_the_same(monkeypatch, task, costs, kept, at_a_time):
    criterion = text.ExpectedEditDistance(task, reduction="none", **costs_of(costs))
    arguments = batch(task is CTC, torch.float64, frames=20)
    expected = with_gradient(criterion, *arguments)
    monkeypatch.setattr(difference_rows, "AT_ONCE", kept)
    monkeypatch.setattr(difference_rows, "AT_A_TIME", at_a_time)
    torch.testing.assert_close(with_gradient(criterion, *arguments), expected)


@pytest.mark.skipif(no_numba, reason="no Numba")
@pytest.mark.parametrize("task", [CTC, CHARACTERS], ids=["ctc", "characters"])
@pytest.mark.parametrize(("kept", "share"), [(2**22, 0), (1, 0), (2**22, 0.01)])
def test_the_compiled_passes_are_those_of_pytorch(monkeypatch, task, kept, share):
    """But for characters that have less than their share of the doubt, if there is one."""
    kernels = row_passes.KERNELS.module
    monkeypatch.setattr(kernels, "KEPT", kept)
    monkeypatch.setattr(kernels, "LEAST_SHARE", share)
    criterion = text.ExpectedEditDistance(task, reduction="none")
    logits, *rest = batch(task is CTC, frames=12)
    logits *= 3
    calls = []
    run = kernels.run
    monkeypatch.setattr(kernels, "run", lambda *a: calls.append(a) or run(*a))
    found = with_gradient(criterion, logits, *rest)
    assert len(calls) == 1
    expected = with_gradient(criterion, logits.double(), *rest)
    assert len(calls) == 1
    tolerance = {"rtol": 1e-5, "atol": 2e-6} if share == 0 else {"rtol": 0.002, "atol": 0.002}
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other.float(), **tolerance)


@pytest.mark.parametrize("ctc", [True, False])
def test_padding_changes_nothing_to_the_bit(way, ctc):
    criterion = text.ExpectedEditDistance(CTC if ctc else CHARACTERS, reduction="none")
    logits, targets, *lengths = batch(ctc)
    value, gradient = with_gradient(criterion, logits, targets, *lengths)
    more = torch.full_like(logits[:3] if ctc else logits[..., :3], float("nan"))
    padded = torch.cat([logits, more], 0 if ctc else 2)
    if not ctc:
        targets = torch.cat([targets, torch.full((4, 3), -100)], 1)
    found, of_padded = with_gradient(criterion, padded, targets, *lengths)
    parts = (slice(9), slice(9, None)) if ctc else ((..., slice(9)), (..., slice(9, None)))
    assert torch.equal(found, value)
    assert torch.equal(of_padded[parts[0]], gradient)
    assert not of_padded[parts[1]].any()


@pytest.mark.parametrize("ctc", [True, False])
def test_samples_know_nothing_of_each_other(way, ctc):
    criterion = text.ExpectedEditDistance(CTC if ctc else CHARACTERS, reduction="none")
    logits, targets, *lengths = batch(ctc)
    value, gradient = with_gradient(criterion, logits, targets, *lengths)
    for i in range(4):
        own = logits[:, i] if ctc else logits[i]
        rest = (targets[i], [lengths[0][i]], [lengths[1][i]]) if ctc else (targets[i],)
        of_one = gradient[:, i] if ctc else gradient[i]
        found = with_gradient(criterion, own, *rest)
        assert found[0].shape == ()
        torch.testing.assert_close(found, (value[i], of_one), rtol=1e-5, atol=1e-6)


def test_ignored_positions_are_not_there(way):
    criterion = text.ExpectedEditDistance(CHARACTERS)
    random, _ = random_of(0)
    logits = torch.randn(6, 5, generator=random)
    target = torch.tensor([1, -100, 2, 0, -100])
    value, gradient = with_gradient(criterion, logits, target)
    kept = [0, 2, 3]
    expected = with_gradient(criterion, logits[:, kept], target[kept])
    torch.testing.assert_close((value, gradient[:, kept]), expected)
    assert not gradient[:, [1, 4]].any()


def test_without_frames_all_of_the_target_is_missing(way):
    criterion = text.ExpectedEditDistance(CTC, deletion=3, insertion=3, substitution=3)
    value, gradient = with_gradient(criterion, torch.zeros(2, 6), torch.tensor([1, 2]), [0], [2])
    assert value == 6
    assert not gradient.any()


def test_an_empty_target_counts_what_is_read(way):
    criterion = text.ExpectedEditDistance(CHARACTERS, insertion=2, normalized=True)
    value = criterion(torch.zeros(6, 2), torch.tensor([0, 0]))
    assert value.item() == pytest.approx(2 * (5 / 6 + 25 / 36))


def test_reductions_and_normalisation(way):
    logits, targets, *lengths = batch(True)
    options = [{"reduction": r} for r in ("none", "mean", "sum")]
    each, mean, total = (
        text.ExpectedEditDistance(CTC, **o)(logits, targets, *lengths) for o in options
    )
    assert each.shape == (4,)
    torch.testing.assert_close(mean, each.mean())
    torch.testing.assert_close(total, each.sum())
    normalized = text.ExpectedEditDistance(CTC, normalized=True, reduction="none")
    expected = each / torch.tensor([4, 1, 1, 4])
    torch.testing.assert_close(normalized(logits, targets, *lengths), expected)


def folded_distance(probabilities, target, ctc):
    """By all paths of `(frames, 5)` classes: special, a, b, A, B."""
    letters, total = [None, 0, 1, 0, 1], 0.0
    for path in itertools.product(range(5), repeat=len(probabilities)):
        if ctc:
            read = [k for k, before in zip(path, (0, *path)) if k and k != before]
        else:
            read = list(itertools.takewhile(bool, path))
        chance = torch.stack([p[k] for p, k in zip(probabilities, path)]).prod()
        said, meant = ([letters[k] for k in each] for each in (read, target))
        total = total + chance * Levenshtein.distance(said, meant)
    return total


@pytest.mark.parametrize("ctc", [True, False])
@pytest.mark.parametrize("target", [[1, 4], [3, 1, 2], []])
def test_folded_characters_are_one_but_not_for_ctc_to_merge(way, ctc, target):
    task = (text.CTC if ctc else text.PerPosition)("abAB", fold=str.lower)
    loss = text.ExpectedEditDistance(task)
    random, _ = random_of(0)
    # Mostly unsure of the case, in frames next to each other.
    logits = torch.randn(4, 5, generator=random) + torch.tensor([0, 1.5, 0, 1.5, 0])
    exact = logits.double().requires_grad_()
    folded_distance(exact.softmax(1), target, ctc).backward()
    z = logits[:, None] if ctc else logits.T[None]
    z = z.clone().requires_grad_()
    padded = torch.tensor([target + [0] * (4 - len(target))])
    value = loss(z, padded, *(([4], [len(target)]) if ctc else ()))
    value.backward()
    found = z.grad[:, 0] if ctc else z.grad[0].T
    with torch.no_grad():
        wanted = folded_distance(exact.softmax(1), target, ctc)
    assert value.item() == pytest.approx(wanted.item(), rel=0.04)  # columns independent
    assert torch.cosine_similarity(found.double().flatten(), exact.grad.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("ctc", [True, False])
def test_folded_characters_have_the_gradient_of_their_value(ctc):
    task = text.CTC if ctc else text.PerPosition
    loss = text.ExpectedEditDistance(task("abAB", fold=str.lower), reduction="none")
    logits = torch.randn(*((5, 2, 5) if ctc else (2, 5, 5)), generator=random_of(0)[0])
    targets = torch.tensor([[1, 4, 0, 0, 0], [3, 1, 2, 0, 0]])
    lengths = ([5, 4], [2, 3]) if ctc else ()
    assert torch.autograd.gradcheck(
        lambda logits: loss(logits, targets, *lengths), logits.double().requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(way, dtype):
    criterion = text.ExpectedEditDistance(CTC)
    logits, *rest = batch(True, dtype)
    value, gradient = with_gradient(criterion, logits, *rest)
    expected, of_float = with_gradient(criterion, logits.float(), *rest)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, of_float.to(dtype))


def test_autocast_makes_no_difference(way):
    criterion = text.ExpectedEditDistance(CTC)
    arguments = batch(True)
    expected = with_gradient(criterion, *arguments)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradient(criterion, *arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_float64_stays_so():
    value, gradient = with_gradient(text.ExpectedEditDistance(CTC), *batch(True, torch.float64))
    assert value.dtype == gradient.dtype == torch.float64


def test_nothing_is_kept_where_no_gradient_is_asked_for(way):
    arguments = batch(True)
    criterion = text.ExpectedEditDistance(CTC)
    expected = with_gradient(criterion, *arguments)[0]
    with torch.inference_mode():
        torch.testing.assert_close(criterion(*arguments), expected)
    assert not criterion(*arguments).requires_grad


def test_a_second_derivative_is_refused():
    logits, *rest = batch(True)
    value = text.ExpectedEditDistance(CTC)(logits.requires_grad_(), *rest)
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gradient.sum() + logits.sum(), logits)


def test_subnormal_numbers_are_the_users_own_again(way):
    text.ExpectedEditDistance(CTC)(*batch(True))
    assert (torch.tensor([1e-30]) * 1e-10).item() > 0


@pytest.mark.parametrize(
    ("ctc", "frames", "length", "draws"),
    [(True, 160, 40, 1500), (False, 48, 40, 1500), (True, 2000, 250, 300)],
)
def test_long_unsure_lines_are_right_within_sampling_error(way, ctc, frames, length, draws):
    if way == "PyTorch" and length > 100:
        pytest.skip("takes seconds")
    random, _ = random_of(0)
    task = text.CTC(LETTERS) if ctc else text.PerPosition(LETTERS)
    target = torch.randint(1, 27, (length,), generator=random)
    path = torch.zeros(frames, dtype=torch.long)
    place = torch.arange(length) * frames // length if ctc else slice(length)
    path[place] = target
    logits = 2 * torch.randn(frames, 27, generator=random) + 5 * one_hot(path, 27)
    if ctc:
        value = text.ExpectedEditDistance(task)(logits, target, [frames], [length])
    else:
        padded = torch.zeros(frames, dtype=torch.long)
        padded[:length] = target
        value = text.ExpectedEditDistance(task)(logits.T, padded)
    drawn = torch.multinomial(logits.softmax(1), draws, True, generator=random).T
    readings = task.texts(drawn)
    meant = "".join(LETTERS[c - 1] for c in target)
    distances = torch.from_numpy(text.edit_distance(readings, [meant] * draws))
    error = distances.std() / draws**0.5
    assert distances.mean() > 10
    assert abs(value - distances.mean()) < 3 * error


@pytest.mark.parametrize("costs", [UNIT, (2, 1, 2)])
def test_rounding_errors_do_not_grow_from_frame_to_frame(monkeypatch, costs):
    without_kernels(monkeypatch)
    monkeypatch.setattr(row_passes, "ChainedStep", column_steps.UnitStep)
    random, _ = random_of(0)
    target = torch.arange(100) % 3 + 1
    path = torch.zeros(800, dtype=torch.long)
    path[::8] = target
    logits = torch.randn(800, 4, generator=random) + 4 * one_hot(path, 4)
    values = [call(x, target, True, **costs_of(costs)).item() for x in (logits, logits.double())]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("costs", [UNIT, (2, 1, 2)])
def test_the_table_of_a_step_is_made_ready_once_and_not_at_each_step(costs):
    """On a GPU, each would be a copy for which the host waits."""
    random, _ = random_of(0)
    numbers = []
    for frames in (4, 40):
        logits = torch.randn(frames, 4, generator=random, dtype=torch.float64, requires_grad=True)
        with Conversions() as conversions:
            call(logits, torch.tensor([1, 2]), True, **costs_of(costs)).backward()
        numbers.append(conversions.count)
    assert numbers[0] == numbers[1] > 0


def test_many_classes_have_what_they_need(way):
    """Classes that the target lacks matter only as the others, and where two are the same."""
    random, _ = random_of(0)
    logits = torch.randn(5, 8, generator=random, dtype=torch.float64)
    expected = exact(logits.softmax(1), [1, 2], True)
    found = call(logits, torch.tensor([1, 2]), True)
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    # Of a hundred more that have no probability, nothing changes.
    more = torch.cat([logits, torch.full((5, 100), -200.0).double()], 1)
    task = text.CTC([chr(0x4E00 + i) for i in range(107)])
    again = text.ExpectedEditDistance(task)(more, torch.tensor([1, 2]), [5], [2])
    torch.testing.assert_close(again, found)


def test_a_batch_may_be_empty():
    none = torch.zeros(3, 0, 6, requires_grad=True)
    value = text.ExpectedEditDistance(CTC, reduction="sum")(none, torch.zeros(0, 2).long(), [], [])
    value.backward()
    assert value == 0
    assert none.grad.shape == none.shape


@pytest.mark.parametrize("name", ["insertion", "deletion", "substitution"])
@pytest.mark.parametrize(
    ("cost", "error"), [(0.5, TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)]
)
def test_costs_that_are_no_whole_numbers_are_refused(name, cost, error):
    with pytest.raises(error, match=f"{name} must be"):
        text.ExpectedEditDistance(CTC, **{name: cost})


def test_what_cannot_be_read_is_refused():
    with pytest.raises(TypeError, match=r"task must be text\.CTC"):
        text.ExpectedEditDistance("ctc")
    with pytest.raises(ValueError, match="reduction must be one of"):
        text.ExpectedEditDistance(CTC, reduction="median")
    criterion = text.ExpectedEditDistance(CTC)
    with pytest.raises(TypeError, match=r"criterion\(log_probs, targets"):
        criterion(torch.zeros(3, 1, 6))
    with pytest.raises(ValueError, match="with 5 classes"):
        criterion(torch.zeros(3, 1, 5), torch.ones(1, 1).long(), [3], [1])


@pytest.mark.parametrize("costs", [UNIT, (2, 1, 2)])
def test_it_says_what_it_is_and_how_it_runs(monkeypatch, costs):
    criterion = text.ExpectedEditDistance(CTC, **costs_of(costs))
    said = f"CTC(5 characters, blank=0), insertion={costs[0]}"
    assert said in repr(criterion)
    assert ("compiled by Numba" in repr(criterion)) == (costs == UNIT and not no_numba)
    without_kernels(monkeypatch)
    assert repr(criterion).endswith("columns independent)")
    assert repr(copy.deepcopy(criterion)) == repr(criterion)


def test_kernels_that_fail_are_told_of_once_and_done_without(monkeypatch):
    def fail(*_):
        raise RuntimeError("no compiler")

    criterion = text.ExpectedEditDistance(CTC)
    arguments = batch(True)
    without_kernels(monkeypatch)
    expected = with_gradient(criterion, *arguments)
    monkeypatch.setattr(row_passes.KERNELS, "failed_on", set())
    monkeypatch.setattr(row_passes.KERNELS, "module", SimpleNamespace(run=fail))
    with pytest.warns(UserWarning, match="Numba is installed but fails .* no compiler"):
        found = with_gradient(criterion, *arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    criterion(*arguments)


def test_kernels_that_fail_as_they_are_imported_are_done_without(monkeypatch):
    def fail(_):
        raise RuntimeError("no driver")

    kernels = compiled.Compiled("row_kernels", "it fails here ({error})")
    monkeypatch.setattr(compiled.importlib, "import_module", fail)
    with pytest.warns(UserWarning, match=r"fails here \(RuntimeError: no driver\)"):
        assert kernels.attempt(torch.device("cpu"), fail) is None
    assert kernels.attempt(torch.device("cpu"), fail) is None


@pytest.mark.skipif(no_numba, reason="no Numba")
def test_without_a_folder_to_write_to_each_process_compiles(monkeypatch):
    from learned_surrogates.text._closed_form import column_kernels

    njit = column_kernels.numba.njit

    def no_locator(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(column_kernels.numba, "njit", no_locator)
    assert column_kernels.compiled(lambda x: x + 1)(1) == 2
