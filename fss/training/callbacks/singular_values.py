"""Logs how far singular value fine-tuning has moved each stage."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from fss.models.backbones import Backbone
from fss.svf import singular_values
from fss.training.logs import log_histograms, log_scalars


class SingularValues(lightning.Callback):
    """Logs S / S0 of each stage after every validation: its distribution and its mean distance from 1.

    The module must have a `segmenter` with a `backbone`; nothing is logged if no layer is decomposed.
    """

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or not trainer.loggers:
            return
        segmenter: Any = pl_module.segmenter
        ratios = stage_ratios(segmenter.backbone)
        if ratios:
            log_histograms(trainer, {f"svf/stage{stage}/ratio": ratio for stage, ratio in ratios.items()})
            log_scalars(
                trainer,
                {
                    f"svf/stage{stage}/mean_change": (ratio - 1).abs().mean().item()
                    for stage, ratio in ratios.items()
                },
            )


def stage_ratios(backbone: Backbone) -> dict[int, Tensor]:
    """S / S0 (n,) of all decomposed layers of each stage, on the CPU.

    Singular values that are mere rounding error (below 1e-6 of their layer's largest) are left out.
    """
    stages: dict[int, list[Tensor]] = {}
    for name, S, S0 in singular_values(backbone):
        kept = (S0 / S0.max()) > 1e-6
        stages.setdefault(backbone.stage_of(name), []).append((S[kept] / S0[kept]).float().cpu())
    return {stage: torch.cat(parts) for stage, parts in sorted(stages.items())}
