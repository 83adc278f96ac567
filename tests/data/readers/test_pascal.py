"""PASCAL-5i read from tiny trees with the real names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pascal_tree import TRAIN, VAL, mask_of, write

from fss.data.index import build_index
from fss.data.readers.pascal import Pascal


@pytest.mark.parametrize("below", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_root_is_the_folder_or_holds_it(tmp_path: Path, below: str) -> None:
    write(tmp_path / below)
    reader = Pascal(str(tmp_path), "val")
    assert [reader.name(i) for i in range(2)] == [str(tmp_path / below / f"JPEGImages/{s}.jpg") for s in VAL]


@pytest.mark.parametrize(("image_set", "stems", "first"), [("train", TRAIN, 0), ("val", VAL, 3)])
def test_pictures_and_masks_of_the_list(tmp_path: Path, image_set: Any, stems: list[str], first: int) -> None:
    reader = Pascal(str(write(tmp_path, palette=[TRAIN[1], VAL[0]])), image_set)
    assert len(reader) == len(stems)
    for i, stem in enumerate(stems):
        assert np.abs(reader.image(i).astype(int) - (40 * (first + i), 10, 200)).max() <= 4
        np.testing.assert_array_equal(reader.mask(i), mask_of(stem))


def test_classes() -> None:
    assert len(set(Pascal.classes)) == 20
    assert [Pascal.classes[c - 1] for c in (1, 5, 11, 15, 20)] == [
        "aeroplane",
        "bottle",
        "diningtable",
        "person",
        "tvmonitor",
    ]
    assert list(Pascal.classes) == sorted(Pascal.classes)


def test_index_of_pascal(tmp_path: Path) -> None:
    index = build_index(Pascal(str(write(tmp_path)), "val"))
    rows = list(zip(index.image.tolist(), index.class_id.tolist(), index.pixels.tolist(), strict=True))
    assert rows == [(0, 1, 128), (0, 14, 36), (1, 2, 36), (1, 9, 128)]


MEND = "run `python -m fss.data.prepare pascal5i --root {}`"


def test_nothing_prepared(tmp_path: Path) -> None:
    mend = re.escape(MEND.format(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: set dataset\.root"):
        Pascal(str(tmp_path / "nowhere"), "train")
    with pytest.raises(FileNotFoundError, match=rf"no JPEGImages/ in .*: {mend}"):
        Pascal(str(tmp_path), "train")
    write(tmp_path)
    (tmp_path / "ImageSets/Segmentation/train-5i.txt").unlink()
    with pytest.raises(FileNotFoundError, match=rf"no .*train-5i\.txt: {mend}"):
        Pascal(str(tmp_path), "train")
    assert len(Pascal(str(tmp_path), "val")) == 2


@pytest.mark.parametrize(
    ("folder", "suffix", "what"), [("JPEGImages", "jpg", "pictures"), ("SegmentationClassAug", "png", "masks")]
)
def test_missing_files_are_counted_and_the_first_is_named(
    tmp_path: Path, folder: str, suffix: str, what: str
) -> None:
    write(tmp_path)
    for stem in TRAIN[1:]:
        (tmp_path / folder / f"{stem}.{suffix}").unlink()
    message = (
        rf"2 of the 3 {what} of .*train-5i\.txt are missing, the first is .*{TRAIN[1]}\.{suffix}: run `python"
    )
    with pytest.raises(FileNotFoundError, match=message):
        Pascal(str(tmp_path), "train")


def test_empty_list(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ImageSets/Segmentation/train-5i.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"train-5i\.txt lists no picture: delete it; run"):
        Pascal(str(tmp_path), "train")


@pytest.mark.parametrize("image_set", ["trainval", "", None])
def test_bad_image_set(tmp_path: Path, image_set: Any) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=rf"image_set={image_set!r} of PASCAL-5i: must be 'train' or 'val'"):
        Pascal(str(tmp_path), image_set)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    for file in (f"JPEGImages/{VAL[0]}.jpg", f"SegmentationClassAug/{VAL[0]}.png"):
        path = tmp_path / file
        path.write_bytes(path.read_bytes()[:60])
    reader = Pascal(str(tmp_path), "val")
    with pytest.raises(ValueError, match=rf"{VAL[0]}\.jpg cannot be read as a picture"):
        reader.image(0)
    with pytest.raises(ValueError, match=rf"{VAL[0]}\.png cannot be read as a mask"):
        reader.mask(0)
    assert reader.image(1).any()
