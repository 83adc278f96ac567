"""Generalised few-shot segmentation: merges base classes and the novel class into one label map and scores it.

Lang et al., BAM (CVPR 2022, stage 4 of the published program).

Shapes: B batch, H W image height and width, S its square, N base classes, M novel classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import lightning
import torch
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric

from fss.data.datamodule import FewShotDataModule
from fss.data.plan import Picture, own_copy, plan_episodes
from fss.data.share import Share
from fss.display.console import PlainConsole
from fss.evaluation.empty_supports import EmptySupports
from fss.evaluation.record import Record
from fss.evaluation.reuse import Reuse, ReusingEvaluator, check_reuse
from fss.files.plain import write_json
from fss.geometry import Geometry, at_original_size
from fss.labels import IGNORE
from fss.models.segmenter import FewShotSegmenter
from fss.svf import merge

Rule = Literal["final", "base"]
RULES: tuple[Rule, ...] = ("final", "base")


def merge_maps(final: Tensor, base: Tensor, rule: Rule, threshold: float) -> Tensor:
    """Merges the predictions of BAM and its base learner into one label map.

    Args:
        final: BAM's maps (B, 2, H, W), background and novel class.
        base: The base learner's logits (B, N + 1, H, W), background first.
        rule: Which prediction has priority: "final", the novel class where it is likely, otherwise the base class;
            or "base", the base class where there is one, otherwise the novel class where it is likely.
        threshold: Probability above which the novel class counts as likely (0.9 as published). BAM's maps are not
            logits: they start in 0..1, where no probability exceeds 0.74, and grow only in long training.

    Returns:
        (B, H, W): 0 background, 1..N base classes, N + 1 the novel class.
    """
    novel = torch.where(final.softmax(1)[:, 1] > threshold, base.shape[1], 0)  # (B, H, W)
    known = base.argmax(1)
    first, second = (novel, known) if rule == "final" else (known, novel)
    return torch.where(first > 0, first, second)


class GeneralizedIoU(Metric):
    """IoU of each base and novel class, and the means over base, novel and all classes.

    Sums are int64, exact and independent of order.

    Args:
        base_classes: Number of base classes N.
        novel_classes: Ids of the novel classes, in the order of the results.
        rule: See `merge_maps`.
        threshold: See `merge_maps`.
        count_absent: A class that is neither shown nor predicted in any episode counts as 0, as published; if
            False, it is left out of the means.
        geometry: How pictures lie in the square; see `at_original_size`.
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
        geometry: Geometry = "published",
    ) -> None:
        super().__init__()
        self.count_absent = count_absent
        self.base_classes, self.novel_classes = base_classes, list(novel_classes)
        self.rule, self.threshold, self.geometry = rule, threshold, geometry
        zeros = torch.zeros(base_classes + len(self.novel_classes), dtype=torch.int64)
        self.add_state("intersection", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("union", zeros.clone(), dist_reduce_fx="sum")

    def update(self, final: Tensor, base: Tensor, label: Tensor, class_id: int) -> None:
        """Adds one episode.

        Args:
            final: BAM's maps (2, S, S).
            base: The base learner's logits (N + 1, S, S).
            label: (h, w) at original size: base classes from 1, the novel class N + 1, ignored pixels 255.
            class_id: Id of the novel class.
        """
        n = self.base_classes
        h, w = label.shape
        final, base = (at_original_size(logits, h, w, self.geometry)[None] for logits in (final, base))
        prediction = merge_maps(final, base, self.rule, self.threshold)[0]
        counted = label.to(prediction.device) != IGNORE
        pairs = (n + 2) * label.to(prediction.device).long()[counted] + prediction[counted]
        table = torch.bincount(pairs, minlength=(n + 2) ** 2).reshape(n + 2, n + 2)  # truth x prediction
        intersection = table.diagonal()
        union = table.sum(0) + table.sum(1) - intersection
        # labels 1..N are the first N rows; N + 1 is this episode's novel class
        rows = torch.cat([torch.arange(n), torch.tensor([n + self.novel_classes.index(class_id)])])
        self.intersection[rows] += intersection[1:]
        self.union[rows] += union[1:]

    def compute(self) -> dict[str, Tensor]:
        """Of all processes: `class_iou` (N + M,) and the means `novel`, `base` and `all`, as fractions in float64.

        Also the sums that they are made from, `intersection` and `union` (N + M,): outside of this function, a
        process knows only its own.
        """
        class_iou = self.intersection / self.union.double().clamp(min=1)
        seen = (self.union > 0) | self.count_absent
        novel = torch.arange(len(class_iou), device=seen.device) >= self.base_classes
        parts = {"novel": novel, "base": ~novel, "all": torch.ones_like(novel)}
        # 0 if no class of a part has been seen
        means = {
            name: class_iou[part & seen].sum() / (part & seen).sum().clamp(min=1) for name, part in parts.items()
        }
        return {"class_iou": class_iou, "intersection": self.intersection, "union": self.union, **means}


class GeneralizedEvaluation(lightning.LightningModule):
    """Measures both fusion rules on the same episodes; each picture is encoded once (`ReusingEvaluator`).

    Args:
        segmenter: A segmenter whose head has a base learner.
        datamodule: Its episodes, set up for the generalised setting.
        threshold: See `merge_maps`.
        reuse: Settings for encoding pictures.

    Raises:
        ValueError: If the head has none, or if the threshold or a setting of `reuse` is out of range.
    """

    def __init__(
        self, segmenter: FewShotSegmenter, datamodule: FewShotDataModule, threshold: float, reuse: Reuse
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be in 0..1")
        if not segmenter.head.has_base_learner:
            raise ValueError("setting=generalized needs a method with a base learner: use method=bam")
        check_reuse(*reuse)
        self.segmenter = segmenter.eval()
        self.data, self.threshold, self.reuse = datamodule, threshold, reuse
        self.metrics: dict[str, GeneralizedIoU] = {}
        self._share: Share | None = None
        self._evaluator: ReusingEvaluator | None = None
        self._empty = EmptySupports()

    def test_dataloader(self) -> DataLoader[list[Picture]]:
        data, trainer = self.data, self.trainer
        planned = plan_episodes(data.evaluation, [data.eval_seed], data.test_episodes)
        self._share = Share(data.evaluation, planned, trainer.global_rank, trainer.world_size, self.reuse.batch)
        return self._share.loader(data.num_workers)

    def transfer_batch_to_device(self, batch: list[Picture], device: torch.device, index: int) -> list[Picture]:
        """Keeps pictures on the host; they are moved to the device when they are encoded."""
        return [own_copy(picture) for picture in batch]

    def on_test_start(self) -> None:
        data = self.data
        base, novel = data.base_classes, data.evaluated_classes(data.test_episodes)
        self.metrics = {
            rule: GeneralizedIoU(len(base), novel, rule, self.threshold, data.absent == "zero", data.geometry).to(
                self.device
            )
            for rule in RULES
        }
        assert self._share is not None
        own_class: dict[int, int] = {}  # the class of an episode is a novel one
        given = self.segmenter, self._share.pictures, self._share.blocks, own_class
        self._evaluator = ReusingEvaluator(*given, *self.reuse)

    def test_step(self, batch: list[Picture], batch_idx: int) -> None:
        assert self._evaluator is not None
        for picture in batch:
            self._empty.look_at(picture, self.data.evaluation.reader)
        for episode, prediction, label, _ in self._evaluator.answer(batch_idx, batch):
            assert prediction.base is not None
            for metric in self.metrics.values():
                metric.update(prediction.logits[0], prediction.base[0], label, episode.class_id)

    def on_test_end(self) -> None:
        self._evaluator = None  # frees its memory

    def on_test_epoch_end(self) -> None:
        self._empty.tell()
        for rule, metric in self.metrics.items():
            scores = metric.compute()
            self.log_dict({f"test/{rule}/{part}": scores[part].float() for part in ("novel", "base", "all")})

    def results(self, names: Sequence[str], base_classes: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Returns, for each rule, the means over novel, base and all classes, and the numbers of every class.

        Args:
            names: Names of all classes; class id c has index c - 1.
            base_classes: Ids of the base classes in ascending order.
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
                        "intersection": int(scores["intersection"][row]),
                        "union": int(scores["union"][row]),
                    }
                    for row, class_id in enumerate([*base_classes, *metric.novel_classes])
                },
            }
        return rules


