"""Minimum-risk training on N-best lists: the readings that are most probable, not random ones."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learned_surrogates import text
from lib.recogniser import ALPHABET, Head

# Classes that a frame or position has with less are not tried.
LEAST_PROBABILITY = 3e-3
# Texts that are followed, for each that is wanted.
BEAM = 2

Reading = tuple[int, ...]


def nbest_risk(
    output: Tensor,
    labels: Sequence[str],
    head: Head,
    count: int,
    metric: Callable[..., Any] = text.edit_distance,
) -> Tensor:
    """The metric's mean over the most probable readings, by their probabilities among themselves.

    Prabhavalkar et al., "Minimum Word Error Rate Training for Attention-based Sequence-to-sequence
    Models", ICASSP 2018, Eq. 4. The baseline there, the readings' mean error, leaves this gradient
    as it is.

    Args:
        output: the recogniser's, see `Recogniser`.
        labels: texts.
        head: "ctc" or "characters".
        count: distinct readings a text, at most.
        metric: `(readings, labels) -> (batch,)`.

    Returns:
        Mean over the batch, `()`.
    """
    class_dim = 2 if head == "ctc" else 1
    log_probs = output.log_softmax(class_dim).movedim(class_dim, -1)
    by_sample = log_probs.detach().movedim(1 if head == "ctc" else 0, 0)
    lists = [likeliest(probs, head, count) for probs in by_sample.exp().tolist()]
    samples = torch.tensor([i for i, readings in enumerate(lists) for _ in readings])
    readings = [reading for readings in lists for reading in readings]
    texts = ["".join(ALPHABET[index - 1] for index in reading) for reading in readings]
    errors = torch.as_tensor(metric(texts, [labels[i] for i in samples])).to(output)
    # Readings of one text in a row, and nothing where it has fewer.
    place = torch.cat([torch.arange(len(each)) for each in lists])
    likelihood = output.new_full((len(lists), count), -torch.inf)
    likelihood = likelihood.index_put(
        (samples, place), log_likelihood(log_probs, readings, samples, head)
    )
    risk = output.new_zeros(len(lists), count).index_put((samples, place), errors)
    return (likelihood.softmax(1) * risk).sum(1).mean()


def log_likelihood(
    log_probs: Tensor, readings: Sequence[Reading], samples: Tensor, head: Head
) -> Tensor:
    """Log-probability of each reading, in the outputs of its sample, `(readings,)`."""
    lengths = torch.tensor([len(reading) for reading in readings])
    longest = log_probs.shape[1] if head == "characters" else max(1, int(lengths.max()))
    targets = torch.tensor([[*reading, *[0] * (longest - len(reading))] for reading in readings])
    if head == "ctc":
        own = log_probs[:, samples]
        frames = torch.full_like(lengths, len(own))
        return -functional.ctc_loss(own, targets, frames, lengths, reduction="none")
    chosen = log_probs[samples].gather(2, targets[..., None]).squeeze(2)
    # Behind the first end symbol, whatever is there is not read.
    return (chosen * (torch.arange(longest) <= lengths[:, None])).sum(1)


def likeliest(probabilities: list[list[float]], head: Head, count: int) -> list[Reading]:
    """The most probable distinct readings, best first, by beam search over prefixes.

    For CTC that of Graves and Jaitly, ICML 2014, Algorithm 1, without a language model.

    Args:
        probabilities: of each frame's or position's classes.
        head: "ctc" or "characters".
        count: at most so many.
    """
    grow = ctc_step if head == "ctc" else characters_step
    # Each prefix' probability, with a last frame that is special, and with another one.
    beam: dict[Reading, tuple[float, float]] = {(): (float(head == "ctc"), float(head != "ctc"))}
    for frame in probabilities:
        likely = [(i, p) for i, p in enumerate(frame) if p >= LEAST_PROBABILITY]
        grown = grow(beam, likely)
        best = sorted(grown, key=lambda prefix: -sum(grown[prefix]))[: BEAM * count]
        beam = {prefix: grown[prefix] for prefix in best}
    return list(beam)[:count]


Beam = dict[Reading, tuple[float, float]]


def ctc_step(beam: Beam, likely: list[tuple[int, float]]) -> Beam:
    """One more frame: (ends with a blank, with the prefix' last character)."""
    grown: Beam = defaultdict(lambda: (0.0, 0.0))
    for prefix, (blank, last) in beam.items():
        for index, p in likely:
            if index == 0:
                stays = grown[prefix]
                grown[prefix] = (stays[0] + p * (blank + last), stays[1])
                continue
            repeats = bool(prefix) and prefix[-1] == index
            if repeats:
                stays = grown[prefix]
                grown[prefix] = (stays[0], stays[1] + p * last)
            longer = grown[*prefix, index]
            grown[*prefix, index] = (
                longer[0],
                longer[1] + p * (blank if repeats else blank + last),
            )
    return grown


def characters_step(beam: Beam, likely: list[tuple[int, float]]) -> Beam:
    """One more position: (has ended, goes on)."""
    grown: Beam = defaultdict(lambda: (0.0, 0.0))
    for prefix, (ended, open_) in beam.items():
        over = sum(p for index, p in likely if index == 0)
        grown[prefix] = (grown[prefix][0] + ended + open_ * over, grown[prefix][1])
        for index, p in likely:
            if index:
                longer = grown[*prefix, index]
                grown[*prefix, index] = (longer[0], longer[1] + open_ * p)
    return grown
