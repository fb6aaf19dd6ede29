"""The match grid: a prediction and its target, as the edit distance sees them."""

from importlib import resources

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

CHANNELS = 7
# Makes the untrained net's value small beside the distances of a good recogniser, so that it grows
# into its targets rather than shrinks to them.
INITIAL_COST = -4.0
# What a step of an importance's or the saturation's parameter is multiplied with: a character that
# costs ten times as much, or a metric that is at most 1, shall be known within some hundred updates
# at the rate of a net that comes fitted.
PACE = 16.0
# Below it, the saturation's series to the first order is more exact than its closed form.
SMALL = 1e-3
# What a cell that does not exist lacks to be the best of any.
OUT_OF_SIGHT = 1e30


def match_grid(
    match: Tensor,
    other: Tensor,
    best: Tensor,
    repeats: Tensor,
    exists: Tensor,
    labels: Tensor,
) -> Tensor:
    """Which position says which character of the target, and what else an edit distance can see.

    Cell (i, j) belongs to position i of the reading and to character j of the target; column 0
    belongs to no character, so that an empty target has a grid too. The channels:

    0. whether the cell exists: 1, or 0 for padding;
    1. the match, the probability of character j at position i;
    2. the probability that the text has ended before i;
    3. the probability of a character at i that the target does not have;
    4. the probability of the most probable character at i;
    5. the probability that i repeats the character before it, were positions independent;
    6. whether character j repeats the one before it.

    Nothing in it names a character, so one net fits every alphabet.

    Args:
        match: `(batch, positions, characters)`.
        other: `(batch, positions)`.
        best: `(batch, positions)`.
        repeats: `(batch, positions)`.
        exists: which positions there are, `(batch, positions)`, bool.
        labels: class indices plus one, `(batch, characters)`, 0 for padding.

    Returns:
        `(batch, 7, positions, characters + 1)`, differentiable in the probabilities.
    """
    _, own = first_columns(labels)
    end = 1 - other - (match * own[:, None]).sum(2)
    # Rounding; and the last position of a collapsed text may hold more than one character.
    of_positions = torch.stack([end.clamp(min=0), other, best, repeats], 1)
    known = F.pad(labels > 0, (1, 0), value=True)
    present = exists[:, :, None] & known[:, None, :]
    twins = F.pad((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] > 0), (2, 0))
    twins = twins[:, : known.shape[1]]  # without any character, there is no second one either
    positions, columns = present.shape[1:]
    grid = torch.cat(
        [
            match.new_ones(len(match), 1, positions, columns),
            F.pad(match, (1, 0))[:, None],
            of_positions[:, :, :, None].expand(-1, -1, -1, columns),
            twins.to(match)[:, None, None, :].expand(-1, -1, positions, -1),
        ],
        1,
    )
    return grid * present[:, None]


def first_columns(labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each character of the target, where it first occurs, and whether that is here.

    Args:
        labels: `(batch, characters)`, 0 for padding.

    Returns:
        Both `(batch, characters)`: column numbers, and bool, false for padding.
    """
    equal = labels[:, :, None] == labels[:, None, :]
    # Without any character there is nothing to search.
    first = equal.to(torch.int8).argmax(2) if labels.numel() else labels.long()
    here = torch.arange(labels.shape[1], device=labels.device)
    return first, (first == here) & (labels > 0)


class MatchGridNet(nn.Module):
    """A surrogate on match grids: convolutions, then a cost for each character and each position.

    `C = sum_j importance(y_j) cost(character j) + sum_i cost(position i)`, as an edit distance adds
    up characters that are missing and positions that are too much or wrong, and `S = (1 - exp(-k
    C)) / k`. The importances, all 1 to begin with, are for metrics to which characters are not all
    worth the same; the saturation k, 0 to begin with, where S = C, for metrics that more errors
    make little worse, such as whether the word is right.

    Args:
        width: channels of the convolutions.
        layers: number of 2D convolutions.
        classes: of the targets; 0 for a net that serves any, without importances.
    """

    def __init__(self, width: int = 8, layers: int = 3, classes: int = 0):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width if layer else CHANNELS, width, 3, padding=1) for layer in range(layers)
        )
        self.characters = _costs(2 * width)
        self.positions = _costs(2 * width)
        # Logarithms, over PACE; the first one is that of padding.
        self.importances = nn.Parameter(torch.zeros(classes + 1))
        self.saturation = nn.Parameter(torch.zeros(()))  # over PACE

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`, never negative.

        Args:
            z: match grids, `(batch, 7, positions, characters + 1)`.
            y: class indices plus one, 0 for padding, `(batch, characters)`.
        """
        exists = z[:, :1].detach()
        x = z
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x)) * exists
        seen = x + (exists - 1) * OUT_OF_SIGHT
        value = z.new_zeros(len(z))
        importance = (PACE * self.importances).exp()[y.long()]
        for costs, other_side, share in (
            (self.characters, 2, F.pad(importance, (1, 0), value=1.0)[:, None]),
            (self.positions, 3, 1.0),
        ):
            # Along the other side, the best match counts, and how much of it there is.
            here = exists.amax(other_side)
            best = seen.max(other_side).values * here
            cost = costs(torch.cat([best, x.sum(other_side) / 4], 1))
            value = value + (share * F.softplus(cost) * here).sum((1, 2))
        return value * _mean_exponential((PACE * self.saturation).clamp(min=0) * value)


def fitted_net(head: str, classes: int) -> MatchGridNet:
    """A net that was fitted to the edit distance of simulated recognisers' outputs.

    Of any alphabet and any certainty; `examples/fit_match_grid.py` makes it.

    Args:
        head: "ctc" or "characters".
        classes: of the targets.
    """
    file = resources.files(__package__) / "weights" / f"{head}.safetensors"
    weights = load(file.read_bytes())
    biases = [name for name in weights if name.startswith("convolutions.") and "bias" in name]
    net = MatchGridNet(len(weights[biases[0]]), len(biases), classes)
    net.load_state_dict(net.state_dict() | weights)
    return net


def _mean_exponential(x: Tensor) -> Tensor:
    """`(1 - exp(-x)) / x`, the mean of exp(-t) for t from 0 to x, with its gradient at 0."""
    above = x.clamp(min=SMALL)
    return torch.where(x < SMALL, 1 - x / 2, -torch.expm1(-above) / above)


def _costs(width: int) -> nn.Sequential:
    last = nn.Conv1d(width, 1, 1)
    nn.init.constant_(last.bias, INITIAL_COST)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.LeakyReLU(), last)
