"""The most probable distinct readings of a recogniser's outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._alignment import Labels
from ._text_task import TextBatch, TextTask

# Prefixes that are followed: for each reading that is wanted, and at least.
BEAM, LEAST_BEAM = 2, 8
# Keys of prefixes are equal where these are, and hardly ever elsewhere: what a key is multiplied by
# for each character, and the first one.
FACTOR, ROOT = 6364136223846793005, 1442695040888963407


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Prefixes of each text, all different: `(batch, beam)` each.

    Attributes:
        keys: of the prefixes.
        parents: of these without their last character.
        last: class of that character, -1 before the first.
        closed: log-probability that the prefix has been read, and that an output of the special
            class came after its last character: CTC's blank, or the end.
        open: log-probability that it has been read, and none came.
    """

    keys: Tensor
    parents: Tensor
    last: Tensor
    closed: Tensor
    open: Tensor

    @property
    def scores(self) -> Tensor:
        """Log-probabilities that the prefixes have been read."""
        return torch.logaddexp(self.closed, self.open)


def likeliest_readings(task: TextTask, batch: TextBatch, count: int) -> tuple[list[Labels], Tensor]:
    """The most probable distinct readings, best first, by beam search over prefixes.

    For CTC that of Graves and Jaitly, "Towards End-to-End Speech Recognition with Recurrent Neural
    Networks", ICML 2014, Algorithm 1, without a language model; a whole batch at once.

    Args:
        task: the task.
        batch: what is read.
        count: how many readings of each text.

    Returns:
        `count` times what the texts read; and whether these are readings of their own, `(count,
        batch)`: where a text has fewer, the best one stands in for others.
    """
    width, special = max(BEAM * count, LEAST_BEAM), task.alphabet.special
    present = batch.present.cpu()
    p = batch.probabilities.where(batch.present[:, None], 0.0)
    of_special = p[:, special].cpu().double().log()
    # What does not lead at a place hardly ever leads to one of the best readings.
    p = p.index_fill(1, torch.tensor([special], device=p.device), 0.0)
    largest, classes = (part.cpu() for part in p.topk(min(width, p.shape[1] - 1), 1))
    largest = largest.double().log()

    beam, steps = _first(len(p), width), []
    for place, here in enumerate(present.unbind(1)):
        among = largest[:, :, place], classes[:, :, place]
        beam, *step = _grow(beam, of_special[:, place], *among, here[:, None], merges=task.merges)
        steps.append(step)

    scores, chosen = beam.scores.topk(count, 1)
    own = scores > -torch.inf
    chosen = chosen.where(own, chosen[:, :1])
    symbols = []
    for came_from, symbol in reversed(steps):
        symbols.append(symbol.gather(1, chosen))
        chosen = came_from.gather(1, chosen)
    spelt = torch.stack(symbols[::-1], 2).transpose(0, 1).tolist()
    readings = [[[c for c in text if c >= 0] for text in texts] for texts in spelt]
    return readings, own.T


def _first(size: int, width: int) -> Beam:
    """The empty prefix, and nothing beside it."""
    keys = _nothing(width).repeat(size, 1)
    keys[:, 0] = ROOT
    open_ = torch.full((size, width), -torch.inf, dtype=torch.float64, device="cpu")
    open_[:, 0] = 0.0
    last = torch.full_like(keys, -1)
    closed = torch.full_like(open_, -torch.inf)
    return Beam(keys=keys, parents=torch.zeros_like(keys), last=last, closed=closed, open=open_)


def _nothing(width: int) -> Tensor:
    """Keys of places where there is no prefix."""
    return -1 - torch.arange(width, device="cpu")


def _grow(
    beam: Beam, special: Tensor, largest: Tensor, classes: Tensor, here: Tensor, *, merges: bool
) -> tuple[Beam, Tensor, Tensor]:
    """The prefixes after one more output.

    Args:
        beam: those before.
        special: log-probability of the special class, `(batch,)`.
        largest, classes: the largest log-probabilities of others, and which they are, `(batch, n)`.
        here: which texts have that output, `(batch, 1)`.
        merges: whether the special class is CTC's blank, else the end.

    Returns:
        Prefixes, and of each, which one it was before and the class that it grew by, -1 is none:
        `(batch, beam)`.
    """
    width, special, largest = beam.keys.shape[1], special[:, None], largest[:, None]
    nothing = _nothing(width)
    last = beam.last[:, :, None]
    by = last == classes[:, None]  # (batch, beam, n)
    of_last = torch.where(by, largest, -torch.inf).amax(2)
    same = last == beam.last[:, None]  # (batch, beam, beam)
    if merges:
        # The last character again is the same one, unless a blank is between.
        closed, open_ = beam.scores + special, beam.open + of_last
        longer = torch.where(by, beam.closed[:, :, None], beam.scores[:, :, None])
        into = torch.where(same, beam.closed[:, None], beam.scores[:, None])
    else:
        closed = torch.logaddexp(beam.closed, beam.open + special)
        open_ = torch.full_like(closed, -torch.inf)
        longer, into = beam.open[:, :, None].expand_as(by), beam.open[:, None].expand_as(same)
    # A prefix may grow to be another one that there is.
    grown = beam.parents[:, :, None] == beam.keys[:, None]
    into = torch.where(grown, into + of_last[:, :, None], -torch.inf)
    open_ = torch.logaddexp(open_, into.amax(2))  # there is one shorter by a character, at most
    taken = grown.transpose(1, 2).double() @ by.double() > 0
    longer = (longer + largest).masked_fill(taken, -torch.inf)

    scores = torch.cat([torch.logaddexp(closed, open_), longer.flatten(1)], 1)
    scores, chosen = scores.topk(width, 1)
    grows = chosen >= width
    place = (chosen - width).clamp(min=0)
    came_from = torch.where(grows, place // classes.shape[1], chosen)
    symbol = classes.gather(1, place % classes.shape[1])

    def of(part: Tensor) -> Tensor:
        return part.gather(1, came_from)

    before, alive = of(beam.keys), scores > -torch.inf
    after = Beam(
        keys=torch.where(grows, before * FACTOR + symbol + 1, before).where(alive, nothing),
        parents=torch.where(grows, before, of(beam.parents)).where(alive, 0),
        last=torch.where(grows, symbol, of(beam.last)),
        closed=torch.where(grows, -torch.inf, of(closed)),
        open=torch.where(grows, scores, of(open_)),
    )
    parts = zip(vars(after).items(), vars(beam).values(), strict=True)
    after = Beam(**{name: torch.where(here, new, old) for (name, new), old in parts})
    stays = torch.arange(width, device="cpu").expand_as(came_from)
    return after, came_from.where(here, stays), symbol.where(here & grows, -1)
