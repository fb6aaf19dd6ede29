"""Tensors of classes of their own, as fastai, MONAI and torchvision hand them over."""

import io

import pytest
import torch
from conftest import CASES, MEASURED, assert_identical, make_arguments, make_loss, snapshot
from torch import Tensor
from within import replay_of

from learned_surrogates import Tensors


class Named(Tensor):
    """As fastai's: what is computed from one is one, too."""


class Described(Tensor):
    """As MONAI's: what is computed from one is described as it is."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(result, cls):
            result.description = "a scan"
        return result


class Image(Tensor):
    """As torchvision's: what is computed from one mostly is none."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        kept = func in (Tensor.clone, Tensor.to, Tensor.detach)
        return result.as_subclass(cls) if kept else result


def of(kind, arguments):
    prediction, *rest = (
        value.detach().as_subclass(kind) if isinstance(value, Tensor) else value
        for value in arguments
    )
    prediction.requires_grad = True
    return (prediction, *rest)


@pytest.mark.parametrize("kind", [Named, Described, Image])
@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_of_a_subclass_is_plain_and_can_be_read_again(case, kind):
    base_loss = lambda prediction, *rest: prediction.square().mean()  # noqa: E731
    options = {"data": "local", "base_loss": base_loss}
    if case not in MEASURED:
        options["filter"] = 0.5
    criterion, twin = make_loss(case, **options), make_loss(case, **options)
    criterion.warm_up([of(kind, make_arguments(case))], updates=2)
    twin.warm_up([make_arguments(case)], updates=2)
    for seed in range(3):
        arguments = make_arguments(case, seed)
        own = of(kind, arguments)
        criterion(*own).backward()
        twin(*arguments).backward()
        torch.testing.assert_close(own[0].grad.as_subclass(Tensor), arguments[0].grad)
    criterion.check([of(kind, make_arguments(case))])
    if replay_of(criterion) is not None:
        assert {type(value) for value in replay_of(criterion).fields} == {Tensor}
    assert_identical(snapshot(criterion), snapshot(twin))
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    make_loss(case, **options).load_state_dict(torch.load(file, weights_only=True))


def test_the_metric_gets_plain_tensors():
    kinds = set()

    def distance(prediction, target):
        kinds.update((type(prediction), type(target)))
        return (prediction - target).abs().sum(-1)

    criterion = make_loss(metric=distance, task=Tensors(), draws=2)
    criterion(*of(Named, make_arguments()))
    assert kinds == {Tensor}
