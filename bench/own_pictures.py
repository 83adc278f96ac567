"""What docs/own_pictures.md says of the predictor: kinds of supports, absent classes, adaptation.

    python -m bench.own_pictures marks --model RUN                   # masks, boxes, points, scribbles as supports
    python -m bench.own_pictures absent --model RUN --shots 1 5      # abstaining, with and without negatives
    python -m bench.own_pictures thresholds --model match --data DIR  # of presence, on base classes
    python -m bench.own_pictures adapt --model RUN --draws 10        # fit(..., adapt=True), a paired interval
    python -m bench.own_pictures marks --model RUN --data DIR        # on PASCAL-5i's layout in DIR

A model is a run folder, a model file, or match. Everything but thresholds, which are chosen on base classes, is of
classes that it was not trained on (fold 0 for match), on the embedded data without --data; episodes are those of
evaluate.py with seed 321.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from bench.paired import machine
from fss.data.episodes import EpisodeDataset, select
from fss.data.folds import fold_classes
from fss.data.index import build_index, build_pool, images_by_class
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.pascal import Pascal
from fss.data.readers.shapes import Shapes
from fss.data.several_episodes import SeveralEpisodes
from fss.evaluation.several_scores import Answer, where_present
from fss.labels import IGNORE
from fss.models.segmenter import FewShotSegmenter
from fss.predictor import Box, FewShotPredictor, Points
from fss.predictor.loading import TRAINING_FREE, load_model
from fss.predictor.predictor import UNTRAINED

SEED = 321
SUPPORTS, QUERIES = 5, 10  # of a draw for adaptation
NEGATIVES = 10
CUTS = np.arange(0.26, 0.45, 0.02)  # presences


class Bench(NamedTuple):
    """A model, and pictures of classes that it was not trained on, or of those that it was.

    Attributes:
        segmenter: The model.
        size, geometry: How it sees pictures.
        reader: The pictures.
        classes: Their ids.
        showing: For each of them the pictures that show it.
        threshold: Of presence; None for the model's own.
    """

    segmenter: FewShotSegmenter
    size: int
    geometry: Any
    reader: Any
    classes: tuple[int, ...]
    showing: dict[int, np.ndarray]
    threshold: float | None

    def predictor(self) -> FewShotPredictor:
        return FewShotPredictor(self.segmenter, self.size, self.geometry, presence_threshold=self.threshold)

    def episodes(self, shots: int) -> EpisodeDataset:
        pool = build_pool(build_index(self.reader), self.classes, shots, min_pixels=1)
        transform = EvaluationTransform(self.size, self.geometry)
        return EpisodeDataset(self.reader, pool, shots, SEED, transform, with_label=True)

    def mask(self, number: int, class_id: int) -> np.ndarray:
        """(h, w) uint8: 1 the class, 255 ignored, 0 anything else."""
        return np.asarray(select(self.reader.mask(number), class_id))


def opened(model: str, data: str | None, base: bool) -> Bench:
    segmenter, card = load_model(model)
    reader: Any = Shapes("val", 128, 800) if data is None else Pascal(data, "val")
    usual = [reader.classes[c - 1] for c in fold_classes(len(reader.classes), 0, "contiguous").base]
    trained = set(card.classes or usual)
    classes = tuple(c for c, name in enumerate(reader.classes, start=1) if (name in trained) == base)
    showing = {c: np.asarray(p) for c, p in images_by_class(build_index(reader), classes, 1).items()}
    threshold = UNTRAINED if model in TRAINING_FREE else None
    return Bench(segmenter, card.size, card.geometry, reader, classes, showing, threshold)


class Scores:
    """Intersections and unions of classes."""

    def __init__(self) -> None:
        self.sums: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(2, int))

    def add(self, class_id: int, found: np.ndarray, truth: np.ndarray) -> float:
        """Adds a picture; returns its IoU."""
        counted, there = truth != IGNORE, truth == 1
        sums = np.array([(found & there).sum(), ((found | there) & counted).sum()])
        self.sums[class_id] += sums
        return float(sums[0] / max(sums[1], 1))

    @property
    def miou(self) -> float:
        return float(np.mean([intersection / union for intersection, union in self.sums.values()]))


# Supports in place of a mask, each from the mask (h, w) bool and a random generator


def _box(mask: np.ndarray, chance: np.random.Generator) -> Box:
    ys, xs = np.nonzero(mask)
    return Box(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """The pixel that is farthest from the outline."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return int(x), int(y)


