"""Train the detector of rotated words with smooth L1 and write a checkpoint.

The committed checkpoint was made by:
    python examples/studies/train_detector.py --output examples/checkpoints/detector.safetensors
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.detection_scoring import best_score, scores
from lib.detector import Detector, assigned, detect, load, positives, save, score_loss, smooth_l1
from lib.scenes import Scenes, rendered
from lib.word_images import Split

BATCH = 16
EVALUATION_SEED = 2020


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="the checkpoint to write, .safetensors")
    add("--steps", type=int, default=8000, help=f"steps of {BATCH} images (default: %(default)s)")
    add("--scenes", type=int, default=16_000, help="training scenes (default: %(default)s)")
    add("--rate", type=float, default=3e-3, help="highest learning rate (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and training data (default: %(default)s)")
    add("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    return parser.parse_args()


def train(options: argparse.Namespace) -> Detector:
    """Train as the options say, printing progress."""
    torch.manual_seed(options.seed)
    model = Detector()
    images, words, present = rendered(Scenes("train", options.seed), options.scenes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, options.steps, pct_start=0.1, final_div_factor=4
    )
    order = torch.Generator().manual_seed(options.seed)
    mean, since = torch.zeros(2), time.monotonic()
    for step in range(1, options.steps + 1):
        chosen = torch.randint(options.scenes, (BATCH,), generator=order)
        word, counts = assigned(words[chosen], present[chosen])
        logits, predicted = model(images[chosen].float() / 255)
        losses = torch.stack(
            [
                score_loss(logits, word, counts),
                smooth_l1(*positives(predicted, words[chosen], word)),
            ]
        )
        optimizer.zero_grad()
        losses.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        mean += losses.detach() / 250
        if step % 250 == 0:
            pace = (time.monotonic() - since) / 250 * 1000
            print(f"step {step:6d}   losses {mean.tolist()}   {pace:.0f} ms a step", flush=True)
            mean, since = torch.zeros(2), time.monotonic()
    return model


def main() -> None:
    """Train, save, and score what was saved on validation and test scenes."""
    options = parse()
    torch.set_num_threads(options.threads)
    model = train(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save(model, options.output)
    model = load(options.output)
    splits: tuple[Split, ...] = ("validation", "test")
    least = None
    for split in splits:
        images, words, present = rendered(Scenes(split, EVALUATION_SEED), 500)
        found = detect(model, images.float() / 255)
        least = best_score(found, words, present) if least is None else least
        for name, value in scores(found, words, present, least).items():
            print(f"{split} {name}: {value:.4f}")


if __name__ == "__main__":
    main()
