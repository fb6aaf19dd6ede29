"""Losses and metrics of retrieval, beside loops over queries, pairs and whole graphs."""

import copy
import math
import threading

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from learned_surrogates import LearnedSurrogateLoss, retrieval
from learned_surrogates.retrieval import RecallAtK, large_batch, recall_at_k
from learned_surrogates.retrieval._simix import mixed, unordered_pairs


def batch(classes=5, each=4, dim=6, seed=0, dtype=torch.float64):
    """Embeddings in an order of their own, with some likeness within a class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(each)
    labels = labels[torch.randperm(len(labels), generator=random)]
    centres = torch.randn(classes, dim, generator=random, dtype=dtype)
    noise = torch.randn(len(labels), dim, generator=random, dtype=dtype)
    return centres[labels] + noise, labels


def step(value, tau):
    """A sigmoid, or with tau = 0 the Heaviside step, 1 at zero."""
    if tau == 0:
        return float(value >= 0)
    return 1 / (1 + math.exp(-value / tau)) if value > -500 * tau else 0.0


def recall_of_loops(embeddings, labels, k, tau1, tau2, shift=0.0):
    """`(found, positives)` a query: the numerator and |P| of Eq. 5.5, or of 5.3."""
    x = [(row / row.norm()).tolist() for row in embeddings]
    similarity = [[sum(a * b for a, b in zip(one, other)) for other in x] for one in x]
    found = []
    for q in range(len(x)):
        positives = [i for i in range(len(x)) if i != q and labels[i] == labels[q]]
        total = 0.0
        for p in positives:
            others = [z for z in range(len(x)) if z not in (p, q)]
            above = sum(step(similarity[q][z] - similarity[q][p], tau2) for z in others)
            total += step(k - 1 + shift - above, tau1)
        found.append((total, len(positives)))
    return found


def loss_of_loops(embeddings, labels, ks, tau1, tau2, shift=0.0):
    losses = []
    for k in ks:
        for found, positives in recall_of_loops(embeddings, labels, k, tau1, tau2, shift):
            if positives:
                losses.append(1 - min(found, k) / min(k, positives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("ks", [(1, 2, 4, 8, 16), (1,), (3,)])
@pytest.mark.parametrize(("tau1", "tau2", "shift"), [(1.0, 0.01, 0.0), (0.5, 0.1, 0.5)])
def test_the_loss_is_that_of_loops(ks, tau1, tau2, shift):
    embeddings, labels = batch()
    labels[0] = 99  # alone: no query, but in the others' database
    loss = RecallAtK(ks, tau1=tau1, tau2=tau2, shift=shift)(embeddings, labels)
    expected = loss_of_loops(embeddings, labels, ks, tau1, tau2, shift)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 19, 20])
@pytest.mark.parametrize("simix", [False, True])
def test_chunks_change_neither_value_nor_gradient(chunk, simix):
    results = []
    for size in (None, chunk):
        embeddings, labels = batch()
        embeddings.requires_grad_()
        loss = RecallAtK(simix=simix, chunk=size)(embeddings, labels)
        loss.backward()
        results.append((loss, embeddings.grad))
    torch.testing.assert_close(*results, rtol=1e-13, atol=1e-13)
    assert results[0][1].abs().max() > 1e-3


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_gradient_is_right(chunk):
    embeddings, labels = batch(classes=3)
    criterion = RecallAtK((1, 2, 4), tau2=0.1, chunk=chunk)
    assert torch.autograd.gradcheck(lambda z: criterion(z, labels), embeddings.requires_grad_())


def test_with_a_shift_of_half_the_limit_is_recall_itself():
    """Without it, a positive of rank k counts half (errata of Eq. 5.5)."""
    embeddings, labels = batch(classes=8)
    largest = {}
    for shift in (0.0, 0.5):
        differences = [
            abs(
                RecallAtK((k,), tau1=1e-4, tau2=1e-7, shift=shift)(embeddings, labels).item()
                - loss_of_loops(embeddings, labels, (k,), 0, 0)
            )
            for k in (1, 2, 4)
        ]
        largest[shift] = max(differences)
    assert largest[0.5] < 1e-9
    assert largest[0.0] > 0.02


def test_a_perfect_ranking_costs_a_tenth():
    labels = torch.arange(12).repeat_interleave(4)
    loss = RecallAtK()(torch.eye(12, dtype=torch.float64)[labels], labels)
    # All three positives are alike, each half above the two others: c = 1.
    shares = [3 / (1 + math.exp(1 - (k - 1))) for k in (1, 2, 4, 8, 16)]
    expected = 1 - sum(min(s, k) / min(k, 3) for s, k in zip(shares, (1, 2, 4, 8, 16))) / 5
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert 0.1 < loss < 0.15


def test_the_order_of_the_batch_does_not_matter():
    embeddings, labels = batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    in_order = RecallAtK()(embeddings, labels)
    torch.testing.assert_close(RecallAtK()(embeddings[order], labels[order]), in_order)


def test_mixed_similarities_are_similarities_mixed():
    """Eq. 5.9 and 5.10, and how many virtual examples there are."""
    embeddings, labels = batch(classes=12)
    embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
    found, of_found = mixed(embeddings, labels, torch.Generator().manual_seed(3))
    assert len(found) == 120  # 48 and 12 * 6
    s, all_of_them = embeddings @ embeddings.T, found @ found.T
    alpha = torch.rand(72, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)[:, 0]
    one, other = unordered_pairs(labels)
    for v in range(72):
        x, z, a = one[v], other[v], alpha[v]
        assert labels[x] == labels[z] == of_found[48 + v]
        torch.testing.assert_close(all_of_them[:48, 48 + v], a * s[:, x] + (1 - a) * s[:, z])
        for u in range(0, 72, 7):
            y, w, b = one[u], other[u], alpha[u]
            mix = a * b * s[x, y] + (1 - a) * (1 - b) * s[z, w]
            mix += a * (1 - b) * s[x, w] + (1 - a) * b * s[z, y]
            torch.testing.assert_close(all_of_them[48 + v, 48 + u], mix)


def test_simix_draws_anew_at_each_call_in_training_and_resumes():
    embeddings, labels = batch()
    criterion, state = RecallAtK(simix=True, seed=4), torch.get_rng_state()
    first, second = (criterion(embeddings, labels) for _ in range(2))
    assert first != second
    resumed = RecallAtK(simix=True)
    resumed.load_state_dict(copy.deepcopy(criterion.state_dict()))
    assert resumed(embeddings, labels) == criterion(embeddings, labels)
    plain = RecallAtK()(embeddings, labels)
    assert criterion.eval()(embeddings, labels) == plain != first
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_in_float32(dtype):
    embeddings, labels = batch(dtype=torch.float32)
    halves = embeddings.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = RecallAtK()(halves, labels)
    loss.backward()
    torch.testing.assert_close(loss, RecallAtK()(halves.detach().float(), labels))
    assert halves.grad.dtype == dtype


def test_the_metric_is_that_of_nearest_neighbours():
    embeddings, labels = batch(classes=30, each=5)
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    for k in (1, 3, 10):
        neighbours = NearestNeighbors(n_neighbors=k).fit(unit).kneighbors(return_distance=False)
        hits = labels[torch.from_numpy(neighbours)] == labels[:, None]
        assert recall_at_k(embeddings, labels, k).item() == pytest.approx(
            hits.any(1).double().mean().item()
        )
        assert recall_at_k(embeddings, labels, k, form="share").item() == pytest.approx(
            (hits.sum(1) / 4).mean().item()
        )


def test_the_metric_in_shares_is_equation_5_1_also_with_ties():
    embeddings, labels = batch(classes=4)
    embeddings[3] = embeddings[7]
    for k in (1, 2, 4):
        loops = [
            found / positives for found, positives in recall_of_loops(embeddings, labels, k, 0, 0)
        ]
        found = recall_at_k(embeddings, labels, k, form="share").item()
        assert found == pytest.approx(sum(loops) / len(loops))


def test_embeddings_that_have_collapsed_retrieve_nothing():
    labels = torch.tensor([0, 0, 1, 1])
    for form in ("any", "share"):
        assert recall_at_k(torch.ones(4, 3), labels, 1, form=form) == 0


@pytest.mark.parametrize("form", ["any", "share"])
def test_embeddings_that_are_not_numbers_retrieve_nothing(form):
    embeddings, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
    assert recall_at_k(embeddings, labels, form=form) == 1
    embeddings[0] = math.nan
    assert recall_at_k(embeddings, labels, form=form) == 0.5
    assert recall_at_k(embeddings * math.nan, labels, form=form) == 0


def test_the_metric_in_chunks(monkeypatch):
    embeddings, labels = batch(classes=11, each=3)
    labels[0] = 99
    whole = [recall_at_k(embeddings, labels, (1, 4), form=form) for form in ("any", "share")]
    monkeypatch.setattr("learned_surrogates.retrieval._recall.AT_ONCE", 5 * len(labels))
    chunked = [recall_at_k(embeddings, labels, (1, 4), form=form) for form in ("any", "share")]
    torch.testing.assert_close(whole, chunked)


def test_nothing_to_retrieve_is_zero_with_a_warning():
    embeddings = torch.randn(3, 2, requires_grad=True)
    with pytest.warns(UserWarning, match="nothing to retrieve"):
        loss = RecallAtK(simix=True)(embeddings, torch.arange(3))
    loss.backward()
    assert loss == 0
    assert embeddings.grad.abs().max() == 0
    assert recall_at_k(embeddings, torch.arange(3)).isnan()


def test_an_empty_batch_is_zero_with_a_warning_also_mixed():
    for simix in (False, True):
        with pytest.warns(UserWarning, match="nothing to retrieve"):
            loss = RecallAtK(simix=simix)(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
        assert loss == 0


def test_modes_without_a_gradient():
    embeddings, labels = batch()
    expected = RecallAtK()(embeddings.clone().requires_grad_(), labels)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(RecallAtK()(embeddings * 1, labels), expected.detach())


def test_zero_and_equal_embeddings_have_finite_gradients():
    embeddings = torch.zeros(6, 3)
    embeddings[2:4] = 1.0
    embeddings.requires_grad_()
    RecallAtK(simix=True)(embeddings, torch.tensor([0, 0, 1, 1, 0, 1])).backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: RecallAtK(()), ValueError, "at least one list length"),
        (lambda: RecallAtK((0,)), ValueError, "ks must be at least 1"),
        (lambda: RecallAtK(tau2=0), ValueError, "tau2 must be above 0"),
        (lambda: RecallAtK(chunk=0.5), TypeError, "chunk must be an integer"),
        (lambda: RecallAtK()([1.0], torch.zeros(1)), TypeError, "embeddings must be a tensor"),
        (
            lambda: RecallAtK()(torch.ones(2, 2), torch.ones(2)),
            TypeError,
            "labels must be integers",
        ),
        (lambda: RecallAtK()(torch.ones(2, 2).long(), torch.ones(2)), TypeError, "floating-point"),
        (lambda: RecallAtK()(torch.ones(4), torch.ones(4).long()), ValueError, r"shape \(n, d\)"),
        (lambda: recall_at_k(torch.ones(2, 2), torch.ones(3).long()), ValueError, r"shape \(2,\)"),
        (
            lambda: recall_at_k(torch.ones(2, 2), torch.ones(2).long(), form="all"),
            ValueError,
            "form",
        ),
        (lambda: recall_at_k(torch.ones(2, 2), torch.ones(2).long(), 0), ValueError, "k must be"),
    ],
)
def test_errors_name_the_argument(call, error, says):
    with pytest.raises(error, match=says):
        call()


class Encoder(nn.Module):
    """With everything that makes a second pass differ from the first."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(7, 16), nn.LayerNorm(16), nn.Dropout(dropout), nn.Tanh(), nn.Linear(16, 5)
        )

    def forward(self, inputs):
        return self.layers(inputs)


