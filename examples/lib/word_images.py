"""Word images in the manner of MJSynth, rendered on the fly and without end.

Words come from Webster's Second International (1934), whose copyright has lapsed: list `web2` of
the package english-words. README.md lists the fonts and their licences. As in MJSynth, labels are
lower-case whatever the case in the image.

- train: 80 % of the words, in the training fonts.
- validation: another 10 % of the words, in the training fonts.
- test: the last 10 % of the words, in font families that the other splits never show.

All splits share one strength of distortion.
"""

import zlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
import torch
from english_words import get_english_words_set
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .distortion import HEIGHT, MARGIN, WIDTH, distort

Split = Literal["train", "validation", "test"]

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
LENGTHS = range(3, 11)
HASHES = {"train": range(80), "validation": range(80, 90), "test": range(90, 100)}

TRAINING_FAMILIES = (
    "DejaVuSans",
    "DejaVuSansMono",
    "DejaVuSerif",
    "Roboto",
    "HankenGrotesk",
    "Caladea",
    "FredokaOne",
)
HELD_OUT_FAMILIES = ("SourceSerifPro", "Manrope")
FONT_PACKAGES = (
    "font_roboto",
    "font_hanken_grotesk",
    "font_caladea",
    "font_fredoka_one",
    "font_source_serif_pro",
    "font_manrope",
)

_CODE_SHARE = 0.15


class Glyph(NamedTuple):
    """A rendered character; offsets in pixels from the pen's place on the baseline."""

    ink: NDArray[np.uint8]
    left: int
    top: int
    advance: float


class WordImages:
    """An endless stream of word images with their texts.

    Args:
        split: which words and fonts to draw from.
        seed: the same seed gives the same images; batches of another size make another stream.
        label_noise: fraction of words whose label carries 1 to 3 random edits.
        familiar: whether the test split has the training fonts too.
    """

    def __init__(
        self, split: Split, seed: int, label_noise: float = 0.0, *, familiar: bool = False
    ):
        self.split = split
        self.label_noise = label_noise
        self.words = [word for word in english_words() if in_split(word, split)]
        held_out = split == "test" and not familiar
        self.fonts = font_files(HELD_OUT_FAMILIES if held_out else TRAINING_FAMILIES)
        stream = list(HASHES).index(split)
        self._text = np.random.default_rng([seed, stream, 0])
        # Apart from the text's, so that the images are the same with and without noise.
        self._noise = np.random.default_rng([seed, stream, 1])
        self._pixels = torch.Generator().manual_seed(3 * seed + stream)

    def batch(self, size: int) -> tuple[Tensor, list[str]]:
        """The next images, `(size, 1, 24, 96)` float32 in [0, 1], and their labels."""
        words = [self.word() for _ in range(size)]
        masks = np.stack([self.render(word) for word in words])
        images = distort(torch.from_numpy(masks).unsqueeze(1).float() / 255, self._pixels)
        return images, [self._label(word) for word in words]

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream."""
        return {
            "text": self._text.bit_generator.state,
            "noise": self._noise.bit_generator.state,
            "pixels": self._pixels.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that `state_dict` gave."""
        self._text.bit_generator.state = state["text"]
        self._noise.bit_generator.state = state["noise"]
        self._pixels.set_state(state["pixels"])

    def word(self) -> str:
        if self._text.random() >= _CODE_SHARE:
            return self.words[self._text.integers(len(self.words))]
        characters = ALPHABET[: 10 if self._text.random() < 0.5 else 36]
        while True:
            length = self._text.integers(LENGTHS.start, LENGTHS.stop)
            picks = self._text.integers(len(characters), size=length)
            code = "".join([characters[pick] for pick in picks])
            if in_split(code, self.split):
                return code

    def render(self, word: str) -> NDArray[np.uint8]:
        """White on black, `(40, 112)`, in a random font, size, case and letter-spacing."""
        rng = self._text
        font = self.fonts[rng.integers(len(self.fonts))]
        shown = (word, word, word, word.capitalize(), word.upper())[rng.integers(5)]
        spacing = rng.uniform(-0.03, 0.12)
        ems = sum(glyph(font, 32, character).advance for character in shown) / 32
        fitting = rng.uniform(74, 89) / (ems + spacing * len(shown))
        size = int(max(8, min(rng.uniform(16, 22), fitting)))
        glyphs = [glyph(font, size, character) for character in shown]
        width = sum(each.advance for each in glyphs) + spacing * size * (len(shown) - 1)
        top = min(each.top for each in glyphs)
        bottom = max(each.top + each.ink.shape[0] for each in glyphs)
        canvas = np.zeros((HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN), np.uint8)
        pen = MARGIN + max(0.0, WIDTH - width) * rng.uniform(0.15, 0.85)
        baseline = round((canvas.shape[0] - top - bottom) / 2 + rng.uniform(-1, 1))
        for each in glyphs:
            y, x = max(baseline + each.top, 0), max(round(pen) + each.left, 0)
            place = canvas[y : y + each.ink.shape[0], x : x + each.ink.shape[1]]
            np.maximum(place, each.ink[: place.shape[0], : place.shape[1]], out=place)
            pen += each.advance + spacing * size
        return canvas

    def _label(self, word: str) -> str:
        if self._noise.random() >= self.label_noise:
            return word
        label = word
        while label == word:
            for _ in range(self._noise.integers(1, 4)):
                label = edit(label, self._noise)
        return label


def edit(text: str, rng: np.random.Generator) -> str:
    """One random substitution, insertion or deletion; 1 to 10 characters stay 1 to 10."""
    actions = ["substitute"] + ["insert"] * (len(text) < 10) + ["delete"] * (len(text) > 1)
    action = actions[rng.integers(len(actions))]
    place = int(rng.integers(len(text) + (action == "insert")))
    new = "" if action == "delete" else ALPHABET[rng.integers(len(ALPHABET))]
    return text[:place] + new + text[place + (action != "insert") :]


def in_split(word: str, split: Split) -> bool:
    """Whether a word belongs to a split; its checksum says, so it is the same everywhere."""
    return zlib.crc32(word.encode()) % 100 in HASHES[split]


@cache
def english_words() -> list[str]:
    """Words of 3 to 10 letters a-z, sorted; about 150 thousand."""
    words = get_english_words_set(["web2"], lower=True)
    return sorted(word for word in words if len(word) in LENGTHS and set(word) <= set(ALPHABET))


def font_files(families: tuple[str, ...]) -> list[str]:
    """Paths of the families' fonts, without the weights too thin to read at this size."""
    folders = [Path(str(resources.files(package))) / "files" for package in FONT_PACKAGES]
    folders.append(Path(matplotlib.get_data_path()) / "fonts" / "ttf")

    def found() -> Iterator[Path]:
        for path in (path for folder in folders for path in folder.iterdir()):
            family, _, style = path.stem.partition("-")
            # Source Serif Pro comes as .ttf and as .otf: one of the two is enough.
            once = path.suffix == ".ttf" or (path.suffix == ".otf" and family == "HankenGrotesk")
            readable = not style.startswith(("Thin", "ExtraLight", "Variable"))
            if once and readable and family in families:
                yield path

    return [str(path) for path in sorted(found(), key=lambda path: path.name)]


@cache
def font_face(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def glyph(path: str, size: int, character: str) -> Glyph:
    """A rendered character; kept, as composing kept glyphs is far faster than drawing words."""
    font = font_face(path, size)
    left, top, right, bottom = map(int, font.getbbox(character, anchor="ls"))
    image = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=font, anchor="ls")
    return Glyph(np.asarray(image), left, top, font.getlength(character))
