"""Sends histograms, tables and pictures to loggers, in the form that each of them supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import lightning
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from fss.visualize import EpisodePicture, as_picture, base_map, contact_sheet, heat_map

if TYPE_CHECKING:
    import wandb  # optional, and slow to import: at run time only where a run logs to it


def shows_pictures(trainer: lightning.Trainer) -> bool:
    """Whether any logger can show pictures."""
    return any(isinstance(logger, WandbLogger | TensorBoardLogger) for logger in trainer.loggers)


def log_scalars(trainer: lightning.Trainer, scalars: dict[str, float]) -> None:
    """Sends scalars to every logger."""
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step)
        logger.save()  # otherwise CSVLogger would not write what it receives after training


def log_histograms(trainer: lightning.Trainer, values: Mapping[str, Tensor]) -> None:
    """Sends distributions of values (of any shape) to W&B and TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            histograms = {name: wandb.Histogram(value.flatten().tolist()) for name, value in values.items()}
            logger.experiment.log({**histograms, **_step(trainer)})
        elif isinstance(logger, TensorBoardLogger):
            for name, value in values.items():
                logger.experiment.add_histogram(name, value, trainer.global_step)


def log_class_iou(trainer: lightning.Trainer, stage: str, class_iou: Mapping[str, float]) -> None:
    """Sends the IoU of each class, by name; W&B also receives a table and a bar chart."""
    log_scalars(trainer, {f"{stage}/iou/{name}": iou for name, iou in class_iou.items()})
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            # a table can belong to only one chart, so the bar chart needs its own
            table, bars = (wandb.Table(["class", "IoU"], [*map(list, class_iou.items())]) for _ in range(2))
            chart = wandb.plot.bar(bars, "class", "IoU", title=f"{stage}: IoU of each class")
            logger.experiment.log({f"{stage}/classes": table, f"{stage}/class_iou": chart, **_step(trainer)})


def log_episodes(
    trainer: lightning.Trainer, episodes: Sequence[EpisodePicture], base_names: Sequence[str]
) -> None:
    """Sends pictures of episodes: one panel per episode with toggleable masks to W&B, a sheet to TensorBoard.

    Args:
        trainer: The trainer whose loggers are used.
        episodes: One or more episodes.
        base_names: Names of the base classes, in the order of a base map.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            panels = {f"episodes/{i}": _panel(episode, base_names) for i, episode in enumerate(episodes)}
            logger.experiment.log({**panels, **_step(trainer)})
        elif isinstance(logger, TensorBoardLogger):
            sheet = np.asarray(contact_sheet(episodes))
            logger.experiment.add_image("episodes", sheet, trainer.global_step, dataformats="HWC")


def _step(trainer: lightning.Trainer) -> dict[str, int]:
    return {"trainer/global_step": trainer.global_step}  # the axis that WandbLogger uses for all values


def _panel(episode: EpisodePicture, base_names: Sequence[str]) -> list[wandb.Image]:
    """Supports, query with truth, prediction and base map, and the prior mask, all of the same size."""
    import wandb

    objects = {0: "background", 1: episode.title, 255: "ignored"}
    query = as_picture(episode.query)
    pictures = [
        wandb.Image(as_picture(image), masks={"support": _mask(mask, objects)}, caption=f"support {k}")
        for k, (image, mask) in enumerate(zip(episode.support, episode.support_mask, strict=True), start=1)
    ]
    masks = {"truth": _mask(episode.query_mask, objects)}
    if episode.prediction is not None:
        masks["prediction"] = _mask(episode.prediction, objects)
    if episode.base is not None:
        masks["base classes"] = _mask(episode.base, dict(enumerate(["none", *base_names])))
    pictures.append(wandb.Image(query, masks=masks, caption=episode.caption))
    if episode.prior is not None:
        pictures.append(wandb.Image(heat_map(episode.prior, len(query)), caption="prior mask"))
    if episode.base is not None:
        pictures.append(wandb.Image(base_map(query, episode.base), caption="base map"))
    return pictures


def _mask(mask: Tensor, names: Mapping[int, str]) -> dict[str, object]:
    return {"mask_data": mask.cpu().numpy().astype(np.uint8), "class_labels": dict(names)}
