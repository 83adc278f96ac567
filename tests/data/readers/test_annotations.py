"""Annotation files as tools really write them: what could be misunderstood is named, with file and entry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fss.data.index import build_index
from fss.data.prepare.coco import prepare_coco
from fss.data.readers.annotations import read_annotations
from fss.data.readers.coco import Coco, open_coco
from fss.data.readers.folder import open_folder

H, W = 20, 30
Change = Callable[[dict[str, Any]], Any]


def content() -> dict[str, Any]:
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    return {
        "images": [{"id": i, "file_name": f"p{i}.png", "height": H, "width": W} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
        "annotations": [
            {"id": 10 * i + c, "image_id": i, "category_id": c, "segmentation": square}
            for i in (1, 2, 3)
            for c in (1, 2)
        ],
    }


def write(root: Path, told: dict[str, Any], pictures: str = "images", encoding: str = "utf-8") -> Path:
    (root / pictures).mkdir(parents=True, exist_ok=True)
    for i in (1, 2, 3):
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(root / pictures / f"p{i}.png")
    (root / "annotations.json").write_text(json.dumps(told, ensure_ascii=encoding == "utf-8"), encoding=encoding)
    return root


def changed(change: Change) -> dict[str, Any]:
    told = content()
    change(told)
    return told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # ids that nothing has, or of another type
        (
            lambda c: c["annotations"][2].update(image_id=99),
            r"1 annotations are of pictures .* not list: 21 \(picture 99\)",
        ),
        (
            lambda c: c["annotations"][2].update(image_id="2"),
            r"1 annotations are of pictures .*: 21 \(picture '2'\)",
        ),
        (lambda c: c["annotations"][2].update(image_id=2.0), r"21 \(picture 2\.0\)"),
        (lambda c: c["annotations"][2].update(image_id=None), r"21 \(picture None\)"),
        (lambda c: c["annotations"][2].update(image_id=True), r"21 \(picture True\)"),
        (
            lambda c: c["annotations"][2].update(category_id="1"),
            r"annotation 21 has category '1', which is not listed",
        ),
        (lambda c: c["annotations"][2].update(category_id=1.0), r"annotation 21 has category 1\.0"),
        (lambda c: c["annotations"][2].update(category_id=[1]), r"annotation 21 has category \[1\]"),
        (lambda c: c["annotations"][2].update(iscrowd="0"), r"annotation 21 has iscrowd='0', must be 0 or 1"),
        (lambda c: c["images"][1].update(id="2"), r"picture at place 1 of images has the id '2'"),
        (lambda c: c["images"][1].update(id=2.0), r"picture at place 1 of images has the id 2\.0"),
        (lambda c: c["images"][1].pop("id"), r"picture at place 1 of images has the id None"),
        # sizes
        (
            lambda c: c["images"][1].update(height="20"),
            r"picture 2 has height='20', must be a whole number of pixels",
        ),
        (lambda c: c["images"][1].update(height=20.0), r"picture 2 has height=20\.0"),
        (lambda c: c["images"][1].update(width=None), r"picture 2 has width=None"),
        (lambda c: c["images"][1].update(width=0), r"picture 2 has width=0"),
        (
            lambda c: c["images"][1].update(width=10**9),
            r"picture 2 has 1000000000 x 20 pixels, more than dataset\.max",
        ),
        # names
        (lambda c: c["images"][1].update(file_name=7), r"picture 2 has the file_name 7"),
        (lambda c: c["images"][1].update(file_name=""), r"picture 2 has the file_name ''"),
        (lambda c: c["images"][1].update(file_name="/x/v.jpg"), r"picture 2 has the file_name '/x/v\.jpg'"),
        (lambda c: c["images"][1].update(file_name="../v.jpg"), r"picture 2 has the file_name '\.\./v\.jpg'"),
        (lambda c: c["images"][1].update(file_name="a/../../v.jpg"), r"picture 2 has the file_name"),
        (lambda c: c["images"][1].update(file_name="..\\v.jpg"), r"picture 2 has the file_name"),
        (lambda c: c["images"][1].update(file_name="C:\\v.jpg"), r"picture 2 has the file_name"),
        (lambda c: c["images"][1].update(file_name="v\0.jpg"), r"picture 2 has the file_name"),
        (lambda c: c["images"][1].update(file_name="\ud800.jpg"), r"picture 2 has the file_name"),
        (lambda c: c["images"][1].update(file_name="v" * 300), r"picture 2 has the file_name 'vvv"),
        (lambda c: c["categories"][0].update(name=7), r"category 1 has the name 7"),
        (lambda c: c["categories"][0].update(name=" "), r"category 1 has the name ' '"),
        (lambda c: c["categories"][0].update(name="a\x1b[31m"), r"category 1 has the name 'a\\x1b\[31m'"),
        # two of one name, one file twice
        (lambda c: c["categories"][1].update(name="ant"), r"categories 1 and 2 are both called 'ant': rename one"),
        (
            lambda c: c["categories"][1].update(name="ant "),
            r"categories 1 and 2 are both called 'ant': rename one",
        ),
        (lambda c: c["images"][1].update(file_name="p1.png"), r"pictures 1 and 2 are one file, p1\.png"),
        # background as a class
        (
            lambda c: c["categories"][0].update(name="background"),
            r"category 1 is called 'background' but has annot",
        ),
        # parts of wrong types
        (lambda c: c.update(images={}), r"is not a COCO annotation file: its images are no list; unpack"),
        (
            lambda c: c["images"].append("p4.png"),
            r"not a COCO annotation file: entry 3 of its images is 'p4\.png'",
        ),
    ],
)
def test_named(tmp_path: Path, change: Change, message: str) -> None:
    root = write(tmp_path, changed(change))
    with pytest.raises(ValueError, match=rf"annotations\.json.*{message}") as error:
        open_folder(str(root))
    assert len(str(error.value)) < 1000


def test_unused_root_is_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Roboflow writes it: category 0, which all others name as their supercategory."""

    def change(c: dict[str, Any]) -> None:
        for category in c["categories"]:
            category["supercategory"] = "insects"
        c["categories"].insert(0, {"id": 0, "name": "insects", "supercategory": "none"})

    reader = open_folder(str(write(tmp_path, changed(change))))
    assert reader.classes == ("ant", "bee")
    assert "category 0, 'insects', is a root that no object has and no class" in caplog.text


