"""Segmentation: any metric of masks, intersection over union, its smooth form, and NeuroIoU."""

from ._counts import counts as counts, soft_iou as soft_iou
from ._iou import dataset_iou as dataset_iou, iou as iou
from ._mask_task import Masks as Masks
from ._neuro_iou import NeuroIoU as NeuroIoU
