"""Which classes of a data set are novel in a fold, and which are base."""

from __future__ import annotations

from typing import Literal, NamedTuple

FOLDS = 4
FoldScheme = Literal["contiguous", "interleaved"]


class FoldClasses(NamedTuple):
    """Class ids, 1-based: novel ones for evaluation, base ones for training."""

    novel: tuple[int, ...]
    base: tuple[int, ...]


def fold_classes(n_classes: int, fold: int, scheme: FoldScheme) -> FoldClasses:
    """Splits classes 1..n_classes by fold.

    Args:
        n_classes: Number of classes; 4 must divide it.
        fold: 0 to 3.
        scheme: "contiguous": fold f takes the f-th quarter (PASCAL-5i; COCO as in PANet).
            "interleaved": fold f takes f + 1, f + 5, f + 9, ... (COCO-20i as in SVF, BAM, PFENet and HSNet).

    Raises:
        ValueError: Unknown fold or scheme, or a number of classes that 4 does not divide.
    """
    if fold not in range(FOLDS):
        raise ValueError(f"fold={fold}: there are {FOLDS} folds, 0 to {FOLDS - 1}")
    if n_classes < FOLDS or n_classes % FOLDS:
        raise ValueError(f"{n_classes} classes cannot be split into {FOLDS} equal folds")
    ids = range(1, n_classes + 1)
    quarter = n_classes // FOLDS
    if scheme == "contiguous":
        novel = set(ids[fold * quarter : (fold + 1) * quarter])
    elif scheme == "interleaved":
        novel = set(ids[fold::FOLDS])
    else:
        raise ValueError(f"dataset.fold_scheme={scheme!r}: must be 'contiguous' or 'interleaved'")
    return FoldClasses(tuple(sorted(novel)), tuple(c for c in ids if c not in novel))