def gradients(model):
    return [parameter.grad for parameter in model.parameters()]


def whole_graph(model, chunks, loss_of_embeddings):
    loss = loss_of_embeddings(torch.cat([model(chunk) for chunk in chunks]))
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("size", [5, 7, 100])
def test_stages_give_the_gradient_of_the_whole_graph_with_dropout(size):
    torch.manual_seed(0)
    model = Encoder().double()
    inputs, labels = torch.randn(24, 7).double(), torch.arange(6).repeat_interleave(4)
    criterion = RecallAtK(tau2=0.1)
    results = []
    for way in (whole_graph, large_batch):
        model.zero_grad()
        torch.manual_seed(1)
        loss = way(model, inputs.split(size), lambda z: criterion(z, labels))
        results.append((loss, gradients(model), torch.rand(())))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-15)
    assert not results[1][0].requires_grad
    assert max(gradient.abs().max() for gradient in results[1][1]) > 1e-3


def test_stages_add_to_gradients_and_reach_the_loss_s_own_parameters():
    torch.manual_seed(0)
    model, head = Encoder(dropout=0.0).double(), nn.Linear(5, 3).double()
    inputs, labels = torch.randn(12, 7).double(), torch.arange(12) % 3
    results = []
    for way in (whole_graph, large_batch):
        model.zero_grad()
        head.zero_grad()
        for _ in range(2):
            way(model, inputs.split(5), lambda z: nn.functional.cross_entropy(head(z), labels))
        results.append(gradients(model) + gradients(head))
    torch.testing.assert_close(*results)


