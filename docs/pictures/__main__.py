"""Draws the SVG pictures of the docs.

Example:
    python docs/pictures
"""

import argparse
from pathlib import Path

import charts
import diagrams

PICTURES = {
    "how-it-works": diagrams.how_it_works,
    "smoothing": diagrams.smoothing,
    "handing-over": diagrams.handing_over,
    "workers": diagrams.workers,
    "target-frame": diagrams.target_frame,
    "readings": diagrams.readings,
    "rooms": diagrams.rooms,
    "gains": charts.gains,
    "text-recognisers": charts.text_recognisers,
    "detector": charts.detector,
    "digit-masks": charts.digit_masks,
    "word-retrieval": charts.word_retrieval,
    "digits": charts.digits,
}


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "_static")
    folder = parser.parse_args().to
    for name, draw in PICTURES.items():
        draw().write(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
