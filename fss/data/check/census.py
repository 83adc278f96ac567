"""Counts of the pictures that a data set offers in each fold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fss.data.folds import FOLDS, FoldClasses, FoldScheme, fold_classes
from fss.data.index import Index


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


def _pictures(index: Index, classes: Iterable[int], min_pixels: int) -> np.ndarray:
    """Returns the numbers of the pictures that show any of the classes."""
    return np.unique(index.image[np.isin(index.class_id, list(classes)) & (index.pixels >= min_pixels)])
