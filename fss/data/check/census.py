"""How many pictures a data set offers in each fold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fss.data.folds import FOLDS, FoldClasses, FoldScheme, fold_classes
from fss.data.index import Index


class FoldCensus(NamedTuple):
    """Pictures of one fold.

    Attributes:
        classes: Its classes.
        excluded: Training pictures, those with any pixel of a novel class left out.
        not_excluded: Training pictures, with those.
        evaluation: Evaluation pictures of novel classes.
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
        train: Of the training pictures.
        evaluation: Of the evaluation pictures.
        n_classes: Classes of the data set.
        scheme: See `fold_classes`.
        min_pixels: A class counts as present in a picture from this many pixels on.
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
    """Pictures of each class, class 1 first."""
    return np.bincount(index.class_id[index.pixels >= min_pixels], minlength=n_classes + 1)[1:].tolist()


def _pictures(index: Index, classes: Iterable[int], min_pixels: int) -> np.ndarray:
    """Numbers of the pictures that show any of the classes."""
    return np.unique(index.image[np.isin(index.class_id, list(classes)) & (index.pixels >= min_pixels)])
