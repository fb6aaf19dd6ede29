"""A call where a surrogate is fitted to values: what it asks for, tells and resumes."""

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, packed, snapshot, step, train
from executors import ByHand
from torch import nn
from within import core_of

from learned_surrogates import Tensors, Workers


class Half(nn.Module):
    """One of its weights is frozen, and comes before the other."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Parameter(torch.full((3,), 0.5), requires_grad=False)
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, z, y):
        return ((z - y).square() * (self.frozen + self.weight)).sum(-1)


def squares(prediction, target):
    return (prediction - target).square().mean()


# What is told, and what is not asked for


@pytest.mark.parametrize(
    ("base_loss", "warm_up", "share"),
    [(None, 20, 0.0), (squares, 20, 1.0), (squares, 0, 0.25), (None, 0, 0.0)],
)
def test_the_share_of_the_base_loss_is_that_of_one_that_is_there(base_loss, warm_up, share):
    weight = None if base_loss is None else 0.25
    criterion = make_loss(base_loss=base_loss, warm_up=warm_up, base_weight=weight)
    step(criterion, make_arguments())
    assert criterion.stats["base_loss/share"] == share


@pytest.mark.parametrize(("weight", "calls"), [(None, 0), (0.25, 1)])
def test_a_base_loss_without_a_share_is_not_computed(weight, calls):
    seen = []

    def counting(prediction, target):
        seen.append(1)
        return squares(prediction, target)

    step(make_loss(base_loss=counting, base_weight=weight), make_arguments())
    assert len(seen) == calls


def test_a_difference_of_large_numbers_is_taken_in_the_predictions_precision():
    far, seen = 2.0**30, []

    class Far(Tensors):
        def represent(self, prediction, batch):
            return prediction - far

    class Seeing(nn.Module):
        def forward(self, z, y):
            seen.append(z.detach())
            return z.square().sum(-1)

    prediction, target = make_arguments()
    near = prediction.detach().double()
    with torch.no_grad():
        make_loss(task=Far(smoothing=0), surrogate=Seeing())(far + near, target)
    assert seen[-1].dtype == torch.float32
    torch.testing.assert_close(seen[-1], near.float(), rtol=0, atol=1e-6)


def test_a_surrogate_without_a_gradient_takes_nothing_from_a_base_loss_that_has_it_all():
    class Root(nn.Module):
        def forward(self, z, y):
            return (z - y).square().sum(-1).sqrt()

    criterion = make_loss(surrogate=Root(), base_loss=lambda z, y: z.sum(), base_weight=1.0)
    target = make_arguments()[1]
    _, gradient = step(criterion, (target.clone().requires_grad_(), target))
    assert_identical(gradient, torch.ones(4, 3))


# What is only looked at, or no number


def test_the_first_samples_that_it_learns_from_settle_its_shapes():
    criterion, plain = make_loss(), make_loss()
    with torch.no_grad():
        criterion(torch.randn(4, 5), torch.randn(4, 5))
    assert_identical(step(criterion, make_arguments()), step(plain, make_arguments()))


def test_what_is_no_number_shows_even_if_the_surrogate_hides_it():
    class Hiding(nn.Module):
        def forward(self, z, y):
            return (z - y).nan_to_num().square().sum(-1)

    prediction, target = make_arguments()
    prediction = prediction.detach()
    prediction[1, 0] = torch.nan
    with torch.no_grad():
        loss = make_loss(surrogate=Hiding(), reduction="none")(prediction, target)
    assert loss.isnan().tolist() == [False, True, False, False]


def test_of_a_sample_without_a_label_nothing_is_followed():
    """It counts as the mean of the others, and is learned from by nothing."""
    criterion = make_loss(metric=lambda z, y: (z - y).abs().nan_to_num().sum(-1), reduction="none")
    prediction, target = make_arguments()
    target[1, 0] = torch.nan
    for _ in range(3):
        loss, gradient = step(criterion, (prediction, target))
    assert loss[1] == loss[[0, 2, 3]].mean()
    assert not gradient[1].any()
    assert gradient[[0, 2, 3]].isfinite().all()
    assert gradient[0].any()
    assert criterion.stats["metric/skipped"] == 3
    assert criterion.stats["replay/size"] == 9


def test_before_there_is_a_surrogate_the_loss_is_no_number():
    prediction, target = make_arguments()
    with torch.no_grad():
        loss = make_loss(reduction="none")(torch.full_like(prediction, torch.nan), target)
    assert loss.isnan().tolist() == [True] * 4


# What is on its way


def test_a_warm_up_that_is_interrupted_forgets_what_it_has_asked():
    criterion = make_loss(executor=Workers(ByHand(), lag=1, max_pending=3))
    queue, asked = core_of(criterion).oracle.queue, []
    submit = queue.submit
    queue.submit = lambda *given: asked.append(submit(*given)) or asked[-1]

    def batches():
        yield make_arguments()
        yield make_arguments(seed=1)
        raise OSError

    with pytest.raises(OSError):
        criterion.warm_up(batches(), updates=4)
    assert [job.wanted for evaluation in asked for job in evaluation.jobs] == [False, False]


def test_pairs_that_are_on_their_way_are_forgotten_by_a_load():
    criterion = make_loss("boxes", data="local-global", executor=ByHand())
    step(criterion, make_arguments("boxes"))
    ahead = [evaluation for _, evaluation in core_of(criterion).pairs.generated._ahead]
    assert ahead
    criterion.load_state_dict(criterion.state_dict())
    assert not any(job.wanted for evaluation in ahead for job in evaluation.jobs)
    assert not core_of(criterion).pairs.generated._ahead


# What is resumed


def test_a_surrogate_with_a_frozen_weight_is_restored():
    criterion, restored = (make_loss(surrogate=Half()) for _ in range(2))
    train(criterion, "tensors", range(3))
    restored.load_state_dict(criterion.state_dict())
    for loss in (criterion, restored):
        train(loss, "tensors", range(3, 6))
    assert_identical(snapshot(restored), snapshot(criterion))


def test_how_long_the_surrogate_has_told_nothing_is_restored():
    criterion, restored = make_loss(), make_loss()
    step(criterion, make_arguments())
    core_of(criterion).learner.lost_updates = 7
    restored.load_state_dict(criterion.state_dict())
    assert core_of(restored).learner.lost_updates == 7


def test_of_a_state_without_a_part_of_its_head_the_rest_is_not_called_unknown():
    criterion = make_loss()
    step(criterion, make_arguments())
    state = snapshot(criterion)
    del state["scale"]
    with pytest.raises(RuntimeError, match="scale is missing") as caught:
        make_loss().load_state_dict(packed(state))
    assert "unknown" not in str(caught.value)


def test_a_given_surrogate_has_no_state_before_the_first_call():
    """It is the user's; its shapes are not known yet."""
    criterion, restored = (make_loss(surrogate=Half()) for _ in range(2))
    state = snapshot(criterion)
    assert set(state) == {"version", "counters", "random", "fitted_to"}
    train(restored, "tensors", range(2))
    restored.load_state_dict(criterion.state_dict())
    assert restored.stats["updates"] == 0


def test_generated_pairs_on_which_the_metric_fails_are_left_out_and_counted():
    def generator(count, rng):
        return torch.from_numpy(rng.normal(size=(count, 3))), torch.zeros(count, 3)

    def metric(prediction, target):
        values = l1(prediction, target)
        values[2] = torch.nan
        return values

    criterion = make_loss(metric=metric, generator=generator, batched=True, on_metric_error="skip")
    pairs = core_of(criterion).pairs
    z, target, errors = pairs.generate(8)
    assert pairs.skipped == 1
    assert len(z) == 7
    assert_identical(errors, l1(z, target).to(errors))
