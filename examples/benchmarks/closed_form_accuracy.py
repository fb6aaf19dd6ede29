"""How near the expected edit distance's closed form is: to the exact one, and without Numba.

Of random outputs of 2 to 8 frames, targets of 2 to 4 characters and 2 to 6 classes beside the
special one, the value and the gradient of the logits are held against the exact automaton of the
tests, in float64. "Near": the logits of a path that spells the target are raised by 6. Then, of the
demo recognisers on 64 words, the gradient in float32 with Numba's kernels and by PyTorch with
independent columns is held against the chain of columns in float64.

Two minutes. Example:
    python examples/benchmarks/closed_form_accuracy.py --costs 1,1,2 5,1,5 --cases 300
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests")]

from exact_edit_distance import exact
from test_expected_edit_distance import case

from learned_surrogates import text
from learned_surrogates.text._closed_form import row_passes
from lib.recogniser import ALPHABET, encode_targets, load
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages

LETTERS, FRAMES, LENGTH, NEAR = (2, 6), 8, 4, 6


def held_against_exact(
    seed: int, ctc: bool, near: int, costs: tuple[int, ...]
) -> tuple[float, float]:
    """Relative error of a case's value, and the cosine of its gradient."""
    logits, target = case(seed, ctc, LETTERS, near)
    logits = logits[:FRAMES].clone().requires_grad_()
    label = target[:LENGTH].tolist()[: None if ctc else len(logits)]
    true = exact(logits.softmax(1), label, ctc, costs)
    true.backward()
    alphabet = ALPHABET[: logits.shape[1] - 1]
    kinds = dict(zip(("insertion", "deletion", "substitution"), costs))
    z = logits.detach()
    if ctc:
        z = z[:, None].requires_grad_()
        loss = text.ExpectedEditDistance(text.CTC(alphabet), **kinds)
        value = loss(z, torch.tensor([label]), [len(z)], [len(label)])
    else:
        z = z.T[None].clone().requires_grad_()
        loss = text.ExpectedEditDistance(text.PerPosition(alphabet), **kinds)
        value = loss(z, torch.tensor([label + [0] * (z.shape[2] - len(label))]))
    value.backward()
    assert z.grad is not None and logits.grad is not None
    found = z.grad[:, 0] if ctc else z.grad[0].T
    cosine = cosine_similarity(found.flatten(), logits.grad.flatten(), dim=0).item()
    return abs(value.item() / true.item() - 1), cosine


def gradient(head: str, noisy: str, kernels: bool, dtype: torch.dtype) -> Tensor:
    """Of a demo recogniser's outputs on 64 words."""
    images, labels = WordImages("train", 0).batch(64)
    with torch.no_grad():
        output = load(CHECKPOINTS / f"{head}{noisy}.safetensors").eval()(images).to(dtype)
    output.requires_grad_()
    targets = encode_targets(labels, head)
    lengths = (torch.full((output.shape[1],), output.shape[0]),) if head == "ctc" else ()
    task = text.CTC(ALPHABET) if head == "ctc" else text.PerPosition(ALPHABET)
    row_passes.KERNELS.failed_on = set() if kernels else {row_passes.CPU}
    text.ExpectedEditDistance(task)(output, targets[0], *lengths, *targets[1:]).backward()
    assert output.grad is not None
    return output.grad.double()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--costs", nargs="*", default=["1,1,2", "5,1,5"])
    parser.add_argument("--cases", type=int, default=300)
    options = parser.parse_args()
    print("| costs | task | outputs | within 1 % | cosine, median | 5 % below | worst |")
    print("|---|---|---|---|---|---|---|")
    for costs in options.costs:
        for ctc in (False, True):
            for near in (0, NEAR):
                numbers = tuple(map(int, costs.split(",")))
                found = [held_against_exact(s, ctc, near, numbers) for s in range(options.cases)]
                within = sum(error < 0.01 for error, _ in found) / len(found)
                cosines = sorted(cosine for _, cosine in found)
                middle, low = cosines[len(found) // 2], cosines[len(found) // 20]
                task, outputs = "CTC" if ctc else "PerPosition", "near" if near else "random"
                print(
                    f"| {costs} | {task} | {outputs} | {within:.0%} | {middle:.4f} | {low:.3f} | "
                    f"{cosines[0]:.3f} |"
                )
    print("\n| recogniser | gradient off, Numba | PyTorch in float32 |\n|---|---|---|")
    for head in ("ctc", "characters"):
        for noisy in ("", "-noisy"):
            chain = gradient(head, noisy, False, torch.float64)
            off = [
                (gradient(head, noisy, kernels, torch.float32) - chain).norm() / chain.norm()
                for kernels in (True, False)
            ]
            print(f"| {head}{noisy} | {off[0]:.2%} | {off[1]:.2%} |")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a target has more characters than frames is meant
        main()
