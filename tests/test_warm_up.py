import math

import pytest
import torch
from conftest import assert_identical, figures, make_arguments, make_loss, snapshot, step, train
from within import replay_of


@pytest.mark.parametrize("form", ["tuples", "lists", "dicts"])
def test_warm_up_with_batches(form):
    names = ("log_probs", "targets", "input_lengths", "target_lengths")
    forms = {"tuples": tuple, "lists": list, "dicts": lambda some: dict(zip(names, some))}
    criterion, reference = make_loss("ctc"), make_loss("ctc")
    batches = [make_arguments("ctc", seed) for seed in range(3)]
    stats = criterion.warm_up(map(forms[form], batches), updates=5)
    reference.warm_up(batches, updates=5)
    assert stats is criterion.stats
    assert (stats["updates"], stats["replay/size"], stats["calls"]) == (5, 12, 0)
    assert math.isfinite(stats["surrogate/mae"])
    assert_identical(snapshot(criterion), snapshot(reference))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_warm_up_takes_batches_without_gradients(context):
    criterion, reference = make_loss(), make_loss()
    with context():
        batches = ((p * 1, t * 1) for p, t in (make_arguments(seed=seed) for seed in range(3)))
        criterion.warm_up(batches, updates=3)
    reference.warm_up([make_arguments(seed=seed) for seed in range(3)], updates=3)
    assert_identical(snapshot(criterion), snapshot(reference))
    train(criterion, "tensors", range(2))
    assert not any(field.is_inference() for field in replay_of(criterion).fields)


def test_warm_up_reads_one_batch_an_update_and_no_more():
    read = []

    def batches():
        for seed in range(10):
            read.append(seed)
            yield make_arguments(seed=seed)

    make_loss().warm_up(batches(), updates=4)
    assert read == [0, 1, 2, 3]


@pytest.mark.parametrize("case", ["ctc", "characters"])
def test_warm_up_from_the_generator_alone(case):
    criterion = make_loss(case, warm_up=10)
    stats = criterion.warm_up(updates=4)
    assert (stats["updates"], stats["replay/size"], stats["surrogate/warming_up"]) == (4, 0, False)
    assert step(criterion, make_arguments(case))[1].abs().sum() > 0


def test_warm_up_from_the_generator_reports_errors_of_fresh_pairs():
    stats = make_loss("characters").warm_up(updates=4)
    assert math.isfinite(stats["surrogate/mae"])
    assert math.isfinite(stats["surrogate/nrmse"])


def test_warm_up_without_batches_or_generator_is_refused():
    criterion = make_loss()
    with pytest.raises(ValueError, match="batches"):
        criterion.warm_up(updates=4)
    assert criterion.stats["updates"] == 0


def test_warm_up_without_batches_is_refused_for_local_data():
    with pytest.raises(ValueError, match="batches"):
        make_loss("ctc", data="local").warm_up(updates=4)


@pytest.mark.parametrize(("updates", "error"), [(-1, ValueError), (2.5, TypeError)])
def test_a_wrong_number_of_updates_is_refused(updates, error):
    with pytest.raises(error, match="updates must be"):
        make_loss("ctc").warm_up(updates=updates)


def test_progress_goes_to_the_standard_error(capsys):
    criterion, quiet = make_loss("characters"), make_loss("characters")
    criterion.warm_up(updates=3, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "fitting the surrogate" in shown.err
    assert "3/3" in shown.err
    quiet.warm_up(updates=3)
    assert capsys.readouterr() == ("", "")
    assert_identical(snapshot(criterion), snapshot(quiet))


def test_gradients_are_zero_until_the_warm_up_of_the_first_ten_calls_is_over():
    criterion = make_loss(warm_up=20, every=4)
    gradients, updates = [], []
    for seed in range(14):
        gradients.append(step(criterion, make_arguments(seed=seed))[1])
        updates.append(criterion.stats["updates"])
    assert not any(gradient.any() for gradient in gradients[:10])
    assert all(gradient.abs().sum() > 0 for gradient in gradients[10:])
    assert updates == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 20, 21, 21, 21]