def test_stages_under_autocast_reach_the_weights():
    """Weights that autocast has cast without a graph are not taken for those with one."""
    torch.manual_seed(0)
    model = Encoder(dropout=0.0)
    inputs, labels = torch.randn(24, 7), torch.arange(6).repeat_interleave(4)
    results = []
    for way in (whole_graph, large_batch):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            way(model, inputs.split(8), lambda z: RecallAtK(tau2=0.1)(z, labels))
        results.append(gradients(model))
    for whole, staged in zip(*results):
        assert torch.cosine_similarity(whole.flatten(), staged.flatten(), dim=0) > 0.999


def test_stages_take_a_learned_surrogate_s_gradient():
    torch.manual_seed(0)
    model = Encoder()

    def misses(prediction, target):
        return ((prediction - target).abs() > 1).float()

    criterion = LearnedSurrogateLoss(misses)
    targets = torch.randn(24, 5)
    loss = large_batch(model, torch.randn(24, 7).split(8), lambda z: criterion(z, targets))
    assert 0 < loss < 1
    assert all(gradient.abs().max() > 0 for gradient in gradients(model))


def test_stages_take_chunks_of_any_kind():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    chunks = [{"x": torch.randn(4, 3), "scale": 2.0}, {"x": torch.randn(2, 3), "scale": 1.0}]
    labels = torch.tensor([0, 0, 1, 1, 0, 1])
    large_batch(lambda c: c["scale"] * layer(c["x"]), chunks, lambda z: RecallAtK()(z, labels))
    assert layer.weight.grad.abs().max() > 0


