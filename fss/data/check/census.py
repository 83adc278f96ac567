"""Counts a data set's pictures in each fold and compares them with the published lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fss.data.folds import FOLDS, FoldClasses, FoldScheme, fold_classes
from fss.data.index import Index

# Pictures of PASCAL-5i in each fold: training without and with pictures that show novel classes; evaluation
PASCAL_EXCLUDED = (4208, 3726, 2752, 4510)
PASCAL_NOT_EXCLUDED = (4760, 4588, 4097, 5108)
PASCAL_EVALUATION = (364, 445, 592, 336)
PASCAL_LISTS = (5953, 1449)
COCO_LISTS = (82081, 40137)  # pictures of train2014 and val2014 with at least one object
PUBLISHED_PIXELS = 2048


class FoldCensus(NamedTuple):
    """Number of pictures in one fold.

    Attributes:
        classes: The fold's classes.
        excluded: Training pictures without any pixel of a novel class.
        not_excluded: Training pictures, including those with pixels of novel classes.
        evaluation: Evaluation pictures that show novel classes.
    """

    classes: FoldClasses
    excluded: int
    not_excluded: int
    evaluation: int


class Oracle(NamedTuple):
    """A count from the published lists and the count found here."""

    what: str
    published: int
    found: int


def count_folds(
    train: Index, evaluation: Index, n_classes: int, scheme: FoldScheme, min_pixels: int
) -> list[FoldCensus]:
    """Counts the pictures of every fold.

    Args:
        train: Index of the training pictures.
        evaluation: Index of the evaluation pictures.
        n_classes: Number of classes in the data set.
        scheme: See `fold_classes`.
        min_pixels: Minimum number of pixels for a class to count as present in a picture.
    """
    folds = FOLDS if isinstance(scheme, str) else len(scheme)
    census = []
    for fold in range(folds):
        classes = fold_classes(n_classes, fold, scheme)
        base = _pictures(train, classes.base, min_pixels)
        novel_at_all = _pictures(train, classes.novel, 1)
        census.append(
            FoldCensus(
                classes,
                excluded=len(np.setdiff1d(base, novel_at_all)),
                not_excluded=len(base),
                evaluation=len(_pictures(evaluation, classes.novel, min_pixels)),
            )
        )
    return census


def count_classes(index: Index, n_classes: int, min_pixels: int) -> list[int]:
    """Counts the pictures of each class, starting with class 1."""
    return np.bincount(index.class_id[index.pixels >= min_pixels], minlength=n_classes + 1)[1:].tolist()


def oracles(
    dataset: str, year: int | None, pictures: tuple[int, int], census: Sequence[FoldCensus]
) -> list[Oracle]:
    """Compares a data set with the published lists; empty if there are none for it.

    Args:
        dataset: Name of the data set, whose folds and `min_pixels` must be the published ones.
        year: Release year of COCO; None for other data sets.
        pictures: Number of training and evaluation pictures.
        census: Counts of each fold.
    """
    sets, folds = ("train", "val"), [f"fold {i}" for i in range(len(census))]
    expected: list[tuple[str, Sequence[str], Sequence[int], Iterable[int]]] = []
    if dataset == "pascal5i":
        expected = [
            ("pictures", sets, PASCAL_LISTS, pictures),
            ("training pictures, novel excluded", folds, PASCAL_EXCLUDED, (f.excluded for f in census)),
            ("training pictures, novel kept", folds, PASCAL_NOT_EXCLUDED, (f.not_excluded for f in census)),
            ("evaluation pictures", folds, PASCAL_EVALUATION, (f.evaluation for f in census)),
        ]
    elif dataset == "coco20i" and year == 2014:
        expected = [("pictures", sets, COCO_LISTS, pictures)]
    return [
        Oracle(f"{what}, {place}", published, found)
        for what, places, numbers, counted in expected
        for place, published, found in zip(places, numbers, counted, strict=True)
    ]


def _pictures(index: Index, classes: Iterable[int], min_pixels: int) -> np.ndarray:
    """Returns the numbers of the pictures that show any of the classes."""
    return np.unique(index.image[np.isin(index.class_id, list(classes)) & (index.pixels >= min_pixels)])
