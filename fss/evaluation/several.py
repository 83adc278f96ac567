"""Several classes in one label map, and classes that are not there: how well, and how often rightly nothing.

Shapes: N classes asked for, M evaluated classes, h w height and width of a picture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric

from fss.data.datamodule import FewShotDataModule
from fss.data.loading import build_loader, evaluation_ids
from fss.data.sampler import EpisodeSampler
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
from fss.models.verification import EMPTY, Case, Verifier, fit_verifier

POINTS = (0, 1, 2, 5)  # of mIoU lost, for which the share of rightly empty answers is told
logger = logging.getLogger(__name__)


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


class SeveralEvaluation(lightning.LightningModule):
    """Answers episodes of several classes, with and without abstention.

    Args:
        segmenter: The segmenter, SVF layers merged or not; its verifier tells how sure a presence is.
        episodes: The episodes.
        count: How many.
        threshold: Presence in 0..1 below which a class is taken to be absent; None only collects.
        num_workers: Loader processes.

    Attributes:
        always: The scores of answers that never abstain.
        abstaining: Those of answers that do.
        answers: One for each class that was asked for, without abstention.
        cases: What each of them rests on; empty where there is a threshold already.
        objects: Class id and mean feature (C,) of every support; likewise.
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
        self.answers: list[Answer] = []
        self.cases: list[Case] = []
        self.objects: list[tuple[int, Tensor]] = []

    def test_dataloader(self) -> DataLoader[SeveralEpisode]:
        ids = evaluation_ids(self.trainer, self.count)
        return self.loader(ids)

    def loader(self, ids: EpisodeSampler) -> DataLoader[SeveralEpisode]:
        """Episodes one by one."""
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
        for position, (class_id, shots, marks) in enumerate(zip(classes, supports, masks, strict=True), start=1):
            logits, objects = self._decode(encoded, shots, marks)
            foreground = torch.zeros_like(logits[0], dtype=torch.float32)
            foreground[:rows, :columns] = (logits[1] - logits[0])[:rows, :columns].float().sigmoid()
            presences.append(presence.presence(seen, objects, foreground, self.segmenter.verifier))
            logits = at_original_size(logits, height, width, geometry)
            margins.append(logits[1] - logits[0])
            counted, there = label != IGNORE, label == position
            answered = (margins[-1] > 0) & counted
            sums = ((answered & there).sum(), (answered | there).sum(), there.sum())
            self.answers.append(Answer(class_id, presences[-1], *(int(number) for number in sums)))
            if self.threshold is None:
                rests_on = presence.evidence(seen, objects, foreground)
                self.cases.append(Case(class_id, self.answers[-1].present, self.answers[-1].iou, rests_on))
                self.objects += [(class_id, F.normalize(one.mean(0), dim=0).cpu()) for one in objects]
        answers = torch.stack(margins)
        self.always.update(merge_classes(answers, [0.5] * len(classes)), label, classes)
        if self.threshold is not None:
            cuts = [0.5 if found >= self.threshold else 1.0 for found in presences]
            self.abstaining.update(merge_classes(answers, cuts), label, classes)

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


def choose(evaluation: SeveralEvaluation) -> tuple[Verifier | None, float]:
    """What base classes teach: a verifier, or None where they are too few, and the threshold of presence.

    Raises:
        ValueError: Nothing was absent.
    """
    try:
        classes, objects = zip(*evaluation.objects, strict=True)
        verifier = fit_verifier(torch.stack(objects), classes, evaluation.cases)
        return verifier, verifier.threshold
    except ValueError as error:
        logger.warning("base classes do not teach to verify (%s): similarities alone tell what is absent", error)
        return None, choose_threshold([one.presence for one in evaluation.answers if not one.present])


def choose_threshold(absent_presence: Sequence[float]) -> float:
    """The presence below which the share `EMPTY` of absent classes lies.

    Raises:
        ValueError: Nothing was absent.
    """
    if not absent_presence:
        raise ValueError("no episode asks for a class that its query does not show: use more episodes")
    return float(np.quantile(absent_presence, EMPTY))


