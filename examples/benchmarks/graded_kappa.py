"""Quadratic weighted kappa of grades: is it worth training on, and does a decision do the job?

Five grades, of which 40, 25, 18, 12 and 5 in a hundred have each: of the progress of diabetes in
442 patients (scikit-learn's, a linear model), and drawn (a perceptron). Dealt anew for each seed. A
model is trained with cross-entropy, then tuned for as many steps with each loss, and its grade is
said in three ways: the largest logit, the expected grade, rounded, and that stretched about its
mean by what validation chooses. Each loss and way goes by the rate that is best on validation in
the mean over seeds. Kappa is that of a whole split.

Writes into results/graded_kappa.json. Minutes on one core.

Example:
    python examples/benchmarks/graded_kappa.py
"""

import argparse
import copy
import statistics
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, classification
from lib.runs import keep_committed, read, spread, write
from user_metrics.methods import Objective
from user_metrics.problem import Splits, generator, perceptron, split
from user_metrics.training import Batches, Stepper

RESULTS = Path(__file__).parent / "results" / "graded_kappa.json"
GRADES, BATCH = torch.arange(5.0), 128
# Of all samples, those below each grade but the first.
BELOW = torch.tensor([0.40, 0.65, 0.83, 0.95])


def graded(inputs: Tensor, worth: Tensor, seed: int, train: int, validation: int) -> Splits:
    """Splits in another order for each seed."""
    grades = torch.bucketize(worth, worth.quantile(BELOW), right=True)
    order = torch.randperm(len(worth), generator=generator(seed))
    return split(inputs[order], grades[order], train, validation)


def diabetes(seed: int) -> Splits:
    inputs, progress = map(torch.from_numpy, load_diabetes(return_X_y=True))
    return graded((inputs / inputs.std()).float(), progress.float(), seed, 240, 80)


def drawn(seed: int) -> Splits:
    """A worth that bends, in noise."""
    random = generator(100 + seed)
    inputs = torch.randn(4500, 8, generator=random)
    directions = torch.randn(8, 2, generator=random) / 8**0.5
    first, second = (inputs @ directions).unbind(1)
    worth = first + (second - 0.5).square() + 0.7 * torch.randn(4500, generator=random)
    return graded(inputs, worth, seed, 1500, 500)


# How data are made, and a model for them.
PROBLEMS: dict[str, tuple[Callable[[int], Splits], Callable[[], nn.Module]]] = {
    "diabetes": (diabetes, lambda: nn.Linear(10, len(GRADES))),
    "drawn": (drawn, lambda: perceptron(8, 16, len(GRADES))),
}


def kappa_error(said: Tensor, true: Tensor, squares: Tensor | None = None) -> Tensor:
    """One minus quadratic weighted kappa: squared distances over what chance makes of them.

    Args:
        said: grades `(..., n)`, which may be expected ones.
        true: grades `(n,)`.
        squares: the expected squares of those that are said.
    """
    said, true = said.double(), true.double()
    squares = said.square() if squares is None else squares
    off = (squares - 2 * said * true + true.square()).mean(-1)
    by_chance = squares.mean(-1) + true.square().mean() - 2 * said.mean(-1) * true.mean()
    return off / by_chance.clamp(min=1e-9)


def expected(logits: Tensor) -> Tensor:
    return logits.softmax(1) @ GRADES


def soft_kappa(logits: Tensor, grades: Tensor) -> Tensor:
    """In closed form: grades are said by their probabilities."""
    return kappa_error(expected(logits), grades, logits.softmax(1) @ GRADES.square())


def squared_error(logits: Tensor, grades: Tensor) -> Tensor:
    return F.mse_loss(expected(logits), grades.float())


def of_cumulative(logits: Tensor, grades: Tensor) -> Tensor:
    """Ordinal regression: for each step between grades, whether the true one is above it."""
    at_most = logits.softmax(1).cumsum(1)[:, :-1].clamp(1e-6, 1 - 1e-6)
    return F.binary_cross_entropy(at_most, (grades[:, None] <= GRADES[:-1]).float())


def measured(noise: float, seed: int) -> Objective:
    task = classification.Sets(noise=noise)
    return LearnedSurrogateLoss(kappa_error, task=task, higher_is_better=False, seed=seed)


