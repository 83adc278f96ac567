"""Evaluation of a segmenter with a base learner in the generalised setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning

from fss.data.episodes import Episode
from fss.generalized import RULES, GeneralizedIoU
from fss.segmenter import FewShotSegmenter


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
        self.metrics = {
            rule: GeneralizedIoU(len(base), novel, rule, self.threshold).to(self.device) for rule in RULES
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
