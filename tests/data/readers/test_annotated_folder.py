"""Own pictures with their objects in COCO's format, in place of masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import own_pictures
from support.coco_tree import polygon
from support.own_pictures import NAMES, H, W, check, stem
from support.reading import use

from fss.data.readers.folder import Folder, open_folder


def write_annotated(root: Path) -> Path:
    """The same pictures and objects in one file."""
    own_pictures.write(root, per_class=True)
    shutil.rmtree(root / "masks")
    (root / "classes.txt").unlink()
    boxes = [(4, 4, 14, 16), (10, 12, 20, 28)]  # top, left, bottom, right; the second over the first
    content = {
        "images": [{"id": i, "file_name": f"{stem(i)}.png", "height": H, "width": W} for i in range(15)],
        "categories": [{"id": 10 * c, "name": name} for c, name in enumerate(NAMES, start=1)],
        "annotations": [
            {"id": 2 * i + k, "image_id": i, "category_id": 10 * ((i + k) % 5 + 1), "segmentation": polygon(*box)}
            for i in range(15)
            for k, box in enumerate(boxes)
        ],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def test_annotations_in_place_of_masks(tmp_path: Path) -> None:
    root = write_annotated(tmp_path)
    reader = open_folder(str(root))
    check(reader)
    assert reader.classes == NAMES
    assert use(reader) == {f"{stem(i)}.png" for i in range(15)}


def test_either_masks_or_annotations(tmp_path: Path) -> None:
    assert isinstance(open_folder(str(own_pictures.write(tmp_path / "masks"))), Folder)
    (write_annotated(tmp_path / "both") / "masks").mkdir()
    with pytest.raises(ValueError, match=r"both annotations\.json and masks/: move away"):
        open_folder(str(tmp_path / "both"))


def test_picture_that_annotations_name_is_missing(tmp_path: Path) -> None:
    root = write_annotated(tmp_path)
    (root / f"images/{stem(4)}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of the 15 pictures of .*{stem(4)}\.png: put them into"):
        open_folder(str(root))
