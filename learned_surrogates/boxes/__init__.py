"""Boxes: their tasks, their metrics, their random data generator."""

from ._axis_aligned import AxisAligned as AxisAligned
from ._corners import Corners as Corners
from ._generator import RandomDistortions as RandomDistortions
from ._iou import rotated_giou as rotated_giou, rotated_iou as rotated_iou
from ._polygons import polygon_iou as polygon_iou
from ._published import ls_iou as ls_iou
from ._rotated import Rotated as Rotated
