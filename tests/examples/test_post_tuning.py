"""Post-tuning, and the proxies that it is compared with."""

import torch

from lib.post_tuning import surrogate_arguments
from lib.recogniser import ALPHABET, proxy_loss
from lib.rival_losses import generalized_cross_entropy


def test_generalized_cross_entropy_is_of_positions_without_ctc():
    random = torch.Generator().manual_seed(0)
    output = torch.randn(2, len(ALPHABET) + 1, 11, generator=random).double()
    labels = ["abc", "0"]
    arguments = surrogate_arguments(output, labels, "characters")
    surprise = generalized_cross_entropy("characters", 1e-7)(*arguments)
    proxy = proxy_loss("characters")(output, labels)
    torch.testing.assert_close(surprise, proxy, rtol=1e-5, atol=0)
    classes = torch.tensor([[11, 12, 13] + 8 * [0], [1] + 10 * [0]])
    chance = output.softmax(1).gather(1, classes[:, None])
    expected = (1 - chance).mean()
    absolute = generalized_cross_entropy("characters", 1.0)(*arguments)
    torch.testing.assert_close(absolute, expected)


def test_generalized_cross_entropy_is_of_words_with_ctc():
    random = torch.Generator().manual_seed(0)
    output = torch.randn(14, 2, len(ALPHABET) + 1, generator=random).double().log_softmax(2)
    losses = [
        torch.nn.functional.ctc_loss(
            output[:, i : i + 1], torch.tensor([classes]), [14], [len(classes)], reduction="sum"
        )
        for i, classes in enumerate([[11, 12, 13], [1]])
    ]
    expected = torch.stack([(1 - (-0.3 * loss).exp()) / 0.3 for loss in losses]).mean()
    arguments = surrogate_arguments(output, ["abc", "0"], "ctc")
    value = generalized_cross_entropy("ctc", 0.3)(*arguments)
    torch.testing.assert_close(value, expected)
