"""A soft edit distance: the shortest way through the table becomes a soft minimum over all ways."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.recogniser import Head, encode_targets


def soft_edit_distance(
    output: Tensor, labels: Sequence[str], head: Head, temperature: float
) -> Tensor:
    """The edit distance with expected costs and soft minima, mean over the batch, `()`.

    After Ofitserov, Tsvetkov and Nazarov, "Soft edit distance for differentiable comparison of
    symbolic sequences", 2019: a frame or position with probabilities p stands for a character k at
    the cost 1 - p(k), or for none at the cost of the probability that it reads one: with CTC, one
    that the frame before does not. A character of the label that nothing stands for costs 1.

    Args:
        output: the recogniser's, see `Recogniser`.
        labels: texts.
        head: "ctc" or "characters".
        temperature: of the soft minima, in edits; towards 0 they are minima.
    """
    class_dim = 2 if head == "ctc" else 1
    # (frames, batch, classes)
    chances = output.softmax(class_dim).permute(*((0, 1, 2) if head == "ctc" else (2, 0, 1)))
    targets, lengths = encode_targets(labels, "ctc")
    of_target = chances.gather(2, targets.expand(len(chances), *targets.shape))
    reads = 1 - chances[:, :, 0]
    if head == "ctc":
        repeats = (chances[1:, :, 1:] * chances[:-1, :, 1:]).sum(2)
        reads = torch.cat([reads[:1], reads[1:] - repeats])

    def least(*ways: Tensor) -> Tensor:
        return -temperature * (torch.stack(ways) / -temperature).logsumexp(0)

    columns = targets.shape[1]
    row = [chances.new_full((len(labels),), float(j)) for j in range(columns + 1)]
    for more, right in zip(reads, of_target, strict=True):
        following = [row[0] + more]
        for j in range(columns):
            ways = row[j] + 1 - right[:, j], row[j + 1] + more, following[j] + 1
            following.append(least(*ways))
        row = following
    return torch.stack(row, 1).gather(1, lengths[:, None]).mean()