@torch.inference_mode()
def learn_verifier(
    segmenter: FewShotSegmenter, episodes: SeveralEpisodes, count: int, device: torch.device, num_workers: int
) -> Verifier | None:
    """Learns on base classes how to tell that a class is absent, in this process and without a trainer.

    Args:
        segmenter: The segmenter; left without its former verifier.
        episodes: Of base classes, half of whose queries show nothing asked for.
        count: How many.
        device: Where to compute; the segmenter stays there.
        num_workers: Loader processes.

    Returns:
        None where base classes are too few.
    """
    segmenter.verifier = None
    module = SeveralEvaluation(segmenter, episodes, count, None, num_workers).to(device)
    for number, (classes, *tensors) in enumerate(module.loader(EpisodeSampler(count))):
        module.test_step(SeveralEpisode(classes, *(tensor.to(device) for tensor in tensors)), number)
    return choose(module)[0]


def evaluate_several(
    trainers: Sequence[lightning.Trainer],
    segmenter: FewShotSegmenter,
    chosen_on: SeveralEpisodes,
    episodes: SeveralEpisodes,
    datamodule: FewShotDataModule,
    record: Record,
    setting: str,
) -> dict[str, Any]:
    """Evaluates with and without abstention; a segmenter without a verifier first learns one on base classes.

    Args:
        trainers: Two, one for each; of device, precision and a single process.
        segmenter: The segmenter, which is not trained; it keeps the verifier.
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
    brought = segmenter.verifier is not None
    if segmenter.verifier is not None:
        threshold = segmenter.verifier.threshold
    else:
        choosing = SeveralEvaluation(segmenter, chosen_on, record.episodes, None, workers)
        trainers[0].test(choosing, verbose=False)
        segmenter.verifier, threshold = choose(choosing)
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
        "where_present": where_present(module.answers, threshold),
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
    told = content["where_present"]
    console.print(
        f"Queries that show the class: mIoU {told['always']:.3f}, abstaining {told['abstaining']:.3f}",
        soft_wrap=True,
    )
    if setting == "absent":
        shares = ", ".join(f"{share:.2f} at {points}" for points, share in told["empty_at_points_lost"].items())
        console.print(f"Absent answered empty, by points of that mIoU lost with other thresholds: {shares}")
    origin = "the model file's" if brought else "chosen on base classes"
    console.print(f"Threshold of presence, {origin}: {threshold:.3f}. Results: {path}", soft_wrap=True)
    return content


def where_present(answers: Sequence[Answer], threshold: float) -> dict[str, Any]:
    """What abstaining costs where queries show what is asked for, each answer taken alone.

    Returns:
        The mIoU of `always` answering and of `abstaining`, and the share of absent classes that are answered empty
        by the best thresholds that lose 0, 1, 2 and 5 points of that mIoU (`empty_at_points_lost`).
    """
    present = [one for one in answers if one.present]
    absent = np.sort([one.presence if one.answered else -1.0 for one in answers if not one.present])
    always = _miou(present, 0)
    candidates = sorted({one.presence for one in answers})
    losses = [100 * (always - _miou(present, cut)) for cut in candidates]
    shares = [float((absent < cut).mean()) if len(absent) else float("nan") for cut in candidates]
    return {
        "always": always,
        "abstaining": _miou(present, threshold),
        "empty_at_points_lost": {
            str(points): max((s for s, lost in zip(shares, losses, strict=True) if lost <= points), default=0.0)
            for points in POINTS
        },
    }


def _miou(present: Sequence[Answer], threshold: float) -> float:
    """mIoU of queries that show the class; those below the threshold are answered empty."""
    sums: dict[int, list[int]] = {}
    for one in present:
        intersection, union = sums.setdefault(one.class_id, [0, 0])
        kept = one.presence >= threshold
        sums[one.class_id] = [intersection + kept * one.intersection, union + (one.union if kept else one.truth)]
    return float(np.mean([intersection / union for intersection, union in sums.values()]))


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
