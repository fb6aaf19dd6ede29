"""Post-tuning a recogniser that reads its own output, character by character.

Its decoder sees the characters so far: those of the label, with "forced"; those that it has read
itself, as when it is used, with "own". Trained on labels of which 40 % are wrong, then tuned by as
many steps with cross-entropy as with the surrogate and the closed form; test words, in familiar
and in new fonts.

With `--draws`, the cosine of each loss's gradient with that of the expected edit distance of what
the decoder reads when each character is drawn, given those drawn before it: by the score function,
of half as many draws twice.

Example:
    python examples/benchmarks/decoder.py --seeds 0 --threads 1
    python examples/benchmarks/decoder.py --losses cross-entropy "closed form" --draws 512
"""

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, text
from lib.post_tuning import BATCH, stepper
from lib.recogniser import ALPHABET, CLASSES, FRAMES, POSITIONS, Recogniser, encode_targets, load
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages

NOISE = 0.4
TASK = text.PerPosition(ALPHABET)
START = CLASSES  # what the decoder sees before the first character


class Reader(nn.Module):
    """The demo's columns, and a decoder that attends to them.

    Args:
        recogniser: whose columns to start from.
        width: of the decoder.
    """

    def __init__(self, recogniser: Recogniser, width: int = 112):
        super().__init__()
        self.columns = recogniser.columns
        self.places = nn.Parameter(torch.zeros(recogniser.width, FRAMES))
        self.characters = nn.Embedding(CLASSES + 1, width)
        self.state = nn.GRU(width, width, batch_first=True)
        self.query = nn.Linear(width, recogniser.width)
        self.classes = nn.Sequential(
            nn.Linear(width + recogniser.width, width), nn.ReLU(), nn.Linear(width, CLASSES)
        )

    def see(self, images: Tensor) -> Tensor:
        """`(batch, channels, frames)`."""
        columns: Tensor = self.columns(2 * images - 1)
        return columns + self.places

    def decode(
        self, columns: Tensor, so_far: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits `(batch, classes, length)` of each next character, and the last state.

        Args:
            columns: what was seen.
            so_far: the character before each, `(batch, length)`.
            state: of the decoder.
        """
        states, state = self.state(self.characters(so_far), state)
        shares = (self.query(states) @ columns / columns.shape[1] ** 0.5).softmax(2)
        context = shares @ columns.transpose(1, 2)
        logits: Tensor = self.classes(torch.cat([states, context], 2))
        return logits.transpose(1, 2), state

    @torch.no_grad()
    def read(self, columns: Tensor, draw: bool = False) -> Tensor:
        """The classes that it reads one by one, `(batch, positions)`: drawn, or the best."""
        character = torch.full((len(columns), 1), START)
        state, read = None, []
        for _ in range(POSITIONS):
            logits, state = self.decode(columns, character, state)
            p = logits[..., 0].softmax(1)
            character = p.multinomial(1) if draw else p.argmax(1, keepdim=True)
            read.append(character)
        return torch.cat(read, 1)


def behind_start(classes: Tensor) -> Tensor:
    """The character before each."""
    return torch.cat([torch.full_like(classes[:, :1], START), classes[:, :-1]], 1)


def objective(kind: str, criterion: nn.Module) -> Callable[[Reader, Tensor, Tensor], Tensor]:
    """`(model, images, targets) -> ()`."""

    def loss(model: Reader, images: Tensor, targets: Tensor) -> Tensor:
        columns = model.see(images)
        so_far = model.read(columns) if kind.startswith("own") else targets
        logits, _ = model.decode(columns, behind_start(so_far))
        value: Tensor = criterion(logits, targets)
        return value

    return loss


def tune(
    model: Reader, kind: str, criterion: nn.Module, seed: int, steps: int, rate: float
) -> Reader:
    """A copy of the model after some steps."""
    model = copy.deepcopy(model).train()
    stream, step = WordImages("train", seed, NOISE), stepper(model, steps, rate)
    loss = objective(kind, criterion)
    for _ in range(steps):
        images, labels = stream.batch(BATCH)
        step(loss(model, images, encode_targets(labels, "characters")[0]))
    return model


def mean_distance(model: Reader, images: Tensor, labels: list[str]) -> float:
    """Edit distance of a word."""
    model.eval()
    with torch.no_grad():
        parts = [model.read(model.see(part)) for part in images.split(500)]
    return float(text.edit_distance(TASK.texts(torch.cat(parts)), labels).mean())


class WithHalfTheProxy(nn.Module):
    """The mean of a loss and cross-entropy."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = (self.loss(logits, targets) + cross_entropy(logits, targets)) / 2
        return value


def gradient(model: Reader, loss: Tensor) -> Tensor:
    """Of all weights."""
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


def drawn_gradient(
    model: Reader, images: Tensor, labels: list[str], draws: int, at_once: int = 16
) -> Tensor:
    """Of the expected edit distance, by the score function; what other draws have is subtracted."""
    total = torch.zeros(())
    for _ in range(draws // at_once):
        columns = model.see(images).repeat_interleave(at_once, 0)
        drawn = model.read(columns, draw=True)
        distances = text.edit_distance(
            TASK.texts(drawn), [y for y in labels for _ in range(at_once)]
        )
        costs = torch.from_numpy(distances).float().view(-1, at_once)
        excess = (costs - costs.mean(1, keepdim=True)) * at_once / (at_once - 1)
        logits, _ = model.decode(columns, behind_start(drawn))
        surprise = cross_entropy(logits, drawn, reduction="none")
        # Nothing counts behind the end.
        ended = (drawn == TASK.alphabet.special).cumsum(1) - (drawn == TASK.alphabet.special).long()
        scores = -(surprise * (ended == 0)).sum(1)
        total = total + gradient(model, (scores * excess.flatten()).mean())
    return total


def cosines(model: Reader, draws: int, seed: int) -> None:
    """Print the cosines of the losses' gradients with that of what is drawn."""
    model = copy.deepcopy(model).eval()
    images, labels = WordImages("validation", seed).batch(256)
    targets = encode_targets(labels, "characters")[0]
    halves = [drawn_gradient(model, images, labels, draws // 2) for _ in range(2)]
    found = {"the other half of the draws": None}
    closed_form = text.ExpectedEditDistance(TASK)
    for kind in ("forced", "own"):
        for name, criterion in (
            ("cross-entropy", nn.CrossEntropyLoss()),
            ("closed form", closed_form),
        ):
            loss = objective(kind, criterion)(model, images, targets)
            found[f"{name}, {kind}"] = gradient(model, loss)
    print("| gradient | cosine with that of each half of the draws |\n|---|---|")
    for name, own in found.items():
        others = halves[::-1] if own is None else [own, own]
        pair = [cosine_similarity(a, b, dim=0).item() for a, b in zip(halves, others, strict=True)]
        print(f"| {name} | {pair[0]:.3f}, {pair[1]:.3f} |", flush=True)


def criteria(seed: int) -> dict[str, nn.Module]:
    """What is compared."""
    proxy = nn.CrossEntropyLoss()
    closed_form = WithHalfTheProxy(text.ExpectedEditDistance(TASK))

    def surrogate(base_weight: float | None) -> LearnedSurrogateLoss:
        return LearnedSurrogateLoss(
            text.edit_distance, task=TASK, base_loss=proxy, base_weight=base_weight, seed=seed
        )

    return {
        "cross-entropy": proxy,
        "forced": surrogate(None),
        "own": surrogate(None),
        "own, surrogate alone": surrogate(0.0),
        "closed form": closed_form,
        "own, closed form": closed_form,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--training", type=int, default=2000, help="steps of cross-entropy before")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--losses", nargs="+", choices=list(criteria(0)), default=list(criteria(0)))
    parser.add_argument("--draws", type=int, default=0, help="of each word, for cosines")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    validation = WordImages("validation", 0).batch(1500)
    tests = [WordImages("test", 0, familiar=familiar).batch(3000) for familiar in (True, False)]
    print(
        "| seed | loss | rate | validation | familiar fonts | new fonts |\n"
        "|---|---|---|---|---|---|",
        flush=True,
    )

    def row(seed: int, name: str, rate: str, model: Reader) -> None:
        found = (mean_distance(model, *data) for data in (validation, *tests))
        cells = " | ".join(f"{value:.3f}" for value in found)
        print(f"| {seed} | {name} | {rate} | {cells} |", flush=True)

    for seed in options.seeds:
        torch.manual_seed(seed)
        start = Reader(load(CHECKPOINTS / "ctc-noisy.safetensors"))
        trained = tune(start, "forced", nn.CrossEntropyLoss(), seed, options.training, 1e-3)
        row(seed, "before", "", trained)
        if options.draws:
            cosines(trained, options.draws, seed)
        for rate in options.rates:
            for name in options.losses:
                criterion = criteria(seed)[name]
                tuned = tune(trained, name, criterion, 1000 + seed, options.steps, rate)
                row(seed, name, f"{rate:g}", tuned)


if __name__ == "__main__":
    main()