def test_unused_background_is_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = changed(lambda c: c["categories"].insert(0, {"id": 0, "name": "_background_"}))
    assert open_folder(str(write(tmp_path, told))).classes == ("ant", "bee")
    assert "is background and no class" in caplog.text


def test_unused_category_is_a_class(tmp_path: Path) -> None:
    """It keeps its place, so that a part of a data set has the ids of the whole."""
    told = changed(lambda c: c["categories"].insert(0, {"id": 0, "name": "wasp", "supercategory": "insect"}))
    assert open_folder(str(write(tmp_path, told))).classes == ("wasp", "ant", "bee")


def test_objects_that_leave_no_pixel_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny = [[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]
    told = changed(lambda c: c["annotations"][3].update(segmentation=tiny))
    build_index(open_folder(str(write(tmp_path, told))))
    # the others' ant lies under the bee
    assert "3 of 3 pictures: p1.png: annotation 11; p2.png: annotation 22; p3.png: annotation 31" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    told = changed(lambda c: c["categories"][0].update(name="fourmi noiré"))
    assert open_folder(str(write(tmp_path, told, encoding=encoding))).classes == ("fourmi noiré", "bee")


def test_other_encoding_is_named_in_a_short_message(tmp_path: Path) -> None:
    told = changed(lambda c: c["categories"][0].update(name="noiré"))
    told["info"] = "x" * 3_000_000
    with pytest.raises(
        ValueError, match=r"annotations\.json is not text in UTF-8 \(byte 0xe9 .*cp1252.*UTF-8"
    ) as error:
        open_folder(str(write(tmp_path, told, encoding="cp1252")))
    assert len(str(error.value)) < 1000


def test_nothing_is_written_outside_by_prepare(tmp_path: Path) -> None:
    root = tmp_path / "root"
    told = changed(lambda c: c["images"][0].update(file_name=f"{tmp_path}/v.jpg"))
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/instances_train2014.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"instances_train2014\.json: picture 1 has the file_name"):
        prepare_coco(root, root, "train", 2014, "include", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_list_of_prepared_masks_cannot_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir(parents=True)
    write(tmp_path, content(), "train2014")
    os.replace(tmp_path / "annotations.json", tmp_path / "annotations/instances_train2014.json")
    prepare_coco(tmp_path, tmp_path, "train", 2014, "include", 1)
    path = tmp_path / "masks/train2014-include/contents.json"
    told = json.loads(path.read_text())
    told["pictures"][0] = "../../../etc/passwd"
    path.write_text(json.dumps(told))
    assert [Path(Coco(str(tmp_path), "train").name(i)).name for i in range(3)] == ["p1.png", "p2.png", "p3.png"]


def test_classes_of_image_sets_are_matched_by_name(tmp_path: Path) -> None:
    def split(name: str, categories: list[dict[str, Any]]) -> None:
        told = {**content(), "categories": categories}
        write(tmp_path, told, f"{name}2014")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        os.replace(tmp_path / "annotations.json", tmp_path / f"annotations/instances_{name}2014.json")

    split("train", [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}])
    split("val", [{"id": 1, "name": "bee"}, {"id": 2, "name": "ant"}])
    split("odd", [{"id": 1, "name": "bee"}, {"id": 2, "name": "wasp"}])
    reader = open_coco(str(tmp_path), "val", like="train")
    assert reader.classes == ("ant", "bee")
    # the second annotation, an ant in this file, lies over the bee
    assert set(np.unique(reader.mask(0))) == {0, 1}
    with pytest.raises(ValueError, match="odd2014 has classes that train2014 does not have: wasp"):
        open_coco(str(tmp_path), "odd", like="train")


def test_real_files(tmp_path: Path) -> None:
    path = Path(__file__).parents[4] / "shared/tinycoco/annotations/instances_train2017.json"
    if not path.is_file():
        pytest.skip("no tinycoco beside the checkout")
    told = read_annotations(path)
    assert len(told.categories) == 80
    assert sum(map(len, told.objects.values())) == 288
