"""Train a network on the metric that you care about, when that metric has no useful gradient."""

from . import (
    boxes as boxes,
    classification as classification,
    ranking as ranking,
    retrieval as retrieval,
    segmentation as segmentation,
    text as text,
)
from ._filter import Filter as Filter
from ._gradient_check import GradientCheck as GradientCheck
from ._loss import LearnedSurrogateLoss as LearnedSurrogateLoss
from ._metric import MetricError as MetricError
from ._surrogate import EmbeddingDistance as EmbeddingDistance
from ._task import Batch as Batch, Task as Task
from ._tensors import Tensors as Tensors
from ._workers import Workers as Workers

__version__ = "0.1.0"
