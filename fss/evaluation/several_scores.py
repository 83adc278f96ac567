"""How well several classes are told apart, how often absent ones are rightly answered empty, and what that costs.

Shapes: N classes asked for, M evaluated classes, h w height and width of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from fss.labels import IGNORE

POINTS = (0, 1, 2, 5)  # of mIoU lost, for which the share of rightly empty answers is told


class Answer(NamedTuple):
    """The answer for one class, taken alone and without abstention.

    Attributes:
        class_id: The class asked for.
        presence: How sure it is that the query shows it, in 0..1.
        intersection: Pixels rightly answered.
        union: Pixels answered or of the class.
        truth: Pixels of the class.
    """

    class_id: int
    presence: float
    intersection: int
    union: int
    truth: int

    @property
    def present(self) -> bool:
        """Whether the query shows the class."""
        return self.truth > 0

    @property
    def iou(self) -> float:
        """Of the answer, in 0..1."""
        return self.intersection / max(self.union, 1)

    @property
    def answered(self) -> bool:
        """Whether anything was answered."""
        return self.union > self.truth or self.intersection > 0


class SeveralIoU(Metric):
    """IoU of each class, and how often absent classes are answered empty and present ones found.

    Sums are int64, exact and independent of order. A class that is not asked for counts nowhere.

    Args:
        classes: Ids of the M evaluated classes.
    """

    full_state_update = False
    higher_is_better = True
    intersection: Tensor
    union: Tensor
    pairs: Tensor

    def __init__(self, classes: Iterable[int]) -> None:
        super().__init__()
        self.classes = list(classes)
        zeros = torch.zeros(len(self.classes), dtype=torch.int64)
        self.add_state("intersection", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("union", zeros.clone(), dist_reduce_fx="sum")
        # of queries with classes asked for: rows absent and present, columns answered empty and not
        self.add_state("pairs", torch.zeros(2, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, label: Tensor, classes: Sequence[int]) -> None:
        """Adds one episode.

        Args:
            prediction: (h, w): 0 background, 1..N the classes asked for.
            label: (h, w), likewise; pixels of 255 are ignored.
            classes: The N class ids.
        """
        counted = label != IGNORE
        for position, class_id in enumerate(classes, start=1):
            answered, there = (prediction == position) & counted, (label == position) & counted
            row = self.classes.index(class_id)
            self.intersection[row] += (answered & there).sum()
            self.union[row] += (answered | there).sum()
            self.pairs[int(there.any()), int(answered.any())] += 1

    def compute(self) -> dict[str, Tensor]:
        """Fractions in float64: `class_iou` (M,), `miou`, `empty` of the absent, and `found` of the present.

        `empty` and `found` are NaN where nothing was absent, or present.
        """
        asked = self.union > 0
        class_iou = self.intersection / self.union.double().clamp(min=1)
        shares = self.pairs / self.pairs.sum(1, keepdim=True).double()
        return {
            "class_iou": class_iou,
            "miou": class_iou[asked].mean(),
            "empty": shares[0, 0],
            "found": shares[1, 1],
        }


def where_present(answers: Sequence[Answer], threshold: float) -> dict[str, Any]:
    """What abstaining costs where queries show what is asked for, each answer taken alone.

    Returns:
        The mIoU of `always` answering and of `abstaining`, and the share of absent classes that are answered empty
        by the best thresholds that lose 0, 1, 2 and 5 points of that mIoU (`empty_at_points_lost`). None is a mean
        of nothing: no class was present, or absent.
    """
    present = [one for one in answers if one.present]
    absent = np.sort([one.presence if one.answered else -1.0 for one in answers if not one.present])
    always = _miou(present, 0)
    candidates = sorted({one.presence for one in answers})
    losses = [100 * (always - _miou(present, cut)) for cut in candidates]
    best: dict[str, float | None] = dict.fromkeys(map(str, POINTS))
    if len(absent):
        shares = [float((absent < cut).mean()) for cut in candidates]
        for points in POINTS:
            kept = (share for share, lost in zip(shares, losses, strict=True) if lost <= points)
            best[str(points)] = max(kept, default=0.0)
    return {
        "always": known(always),
        "abstaining": known(_miou(present, threshold)),
        "empty_at_points_lost": best,
    }


def known(score: float | Tensor) -> float | None:
    """A score; None where it is NaN, the mean of nothing."""
    return None if math.isnan(score) else float(score)


def _miou(present: Sequence[Answer], threshold: float) -> float:
    """mIoU of queries that show the class; those below the threshold are answered empty."""
    sums: dict[int, list[int]] = {}
    for one in present:
        intersection, union = sums.setdefault(one.class_id, [0, 0])
        kept = one.presence >= threshold
        sums[one.class_id] = [intersection + kept * one.intersection, union + (one.union if kept else one.truth)]
    ious = [intersection / union for intersection, union in sums.values()]
    return float(np.mean(ious)) if ious else math.nan