def test_stages_of_a_distributed_model_sum_gradients_once(tmp_path):
    torch.manual_seed(0)
    inputs, labels = torch.randn(24, 7), torch.arange(6).repeat_interleave(4)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = DistributedDataParallel(Encoder(dropout=0.0))
        summed = []
        model.register_comm_hook(None, lambda _, bucket: summed.append(1) or as_it_is(bucket))
        results = []
        for way in (whole_graph, large_batch):
            model.zero_grad()
            summed.clear()
            chunks = inputs.split(8 if way is large_batch else 24)
            way(model, chunks, lambda z: RecallAtK(tau2=0.1)(z, labels))
            results.append(gradients(model))
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-7)
    assert len(summed) == 1


def as_it_is(bucket):
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def frozen():
    return nn.Linear(7, 5).requires_grad_(False)


class Stateful(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.random = nn.Linear(7, 5), torch.Generator().manual_seed(0)

    def forward(self, inputs):
        return self.layer(inputs + torch.randn(inputs.shape, generator=self.random))


@pytest.mark.parametrize(
    ("model", "chunks", "loss", "error", "says"),
    [
        (nn.Linear(7, 5), torch.ones(4, 7), torch.sum, TypeError, r"inputs.split\(64\)"),
        (nn.Linear(7, 5), [], torch.sum, ValueError, "at least one chunk"),
        (nn.Linear(7, 5), iter([torch.ones(4, 7)]), torch.sum, TypeError, r"give list\(chunks\)"),
        (
            nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5)),
            [torch.ones(4, 7)],
            torch.sum,
            ValueError,
            "1 is a BatchNorm1d in training mode",
        ),
        (nn.Identity(), [torch.ones(7)], torch.sum, TypeError, r"embeddings \(n, d\); got \(7,\)"),
        (nn.Linear(7, 5), [torch.ones(4, 7)], lambda z: z.sum(1), ValueError, r"got \(4,\)"),
        (
            nn.Linear(7, 5),
            [torch.ones(4, 7)],
            lambda z: z.detach().sum(),
            RuntimeError,
            "no gradient",
        ),
        (frozen(), [torch.ones(4, 7)], torch.sum, RuntimeError, "frozen"),
        (
            Stateful(),
            [torch.ones(4, 7)],
            torch.sum,
            RuntimeError,
            "other embeddings the second time",
        ),
    ],
)
def test_stages_refuse_what_they_cannot_do(model, chunks, loss, error, says):
    before = torch.get_rng_state()
    with pytest.raises(error, match=says):
        large_batch(model, chunks, loss)
    assert torch.equal(before, torch.get_rng_state())


