"""Post-tuning, and the proxies that it is compared with."""

import copy

import torch

from lib.post_tuning import optimizer_state, stepper, surrogate_arguments
from lib.recogniser import ALPHABET, Recogniser, proxy_loss
from lib.rival_losses import generalized_cross_entropy
from lib.word_images import WordImages


def test_the_state_is_that_of_training_on_the_spot():
    torch.manual_seed(0)
    model, proxy = Recogniser("characters").eval(), proxy_loss("characters")
    before = copy.deepcopy(model.state_dict())
    state = optimizer_state(model, proxy, WordImages("train", 3), steps=2)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not model.training

    stream, squares = WordImages("train", 3), []
    for _ in range(2):
        images, labels = stream.batch(64)
        loss = proxy(model.train()(images), labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        squares.append([(gradient * min(1, 5 / norm)).square() for gradient in gradients])
    for index, (first, second) in enumerate(zip(*squares, strict=True)):
        expected = 0.001 * (0.999 * first + second)
        torch.testing.assert_close(state[index]["exp_avg_sq"], expected, rtol=1e-3, atol=1e-12)

    kept = copy.deepcopy(state)
    step = stepper(model, 10, 1e-3, state)
    step(proxy(model(images), labels))
    torch.testing.assert_close(state, kept, rtol=0, atol=0)


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
