"""Train a recogniser with its proxy loss and write a checkpoint.

The committed checkpoints were made by:
    python examples/studies/train_recogniser.py --head ctc --steps 9000 \\
        --output examples/checkpoints/ctc.safetensors
    python examples/studies/train_recogniser.py --head characters --steps 6000 \\
        --start examples/checkpoints/ctc.safetensors \\
        --output examples/checkpoints/characters.safetensors
The noisy ones in the same way, each with --label-noise 0.4, --steps 4500 and its name.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.recogniser import Head, Recogniser, load, proxy_loss, save
from lib.scoring import predict, scores
from lib.word_images import Split, WordImages

BATCH = 64
EVALUATION_SEED = 2020


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--head", choices=["ctc", "characters"], required=True, help="the recogniser's head")
    add("--output", type=Path, required=True, help="the checkpoint to write, .safetensors")
    add("--start", type=Path, help="a checkpoint, of either head, whose columns to start from")
    add("--steps", type=int, default=6000, help=f"steps of {BATCH} images (default: %(default)s)")
    add("--rate", type=float, default=3e-3, help="highest learning rate (default: %(default)s)")
    add(
        "--label-noise",
        type=float,
        default=0.0,
        help="fraction of training labels with 1 to 3 random edits (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of weights and training data (default: %(default)s)")
    add("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    return parser.parse_args()


def train(options: argparse.Namespace) -> Recogniser:
    """Train as the options say, printing progress."""
    head: Head = options.head
    torch.manual_seed(options.seed)
    model = Recogniser(head)
    if options.start:
        model.columns.load_state_dict(load(options.start).columns.state_dict())
    loss_of = proxy_loss(head)
    stream = WordImages("train", options.seed, options.label_noise)
    held_out = WordImages("validation", EVALUATION_SEED).batch(1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    # Ends at a hundredth of the highest rate: later training with a surrogate starts from there.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, options.steps, pct_start=0.1, final_div_factor=4
    )
    mean_loss, since = 0.0, time.monotonic()
    for step in range(1, options.steps + 1):
        images, labels = stream.batch(BATCH)
        loss = loss_of(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        mean_loss += loss.item() / 250
        if step % 250 == 0:
            pace = (time.monotonic() - since) / 250 * 1000
            line = f"step {step:6d}   loss {mean_loss:.4f}   {pace:.0f} ms a step"
            if step % 1000 == 0:
                accuracy = scores(predict(model, held_out[0]), held_out[1])["accuracy"]
                line += f"   validation accuracy {accuracy:.1%}"
            print(line, flush=True)
            mean_loss, since = 0.0, time.monotonic()
    return model


def main() -> None:
    """Train, save, and score what was saved on validation and test images."""
    options = parse()
    torch.set_num_threads(options.threads)
    model = train(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save(model, options.output)
    model = load(options.output)
    sizes: dict[Split, int] = {"validation": 1000, "test": 2000}
    for split, size in sizes.items():
        images, labels = WordImages(split, EVALUATION_SEED).batch(size)
        for name, value in scores(predict(model, images), labels).items():
            print(f"{split} {name}: {value:.4g}")


if __name__ == "__main__":
    main()