def _points(inside: int, outside: int) -> Callable[[np.ndarray, np.random.Generator], Points]:
    def mark(mask: np.ndarray, chance: np.random.Generator) -> Points:
        def some(of: np.ndarray, count: int) -> list[tuple[float, float]]:
            places = np.argwhere(of)
            return [(int(x), int(y)) for y, x in chance.permutation(places)[:count]]

        return Points([_middle(mask)] if inside == 1 else some(mask, inside), some(~mask, outside))

    return mark


def _scribble(mask: np.ndarray, chance: np.random.Generator) -> Points:
    """A straight stroke of 40 pixels over the object and one of 80 around it, without what lies on the other."""

    def stroke(of: np.ndarray, length: int) -> list[tuple[float, float]]:
        start, end = chance.permutation(np.argwhere(of))[[0, -1]]
        places = np.unique(np.linspace(start, end, length).round().astype(int), axis=0)
        return [(int(x), int(y)) for y, x in places if of[y, x]]

    return Points(stroke(mask, 40), stroke(~mask, 80))


MARKS: dict[str, Callable[[np.ndarray, np.random.Generator], Any]] = {
    "mask": lambda mask, _: mask,
    "box": _box,
    "one point in its middle": _points(1, 0),
    "one point, three around it": _points(1, 3),
    "5 points, 10 around it": _points(5, 10),
    "strokes of 40 and 80 pixels": _scribble,
}


def marks(bench: Bench, count: int) -> Table:
    """Kinds of supports, on the same 1-shot episodes."""
    episodes, predictor = bench.episodes(1), bench.predictor()
    scores, quality = {kind: Scores() for kind in MARKS}, {kind: Scores() for kind in MARKS}
    for number in range(count):
        class_id, query, [support] = episodes.draw(number)
        picture, truth = bench.reader.image(support), bench.mask(support, class_id)
        for kind, mark in MARKS.items():
            marked = truth if kind == "mask" else mark(truth == 1, np.random.default_rng(number))
            predictor.fit(picture, marked)
            if kind == "mask":
                seen = predictor.supports("object")[0].mask.numpy()
            shown = predictor.supports("object")[0].mask.numpy()
            quality[kind].add(class_id, shown == 1, seen)
            found = predictor.predict(bench.reader.image(query)).labels == 1
            scores[kind].add(class_id, found, bench.mask(query, class_id))
            predictor.forget("object")
    table = Table("support", "mIoU", "IoU of the support's mask", title=f"{count} episodes, 1-shot")
    for kind in MARKS:
        table.add_row(kind, f"{scores[kind].miou:.3f}", f"{quality[kind].miou:.2f}")
    return table


def absent(bench: Bench, count: int, shots: Sequence[int]) -> Table:
    """Abstaining by the predictor's own thresholds; every other query does not show the class."""
    columns = ("shots", "negatives", "threshold", "absent answered empty", "present found")
    table = Table(*columns, "mIoU of present", "abstaining", title=f"{count} episodes")
    verifier = bench.segmenter.verifier
    variants = [verifier]
    if verifier is not None:  # pictures that show nothing of the base classes
        variants.append(replace(verifier, classes=verifier.mean[None]))
    for shot in shots:
        drawn = SeveralEpisodes(bench.episodes(shot), bench.showing, len(bench.reader), absent=True)
        for used in variants:
            bench.segmenter.verifier = used
            for negatives in (0, NEGATIVES) if used is not None else (0,):
                answers, thresholds = _answers(bench, drawn, count, negatives)
                sure = np.array([one.presence >= cut for one, cut in zip(answers, thresholds, strict=True)])
                there, said = (np.array([getattr(one, key) for one in answers]) for key in ("present", "answered"))
                # the cut of each episode becomes 1, so that one threshold serves all
                moved = [
                    one._replace(presence=1 + one.presence - cut)
                    for one, cut in zip(answers, thresholds, strict=True)
                ]
                told = where_present(moved, 1.0)
                cells = [np.mean(thresholds), np.mean(~(sure & said)[~there]), np.mean((sure & said)[there])]
                table.add_row(
                    str(shot),
                    f"{negatives}{', base classes forgotten' * (used is not verifier)}",
                    *(f"{value:.3f}" for value in (*cells, told["always"], told["abstaining"])),
                )
    bench.segmenter.verifier = verifier
    return table


