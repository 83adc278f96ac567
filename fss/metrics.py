"""Intersection over union (IoU) as reported in few-shot segmentation.

Shapes: S side of the prediction, h w height and width of the picture, N classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import Metric

from fss.geometry import Geometry, at_original_size
from fss.labels import IGNORE


def predict_at_original_size(logits: Tensor, height: int, width: int, geometry: Geometry = "published") -> Tensor:
    """Predicts a label map (h, w) from logits (C, S, S); see `at_original_size`."""
    return at_original_size(logits, height, width, geometry).argmax(0)


def intersection_and_union(prediction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Counts intersection and union in pixels, each (2,) int64 for background and foreground.

    Args:
        prediction: (h, w), 0 or 1.
        label: (h, w), 0 or 1; pixels labelled 255 are ignored.
    """
    counts = torch.bincount((2 * label.long() + prediction.long())[label != IGNORE], minlength=4)
    table = counts[:4].reshape(2, 2)  # truth x prediction
    intersection = table.diagonal()
    return intersection.clone(), table.sum(0) + table.sum(1) - intersection


def episode_integers(logits: Tensor, label: Tensor, geometry: Geometry = "published") -> tuple[int, int, int, int]:
    """Counts one episode's intersection and union of the foreground, then of the background, in pixels.

    Args:
        logits: (2, S, S), background and foreground.
        label: (h, w) at original size; 0, 1, or 255 for ignored pixels.
        geometry: How the picture lies in the square; see `at_original_size`.
    """
    height, width = label.shape
    prediction = predict_at_original_size(logits, height, width, geometry)
    intersection, union = intersection_and_union(prediction, label.to(prediction.device))
    (background, foreground), (background_union, foreground_union) = torch.stack([intersection, union]).tolist()
    return foreground, foreground_union, background, background_union


class ClassIoU(Metric):
    """IoU of each class, its mean over classes (mIoU), and foreground-background IoU (FB-IoU).

    Sums are int64, so they are exact and independent of the order of episodes and the number of processes. A
    class without episodes counts as 0, as in the published programs: pass only classes that have episodes.

    Args:
        classes: Class ids, in the order in which results are returned.
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
        """Adds one episode.

        Args:
            logits: (2, S, S), background and foreground.
            label: (h, w) at original size; 0, 1, or 255 for ignored pixels.
            class_id: The episode's class.

        Raises:
            ValueError: If the class is not one of `classes`.
        """
        height, width = label.shape
        prediction = predict_at_original_size(logits, height, width, self.geometry)
        intersection, union = intersection_and_union(prediction, label.to(prediction.device))
        if class_id not in self._row:
            raise ValueError(f"an episode of class {class_id}, but this metric counts only classes {self.classes}")
        row = self._row[class_id]
        self.intersection[row] += intersection
        self.union[row] += union
        self.episodes[row] += 1

    def compute(self) -> dict[str, Tensor]:
        """Returns `class_iou` (N,), `miou` and `fb_iou` as fractions in float64."""
        class_iou = self.intersection[:, 1] / self.union[:, 1].double().clamp(min=1)
        background_foreground = self.intersection.sum(0) / self.union.sum(0).double().clamp(min=1)
        return {"class_iou": class_iou, "miou": class_iou.mean(), "fb_iou": background_foreground.mean()}
