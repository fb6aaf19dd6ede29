"""PP-OCRv4's recogniser, as the package rapidocr-onnxruntime carries it (Apache-2.0)."""

from collections.abc import Sequence
from importlib.metadata import files
from itertools import groupby

import onnx
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

from .onnx_module import arrays_of, module_of

PACKAGE, FILE = "rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx"
# Images are so high; a frame is so many pixels wide.
HEIGHT, FRAME = 48, 8
# Images that pass the backbone at once: more of them no longer fit into a core's cache.
TOGETHER = 8


class Recogniser(nn.Module):
    """Backbone, neck and head of the file; without its softmax.

    The backbone's output is called features, `(batch, 480, 1, frames)`. They are what `forward`
    gets: with the backbone left as it is, they need computing once an image.

    Args:
        alphabet: the characters that the head keeps, in this order, behind the blank; None is all.

    Raises:
        ValueError: a character that the file's own alphabet lacks.
    """

    def __init__(self, alphabet: str | None = None):
        super().__init__()
        model = onnx.shape_inference.infer_shapes(onnx.load(path()))
        nodes = model.graph.node
        features = next(node.output[0] for node in nodes if node.op_type == "AveragePool")
        product, bias, _ = nodes[-3:]  # and the softmax
        extractor = Extractor(model)
        self.backbone = module_of(extractor.extract_model(["x"], [features]))
        self.neck = module_of(extractor.extract_model([features], [product.input[0]]))
        known = known_characters(model)
        self.alphabet = known if alphabet is None else alphabet
        if lacking := set(self.alphabet) - set(known):
            raise ValueError(f"{FILE} does not know {''.join(sorted(lacking))!r}")
        arrays = arrays_of(model)
        weight, offset = (arrays[node.input[1]] for node in (product, bias))
        kept = [0, *(known.index(character) + 1 for character in self.alphabet)]
        self.head = nn.Linear(len(weight), len(kept))
        self.head.load_state_dict({"weight": weight[:, kept].T, "bias": offset[kept]})

    def forward(self, features: Tensor) -> Tensor:
        """Log-probabilities, `(frames, batch, classes)`, as `nn.CTCLoss` takes them."""
        logits: Tensor = self.head(self.neck(features))
        return logits.transpose(0, 1).log_softmax(2)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Of images `(batch, 1, 48, width)`, grey in [0, 1]."""
        rgb = (2 * images - 1).expand(-1, 3, -1, -1)
        return torch.cat([self.backbone(part) for part in rgb.split(TOGETHER)])

    @torch.no_grad()
    def read(self, features: Tensor) -> list[str]:
        """The best path of each."""
        paths = [path for part in features.split(250) for path in self(part).argmax(2).T.tolist()]
        return [self.text(path) for path in paths]

    def text(self, path: Sequence[int]) -> str:
        """Repeats are one character, blanks are none."""
        return "".join(self.alphabet[index - 1] for index, _ in groupby(path) if index)


def path() -> str:
    """Where the file is.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    found = (each for each in files(PACKAGE) or () if each.name == FILE)
    return str(next(found).locate())


def known_characters(model: onnx.ModelProto) -> str:
    """The file's alphabet, behind the blank: that of its metadata, and last the space."""
    (listed,) = (each.value for each in model.metadata_props if each.key == "character")
    return "".join(listed.splitlines()) + " "