def test_batch_norm_in_evaluation_is_welcome():
    model = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5).eval())
    large_batch(model, torch.randn(8, 7).split(4), lambda z: z.square().sum())
    assert model[0].weight.grad.abs().max() > 0


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor of any operation has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


@pytest.mark.parametrize("simix", [False, True])
def test_memory_is_that_of_a_chunk(simix, monkeypatch):
    """Neither is the matrix of all similarities made, nor do chunks leave a graph behind."""
    monkeypatch.setattr("learned_surrogates.retrieval._simix.AT_ONCE", 10_000)
    embeddings, labels = batch(classes=150, dim=8, dtype=torch.float32)
    embeddings.requires_grad_()
    batch_size, most = (1500, 9) if simix else (600, 3)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = RecallAtK(simix=simix, chunk=10)(embeddings, labels)
        loss.backward()
    assert 10 * batch_size < largest.numbers <= 10 * most * batch_size
    assert sum(kept.values()) < 100 * batch_size


def test_the_room_has_three_names():
    assert {name for name in vars(retrieval) if not name.startswith("_")} == {
        "RecallAtK",
        "large_batch",
        "recall_at_k",
    }


def test_of_no_query_recall_is_none():
    nothing, labels = torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)
    assert recall_at_k(nothing, labels).isnan()
    assert recall_at_k(nothing, labels, (1, 2)).isnan().tolist() == [True, True]


def test_a_function_that_calls_a_batch_norm_is_refused_before_it_counts():
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(8, 4), norm)
    with pytest.raises(ValueError, match="encode calls is a BatchNorm1d in training mode"):
        large_batch(lambda chunk: model(chunk), torch.randn(8, 8).split(4), lambda z: z.sum())
    assert not norm.num_batches_tracked
    large_batch(lambda chunk: model.eval()(chunk), torch.randn(8, 8).split(4), lambda z: z.sum())


def test_a_batch_norm_of_another_thread_is_nobodys_business():
    norm, model, found = nn.BatchNorm1d(8), nn.Linear(8, 4), []

    def encode(chunk):
        thread = threading.Thread(target=lambda: found.append(norm(chunk)))
        thread.start()
        thread.join()
        return model(chunk)

    large_batch(encode, torch.randn(8, 8).split(4), lambda z: z.square().sum())
    assert len(found) == 4


def test_another_embedding_of_any_chunk_the_second_time_is_told():
    model, calls = nn.Linear(8, 4), []

    def encode(chunk):
        calls.append(1)
        return model(chunk).flip(0) if len(calls) == 6 else model(chunk)

    with pytest.raises(RuntimeError, match="other embeddings the second time"):
        large_batch(encode, torch.randn(16, 8).split(4), lambda z: z.square().sum())
