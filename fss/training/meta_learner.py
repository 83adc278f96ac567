"""Episodic training and validation of a few-shot segmenter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer

from fss.data.episodes import Episode
from fss.evaluation.empty_supports import EmptySupports
from fss.metrics import ClassIoU
from fss.models.heads import Prediction
from fss.models.segmenter import FewShotSegmenter
from fss.processes import group
from fss.svf import merge
from fss.training.schedules import ScheduleName, build_schedule
from fss.training.shared_norms import share_norms


class MetaLearner(lightning.LightningModule):
    """Trains a segmenter on episodes of base classes and validates it on episodes of novel classes.

    The optimiser has two parameter groups, head and backbone, with all parameters that require gradients; the
    tuning determines which these are. For validation, SVF layers are merged in a copy.

    Args:
        segmenter: The model, with its tuning applied.
        optimizer: Creates the optimiser from parameter groups (`functools.partial` of a torch optimiser).
        head_lr: Learning rate of the head.
        backbone_lr: Learning rate of the trained parameters in the backbone.
        schedule: See `build_schedule`.
        warmup_steps: See `build_schedule`.
        foreground_weight: Weight of the foreground in the cross-entropy, relative to the background.

    Attributes:
        class_iou: IoU of each class in the last validation, by class id; for callbacks.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        head_lr: float,
        backbone_lr: float,
        schedule: ScheduleName = "constant",
        warmup_steps: int = 0,
        foreground_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < foreground_weight < math.inf:
            raise ValueError(
                f"method.foreground_weight={foreground_weight}: must be above 0; the background has the weight 1"
            )
        self.class_weights: Tensor
        self.segmenter = segmenter
        self.make_optimizer = optimizer
        self.head_lr, self.backbone_lr = head_lr, backbone_lr
        self.schedule, self.warmup_steps = schedule, warmup_steps
        self.register_buffer("class_weights", torch.tensor([1.0, foreground_weight]), persistent=False)
        self.metric: ClassIoU | None = None
        self.class_iou: dict[int, float] = {}
        self._evaluated: FewShotSegmenter | None = None
        self._empty: EmptySupports | None = EmptySupports()

    def configure_model(self) -> None:
        """See `share_norms`."""
        if self.segmenter.norms == "batch":
            self.segmenter.backbone = share_norms(self.segmenter.backbone, self.trainer, "backbone.norms=batch")

    def forward(self, batch: Episode) -> Prediction:
        """Predicts a batch of episodes whose images are not yet normalised."""
        segmenter = self._evaluated or self.segmenter
        normalize = segmenter.backbone.normalize
        return segmenter(normalize(batch.query), normalize(batch.support), batch.support_mask, batch.own_class)

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        losses = self.segmenter.head.losses(self(batch), batch.query_mask, self.class_weights, batch.base_mask)
        values = torch.stack(list(losses.values()))
        shown = group.mean(values.detach())  # each process only knows its share
        self.log("train/loss", shown.sum(), prog_bar=True, batch_size=len(batch.query))
        self.log_dict(
            {f"train/{name}": value for name, value in zip(losses, shown, strict=True)},
            batch_size=len(batch.query),
        )
        return values.sum()

    def on_validation_start(self) -> None:
        self._evaluated = merge(copy.deepcopy(self.segmenter)).eval()
        data = self._datamodule
        self.metric = ClassIoU(data.evaluated_classes(data.val_episodes), data.geometry).to(self.device)

    def validation_step(self, batch: Episode, batch_idx: int) -> dict[str, Any]:
        """Updates the metric and returns the predictions, for callbacks that draw them."""
        assert self.metric is not None
        prediction = self(batch)
        for logits, label, class_id in zip(prediction.logits, batch.label, batch.class_id, strict=True):
            self.metric.update(logits, label, int(class_id))
        if self._empty is not None:
            self._empty.look_at(batch, self._datamodule.class_names)
        return {"prediction": prediction}

    def on_validation_epoch_end(self) -> None:
        assert self.metric is not None
        if self._empty is not None and not self.trainer.sanity_checking:
            self._empty.tell()
            self._empty = None  # the episodes are the same every time: once is enough
        scores = self.metric.compute()
        self.class_iou = dict(zip(self.metric.classes, scores["class_iou"].reshape(-1).tolist(), strict=True))
        self.log_dict({f"val/{name}": scores[name].float() for name in ("miou", "fb_iou")}, prog_bar=True)
        self._evaluated = None  # dropped before checkpoints are written, which would otherwise include the copy

    def configure_optimizers(self) -> Any:
        parts = (
            ("head", self.segmenter.head, self.head_lr),
            ("backbone", self.segmenter.backbone, self.backbone_lr),
        )
        groups = []
        for name, part, lr in parts:
            if parameters := [p for p in part.parameters() if p.requires_grad]:
                groups.append({"params": parameters, "lr": lr, "name": name})
        optimizer = self.make_optimizer(groups)
        schedule = build_schedule(
            self.schedule, optimizer, int(self.trainer.estimated_stepping_batches), self.warmup_steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _datamodule(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]  # set by fit and validate
