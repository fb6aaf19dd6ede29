import warnings
from contextlib import contextmanager

import pytest
import torch
from conftest import CASES, assert_identical, make_arguments, make_loss, snapshot, step, train
from torch import nn
from within import core_of

from learned_surrogates import text
from learned_surrogates.text._closed_form import gpu_passes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def full_precision():
    """Without TensorFloat-32, which PyTorch allows convolutions and whose error is 1e-3."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def on_gpu(arguments):
    prediction, *rest = arguments
    return (
        prediction.detach().cuda().requires_grad_(),
        *(part.cuda() for part in rest),
    )


def places(criterion):
    if not hasattr(core_of(criterion), "learner"):  # what is known of readings stays on the host
        return {core_of(criterion).device.type}
    core = core_of(criterion)
    learner, net, pairs = core.learner, core.net, core.pairs
    moments = [
        state[key] for state in net.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")
    ]
    fields = [*pairs.replay.fields, *pairs.unseen.fields]
    scalars = [net.scale, learner.keep_rate, learner.penalty]
    tensors = [*net.module.state_dict().values(), *moments, *fields, *scalars]
    return {tensor.device.type for tensor in tensors}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_agree_with_the_cpu(case):
    cpu, gpu = make_loss(case), make_loss(case)
    for seed in range(4):
        arguments = make_arguments(case, seed)
        expected, expected_gradient = step(cpu, arguments)
        loss, gradient = step(gpu, on_gpu(arguments))
        assert loss.device.type == gradient.device.type == "cuda"
        torch.testing.assert_close(loss.cpu(), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-2, atol=1e-3)
    assert places(gpu) == {"cuda"}


@pytest.mark.parametrize("case", CASES)
def test_it_follows_its_input_from_device_to_device(case):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    assert places(criterion) == {"cpu"}
    for seed in range(2):
        loss, _ = step(criterion, on_gpu(make_arguments(case, seed)))
        assert loss.isfinite()
    assert places(criterion) == {"cuda"}
    train(criterion, case, range(2))
    assert places(criterion) == {"cpu"}
    assert criterion.stats["replay/size"] == 24


@pytest.mark.parametrize("case", CASES)
def test_a_loss_that_was_never_called_is_checked_where_its_input_is(case):
    criterion = make_loss(case)
    assert criterion.check([on_gpu(make_arguments(case, batch=16))], draws=4).samples == 16


def test_a_state_from_before_any_call_leaves_nothing_behind():
    criterion, fresh = make_loss(), make_loss()
    step(criterion, on_gpu(make_arguments()))
    criterion.load_state_dict(fresh.state_dict())
    step(criterion, on_gpu(make_arguments()))
    assert places(criterion) == {"cuda"}


def test_it_moves_with_its_parent():
    model = nn.ModuleDict({"head": nn.Linear(2, 3), "criterion": make_loss()})
    train(model["criterion"], "tensors", range(2))
    before = snapshot(model["criterion"])
    model.cuda()
    assert places(model["criterion"]) == {"cuda"}
    step(model["criterion"], on_gpu(make_arguments(seed=5)))
    model["criterion"].load_state_dict(before)
    assert places(model["criterion"].cpu()) == {"cpu"}
    assert_identical(snapshot(model["criterion"]), before)


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_the_gpu_loads_on_the_cpu(case, tmp_path):
    gpu, cpu = make_loss(case), make_loss(case)
    for seed in range(3):
        step(gpu, on_gpu(make_arguments(case, seed)))
    torch.save(gpu.state_dict(), tmp_path / "state.pt")
    cpu.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert places(cpu) == {"cpu"}
    arguments = make_arguments(case, 7)
    loss, gradient = step(gpu, on_gpu(arguments))
    expected, expected_gradient = step(cpu, arguments)
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("called", [True, False])
def test_a_call_in_inference_mode_may_be_the_first_on_the_gpu(case, called):
    criterion = make_loss(case)
    if called:
        train(criterion, case, range(2))
    arguments = on_gpu(make_arguments(case))
    with torch.inference_mode():
        criterion(*arguments)
    for _ in range(3):
        loss, gradient = step(criterion, arguments)
        assert loss.isfinite()
        assert gradient.abs().sum() > 0


def test_the_cuda_random_stream_is_left_alone():
    arguments = on_gpu(make_arguments("ctc"))
    before = torch.cuda.get_rng_state()
    train_on_gpu = make_loss("ctc")
    step(train_on_gpu, arguments)
    train_on_gpu.warm_up(updates=2)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("case", CASES)
def test_the_default_device_may_be_the_gpu(case):
    arguments = [on_gpu(make_arguments(case, seed)) for seed in range(3)]
    criterion = make_loss(case)
    with torch.device("cuda"):
        for some in arguments:
            assert step(criterion, some)[0].isfinite()


@pytest.mark.parametrize("form", ["tensor", "list", "one sample"])
def test_metrics_may_return_tensors_on_the_gpu(form):
    def metric(prediction, target):
        assert prediction.ndim == (1 if form == "one sample" else 2)
        errors = (prediction - target).abs().sum(-1)
        return list(errors) if form == "list" else errors

    criterion = make_loss(metric=metric)
    assert step(criterion, on_gpu(make_arguments()))[0].isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_autocast_and_loss_scaling(case, dtype):
    criterion = make_loss(case)
    prediction, *rest = on_gpu(make_arguments(case))
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    parameter = nn.Parameter(prediction.detach().clone())
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    for _ in range(3):
        with torch.autocast("cuda", dtype=dtype):
            loss = criterion(parameter.to(dtype), *rest)
        assert loss.dtype == torch.float32
        scaler.scale(loss).backward()
        assert parameter.grad.isfinite().all()
        scaler.step(optimizer)
        scaler.update()


@contextmanager
def waiting(mode):
    """What PyTorch does where the host waits for the GPU: "error", "warn" or "default"."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode(mode)
        caught.clear()
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode("default")


