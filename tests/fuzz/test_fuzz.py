"""Whatever a loss is called with, it answers rightly or refuses by name, and works afterwards."""

import copy
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch
from calls import CASES, Call, good_call, make_criterion, template
from conftest import MEASURED, assert_identical, snapshot
from hypothesis import HealthCheck, given, settings, strategies as st
from spoilt import spoilt
from torch import Tensor
from within import core_of

import learned_surrogates
from learned_surrogates import MetricError
from learned_surrogates._fitted.core import ValueCore

# An answer with a doubt is one.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{told}:UserWarning")
    for told in ("target has angles up to", "no prediction of a call is finite")
]

PACKAGE = Path(learned_surrogates.__file__).parent
NUMBER = {"suite": 40, "long": 2000}
HALF = (torch.float16, torch.bfloat16)


def assert_named(error: Exception, call: Call) -> None:
    """The package's own error, of a public kind, with a message that names what is wrong."""
    assert isinstance(error, (TypeError, ValueError, MetricError))
    assert not isinstance(error, UnicodeError)
    where = traceback.extract_tb(error.__traceback__)[-1]
    assert Path(where.filename).is_relative_to(PACKAGE), where
    parts = [*call.names, "weight", "avg_factor", "reduction", "samples must keep", "called as"]
    parts = ["metric '"] if isinstance(error, MetricError) else parts
    assert any(part in str(error) for part in parts), str(error)


def assert_right(loss: Tensor, call: Call, good: Tensor) -> None:
    """Shape, type, gradient, which samples are numbers, and what is as it was for the good call."""
    prediction = call.prediction
    reduction = call.arguments.get("reduction_override") or call.reduction
    assert loss.dtype == torch.float32
    assert loss.shape == (call.batch if reduction == "none" else ())
    differentiable = prediction.requires_grad and call.mode in ("train", "eval")
    assert loss.requires_grad == differentiable
    gradient = torch.zeros_like(prediction)
    if differentiable:
        (gradient,) = torch.autograd.grad(loss.sum(), prediction)
        assert gradient.shape == prediction.shape
        assert gradient.dtype == prediction.dtype
    if reduction != "none" or {"weight", "avg_factor"} & set(call.arguments):
        return
    loss = loss.detach()
    assert call.by_sample(gradient.isfinite())[loss.isfinite()].all()
    assert loss[~call.by_sample(call.is_no_nan())].isnan().all()
    if call.targets_are_sane():
        assert loss[call.by_sample(call.is_sane())].isfinite().all()
    # Where a call learns, draws around the prediction are measured; else it is itself.
    alike = call.case not in MEASURED or call.mode == "train"
    if call.same and alike and prediction.dtype not in HALF:
        torch.testing.assert_close(loss, good, rtol=1e-4, atol=1e-5)


def assert_works(criterion, case: str) -> tuple[Tensor, Tensor]:
    call = good_call(case, 11)
    loss = call.made_by(criterion)
    (gradient,) = torch.autograd.grad(loss.sum(), call.prediction)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    return loss.detach(), gradient


def shapes(criterion):
    """What the surrogate was made for; None before it was, and where it may be none."""
    core = core_of(criterion)
    return core.pairs.shapes if isinstance(core, ValueCore) else None


def check_a_call(call: Call, called: bool, on_metric_error: str, good: Tensor) -> str:
    """Makes the call; what came of it."""
    criterion = make_criterion(call.case, called, on_metric_error)
    before, stats = snapshot(criterion), dict(criterion.stats)
    twin = copy.deepcopy(criterion)
    outcome = "answered"
    try:
        loss = call.made_by(criterion)
    except Exception as error:  # noqa: BLE001 - which ones may come is what is tested
        assert_named(error, call)
        assert_identical(snapshot(criterion), before)
        assert criterion.stats == pytest.approx(stats, nan_ok=True)
        outcome = type(error).__name__
    else:
        assert_right(loss, call, good)
        if called and call.mode != "train":
            assert_identical(snapshot(criterion), before)
    if outcome != "answered":
        assert_identical(assert_works(criterion, call.case), assert_works(twin, call.case))
    elif called or shapes(criterion) in (None, shapes(template(call.case, True, "raise"))):
        # A first call of other shapes has settled on those.
        assert_works(criterion, call.case)
    return outcome


def run(case: str, number: int) -> Counter:
    outcomes: Counter = Counter()
    answers = {}

    @settings(max_examples=number, suppress_health_check=list(HealthCheck), print_blob=False)
    @given(data=st.data())
    def every_call(data):
        call = good_call(case, 5)
        called = data.draw(st.booleans(), label="called before")
        on_metric_error = data.draw(st.sampled_from(["raise", "skip"]), label="on_metric_error")
        if called not in answers:
            answers[called] = call.made_by(make_criterion(case, called, "raise")).detach()
        call = data.draw(spoilt(good_call(case, 5)))
        outcomes[check_a_call(call, called, on_metric_error, answers[called])] += 1

    every_call()
    return outcomes


@pytest.mark.parametrize("case", CASES)
def test_a_spoilt_call_is_answered_or_refused_by_name(case):
    outcomes = run(case, NUMBER["suite"])
    assert outcomes["answered"]
    assert outcomes["TypeError"]
    assert outcomes["ValueError"]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_thousands_of_spoilt_calls(case, capsys, record_property):
    outcomes = run(case, NUMBER["long"])
    record_property("outcomes", dict(outcomes))
    with capsys.disabled():
        print(f"\n{case}: {outcomes.total()} calls, {dict(outcomes)}, 0 unnamed errors")
