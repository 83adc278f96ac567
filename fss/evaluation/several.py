"""Several classes in one label map, and classes that are not there: how well, and how often rightly nothing.

Shapes: N classes asked for, M evaluated classes, h w height and width of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric

from fss.data.datamodule import FewShotDataModule
from fss.data.loading import build_loader, evaluation_ids
from fss.data.several_episodes import SeveralEpisode, SeveralEpisodes
from fss.display.console import PlainConsole
from fss.evaluation.record import Record
from fss.files.plain import write_json
from fss.geometry import Geometry, at_original_size, fitted
from fss.labels import IGNORE
from fss.models import presence
from fss.models.answers import merge_classes
from fss.models.encodings import join
from fss.models.segmenter import FewShotSegmenter

EMPTY = 0.95  # share of absent base classes that a threshold is to answer empty


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


class SeveralEvaluation(lightning.LightningModule):
    """Answers episodes of several classes, with and without abstention.

    Args:
        segmenter: The segmenter, SVF layers merged or not.
        episodes: The episodes.
        count: How many.
        threshold: Presence in 0..1 below which a class is taken to be absent; None only collects presences.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        episodes: SeveralEpisodes,
        count: int,
        threshold: float | None,
        num_workers: int,
    ) -> None:
        super().__init__()
        segmenter.head.check_shot(episodes.episodes.shot)
        self.segmenter, self.episodes, self.count = segmenter.eval(), episodes, count
        self.threshold, self.num_workers = threshold, num_workers
        known = sorted(episodes.episodes.pool.images_of)
        self.always, self.abstaining = SeveralIoU(known), SeveralIoU(known)
        self.absent_presence: list[float] = []

    def test_dataloader(self) -> DataLoader[SeveralEpisode]:
        ids = evaluation_ids(self.trainer, self.count)
        return build_loader(self.episodes, ids, 1, self.num_workers, _only)

    def test_step(self, batch: SeveralEpisode, batch_idx: int) -> None:
        classes, query, label, supports, masks = batch
        geometry: Geometry = self.episodes.episodes.geometry
        margins, presences = [], []
        lower = self.segmenter.lower(self._normalized(query[None]))
        encoded = self.segmenter.encode_query(self._normalized(query[None]), lower)
        seen = presence.locations(lower)[0]
        height, width = label.shape
        rows, columns = fitted(height, width, query.shape[-1], geometry)
        for shots, marks in zip(supports, masks, strict=True):
            logits, objects = self._decode(encoded, shots, marks)
            foreground = torch.zeros_like(logits[0], dtype=torch.float32)
            foreground[:rows, :columns] = (logits[1] - logits[0])[:rows, :columns].float().sigmoid()
            presences.append(presence.presence(seen, objects, foreground))
            logits = at_original_size(logits, height, width, geometry)
            margins.append(logits[1] - logits[0])
        answers = torch.stack(margins)
        self.always.update(merge_classes(answers, [0.5] * len(classes)), label, classes)
        if self.threshold is not None:
            cuts = [0.5 if found >= self.threshold else 1.0 for found in presences]
            self.abstaining.update(merge_classes(answers, cuts), label, classes)
        for position, found in enumerate(presences, start=1):
            if not (label == position).any():
                self.absent_presence.append(found)

    def _decode(self, query: Any, shots: Tensor, masks: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (2, S, S) for the supports (K, 3, S, S) of a class, and their objects for the presence."""
        encoded, objects = [], []
        for image, mask in zip(shots, masks, strict=True):
            normalized = self._normalized(image[None])
            lower = self.segmenter.lower(normalized)
            encoded.append(self.segmenter.encode_support(normalized[:, None], mask[None, None], lower))
            objects.append(presence.of_object(presence.locations(lower)[0], mask))
        novel = torch.tensor([-1], device=shots.device)
        size = (shots.shape[-2], shots.shape[-1])
        return self.segmenter.decode(query, join(encoded, dim=1), size, novel).logits[0], objects

    def _normalized(self, images: Tensor) -> Tensor:
        return self.segmenter.backbone.normalize(images)


def _only(batch: list[SeveralEpisode]) -> SeveralEpisode:
    return batch[0]


def choose_threshold(absent_presence: Sequence[float]) -> float:
    """The presence below which the share `EMPTY` of absent classes lies.

    Raises:
        ValueError: Nothing was absent.
    """
    if not absent_presence:
        raise ValueError("no episode asks for a class that its query does not show: use more episodes")
    return float(np.quantile(absent_presence, EMPTY))


def evaluate_several(
    trainers: Sequence[lightning.Trainer],
    segmenter: FewShotSegmenter,
    chosen_on: SeveralEpisodes,
    episodes: SeveralEpisodes,
    datamodule: FewShotDataModule,
    record: Record,
    setting: str,
) -> dict[str, Any]:
    """Chooses the threshold of presence on base classes, and evaluates with and without abstention.

    Args:
        trainers: Two, one for each; of device, precision and a single process.
        segmenter: The segmenter, which is not trained.
        chosen_on: Episodes of base classes, half of whose queries show nothing asked for.
        episodes: The episodes to evaluate.
        datamodule: Their data module.
        record: Description of the evaluation, with a single seed of episodes.
        setting: "several" or "absent"; results are written to `metrics-SETTING.json`.

    Returns:
        What is written.

    Raises:
        ValueError: There are several seeds or processes.
    """
    if len(record.eval_seeds) > 1:
        raise ValueError(f"setting={setting} takes one seed of episodes, not seeds={list(record.eval_seeds)}")
    if trainers[0].world_size > 1:
        raise ValueError(f"setting={setting} runs in one process: use trainer=default trainer.devices=1")
    workers = datamodule.num_workers
    choosing = SeveralEvaluation(segmenter, chosen_on, record.episodes, None, workers)
    trainers[0].test(choosing, verbose=False)
    threshold = choose_threshold(choosing.absent_presence)
    module = SeveralEvaluation(segmenter, episodes, record.episodes, threshold, workers)
    trainers[1].test(module, verbose=False)
    rows = {"always": module.always, "abstaining": module.abstaining}
    content: dict[str, Any] = {
        **record.identity,
        "setting": setting,
        "classes_asked": episodes.classes,
        "protocol": record.protocol,
        "episodes": record.episodes,
        "eval_seeds": list(record.eval_seeds),
        "presence_threshold": threshold,
        **{name: _told(metric, datamodule.class_names) for name, metric in rows.items()},
        **record.provenance,
    }
    path = record.folder / f"metrics-{setting}.json"
    write_json(path, content)
    table = Table("", title=f"{setting}, {record.episodes} episodes", title_justify="left")
    for heading in ("mIoU", "absent answered empty", "present found"):
        table.add_column(heading, justify="right")
    for name in rows:
        table.add_row(name, *(f"{content[name][part]:.3f}" for part in ("miou", "empty", "found")))
    console = PlainConsole()
    console.print(table)
    console.print(
        f"Threshold of presence, chosen on base classes: {threshold:.3f}. Results: {path}", soft_wrap=True
    )
    return content


def _told(metric: SeveralIoU, names: Sequence[str]) -> dict[str, Any]:
    scores = metric.compute()
    return {
        **{part: float(scores[part]) for part in ("miou", "empty", "found")},
        "pairs": {"absent": metric.pairs[0].tolist(), "present": metric.pairs[1].tolist()},
        "classes": {
            names[class_id - 1]: {
                "iou": float(scores["class_iou"][row]),
                "intersection": int(metric.intersection[row]),
                "union": int(metric.union[row]),
            }
            for row, class_id in enumerate(metric.classes)
        },
    }
