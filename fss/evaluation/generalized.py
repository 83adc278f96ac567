"""Generalised few-shot segmentation: base classes and the novel class in one label map, and how well it fits.

Lang et al., BAM (CVPR 2022, stage 4 of the published program).

Shapes: B batch, H W image height and width, S its square, N base classes, M novel classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import lightning
import torch
from torch import Tensor
from torchmetrics import Metric

from fss.data.episodes import Episode
from fss.labels import IGNORE
from fss.metrics import at_original_size
from fss.models.segmenter import FewShotSegmenter

Rule = Literal["final", "base"]
RULES: tuple[Rule, ...] = ("final", "base")


def merge_maps(final: Tensor, base: Tensor, rule: Rule, threshold: float) -> Tensor:
    """One label map of what BAM and its base learner say.

    Args:
        final: BAM's maps (B, 2, H, W), background and novel class.
        base: The base learner's logits (B, N + 1, H, W), background first.
        rule: Who is heard first: "final", the novel class where it is likely, else the base class; or
            "base", the base class where there is one, else the novel class where it is likely.
        threshold: Probability above which the novel class is likely (0.9 as published). BAM's maps are no
            logits: they begin in 0..1, where no probability exceeds 0.74, and grow in long training only.

    Returns:
        (B, H, W): 0 background, 1..N base classes, N + 1 the novel class.
    """
    novel = torch.where(final.softmax(1)[:, 1] > threshold, base.shape[1], 0)  # (B, H, W)
    known = base.argmax(1)
    first, second = (novel, known) if rule == "final" else (known, novel)
    return torch.where(first > 0, first, second)


class GeneralizedIoU(Metric):
    """IoU of base classes, of novel classes, and the means over each and over all.

    Sums are int64, exact and independent of order.

    Args:
        base_classes: N.
        novel_classes: Class ids of the novel classes, in the order of the results.
        rule: See `merge_maps`.
        threshold: See `merge_maps`.
        count_absent: Whether a class that is neither shown nor predicted in any episode counts as 0, as published,
            or in no mean.
    """

    full_state_update = False
    higher_is_better = True
    intersection: Tensor
    union: Tensor

    def __init__(
        self,
        base_classes: int,
        novel_classes: Iterable[int],
        rule: Rule,
        threshold: float,
        count_absent: bool = False,
    ) -> None:
        super().__init__()
        self.count_absent = count_absent
        self.base_classes, self.novel_classes = base_classes, list(novel_classes)
        self.rule, self.threshold = rule, threshold
        zeros = torch.zeros(base_classes + len(self.novel_classes), dtype=torch.int64)
        self.add_state("intersection", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("union", zeros.clone(), dist_reduce_fx="sum")

    def update(self, final: Tensor, base: Tensor, label: Tensor, class_id: int) -> None:
        """Adds one episode.

        Args:
            final: BAM's maps (2, S, S).
            base: The base learner's logits (N + 1, S, S).
            label: (h, w) at original size: base classes from 1, N + 1 the novel class, 255 ignored.
            class_id: The novel class.
        """
        n = self.base_classes
        final, base = (at_original_size(logits, *label.shape)[None] for logits in (final, base))
        prediction = merge_maps(final, base, self.rule, self.threshold)[0]
        counted = label.to(prediction.device) != IGNORE
        pairs = (n + 2) * label.to(prediction.device).long()[counted] + prediction[counted]
        table = torch.bincount(pairs, minlength=(n + 2) ** 2).reshape(n + 2, n + 2)  # truth x prediction
        intersection = table.diagonal()
        union = table.sum(0) + table.sum(1) - intersection
        # label 1..N are the first N rows, N + 1 is this episode's novel class
        rows = torch.cat([torch.arange(n), torch.tensor([n + self.novel_classes.index(class_id)])])
        self.intersection[rows] += intersection[1:]
        self.union[rows] += union[1:]

    def compute(self) -> dict[str, Tensor]:
        """`class_iou` (N + M,), and the means `novel`, `base` and `all`, as fractions, in float64."""
        class_iou = self.intersection / self.union.double().clamp(min=1)
        seen = (self.union > 0) | self.count_absent
        novel = torch.arange(len(class_iou), device=seen.device) >= self.base_classes
        parts = {"novel": novel, "base": ~novel, "all": torch.ones_like(novel)}
        # no class of a part seen: 0
        means = {
            name: class_iou[part & seen].sum() / (part & seen).sum().clamp(min=1) for name, part in parts.items()
        }
        return {"class_iou": class_iou, **means}


class GeneralizedEvaluation(lightning.LightningModule):
    """Measures both fusion rules on the same episodes.

    Args:
        segmenter: Its head has a base learner.
        threshold: See `merge_maps`.

    Raises:
        ValueError: It has none.
    """

    def __init__(self, segmenter: FewShotSegmenter, threshold: float) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be in 0..1")
        if not segmenter.head.has_base_learner:
            raise ValueError("setting=generalized needs a method that knows the base classes: method=bam")
        self.segmenter = segmenter.eval()
        self.threshold = threshold
        self.metrics: dict[str, GeneralizedIoU] = {}

    def on_test_start(self) -> None:
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        base, novel = datamodule.base_classes, datamodule.evaluated_classes(datamodule.test_episodes)
        zero = datamodule.absent == "zero"
        self.metrics = {
            rule: GeneralizedIoU(len(base), novel, rule, self.threshold, zero).to(self.device) for rule in RULES
        }

    def test_step(self, batch: Episode, batch_idx: int) -> None:
        normalize = self.segmenter.backbone.normalize
        prediction = self.segmenter(normalize(batch.query), normalize(batch.support), batch.support_mask)
        assert prediction.base is not None
        for episode in zip(prediction.logits, prediction.base, batch.label, batch.class_id, strict=True):
            for metric in self.metrics.values():
                metric.update(*episode[:3], int(episode[3]))

    def on_test_epoch_end(self) -> None:
        for rule, metric in self.metrics.items():
            scores = metric.compute()
            self.log_dict({f"test/{rule}/{part}": scores[part].float() for part in ("novel", "base", "all")})

    def results(self, names: Sequence[str], base_classes: Sequence[int]) -> dict[str, dict[str, Any]]:
        """For each rule the means over novel, base and all classes, and every class's numbers.

        Args:
            names: Of all classes.
            base_classes: Ids.
        """
        rules: dict[str, dict[str, Any]] = {}
        for rule, metric in self.metrics.items():
            scores = metric.compute()
            rules[rule] = {
                **{part: float(scores[part]) for part in ("novel", "base", "all")},
                "classes": {
                    names[class_id - 1]: {
                        "id": class_id,
                        "novel": row >= metric.base_classes,
                        "iou": float(scores["class_iou"][row]),
                        "intersection": int(metric.intersection[row]),
                        "union": int(metric.union[row]),
                    }
                    for row, class_id in enumerate([*base_classes, *metric.novel_classes])
                },
            }
        return rules
