"""Training of the base learner (BAM, stage 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import lightning
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassJaccardIndex

from fss.data.base_images import LabelledImages
from fss.labels import IGNORE
from fss.models.backbones.backbone import NEVER_RUN
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.losses import cross_entropy
from fss.processes import group
from fss.training.schedules import ScheduleName, build_schedule
from fss.training.shared_norms import share_norms


class BaseLearner(lightning.LightningModule):
    """Trains a segmenter of the base classes, including its norms, and validates it on other pictures.

    Args:
        segmenter: The network.
        base_classes: Number of base classes N.
        optimizer: Creates the optimiser from parameter groups (`functools.partial` of a torch optimiser).
        head_lr: Learning rate of the head.
        backbone_lr: Learning rate of the backbone; 0 freezes it, including its norms.
        schedule: See `build_schedule`.

    Attributes:
        class_iou: IoU of each base class in the last validation, by class id; for callbacks.
    """

    def __init__(
        self,
        segmenter: BaseLearnerSegmenter,
        base_classes: int,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        head_lr: float,
        backbone_lr: float,
        schedule: ScheduleName = "poly",
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.make_optimizer = optimizer
        self.head_lr, self.backbone_lr, self.schedule = head_lr, backbone_lr, schedule
        for name, parameter in segmenter.backbone.named_parameters():
            parameter.requires_grad_(backbone_lr > 0 and segmenter.backbone.stage_of(name) != NEVER_RUN)
        self.iou = MulticlassJaccardIndex(base_classes + 1, average="none", ignore_index=IGNORE)
        self.class_iou: dict[int, float] = {}

    def configure_model(self) -> None:
        """See `share_norms`."""
        self.segmenter = share_norms(self.segmenter, self.trainer, "method=base")

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.backbone_lr == 0:
            self.segmenter.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, N + 1, S, S) for images (B, 3, S, S) that are not yet normalised."""
        return self.segmenter(self.segmenter.backbone.normalize(images))

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        loss = cross_entropy(self(batch.images), batch.labels, None)
        shown = group.mean(loss.detach())  # each process only knows its share
        self.log("train/loss", shown, prog_bar=True, batch_size=len(batch.images))
        return loss

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        self.iou.update(self(batch.images), batch.labels.long())

    def on_validation_epoch_end(self) -> None:
        base = self.iou.compute()[1:]
        # the mean over the base classes, without the background, as published
        self.log("val/miou", base.mean(), prog_bar=True)
        classes = self.trainer.datamodule.base_classes  # type: ignore[attr-defined]
        self.class_iou = dict(zip(classes, base.tolist(), strict=True))
        self.iou.reset()

    def configure_optimizers(self) -> Any:
        groups = [{"params": list(self.segmenter.head.parameters()), "lr": self.head_lr, "name": "head"}]
        if self.backbone_lr > 0:
            backbone = list(self.segmenter.backbone.parameters())
            groups.append({"params": backbone, "lr": self.backbone_lr, "name": "backbone"})
        optimizer = self.make_optimizer(groups)
        schedule = build_schedule(self.schedule, optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
