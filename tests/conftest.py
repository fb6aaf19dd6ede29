"""Losses and data small enough that a surrogate is fitted in milliseconds."""

import functools
import os

import hypothesis
import pytest
import torch
from grouped_arguments import grouped
from ranks import kept
from torch import Tensor

from learned_surrogates import LearnedSurrogateLoss, Tensors, boxes, text
from learned_surrogates._state.packed import KEY, pack, unpack

# Tests run beside one another; so do the scripts and workers that they start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
hypothesis.settings.register_profile(
    "suite", deadline=None, max_examples=60, derandomize=True, database=None
)
hypothesis.settings.load_profile("suite")

ALPHABET = "abcdef"
CLASSES = len(ALPHABET) + 1
CASES = (
    "tensors",
    "measured",
    "ctc",
    "characters",
    "boxes",
    "ctc-auto",
    "characters-auto",
    "boxes-frame",
)
# Where the metric's gradient is measured.
MEASURED = ("measured", "ctc-auto", "characters-auto")
# Where a surrogate is fitted to the metric's values, and followed.
OF_VALUES = tuple(case for case in CASES if case not in MEASURED)
# The surrogate that the second part of a case's name stands for.
SURROGATES = {"auto": "auto", "frame": "target-frame"}
# One form of the surrogate where the gradient is measured; a trial of several takes its time.
FORMS = {"measured": "pair"}


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().sum(-1)


@functools.cache
def distortions() -> boxes.RandomDistortions:
    labels = make_arguments("boxes", seed=99, batch=20)[1]
    return boxes.RandomDistortions(labels, pool=200)


def make_loss(case: str = "tensors", metric=None, **options) -> LearnedSurrogateLoss:
    """A loss that updates at each call and has no warm-up, unless told otherwise.

    The options are the loss's arguments, and fields of `Fit`, `FitValues` and `Replay`.
    """
    case, _, form = case.partition("-")
    if metric is None:
        # What an edit distance is worth is known, and not measured.
        of_text = text.normalized_edit_distance if form == "auto" else text.edit_distance
        metric = {"tensors": l1, "measured": l1, "boxes": boxes.rotated_iou}.get(case, of_text)
    task = {
        "tensors": Tensors(smoothing=0),
        "measured": Tensors(),
        "ctc": text.CTC(ALPHABET),
        "characters": text.PerPosition(ALPHABET),
        "boxes": boxes.Rotated(noise=0.05),
    }
    options = {
        "task": task[case],
        "surrogate": SURROGATES.get(form, form) or FORMS.get(case, "embedding"),
        "draws": 2 if form in SURROGATES or case in FORMS else 0,
        **({"generator": distortions()} if case == "boxes" else {}),
        "warm_up": 0,
        "every": 1,
        "batch_size": 8,
        # A measured gradient's surrogate is made once replay is full: at the second call.
        "capacity": 8 if case in FORMS else 32,
        **options,
    }
    if "executor" in options and not hasattr(metric, "higher_is_better"):
        # Values that come later are too late to find it out, of which there is a warning.
        options = {"higher_is_better": False, **options}
    return LearnedSurrogateLoss(metric, **grouped(**options))


def make_arguments(case: str = "tensors", seed: int = 0, batch: int = 4, length: int = 9) -> tuple:
    """What a loss of this case is called with; the prediction, a leaf, comes first."""
    case = case.partition("-")[0]
    random = torch.Generator().manual_seed(seed)
    if case in ("tensors", "measured"):
        prediction = torch.randn(batch, 3, generator=random)
        rest = (torch.randn(batch, 3, generator=random),)
    elif case == "boxes":
        centre = 3 * torch.randn(batch, 2, generator=random)
        sides = 1 + 2 * torch.rand(batch, 2, generator=random)
        target = torch.cat([centre, sides, torch.randn(batch, 1, generator=random)], 1)
        prediction = target + 0.2 * torch.randn(batch, 5, generator=random)
        rest = (target,)
    elif case == "ctc":
        prediction = (2 * torch.randn(length, batch, CLASSES, generator=random)).log_softmax(-1)
        targets = torch.randint(1, CLASSES, (batch, 4), generator=random)
        input_lengths = torch.randint(6, length + 1, (batch,), generator=random)
        target_lengths = torch.randint(1, 5, (batch,), generator=random)
        rest = (targets, input_lengths, target_lengths)
    else:
        prediction = 2 * torch.randn(batch, CLASSES, length, generator=random)
        rest = (torch.randint(0, CLASSES, (batch, length), generator=random),)
    return (prediction.requires_grad_(), *rest)


def step(criterion: LearnedSurrogateLoss, arguments: tuple) -> tuple[Tensor, Tensor]:
    """The loss of one call and the gradient that it hands back to the prediction."""
    loss = criterion(*arguments)
    (gradient,) = torch.autograd.grad(loss.sum(), arguments[0])
    return loss.detach(), gradient


def train(criterion: LearnedSurrogateLoss, case: str, seeds) -> list[tuple[Tensor, Tensor]]:
    return [step(criterion, make_arguments(case, seed)) for seed in seeds]


def snapshot(criterion: torch.nn.Module) -> dict[str, Tensor]:
    """The state under the names within it."""
    state = {}
    for key, tensor in criterion.state_dict().items():
        prefix, _, last = key.rpartition(".")
        packed = unpack(tensor) if last == KEY else {last: tensor.clone()}
        state |= {f"{prefix}.{name}".removeprefix("."): part for name, part in packed.items()}
    return state


def packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state that a loss has with these tensors within it."""
    return {KEY: pack(state)}


def learned(criterion: torch.nn.Module) -> dict[str, Tensor]:
    """The state, less of what loss it is."""
    return {key: value for key, value in snapshot(criterion).items() if key != "fitted_to"}


def figures(criterion: LearnedSurrogateLoss) -> dict[str, object]:
    """The stats that do not depend on how fast the machine is."""
    return {k: v for k, v in criterion.stats.items() if not k.endswith("/seconds")}


def assert_identical(actual, expected) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def with_input_grad(arguments: tuple, requires_grad: bool) -> tuple:
    return (arguments[0].detach().requires_grad_(requires_grad), *arguments[1:])


@pytest.fixture(autouse=True)
def _random_numbers_begin_anew(request):
    """What a test draws must not depend on which tests came before it in its process."""
    torch.manual_seed(0)
    random = getattr(request.module, "RANDOM", None)
    if random is not None:
        random.manual_seed(0)


@pytest.fixture(scope="session")
def _kept_ranks():
    kept = {}
    yield kept
    for ranks in kept.values():
        ranks.close()


@pytest.fixture
def ranks(_kept_ranks):
    """Two processes of one gloo group."""
    return kept(_kept_ranks, 2)
