"""Train a network on the metric that you care about, when that metric has no useful gradient."""

from . import (
    boxes as boxes,
    classification as classification,
    ranking as ranking,
    retrieval as retrieval,
    segmentation as segmentation,
    text as text,
)
from ._batch import Batch as Batch
from ._contract.check_task import check_task as check_task
from ._diagnosis.check import GradientCheck as GradientCheck
from ._evaluation.workers import Workers as Workers
from ._learning.filter import Filter as Filter
from ._learning.fit import Fit as Fit
from ._learning.fit_values import FitValues as FitValues
from ._learning.replay import Replay as Replay
from ._loss import LearnedSurrogateLoss as LearnedSurrogateLoss
from ._metric.error import MetricError as MetricError
from ._metric.skip import Skip as Skip
from ._sampled import SampledTask as SampledTask
from ._surrogate import EmbeddingDistance as EmbeddingDistance
from ._task import Task as Task
from ._tensors import Tensors as Tensors

__version__ = "0.1.0"
