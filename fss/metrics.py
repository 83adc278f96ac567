"""Intersection over union as this field reports it.

Shapes: S side of the prediction, h w height and width of the picture, N classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import Metric

from fss.geometry import Geometry, at_original_size

IGNORE = 255


def predict_at_original_size(logits: Tensor, height: int, width: int, geometry: Geometry = "published") -> Tensor:
    """Label map (h, w) from logits (C, S, S); see `at_original_size`."""
    return at_original_size(logits, height, width, geometry).argmax(0)


def intersection_and_union(prediction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in common and in either, each (2,) int64 for background and foreground.

    Args:
        prediction: (h, w), 0 or 1.
        label: (h, w): 0, 1; pixels of 255 do not count.
    """
    counts = torch.bincount((2 * label.long() + prediction.long())[label != IGNORE], minlength=4)
    table = counts[:4].reshape(2, 2)  # truth x prediction
    intersection = table.diagonal()
    return intersection.clone(), table.sum(0) + table.sum(1) - intersection


def episode_integers(logits: Tensor, label: Tensor, geometry: Geometry = "published") -> tuple[int, int, int, int]:
    """Intersection and union of the foreground, then of the background, of one episode.

    Args:
        logits: (2, S, S).
        label: (h, w) at original size.
        geometry: How the picture lies in the square; see `at_original_size`.
    """
    height, width = label.shape
    prediction = predict_at_original_size(logits, height, width, geometry)
    intersection, union = intersection_and_union(prediction, label.to(prediction.device))
    (background, foreground), (background_union, foreground_union) = torch.stack([intersection, union]).tolist()
    return foreground, foreground_union, background, background_union


class ClassIoU(Metric):
    """Class-wise IoU, its mean over classes (mIoU) and foreground-background IoU (FB-IoU).

    Sums are kept as int64, so they are exact and independent of order and of the number of processes. A class
    without any episode counts as 0, as in the published programs: pass the classes that have episodes.

    Args:
        classes: Class ids, in the order of the results.
        geometry: How pictures lie in the square; see `at_original_size`.
    """

    full_state_update = False
    higher_is_better = True
    intersection: Tensor
    union: Tensor
    episodes: Tensor

    def __init__(self, classes: Iterable[int], geometry: Geometry = "published") -> None:
        super().__init__()
        self.classes, self.geometry = list(classes), geometry
        self._row = {class_id: row for row, class_id in enumerate(self.classes)}
        zeros = torch.zeros(len(self.classes), 2, dtype=torch.int64)  # background, foreground
        self.add_state("intersection", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("union", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("episodes", zeros[:, 0].clone(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor, class_id: int) -> None:
        """Adds one episode: logits (2, S, S), label (h, w) at original size, the episode's class."""
        height, width = label.shape
        prediction = predict_at_original_size(logits, height, width, self.geometry)
        intersection, union = intersection_and_union(prediction, label.to(prediction.device))
        if class_id not in self._row:
            raise ValueError(f"an episode of class {class_id}, but this metric is of the classes {self.classes}")
        row = self._row[class_id]
        self.intersection[row] += intersection
        self.union[row] += union
        self.episodes[row] += 1

    def compute(self) -> dict[str, Tensor]:
        """`class_iou` (N,), `miou` and `fb_iou`, as fractions, in float64."""
        class_iou = self.intersection[:, 1] / self.union[:, 1].double().clamp(min=1)
        background_foreground = self.intersection.sum(0) / self.union.sum(0).double().clamp(min=1)
        return {"class_iou": class_iou, "miou": class_iou.mean(), "fb_iou": background_foreground.mean()}
