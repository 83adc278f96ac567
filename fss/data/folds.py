"""Splits the classes of a data set into the novel and base classes of each fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

FOLDS = 4
FoldScheme = Literal["contiguous", "interleaved", "uneven", "all_novel"] | Sequence[Sequence[int]]


class FoldClasses(NamedTuple):
    """1-based class ids: novel classes for evaluation, base classes for training."""

    novel: tuple[int, ...]
    base: tuple[int, ...]


def fold_classes(n_classes: int, fold: int, scheme: FoldScheme) -> FoldClasses:
    """Splits classes 1..n_classes by fold.

    Args:
        n_classes: Number of classes; must be divisible by 4, except for "uneven" and listed folds.
        fold: Fold number from 0: to 3, or one less than the number of listed folds.
        scheme: How novel classes are chosen.
            "contiguous": fold f takes quarter f (PASCAL-5i; COCO as in PANet).
            "interleaved": fold f takes f + 1, f + 5, f + 9, ... (COCO-20i as in SVF, BAM, PFENet and HSNet).
            "uneven": the same for any number of classes, so that folds may differ by one class.
            "all_novel": every class in every fold, for data sets that only evaluate.
            A list: the novel class ids of each fold.

    Raises:
        ValueError: Unknown fold or scheme, a number of classes that 4 does not divide, or a fold without novel
            classes. One without base classes can be evaluated, and `check_base` says where these are needed.
    """
    given = not isinstance(scheme, str) and isinstance(scheme, Sequence)
    folds = len(scheme) if given else FOLDS
    if not folds:
        raise ValueError("dataset.fold_scheme=[]: list the novel class ids of each fold, as [[1, 2], [3]]")
    if fold not in range(folds):
        raise ValueError(f"fold={fold}: there are {folds} folds, 0 to {folds - 1}")
    if scheme in ("contiguous", "interleaved") and (n_classes < FOLDS or n_classes % FOLDS):
        raise ValueError(
            f"{n_classes} classes cannot be split into {FOLDS} equal folds: use dataset.fold_scheme=uneven, or "
            "list the novel class ids of each fold"
        )
    ids = range(1, n_classes + 1)
    quarter = n_classes // FOLDS
    novel: set[int]
    if scheme == "contiguous":
        novel = set(ids[fold * quarter : (fold + 1) * quarter])
    elif scheme in ("interleaved", "uneven"):
        novel = set(ids[fold::FOLDS])
    elif scheme == "all_novel":
        novel = set(ids)
    elif given:
        listed: object = scheme[fold]
        if isinstance(listed, str) or not isinstance(listed, Sequence):
            raise ValueError(
                f"dataset.fold_scheme: fold {fold} is {listed!r}: list its class ids, as [[1, 2], [3]]"
            )
        if unknown := [one for one in listed if one not in ids]:
            told = f"lists {unknown}, but class ids are 1 to {n_classes}"
            raise ValueError(f"dataset.fold_scheme: fold {fold} {told}")
        novel = set(listed)
    else:
        raise ValueError(
            f"dataset.fold_scheme={scheme!r}: must be 'contiguous', 'interleaved', 'uneven', 'all_novel', or a "
            "list of the novel class ids of each fold"
        )
    base = set(ids) - novel
    if not novel:
        raise ValueError(f"fold {fold} of {n_classes} classes has no novel class")
    return FoldClasses(tuple(sorted(novel)), tuple(sorted(base)))


def check_base(classes: FoldClasses, fold: int) -> None:
    """Looks whether a fold has classes to train on.

    Raises:
        ValueError: It has none.
    """
    if not classes.base:
        raise ValueError(
            f"fold {fold} has no base class to train on, only {len(classes.novel)} novel: add classes, or "
            "evaluate what needs no training here (method=prior tuning=frozen, or ckpt=FILE)"
        )
