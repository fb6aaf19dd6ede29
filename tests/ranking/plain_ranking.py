"""Metrics of lists as textbooks have them, and their mean under noise by many draws."""

import functools

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import average_precision_score, ndcg_score

from learned_surrogates import ranking

N = 100


def spearman(scores, targets):
    return spearmanr(scores, targets).statistic


def average_precision(scores, targets):
    return average_precision_score(targets, scores)


def ndcg(scores, targets, k=None):
    return ndcg_score([targets], [scores], k=k)


def recall(scores, targets, k):
    first = np.argsort(-scores)[:k]
    return targets[first].sum() / targets.sum()


# Name: the loss, the metric of one list, the kind of targets.
CASES = {
    "spearman": (ranking.spearman_loss, spearman, "numbers"),
    "average precision": (ranking.average_precision_loss, average_precision, "marks"),
    "ndcg": (ranking.ndcg_loss, ndcg, "gains"),
    "ndcg@3": (functools.partial(ranking.ndcg_loss, k=3), functools.partial(ndcg, k=3), "gains"),
    "ndcg@10": (
        functools.partial(ranking.ndcg_loss, k=10),
        functools.partial(ndcg, k=10),
        "gains",
    ),
    "recall@1": (
        functools.partial(ranking.recall_loss, k=1),
        functools.partial(recall, k=1),
        "one",
    ),
    "recall@10": (
        functools.partial(ranking.recall_loss, k=10),
        functools.partial(recall, k=10),
        "marks",
    ),
}


def lists(kind, seed=0, count=4, n=20, separation=1.0, dtype=torch.float64):
    """Scores that know something of their targets, `(count, n)` both."""
    random = torch.Generator().manual_seed(seed)
    worth, noise = torch.randn(2, count, n, generator=random, dtype=torch.float64)
    if kind == "numbers":
        targets = worth
    elif kind == "gains":
        targets = (2 * worth.exp()).floor().clamp(0, 7)
        targets[:, 0] = 3
    else:
        targets = torch.zeros_like(worth)
        most = 1 if kind == "one" else max(1, n // 6)
        targets.scatter_(1, worth.topk(most, 1).indices, 1)
    return (separation * worth + noise).to(dtype), targets.to(dtype)


def each(metric, scores, targets):
    """The metric of each list, by its plain function."""
    return np.array([metric(s, t) for s, t in zip(scores.numpy(), targets.numpy())])


def fast(name, ranks, targets):
    """Metrics `(draws,)` of many orders of one list, given as ranks `(draws, n)`."""
    n = len(targets)
    if name == "spearman":
        wanted = rankdata(-targets)
        return 1 - 6 * ((ranks - wanted) ** 2).sum(1) / (n * (n**2 - 1))
    kind, _, k = name.partition("@")
    within = ranks <= int(k or n)
    if kind == "recall":
        return (within * targets).sum(1) / targets.sum()
    if kind == "ndcg":
        ideal = np.sort(targets)[::-1] / np.log2(np.arange(2, n + 2))
        return (within * targets / np.log2(1 + ranks)).sum(1) / ideal[: int(k or n)].sum()
    relevant = np.flatnonzero(targets)
    above = ranks[:, relevant, None] >= ranks[:, None, relevant]
    return (above.sum(2) / ranks[:, relevant]).mean(1)


def by_draws(name, scores, targets, noise, draws, seed=0):
    """Mean metric, its standard error, and its gradient of the standardised scores, of one list."""
    random = np.random.default_rng(seed)
    scores, targets = scores.numpy(), targets.numpy()
    unit = (scores - scores.mean()) / scores.std()
    values, gradients = [], []
    for _ in range(draws // 2000):
        steps = random.standard_normal((1000, len(scores)))
        ranks = [order_of(unit + sign * noise * steps) for sign in (1, -1)]
        plus, minus = (fast(name, part, targets) for part in ranks)
        values += [(plus + minus) / 2]
        gradients += [((plus - minus)[:, None] / 2 * steps).mean(0) / noise]
    value = np.concatenate(values)
    return value.mean(), value.std() / np.sqrt(len(value)), np.mean(gradients, 0)


def order_of(scores):
    """Ranks without ties, 1 for the highest."""
    order = np.argsort(-scores, 1)
    found = np.empty_like(scores)
    np.put_along_axis(found, order, np.arange(1.0, scores.shape[1] + 1)[None], 1)
    return found
