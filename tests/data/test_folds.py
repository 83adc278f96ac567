"""Novel and base classes of every fold, against the id sets of the papers."""

from __future__ import annotations

from typing import Any

import pytest

from fss.data.folds import FOLDS, FoldScheme, check_base, fold_classes

COCO_FOLD_0 = {1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 65, 69, 73, 77}
SCHEMES: tuple[FoldScheme, ...] = ("contiguous", "interleaved")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n", [4, 16, 20, 80])
def test_folds_share_the_classes_out(n: int, scheme: FoldScheme) -> None:
    everything = set(range(1, n + 1))
    folds = [fold_classes(n, fold, scheme) for fold in range(FOLDS)]
    for novel, base in folds:
        assert len(novel) == n // 4
        assert set(novel) | set(base) == everything
        assert len(novel) + len(base) == n  # hence disjoint, and nothing twice
        assert list(novel) == sorted(novel)
        assert list(base) == sorted(base)
    # each class is novel in one fold and no more
    assert sorted(c for fold in folds for c in fold.novel) == sorted(everything)


@pytest.mark.parametrize(
    ("fold", "novel"),
    [(0, {1, 2, 3, 4, 5}), (1, {6, 7, 8, 9, 10}), (2, {11, 12, 13, 14, 15}), (3, {16, 17, 18, 19, 20})],
)
def test_pascal(fold: int, novel: set[int]) -> None:
    classes = fold_classes(20, fold, "contiguous")
    assert set(classes.novel) == novel
    assert set(classes.base) == set(range(1, 21)) - novel


@pytest.mark.parametrize("fold", range(4))
def test_coco_interleaved(fold: int) -> None:
    novel = {c + fold for c in COCO_FOLD_0}
    classes = fold_classes(80, fold, "interleaved")
    assert set(classes.novel) == novel
    assert set(classes.base) == set(range(1, 81)) - novel


@pytest.mark.parametrize("fold", range(4))
def test_coco_contiguous(fold: int) -> None:
    assert fold_classes(80, fold, "contiguous").novel == tuple(range(20 * fold + 1, 20 * fold + 21))


@pytest.mark.parametrize("fold", range(4))
def test_sixteen_classes(fold: int) -> None:
    assert fold_classes(16, fold, "contiguous").novel == tuple(4 * fold + i for i in (1, 2, 3, 4))
    assert fold_classes(16, fold, "interleaved").novel == tuple(fold + i for i in (1, 5, 9, 13))


@pytest.mark.parametrize("fold", [-1, 4, 1000])
def test_unknown_fold(fold: int) -> None:
    with pytest.raises(ValueError, match=rf"fold={fold}: there are 4 folds, 0 to 3"):
        fold_classes(20, fold, "contiguous")


@pytest.mark.parametrize("n", [0, 1, 2, 18, 21, -4])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_classes_that_four_does_not_divide(n: int, scheme: FoldScheme) -> None:
    with pytest.raises(ValueError, match=rf"^{n} classes cannot be split into 4 equal folds"):
        fold_classes(n, 0, scheme)


@pytest.mark.parametrize("scheme", ["", "Contiguous", "random", None])
def test_unknown_scheme(scheme: Any) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.fold_scheme={scheme!r}: .*'uneven', 'all_novel', or a list"):
        fold_classes(20, 0, scheme)


@pytest.mark.parametrize("n", [4, 5, 6, 7, 80])
def test_uneven_folds_share_the_classes_out(n: int) -> None:
    folds = [fold_classes(n, fold, "uneven") for fold in range(FOLDS)]
    assert sorted(c for fold in folds for c in fold.novel) == list(range(1, n + 1))
    for novel, base in folds:
        assert sorted(novel + base) == list(range(1, n + 1))
        assert n // 4 <= len(novel) <= n // 4 + 1
    if n % 4 == 0:
        assert folds == [fold_classes(n, fold, "interleaved") for fold in range(FOLDS)]


def test_few_classes_make_few_folds() -> None:
    assert fold_classes(2, 0, "uneven") == ((1,), (2,))
    assert fold_classes(2, 1, "uneven") == ((2,), (1,))
    with pytest.raises(ValueError, match="fold 2 of 2 classes has no novel class"):
        fold_classes(2, 2, "uneven")
    alone = fold_classes(1, 0, "uneven")
    assert alone.novel == (1,)
    assert not alone.base
    with pytest.raises(ValueError, match=r"fold 0 has no base class to train on.*ckpt=FILE"):
        check_base(alone, 0)


@pytest.mark.parametrize("scheme", [[1], ["12"], [None, [1]], [[[1]]], [["1"]], [[0.5]]], ids=str)
def test_lists_that_are_none(scheme: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^dataset\.fold_scheme: fold 0 .*(list its class ids|but class ids are)"
    ):
        fold_classes(5, 0, scheme)


def test_a_list_without_folds() -> None:
    with pytest.raises(ValueError, match=r"^dataset\.fold_scheme=\[\]: list the novel class ids of each fold"):
        fold_classes(5, 0, [])


def test_given_folds() -> None:
    folds = [[3, 1], [2, 5]]
    assert fold_classes(5, 0, folds) == ((1, 3), (2, 4, 5))
    assert fold_classes(5, 1, folds) == ((2, 5), (1, 3, 4))
    with pytest.raises(ValueError, match="fold=2: there are 2 folds, 0 to 1"):
        fold_classes(5, 2, folds)
    with pytest.raises(ValueError, match=r"fold 0 lists \[0, 6\], but class ids are 1 to 5"):
        fold_classes(5, 0, [[0, 1, 6]])
    assert fold_classes(2, 0, [[1, 2]]) == ((1, 2), ())
    with pytest.raises(ValueError, match="fold 0 of 2 classes has no novel class"):
        fold_classes(2, 0, [[]])