def thresholds(bench: Bench, count: int) -> Table:
    """What thresholds of presence would do, with one support; every other query does not show the class."""
    drawn = SeveralEpisodes(bench.episodes(1), bench.showing, len(bench.reader), absent=True)
    answers, _ = _answers(bench, drawn, count, negatives=0)
    table = Table("threshold", "absent answered empty", "points of mIoU lost", title=f"{count} episodes, 1-shot")
    for cut in CUTS:
        empty = np.mean([one.presence < cut or not one.answered for one in answers if not one.present])
        told = where_present(answers, cut)
        table.add_row(f"{cut:.2f}", f"{empty:.2f}", f"{100 * (told['always'] - told['abstaining']):.1f}")
    return table


def _answers(bench: Bench, drawn: SeveralEpisodes, count: int, negatives: int) -> tuple[list[Answer], list[float]]:
    predictor, answers, thresholds = bench.predictor(), [], []
    for number in range(count):
        query, supports = drawn.draw(number)
        [(class_id, shots)] = supports.items()
        without = np.setdiff1d(np.arange(len(bench.reader)), [*bench.showing[class_id], query])
        chosen = np.random.default_rng([number, class_id]).choice(without, negatives, replace=False)
        predictor.fit(
            [bench.reader.image(i) for i in shots],
            [bench.mask(i, class_id) for i in shots],
            negatives=[bench.reader.image(int(i)) for i in chosen],
        )
        found = predictor.predict(bench.reader.image(query))
        truth, labels = bench.mask(query, class_id), found.labels == 1
        there, counted = truth == 1, truth != IGNORE
        sums = ((labels & there).sum(), ((labels | there) & counted).sum(), there.sum())
        answers.append(Answer(class_id, found.presence["object"], *(int(value) for value in sums)))
        thresholds.append(predictor.presence_thresholds()["object"])
        predictor.forget("object")
    return answers, thresholds


def adapt(bench: Bench, draws: int) -> Table:
    """fit(..., adapt=True) with supports of one class, against the same without, on other pictures of it."""
    gains, seconds, kept = [], [], 0
    table = Table(
        "draw", "class", "before", "after", "steps", "s", title=f"{SUPPORTS} supports, {QUERIES} queries"
    )
    for draw in range(draws):
        chance = np.random.default_rng([SEED, draw])
        class_id = bench.classes[draw % len(bench.classes)]
        numbers = chance.choice(bench.showing[class_id], SUPPORTS + QUERIES, replace=False).tolist()
        shots, queries = numbers[:SUPPORTS], numbers[SUPPORTS:]
        given = ([bench.reader.image(i) for i in shots], [bench.mask(i, class_id) for i in shots])
        ious = []
        for adapts in (False, True):
            predictor = bench.predictor()
            start = time.perf_counter()
            predictor.fit(*given, adapt=adapts)
            if adapts:
                seconds.append(time.perf_counter() - start)
            answers = [predictor.predict(bench.reader.image(i)).labels == 1 for i in queries]
            ious.append(
                np.mean(
                    [Scores().add(0, a, bench.mask(i, class_id)) for a, i in zip(answers, queries, strict=True)]
                )
            )
        assert predictor.adapted is not None
        steps = predictor.adapted.steps
        kept += steps > 0
        gains.append(ious[1] - ious[0])
        name = bench.reader.classes[class_id - 1]
        table.add_row(str(draw), name, *(f"{iou:.3f}" for iou in ious), str(steps), f"{seconds[-1]:.0f}")
    mean, error = np.mean(gains), stats.sem(gains) if draws > 1 else float("nan")
    half = stats.t.ppf(0.975, draws - 1) * error
    table.caption = (
        f"mean IoU {mean:+.3f} ± {half:.3f} (95 %, paired, {draws} draws), kept in {kept}; "
        f"{min(seconds):.0f} to {max(seconds):.0f} s"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("marks", "absent", "thresholds", "adapt"))
    parser.add_argument("--model", default="match")
    parser.add_argument("--data", help="a folder of PASCAL-5i; the embedded data without")
    parser.add_argument("--episodes", type=int, default=240)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    bench = opened(given.model, given.data, base=given.what == "thresholds")
    with torch.inference_mode(given.what != "adapt"):
        if given.what == "marks":
            table = marks(bench, given.episodes)
        elif given.what == "absent":
            table = absent(bench, given.episodes, given.shots)
        elif given.what == "thresholds":
            table = thresholds(bench, given.episodes)
        else:
            table = adapt(bench, given.draws)
    Console(width=130).print(table)
    print(machine())


if __name__ == "__main__":
    main()
