"""The metric on a cluster of Dask's workers, in two processes of this machine."""

import time

import pytest
import torch
from conftest import assert_identical, l1, make_loss, train

from learned_surrogates import MetricError, Workers

distributed = pytest.importorskip("distributed")
# Of the cluster's own making: sockets that its processes leave to the garbage collector.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


def slow(prediction, target):
    time.sleep(0.2)
    return l1(prediction, target)


def failing(prediction, target):
    raise KeyError("polygon")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture
def executor(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client.get_executor(pure=False)


def test_with_lag_0_all_is_as_without_it(executor):
    plain = make_loss("measured")
    parallel = make_loss("measured", executor=Workers(executor, lag=0, chunk_size=2))
    assert_identical(train(parallel, "measured", range(8)), train(plain, "measured", range(8)))
    assert_identical(parallel.state_dict(), plain.state_dict())


def test_an_error_of_the_metric_comes_back_with_its_cause(executor):
    criterion = make_loss("measured", failing, executor=Workers(executor, lag=0))
    with pytest.raises(MetricError, match="KeyError") as caught:
        train(criterion, "measured", [0])
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("lag", [0, 3])
def test_workers_that_die_and_come_back_lose_nothing(cluster, executor, lag):
    """Dask sends what a worker had to another one, and starts a new one."""
    criterion = make_loss("measured", slow, executor=Workers(executor, lag=lag, timeout=120))
    plain = make_loss("measured", slow, executor=Workers(executor, lag=lag, timeout=120))
    outcomes, processes = [], {nanny.pid for nanny in cluster.workers.values()}
    for call in range(8):
        if call == 3:
            for nanny in list(cluster.workers.values()):
                nanny.process.process.kill()
        outcomes += train(criterion, "measured", [call])
    assert_identical(outcomes, train(plain, "measured", range(8)))
    assert criterion.stats["metric/lost"] == 0
    assert all(torch.isfinite(loss) for loss, _ in outcomes)
    assert processes.isdisjoint(nanny.pid for nanny in cluster.workers.values())