def evaluate_generalized(
    trainer: lightning.Trainer,
    segmenter: FewShotSegmenter,
    datamodule: FewShotDataModule,
    record: Record,
    threshold: float,
    reuse: Reuse,
) -> None:
    """Evaluates in the generalised setting, writes `metrics-generalized.json` and prints a table.

    Args:
        trainer: Provides device, precision and processes.
        segmenter: A segmenter whose head has a base learner; its SVF layers are merged in a copy.
        datamodule: The data module, set up for the generalised setting.
        record: Description of the evaluation, with a single seed of episodes.
        threshold: See `merge_maps`.
        reuse: Settings for encoding pictures.

    Raises:
        ValueError: If there are several seeds, a setting is out of range, or the head has no base learner.
    """
    if len(record.eval_seeds) > 1:
        raise ValueError(f"setting=generalized takes one seed of episodes, not seeds={list(record.eval_seeds)}")
    learner = GeneralizedEvaluation(merge(copy.deepcopy(segmenter)), datamodule, threshold, reuse)
    trainer.test(learner, verbose=False)
    if not trainer.is_global_zero:
        return
    rules = learner.results(datamodule.class_names, datamodule.base_classes)
    path = record.folder / "metrics-generalized.json"
    told: dict[str, Any] = {
        "protocol": record.protocol,
        "episodes": record.episodes,
        "eval_seeds": list(record.eval_seeds),
    }
    told["drawing"] = {**record.drawing, **datamodule.list_facts()}
    write_json(path, {**record.identity, **told, "threshold": threshold, "rules": rules, **record.provenance})
    table = Table("", title=f"Generalised, {record.episodes} episodes: mIoU", title_justify="left")
    for part in ("novel", "base", "all"):
        table.add_column(part, justify="right")
    for rule, result in rules.items():
        table.add_row(f"{rule} first", *(f"{result[part]:.3f}" for part in ("novel", "base", "all")))
    console = PlainConsole()
    console.print(table)
    console.print(f"Results: {path}", soft_wrap=True)