# Of a seed.
LOSSES: dict[str, Callable[[int], Objective]] = {
    "cross-entropy, continued": lambda _: F.cross_entropy,
    "squared error of the expected grade": lambda _: squared_error,
    "ordinal regression": lambda _: of_cumulative,
    "soft kappa": lambda _: soft_kappa,
    "Sets()": partial(measured, 0.3),
    "Sets(noise=1.0)": partial(measured, 1.0),
}


def nearest(places: Tensor) -> Tensor:
    return places.round().clamp(0, GRADES[-1])


def stretched(logits: Tensor, chosen_on: tuple[Tensor, Tensor]) -> Tensor:
    """The expected grade, stretched and moved as is best for these logits and grades."""
    on, grades = expected(chosen_on[0]), chosen_on[1]
    centre = on.mean()
    factors, shifts = torch.cartesian_prod(torch.arange(5, 41) / 10, torch.arange(-8, 9) / 10).T
    tried = nearest(centre + factors[:, None] * (on - centre) + shifts[:, None])
    best = kappa_error(tried, grades).argmin()
    return nearest(centre + factors[best] * (expected(logits) - centre) + shifts[best])


# Grades that are said, of logits, and of validation's logits and grades.
WAYS: dict[str, Callable[[Tensor, tuple[Tensor, Tensor]], Tensor]] = {
    "largest logit": lambda logits, _: logits.argmax(1),
    "expected grade": lambda logits, _: nearest(expected(logits)),
    "stretched": stretched,
}


@torch.no_grad()
def errors(model: nn.Module, data: Splits) -> dict[str, dict[str, float]]:
    """One minus kappa, by way and split."""
    logits = {name: model(data[name][0]) for name in ("validation", "test")}
    chosen_on = logits["validation"], data["validation"][1]
    return {
        way: {n: kappa_error(say(z, chosen_on), data[n][1]).item() for n, z in logits.items()}
        for way, say in WAYS.items()
    }


def train(model: nn.Module, data: Splits, loss: Objective, rate: float, steps: int, seed: int):
    """The model after that many steps."""
    stepper, batches = Stepper(model, loss, rate, steps), Batches(data["train"], BATCH, seed)
    for _ in range(steps):
        stepper.step(*batches.next())
    return model


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    add("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    add("--seeds", type=int, default=5)
    add("--before", type=int, default=1000, help="steps of cross-entropy to the checkpoint")
    add("--steps", type=int, default=200, help="steps of each loss from there")
    add("--rates", type=float, nargs="+", default=[1e-3, 1e-2])
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_committed(parser, options, "seeds", "before", "steps", "rates")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for problem in options.problems:
        make_data, make_model = PROBLEMS[problem]
        data = [make_data(seed) for seed in range(options.seeds)]
        checkpoints = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = make_model()
            train(model, data[seed], F.cross_entropy, 1e-2, options.before, seed)
            checkpoints.append(model)
        print(f"| {problem} | {' | '.join(WAYS)} |\n|---|---|---|---|")

        def show(loss: str, tried: dict[float | None, list[nn.Module]], problem=problem, data=data):
            """Writes a loss's runs down, and prints those at the best rates."""
            found = {rate: list(map(errors, models, data)) for rate, models in tried.items()}
            cells, rows = [], []
            for way in WAYS:
                rate = min(
                    found, key=lambda r: statistics.mean(e[way]["validation"] for e in found[r])
                )
                test = [each[way]["test"] for each in found[rate]]
                cells.append(spread(test, 3))
                rows.append(
                    {"problem": problem, "loss": loss, "way": way, "rate": rate, "test": test}
                )
            print(f"| {loss} | {' | '.join(cells)} |", flush=True)
            kept = [
                r for r in read(options.results) if (r["problem"], r["loss"]) != (problem, loss)
            ]
            write(options.results, kept + rows)

        show("checkpoint", {None: checkpoints})
        for loss in options.losses:
            tried = {}
            for rate in options.rates:
                tried[rate] = [
                    train(
                        copy.deepcopy(model), each, LOSSES[loss](s), rate, options.steps, 1000 + s
                    )
                    for s, (model, each) in enumerate(zip(checkpoints, data, strict=True))
                ]
            show(loss, tried)


if __name__ == "__main__":
    main()
