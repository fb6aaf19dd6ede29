"""The match grid: a prediction and its target, as the edit distance sees them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 6
# Makes the untrained net's value small beside the distances of a good recogniser, so that it grows
# into its targets rather than shrinks to them.
INITIAL_COST = -4.0


def match_grid(probabilities: Tensor, labels: Tensor, special: int) -> Tensor:
    """Which position says which character of the target, and what else an edit distance can see.

    Cell (i, j) belongs to position (or frame) i and to character j of the target; column 0 belongs
    to no character, so that an empty target has a grid too. The channels:

    0. whether the cell exists: 1, or 0 for padding;
    1. the match, the probability of character j at position i;
    2. the probability of the special symbol, blank or end, at i;
    3. the probability of the most probable character at i;
    4. the probability that i repeats the character before it;
    5. whether character j repeats the one before it.

    Nothing in it names a character, so one net fits every alphabet.

    Args:
        probabilities: `(batch, classes, length)`; a column of zeros is padding.
        labels: class indices plus one, `(batch, characters)`, 0 for padding.
        special: class index of the special symbol.

    Returns:
        `(batch, 6, length, characters + 1)`, differentiable in the probabilities.
    """
    length = probabilities.shape[2]
    classes = (labels.long() - 1).clamp(min=0)[:, :, None].expand(-1, -1, length)
    known = F.pad(labels > 0, (1, 0), value=True)
    present = probabilities.detach().abs().sum(1) > 0
    exists = (present[:, :, None] & known[:, None, :]).to(probabilities)

    match = F.pad(probabilities.gather(1, classes).transpose(1, 2), (1, 0))
    characters = torch.cat([probabilities[:, :special], probabilities[:, special + 1 :]], 1)
    repeats = F.pad((characters[:, :, 1:] * characters[:, :, :-1]).sum(1), (1, 0))
    of_positions = torch.stack([probabilities[:, special], characters.amax(1), repeats], 1)
    twins = F.pad((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] > 0), (2, 0))
    twins = twins[:, : known.shape[1]]  # without any character, there is no second one either
    grid = torch.cat(
        [
            torch.ones_like(match)[:, None],
            match[:, None],
            of_positions[:, :, :, None].expand(-1, -1, -1, match.shape[2]),
            twins.to(match)[:, None, None, :].expand(-1, -1, length, -1),
        ],
        1,
    )
    return grid * exists[:, None]


class MatchGridNet(nn.Module):
    """A surrogate on match grids: convolutions, then a cost for each character and each position.

    `S = sum_j cost(character j) + sum_i cost(position i)`, as an edit distance adds up characters
    that are missing and positions that are too much or wrong.

    Args:
        width: channels of the convolutions.
        layers: number of 2D convolutions.
    """

    def __init__(self, width: int = 16, layers: int = 2):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width if layer else CHANNELS, width, 3, padding=1) for layer in range(layers)
        )
        self.characters = _costs(2 * width)
        self.positions = _costs(2 * width)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`, never negative.

        Args:
            z: match grids, `(batch, 6, length, characters + 1)`.
            y: not needed, as the grid has seen the target.
        """
        exists = z[:, :1].detach()
        x = z
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x)) * exists
        value = z.new_zeros(len(z))
        for costs, other_side in ((self.characters, 2), (self.positions, 3)):
            # Along the other side, the best match counts, and how much of it there is.
            here = exists.amax(other_side)
            best = x.masked_fill(exists == 0, -torch.inf).amax(other_side).masked_fill(here == 0, 0)
            cost = costs(torch.cat([best, x.sum(other_side) / 4], 1))
            value = value + (F.softplus(cost) * here).sum((1, 2))
        return value


def _costs(width: int) -> nn.Sequential:
    last = nn.Conv1d(width, 1, 1)
    nn.init.constant_(last.bias, INITIAL_COST)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.LeakyReLU(), last)
