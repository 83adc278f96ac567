"""What supports show of their object, and the controls that show something wrong on purpose."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from support.numbered import Corner, Numbered, data

from fss.data.draws import Draws, MakeDraws, OtherClass, Replayed, Shuffled
from fss.data.episodes import EpisodeDataset
from fss.data.index import Pool, build_index, build_pool
from fss.data.support_masks import SupportAnnotation, select, support_mask

LABELS = np.array([[0, 1, 1, 255], [2, 3, 3, 3], [0, 0, 2, 1]], np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("mask", [[0, 1, 1, 255], [0, 0, 0, 0], [0, 0, 0, 1]]),
        ("empty", [[0, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ("inverted", [[1, 0, 0, 255], [1, 1, 1, 1], [1, 1, 1, 0]]),
        ("other_class", [[0, 0, 0, 255], [0, 1, 1, 1], [0, 0, 0, 0]]),
    ],
)
def test_what_a_support_shows(annotation: SupportAnnotation, expected: list[list[int]], dtype: type) -> None:
    labels: np.ndarray = LABELS.astype(dtype)
    labels[LABELS == 255] = np.iinfo(dtype).max
    before = labels.copy()
    mask = support_mask(labels, 1, annotation)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(labels, before)


def numbered(shot: int = 2) -> tuple[Numbered, Pool]:
    reader = Numbered()
    return reader, build_pool(build_index(reader), (1, 2, 3, 4), shot, min_pixels=1)


@pytest.mark.parametrize("draws", [Shuffled, Replayed])
def test_supports_of_another_class(draws: MakeDraws) -> None:
    reader, pool = numbered()
    usual, wrong = draws(pool, 2), OtherClass(draws, pool, 2)
    seen: set[int] = set()
    for i in range(60):
        expected, drawn = (_draw(ways, i) for ways in (usual, wrong))
        assert drawn[:2] == expected[:2]  # the same question
        assert drawn == _draw(wrong, i)
        assert len(set(drawn.supports)) == 2
        for support in drawn.supports:
            labels = reader.mask(support)
            assert not (labels == drawn.class_id).any()
            shown = support_mask(labels, drawn.class_id, "other_class")
            assert (shown == 1).any()
            assert any(np.array_equal(shown, select(labels, c)) for c in pool.classes_of[support])
            seen.add(support)
    assert len(seen) > 4


def _draw(ways: Draws, i: int) -> Any:
    return ways.draw(3, i, np.random.default_rng([3, i]))


def test_without_another_class() -> None:
    reader = Numbered()
    pool = build_pool(build_index(reader), (1,), 1, min_pixels=1)
    with pytest.raises(ValueError, match=r"support_annotation=other_class: only 0 pictures show another class"):
        OtherClass(Shuffled, pool, 1)


@pytest.mark.parametrize("annotation", get_args(SupportAnnotation))
def test_the_question_stays(annotation: SupportAnnotation) -> None:
    reader, pool = numbered()
    draws = partial(OtherClass, Shuffled) if annotation == "other_class" else Shuffled
    made = [
        EpisodeDataset(reader, pool, 2, 7, Corner(), True, support_annotation=kind, draws=ways)
        for kind, ways in ((annotation, draws), ("mask", Shuffled))
    ]
    for i in range(8):
        ours, usual = (episodes[i] for episodes in made)
        assert torch.equal(ours.query, usual.query)
        assert torch.equal(ours.query_mask, usual.query_mask)
        assert ours.class_id == usual.class_id
        assert (annotation == "other_class") == (ours.names[1:] != usual.names[1:])


def test_evaluation_alone_has_supports_of_another_class() -> None:
    usual, wrong = data(eval_classes="base"), data(eval_classes="base", support_annotation="other_class")
    for module in (usual, wrong):
        module.setup("test")
    assert wrong.evaluation.draw(0)[:2] == usual.evaluation.draw(0)[:2]
    assert wrong.evaluation.draw(0) != usual.evaluation.draw(0)
    with pytest.raises(ValueError, match=r"other_class: for evaluate\.py alone"):
        wrong.setup("fit")
    with pytest.raises(ValueError, match="other_class has no meaning with setting=several"):
        data(support_annotation="other_class", setting="several")
