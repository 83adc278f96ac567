"""COCO read from tiny trees with the real names and all the forms that annotations come in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from support.coco_tree import PICTURES, H, W, annotation, compressed, polygon, runs, write

from fss.data.index import build_index
from fss.data.readers.coco import Coco

# What is read


def test_classes_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    assert Coco(str(write(tmp_path)), "train").classes == ("person", "car", "toothbrush")


def test_pictures_with_an_object_are_listed_in_the_order_of_their_ids(tmp_path: Path) -> None:
    reader = Coco(str(write(tmp_path)), "train")
    assert len(reader) == 3
    names = [Path(reader.name(i)) for i in range(3)]
    assert [name.name for name in names] == [PICTURES[i]["file_name"] for i in (1, 3, 0)]
    assert all(name.is_file() for name in names)


def test_images_are_rgb(tmp_path: Path) -> None:
    reader = Coco(str(write(tmp_path)), "train")
    for index, number in enumerate((1, 3, 0)):
        image = reader.image(index)
        assert image.shape == (H, W, 3)
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - (200 - 40 * number, 100, 10)).max() <= 4  # JPEG


def masks(reader: Coco) -> list[np.ndarray]:
    found = [reader.mask(i) for i in range(len(reader))]
    assert all(mask.dtype == np.uint8 for mask in found)
    return found


@pytest.mark.parametrize(("crowd", "label"), [("include", 2), ("ignore", 255)])
def test_masks(tmp_path: Path, crowd: Literal["include", "ignore"], label: int) -> None:
    reader = Coco(str(write(tmp_path)), "train", crowd=crowd)

    expected = [np.zeros((H, W), np.uint8) for _ in range(3)]
    expected[0][0:5, 0:7] = 3
    expected[0][10:20, 20:30] = label
    expected[0][15:20, 25:30] = 1
    expected[1][0:4, 0:4] = 3
    expected[1][10:14, 10:18] = 3
    expected[2][2:12, 3:15] = 2
    expected[2][8:18, 10:28] = 1
    for mask, right in zip(masks(reader), expected, strict=True):
        np.testing.assert_array_equal(mask, right)


def test_crowd_is_of_its_class_unless_told(tmp_path: Path) -> None:
    reader = Coco(str(write(tmp_path)), "train")
    assert (reader.mask(0) == 2).sum() == 75
    assert not (reader.mask(0) == 255).any()


@pytest.mark.parametrize("reverse", [False, True])
def test_later_annotation_wins(tmp_path: Path, reverse: bool) -> None:
    pair = [annotation(300, 3, polygon(2, 3, 12, 15)), annotation(300, 1, polygon(8, 10, 18, 28))]
    write(tmp_path, annotations=pair[::-1] if reverse else pair)
    assert Coco(str(tmp_path), "train").mask(0)[10, 12] == (2 if reverse else 1)


@pytest.mark.parametrize("form", [runs, compressed])
def test_run_lengths_of_any_region(tmp_path: Path, form: Any) -> None:
    region = (np.random.default_rng(0).random((H, W)) < 0.4).astype(np.uint8)
    region[:3, 0] = 1  # begins with the object
    write(tmp_path, annotations=[annotation(300, 3, form(region))])
    np.testing.assert_array_equal(Coco(str(tmp_path), "train").mask(0), 2 * region)


def test_index_of_coco(tmp_path: Path) -> None:
    index = build_index(Coco(str(write(tmp_path)), "train"))
    rows = list(zip(index.image.tolist(), index.class_id.tolist(), index.pixels.tolist(), strict=True))
    overlap = 4 * 5
    assert rows == [(0, 1, 25), (0, 2, 75), (0, 3, 35), (1, 3, 48), (2, 1, 180), (2, 2, 120 - overlap)]


@pytest.mark.parametrize("year", [2014, 2017])
@pytest.mark.parametrize("image_set", ["train", "val"])
@pytest.mark.parametrize("folder", ["{}", "images/{}"])
def test_years_image_sets_and_folders(tmp_path: Path, year: int, image_set: str, folder: str) -> None:
    write(tmp_path, f"{image_set}{year}", folder)
    reader = Coco(str(tmp_path), image_set, year)
    assert len(reader) == 3
    assert Path(reader.name(0)).parent == tmp_path / folder.format(f"{image_set}{year}")
    assert reader.image(0).shape == (H, W, 3)


def test_2014_unless_told(tmp_path: Path) -> None:
    write(tmp_path / "a", "val2014")
    write(tmp_path / "b", "val2017")
    assert len(Coco(str(tmp_path / "a"), "val")) == 3
    with pytest.raises(FileNotFoundError, match=r"instances_val2014\.json"):
        Coco(str(tmp_path / "b"), "val")


def test_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Coco(str(write(tmp_path)), "train")
    assert capsys.readouterr() == ("", "")


# What is wrong with the files


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"no folder {re.escape(str(tmp_path))}/nowhere: set dataset\.root"
    ):
        Coco(str(tmp_path / "nowhere"), "train")


def test_no_annotation_file(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no .*annotations/instances_train2017\.json: .*dataset\.year"):
        Coco(str(tmp_path), "train", 2017)
    with pytest.raises(FileNotFoundError, match=r"no .*annotations/instances_val2014\.json: .*dataset\.eval_set"):
        Coco(str(tmp_path), "val")


def test_no_picture_folder(tmp_path: Path) -> None:
    write(tmp_path, folder="elsewhere")
    root = re.escape(str(tmp_path))
    message = rf"no pictures of train2014: neither {root}/train2014 nor {root}/images/train2014 contains any"
    with pytest.raises(FileNotFoundError, match=message):
        Coco(str(tmp_path), "train")


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    for i in (0, 2, 3):  # 2 holds no object and is not missed
        (tmp_path / "train2014" / PICTURES[i]["file_name"]).unlink()
    message = (
        r"2 of the 3 pictures of .*instances_train2014\.json are not in .*train2014, the first is a name with"
    )
    with pytest.raises(FileNotFoundError, match=message):
        Coco(str(tmp_path), "train")


def test_picture_without_an_object_need_not_be_there(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train2014" / PICTURES[2]["file_name"]).unlink()
    assert len(Coco(str(tmp_path), "train")) == 3


@pytest.mark.parametrize("content", [b"", b'{"images": [{"id"', b"\xff\xfe\x00", b"[]", b'{"annotations": [1]}'])
def test_broken_annotation_file(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    (tmp_path / "annotations" / "instances_train2014.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"instances_train2014\.json is not a COCO annotation file: .*unpack it again"
    ):
        Coco(str(tmp_path), "train")


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_annotation_file_without_a_part(tmp_path: Path, part: str) -> None:
    write(tmp_path, replaced={part: None})
    with pytest.raises(ValueError, match=rf"instances_train2014\.json has no {part}: .*instances_\*\.json"):
        Coco(str(tmp_path), "train")


def test_captions_instead_of_instances(tmp_path: Path) -> None:
    captions = [{"id": 1, "image_id": 300, "caption": "a car"}]
    write(tmp_path, annotations=captions, replaced={"categories": None})
    with pytest.raises(ValueError, match=r"has no categories: use the instance annotations"):
        Coco(str(tmp_path), "train")


def test_no_picture_with_an_annotation(tmp_path: Path) -> None:
    write(tmp_path, annotations=[])
    with pytest.raises(ValueError, match=r"instances_train2014\.json lists no picture with an annotation"):
        Coco(str(tmp_path), "train")


def test_number_of_categories(tmp_path: Path) -> None:
    n = 255
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, n + 1)]
    write(tmp_path, annotations=[annotation(300, 1, polygon(0, 0, 4, 4))], replaced={"categories": categories})
    with pytest.raises(ValueError, match=rf"has {n} categories, must be 1 to 254"):
        Coco(str(tmp_path), "train")


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_unreadable_picture_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    path = tmp_path / "train2014" / PICTURES[3]["file_name"]
    path.write_bytes(content)
    reader = Coco(str(tmp_path), "train")
    assert reader.image(0).any()
    with pytest.raises(ValueError, match=r"a name with spaces\.jpg cannot be read as a picture"):
        reader.image(1)


@pytest.mark.parametrize("crowd", ["drop", "", None, True])
def test_bad_crowd(tmp_path: Path, crowd: Any) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=rf"dataset\.crowd={crowd!r}: must be 'include' or 'ignore'"):
        Coco(str(tmp_path), "train", crowd=crowd)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"category_id": 55}, r"annotation 1000 has category 55, which is not listed"),
        ({"segmentation": []}, r"annotation 1000 of .* is damaged"),
        ({"segmentation": [[1.0, 2.0]]}, r"annotation 1000 of .* is damaged"),
        ({"segmentation": None}, r"annotation 1000 of .* is damaged"),
    ],
)
def test_damaged_annotation_is_named(damage: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, annotations=[{**annotation(300, 1, polygon(0, 0, 4, 4)), **damage}])
    with pytest.raises(ValueError, match=rf"instances_train2014\.json: {message}"):
        Coco(str(tmp_path), "train").mask(0)


@pytest.mark.parametrize(
    ("entry", "key"),
    [("images", "file_name"), ("images", "height"), ("categories", "name"), ("annotations", "segmentation")],
)
def test_missing_key_is_named(entry: str, key: str, tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    content[entry][0].pop(key)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"instances_train2014\.json: .* has no {key}"):
        Coco(str(tmp_path), "train")