def settled_on_gpu(case, **options):
    criterion = make_loss(case, every=1000, **options)
    for seed in range(5):
        step(criterion, on_gpu(make_arguments(case, seed, batch=8)))
    return criterion


@pytest.mark.parametrize("case", ["tensors", "ctc-auto", "characters-auto"])
def test_a_call_that_does_not_learn_does_not_wait_for_the_gpu(case):
    criterion = settled_on_gpu(case).eval()
    prediction, *rest = on_gpu(make_arguments(case, 7))
    # Targets and lengths of text are read on the host.
    rest = rest if case == "tensors" else [part.cpu() for part in rest]
    with waiting("error"):
        criterion(prediction, *rest).backward()
        with torch.no_grad():
            criterion(prediction, *rest)
    assert prediction.grad.isfinite().all()


def test_a_call_without_an_update_waits_once_beside_the_metric():
    def metric(prediction, target):
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return (prediction - target).abs().sum(-1).cpu()
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    criterion = settled_on_gpu("tensors", metric=metric)
    prediction, target = on_gpu(make_arguments(seed=7))
    with waiting("warn") as caught:
        criterion(prediction, target).backward()
    waits = [w for w in caught if "synchronizing CUDA operation" in str(w.message)]
    assert len(waits) <= 1, [(w.filename, w.lineno) for w in waits]


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(
    ("ctc", "letters"), [(True, 3), (True, 40), (True, 130), (False, 3), (False, 40)]
)
def test_the_expected_edit_distance_is_one_kernel(monkeypatch, ctc, letters, in_parts):
    """The same as PyTorch's in float64, with up to a warp of characters, two and eight."""
    rows = pytest.importorskip("learned_surrogates.text._closed_form.triton_rows")
    if in_parts:
        monkeypatch.setattr(rows, "KEPT", 1)
    calls = []
    run = rows.run
    monkeypatch.setattr(rows, "run", lambda *given: calls.append(given) or run(*given))
    random = torch.Generator().manual_seed(0)
    alphabet = [chr(0x4E00 + i) for i in range(letters)]
    task = text.CTC(alphabet) if ctc else text.PerPosition(alphabet, classes_last=True)
    frames, lengths = 6 if ctc else letters + 1, [letters, 1, 0]
    targets = torch.stack([torch.randperm(letters, generator=random) + 1 for _ in lengths])
    logits = 2 * torch.randn(frames, 3, letters + 1, generator=random, dtype=torch.float64)
    rest = targets, [frames, frames - 1, 2], lengths
    if not ctc:
        logits = logits.transpose(0, 1).contiguous()
        padded = torch.zeros(3, frames, dtype=torch.long)
        for row, label, length in zip(padded, targets, lengths):
            row[:length] = label[:length]
        padded[1, -1] = -100
        rest = (padded,)
    criterion = text.ExpectedEditDistance(task, reduction="none")
    expected = step(criterion, (logits.requires_grad_(), *rest))
    found = step(criterion, (logits.detach().float().cuda().requires_grad_(), *rest))
    for one, other in zip(found, expected):
        torch.testing.assert_close(one.cpu(), other.float(), rtol=1e-4, atol=1e-4)
    assert len(calls[-1][0].special) == frames
    assert not gpu_passes.KERNEL.failed_on
    with torch.no_grad():
        value = criterion(logits.float().cuda(), *rest)
    torch.testing.assert_close(value, found[0], rtol=1e-5, atol=1e-5)
