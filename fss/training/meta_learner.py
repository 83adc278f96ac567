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
from fss.data.plan import Picture
from fss.evaluation.empty_supports import EmptySupports
from fss.evaluation.reuse import ReusingEvaluator, check_reuse, own_classes
from fss.metrics import ClassIoU
from fss.models.heads import Prediction
from fss.models.segmenter import FewShotSegmenter
from fss.processes import group
from fss.svf import merge
from fss.training.diverged import MEND
from fss.training.schedules import ScheduleName, build_schedule
from fss.training.shared_norms import share_norms


class MetaLearner(lightning.LightningModule):
    """Trains a segmenter on episodes of base classes and validates it on episodes of novel classes.

    The optimiser has two parameter groups, head and backbone, with all parameters that require gradients; the
    tuning determines which these are. For validation, SVF layers are merged in a copy, which encodes each picture
    once and is forgotten afterwards with all that it encoded.

    Args:
        segmenter: The model, with its tuning applied.
        optimizer: Creates the optimiser from parameter groups (`functools.partial` of a torch optimiser).
        head_lr: Learning rate of the head.
        backbone_lr: Learning rate of the trained parameters in the backbone.
        schedule: See `build_schedule`.
        warmup_steps: See `build_schedule`.
        foreground_weight: Weight of the foreground in the cross-entropy, relative to the background.
        limit_gb: How much of encoded pictures a validation keeps; see `ReusingEvaluator`.

    Attributes:
        class_iou: IoU of each class in the last validation, by class id; for callbacks.
        evaluated: The copy that is validated, for callbacks; None between validations.
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
        limit_gb: float = 4.0,
    ) -> None:
        super().__init__()
        if not 0 < foreground_weight < math.inf:
            raise ValueError(
                f"method.foreground_weight={foreground_weight}: must be above 0; the background has the weight 1"
            )
        check_reuse(limit_gb, 1)
        self.class_weights: Tensor
        self.segmenter = segmenter
        self.make_optimizer = optimizer
        self.head_lr, self.backbone_lr = head_lr, backbone_lr
        self.schedule, self.warmup_steps = schedule, warmup_steps
        self.register_buffer("class_weights", torch.tensor([1.0, foreground_weight]), persistent=False)
        self.metric: ClassIoU | None = None
        self.class_iou: dict[int, float] = {}
        self.limit_gb = limit_gb
        self._evaluator: ReusingEvaluator | None = None
        self._empty: EmptySupports | None = EmptySupports()

    def configure_model(self) -> None:
        """See `share_norms`."""
        if self.segmenter.norms == "batch":
            self.segmenter.backbone = share_norms(self.segmenter.backbone, self.trainer, "backbone.norms=batch")

    def forward(self, batch: Episode) -> Prediction:
        """Predicts a batch of episodes whose images are not yet normalised."""
        segmenter = self.segmenter
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

    @property
    def evaluated(self) -> FewShotSegmenter | None:
        return None if self._evaluator is None else self._evaluator.segmenter

    def on_validation_start(self) -> None:
        data = self._datamodule
        try:
            merged = merge(copy.deepcopy(self.segmenter)).eval()
        except ValueError as error:  # the last loss was finite, the weights after it are not
            raise FloatingPointError(f"{error}: {MEND}") from error
        share = data.validation
        given = merged, share.pictures, share.blocks, own_classes(data.base_classes)
        self._evaluator = ReusingEvaluator(*given, self.limit_gb, data.eval_batch_size)
        self.metric = ClassIoU(data.evaluated_classes(data.val_episodes), data.geometry).to(self.device)

    def validation_step(self, batch: list[Picture], batch_idx: int) -> None:
        assert self.metric is not None
        assert self._evaluator is not None
        for episode, prediction, label, _ in self._evaluator.answer(batch_idx, batch):
            self.metric.update(prediction.logits[0], label, episode.class_id)
        if self._empty is not None:
            for picture in batch:
                self._empty.look_at(picture, self._datamodule.evaluation.reader)

    def on_validation_epoch_end(self) -> None:
        assert self.metric is not None
        if self._empty is not None and not self.trainer.sanity_checking:
            self._empty.tell()
            self._empty = None  # the episodes are the same every time: once is enough
        scores = self.metric.compute()
        self.class_iou = dict(zip(self.metric.classes, scores["class_iou"].reshape(-1).tolist(), strict=True))
        self.log_dict({f"val/{name}": scores[name].float() for name in ("miou", "fb_iou")}, prog_bar=True)

    def on_validation_end(self) -> None:
        self._evaluator = None  # the weights are about to change

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
