"""What the scan of the masks counts, and which pictures episodes are then made of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from fss.data.index import Index, build_index, build_pool


@dataclass
class Masks:
    """A reader of masks that stand in memory."""

    masks: Sequence[np.ndarray]
    classes: tuple[str, ...] = ("ant", "bee", "cat")

    def __len__(self) -> int:
        return len(self.masks)

    def name(self, index: int) -> str:
        return f"pictures/{index}.png"

    def image(self, index: int) -> np.ndarray:
        raise AssertionError("masks alone are scanned, pictures are slow to decode")

    def mask(self, index: int) -> np.ndarray:
        return self.masks[index]


def mask(**pixels: int) -> np.ndarray:
    """A mask with so many pixels of each class, scattered: mask(c1=4, c255=2); what is left is background."""
    labels = np.repeat([int(name[1:]) for name in pixels], list(pixels.values())).astype(np.uint8)
    flat = np.zeros(12 * 15, np.uint8)
    flat[: len(labels)] = labels
    return np.random.default_rng(0).permutation(flat).reshape(12, 15)


def rows(index: Index) -> list[tuple[int, int, int]]:
    return list(zip(index.image.tolist(), index.class_id.tolist(), index.pixels.tolist(), strict=True))


def table(*lines: tuple[int, int, int]) -> Index:
    """An index of (picture, class, pixels)."""
    image, class_id, pixels = np.array(lines).T
    return Index(image, class_id, pixels)


# Index


def test_index_counts_the_pixels_of_each_class() -> None:
    reader = Masks([mask(c1=4, c3=9), mask(c2=180), mask(c1=1)])
    assert rows(build_index(reader)) == [(0, 1, 4), (0, 3, 9), (1, 2, 180), (2, 1, 1)]


def test_index_has_no_row_for_background_and_ignored_pixels() -> None:
    reader = Masks([mask(), mask(c255=180), mask(c255=50, c2=3)])
    assert rows(build_index(reader)) == [(2, 2, 3)]


def test_index_of_the_highest_class_there_can_be() -> None:
    reader = Masks([mask(c254=7, c255=1)], classes=tuple(f"class {c}" for c in range(1, 255)))
    assert rows(build_index(reader)) == [(0, 254, 7)]


def test_index_takes_masks_of_different_sizes() -> None:
    reader = Masks([np.ones((3, 5), np.uint8), np.full((7, 2), 2, np.uint8)])
    assert rows(build_index(reader)) == [(0, 1, 15), (1, 2, 14)]


@pytest.mark.parametrize("unknown", [4, 254])
def test_unknown_class_names_the_picture(unknown: int) -> None:
    reader = Masks([mask(c1=4), mask(**{"c3": 4, f"c{unknown}": 1})])
    with pytest.raises(ValueError, match=rf"pictures/1\.png: its mask has class id {unknown}, .* 3 classes"):
        build_index(reader)


def test_empty_reader() -> None:
    index = build_index(Masks([]))
    assert rows(index) == []
    with pytest.raises(ValueError, match=r"class 1 \(0\), class 2 \(0\)"):
        build_pool(index, [1, 2], shot=1, min_pixels=1)


# Pool


def test_pool_from_masks() -> None:
    reader = Masks([mask(c1=5, c2=5), mask(c1=5), mask(c3=9), mask(c2=5), mask()])
    pool = build_pool(build_index(reader), [2, 1], shot=1, min_pixels=5)
    assert pool.queries.tolist() == [0, 1, 3]
    assert pool.classes_of == {0: (1, 2), 1: (1,), 3: (2,)}
    assert {c: images.tolist() for c, images in pool.images_of.items()} == {1: [0, 1], 2: [0, 3]}
    assert pool.left_out == ()


def test_present_from_min_pixels_on() -> None:
    index = table((0, 1, 100), (1, 1, 99), (2, 1, 101))
    assert build_pool(index, [1], 1, min_pixels=100).queries.tolist() == [0, 2]
    assert build_pool(index, [1], 1, min_pixels=99).queries.tolist() == [0, 1, 2]


def test_pixels_of_two_classes_do_not_add_up() -> None:
    index = table((0, 1, 60), (0, 2, 60), (1, 1, 100), (2, 1, 100))
    assert build_pool(index, [1, 2], 1, min_pixels=100).queries.tolist() == [1, 2]


@pytest.mark.parametrize("pixels", [1, 5000])
def test_any_pixel_of_an_excluded_class_drops_the_picture(pixels: int) -> None:
    index = table((0, 1, 3000), (0, 2, pixels), (1, 1, 3000), (2, 1, 3000))
    assert build_pool(index, [1], 1, 2048, exclude=[2]).queries.tolist() == [1, 2]
    assert build_pool(index, [1], 1, 2048).queries.tolist() == [0, 1, 2]
    assert build_pool(index, [1], 1, 2048, exclude=[3]).queries.tolist() == [0, 1, 2]


def test_excluded_pictures_are_no_supports_of_any_class() -> None:
    index = table(
        (0, 1, 9), (0, 3, 1), (1, 1, 9), (1, 2, 9), (2, 1, 9), (2, 2, 9), (2, 3, 9), (3, 1, 9), (3, 2, 9)
    )
    pool = build_pool(index, [1, 2], 1, 9, exclude=iter([3]))
    assert {c: images.tolist() for c, images in pool.images_of.items()} == {1: [1, 3], 2: [1, 3]}


@pytest.mark.parametrize("shot", [1, 5])
def test_class_needs_one_picture_more_than_supports(shot: int, caplog: pytest.LogCaptureFixture) -> None:
    enough = [(i, 1, 50) for i in range(shot + 1)]
    scarce = [(i, 2, 50) for i in range(1, shot + 1)]  # one too few
    alone = [(20 + i, 3, 50) for i in range(shot)]
    index = table(*sorted(enough + scarce + alone))
    with caplog.at_level(logging.WARNING, logger="fss.data.index"):
        pool = build_pool(index, [1, 2, 3], shot, min_pixels=50, names={1: "ant", 2: "bee"})
    assert pool.left_out == (2, 3)
    assert set(pool.images_of) == {1}
    assert pool.queries.tolist() == list(range(shot + 1))  # no query that could be of a left-out class alone
    assert set(pool.classes_of.values()) == {(1,)}
    [message] = [record.getMessage() for record in caplog.records]
    assert f"fewer than {shot + 1} pictures with at least 50 pixels" in message
    assert f"bee ({shot})" in message
    assert f"class 3 ({shot})" in message
    assert "ant" not in message


def test_no_warning_when_every_class_has_enough(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="fss.data.index"):
        build_pool(table((0, 1, 50), (1, 1, 50)), [1], 1, 50)
    assert not caplog.records


def test_no_class_with_enough_pictures_tells_the_counts_and_the_mend() -> None:
    index = table((0, 1, 50), (0, 2, 9), (1, 1, 50), (2, 2, 50), (3, 3, 50), (4, 3, 50), (5, 3, 50))
    names = {1: "ant", 2: "bee", 3: "cat"}
    with pytest.raises(ValueError, match="no class has the 3 pictures with at least 10 pixels") as error:
        build_pool(index, [1, 2], shot=2, min_pixels=10, names=names)
    for part in ("2-shot", "ant (2), bee (1)", "Reduce shot or dataset.min_pixels"):
        assert part in str(error.value)
    assert "cat" not in str(error.value)  # not asked for