@pytest.mark.parametrize("warm_up_updates", [1, 5, 10, 15, 20])
def test_the_warm_up_lasts_at_most_ten_calls(warm_up_updates):
    criterion = make_loss(warm_up=warm_up_updates)
    for seed in range(10):
        assert criterion.stats["surrogate/warming_up"] or seed >= math.ceil(warm_up_updates / 2)
        step(criterion, make_arguments(seed=seed))
    assert not criterion.stats["surrogate/warming_up"]
    assert criterion.stats["updates"] >= warm_up_updates


def test_the_loss_has_its_value_while_warming_up():
    criterion, twin = make_loss(warm_up=20), make_loss(warm_up=20)
    for seed in range(3):
        arguments = make_arguments(seed=seed)
        value = twin.eval()(*arguments).detach()
        loss, _ = step(criterion, arguments)
        assert_identical(loss, value)
        assert loss > 0
        step(twin.train(), arguments)


def test_gradients_are_zero_while_warming_up_in_eval_mode():
    criterion = make_loss(warm_up=20).eval()
    assert not step(criterion, make_arguments())[1].any()


@pytest.mark.parametrize(("update_every", "update_steps"), [(1, 1), (1, 3), (3, 1), (4, 2)])
def test_updates_are_made_every_so_many_calls(update_every, update_steps):
    criterion = make_loss(every=update_every, steps=update_steps)
    for calls in range(1, 10):
        step(criterion, make_arguments(seed=calls))
        assert f"updates: {calls // update_every * update_steps}\n" in repr(criterion)
        if calls % update_every == 0:
            assert criterion.stats["updates"] == calls // update_every * update_steps
            assert criterion.stats["calls"] == calls


def test_an_explicit_warm_up_replaces_that_of_the_first_calls():
    criterion = make_loss(warm_up=50, every=4)
    criterion.warm_up([make_arguments()], updates=3)
    assert step(criterion, make_arguments(seed=1))[1].abs().sum() > 0
    assert criterion.stats["updates"] == 3


def test_warm_up_follows_from_the_seed():
    first, second = make_loss("characters"), make_loss("characters")
    for criterion in (first, second):
        criterion.warm_up(updates=3)
    assert_identical(snapshot(first), snapshot(second))
    assert figures(first) == pytest.approx(figures(second), nan_ok=True)


def test_penalty_is_computed_as_often_as_asked():
    criterion = make_loss(penalty_every=3, penalty_weight=0.1)
    seen = []
    for seed in range(7):
        step(criterion, make_arguments(seed=seed))
        seen.append(criterion.stats["surrogate/penalty"])
    assert seen[0] == seen[1] == seen[2] != seen[3]
    assert seen[3] == seen[4] == seen[5] != seen[6]
    assert all(math.isfinite(penalty) for penalty in seen)


def test_a_seldom_penalty_weighs_as_much_as_one_at_each_update():
    seldom = make_loss(penalty_every=3, penalty_weight=0.1)
    heavier = make_loss(penalty_every=1, penalty_weight=0.1 * 3)
    lighter = make_loss(penalty_every=1, penalty_weight=0.1)
    results = [train(loss, "tensors", range(2))[1] for loss in (seldom, heavier, lighter)]
    assert_identical(results[0], results[1])
    assert results[0][0] != results[2][0]


def test_no_penalty_without_a_weight():
    criterion = make_loss(penalty_weight=0)
    train(criterion, "tensors", range(2))
    assert math.isnan(criterion.stats["surrogate/penalty"])


def test_a_warm_up_without_batches_leaves_the_gradient_withheld():
    criterion = make_loss(warm_up=20)
    assert criterion.warm_up([], updates=5)["surrogate/warming_up"]


def test_an_interrupted_warm_up_goes_on_in_the_calls():
    def interrupted():
        yield make_arguments("characters", batch=2)
        yield make_arguments("characters", batch=2)
        raise OSError

    criterion = make_loss("characters", warm_up=20)
    with pytest.raises(OSError):
        criterion.warm_up(interrupted())
    for seed in range(12):
        step(criterion, make_arguments("characters", seed, batch=2))
    assert criterion.stats["updates"] > 20
    assert not criterion.stats["surrogate/warming_up"]
