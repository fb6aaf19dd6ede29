"""Train the recogniser of speech with CTC, on labels of which 40 % have errors; write a checkpoint.

The committed one was made by the defaults, in 5 minutes of one core. Needs
`pip install --group speech` (pip 25.1).

Example:
    python examples/studies/train_speech_recogniser.py
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.onnx_recogniser.labels import with_errors
from lib.post_tuning import LARGEST_NORM
from lib.speech.features import BANDS
from lib.speech.recogniser import Recogniser, arguments, load, save
from lib.speech.scoring import errors
from lib.speech.sentences import ALPHABET
from lib.speech.sets import BATCH, batches, spoken
from lib.weights import CHECKPOINTS

# At most so many neighbouring bands of a sentence are hidden.
HIDDEN = 10


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, default=CHECKPOINTS / "speech-noisy.safetensors")
    add("--sentences", type=int, default=5000, help="to train on (default: %(default)s)")
    add("--steps", type=int, default=2400, help=f"of {BATCH} sentences (default: %(default)s)")
    add("--rate", type=float, default=3e-3, help="highest learning rate (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and training data (default: %(default)s)")
    add("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    return parser.parse_args()


def train(options: argparse.Namespace) -> Recogniser:
    """Train as the options say, printing progress."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([options.seed, 4])
    held_out = spoken("validation", 300, options.seed)
    features, texts = spoken("train", options.sentences, options.seed)
    labels = with_errors(texts, ALPHABET, rng)
    model = Recogniser()
    loss_of = nn.CTCLoss(zero_infinity=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    # Ends at a hundredth of the highest rate, as the other recognisers' training does.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, options.steps, pct_start=0.1, final_div_factor=4
    )
    mean_loss = 0.0
    for step, chosen in enumerate(batches(features, options.steps, options.seed), 1):
        shown = [hidden(features[i], rng) for i in chosen]
        loss = loss_of(*arguments(model, shown, [labels[i] for i in chosen]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        schedule.step()
        mean_loss += loss.item() / 200
        if step % 200 == 0:
            line = f"step {step:6d}   loss {mean_loss:.4f}   {time.process_time():.0f} s of the CPU"
            if step % 600 == 0:
                line += f"   validation {errors(model, held_out)}"
            print(line, flush=True)
            mean_loss = 0.0
    return model


def hidden(features: Tensor, rng: np.random.Generator) -> Tensor:
    """Features without some neighbouring bands, as in SpecAugment (Park et al., 2019)."""
    shown, width = features.clone(), rng.integers(HIDDEN + 1)
    low = rng.integers(BANDS + 1 - width)
    shown[low : low + width] = 0
    return shown


def main() -> None:
    """Train, save, and score what was saved on sentences and voices that are not in training."""
    options = parse()
    torch.set_num_threads(options.threads)
    model = train(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save(model, options.output)
    print("test", errors(load(options.output), spoken("test", 600, options.seed)))


if __name__ == "__main__":
    main()
