"""Everything that is odd or wrong with people's data works, or is an error that names the file and the mend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import coco_tree, own_pictures, pascal_tree
from support.reading import use

from fss.data.readers.coco import Coco
from fss.data.readers.folder import Folder
from fss.data.readers.pascal import Pascal
from fss.data.readers.reader import Reader

H, W = own_pictures.H, own_pictures.W
P3 = own_pictures.stem(3)  # the picture that is changed
RGB = np.full((H, W, 3), (30, 50, 90), np.uint8)
Damage = Callable[[Path], None]


def own(root: Path) -> Reader:
    return Folder(str(root))


def coco(root: Path) -> Reader:
    return Coco(str(root), "train")


def pascal(root: Path) -> Reader:
    return Pascal(str(root), "train")


TREES: dict[Callable[[Path], Reader], Callable[[Path], Any]] = {
    own: own_pictures.write,
    coco: coco_tree.write,
    pascal: pascal_tree.write,
}


# What is odd but fine


def picture(mode: str, suffix: str = "jpg", **options: Any) -> Damage:
    def damage(root: Path) -> None:
        (root / f"images/{P3}.png").unlink()
        Image.fromarray(RGB).convert(mode).save(root / f"images/{P3}.{suffix}", **options)

    return damage


def sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((H, W), 9000, np.uint16)).save(root / f"images/{P3}.png")


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    (root / f"images/{P3}.png").unlink()
    Image.fromarray(RGB.transpose(1, 0, 2)).save(root / f"images/{P3}.jpg", exif=exif)


def renamed(name: str) -> Damage:
    def damage(root: Path) -> None:
        for folder in ("images", "masks"):
            (root / folder / f"{P3}.png").rename(root / folder / f"{name}.png")

    return damage


def class_without_pictures(root: Path) -> None:
    (root / "classes.txt").write_text("\n".join([*own_pictures.NAMES, "unicorn"]))


def class_of_one_picture(root: Path) -> None:
    class_without_pictures(root)
    mask = own_pictures.mask_of(3)
    mask[0, 0] = 6
    Image.fromarray(mask).save(root / f"masks/{P3}.png")


def only_ignored(root: Path) -> None:
    Image.fromarray(np.full((H, W), 255, np.uint8)).save(root / f"masks/{P3}.png")


def mask_of_sixteen_bits(root: Path) -> None:
    Image.fromarray(own_pictures.mask_of(3).astype(np.uint16)).save(root / f"masks/{P3}.png")


@pytest.mark.parametrize(
    "odd",
    [
        picture("CMYK"),
        picture("L"),
        picture("RGBA", "webp"),
        picture("P", "png"),
        picture("RGB", "jpeg", progressive=True),
        sixteen_bits,
        turned,
        renamed("with  spaces and #%&"),
        renamed("ünïcödé 図"),
        renamed("dots.in.it"),
        class_without_pictures,
        class_of_one_picture,
        mask_of_sixteen_bits,
    ],
)
def test_odd_but_fine(tmp_path: Path, odd: Damage) -> None:
    own_pictures.write(tmp_path)
    odd(tmp_path)
    assert use(own(tmp_path)) == {path.name for path in (tmp_path / "images").iterdir()}


def test_picture_without_an_object_is_no_query(tmp_path: Path) -> None:
    own_pictures.write(tmp_path)
    only_ignored(tmp_path)
    assert use(own(tmp_path)) == {path.name for path in (tmp_path / "images").iterdir()} - {f"{P3}.png"}


def test_classes_with_too_few_pictures_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_pictures.write(tmp_path)
    class_of_one_picture(tmp_path)
    use(own(tmp_path))
    assert "left out" in caplog.text
    assert "unicorn (1)" in caplog.text


# What is wrong


def cut(path: str, keep: float) -> Damage:
    def damage(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: int(keep * len(content))])

    return damage


def gone(path: str) -> Damage:
    def damage(root: Path) -> None:
        (root / path).unlink()

    return damage


def instead(path: str, values: np.ndarray) -> Damage:
    return lambda root: Image.fromarray(values).save(root / path)


def no_folder(path: str) -> Damage:
    def damage(root: Path) -> None:
        shutil.rmtree(root / path)
        (root / path).write_text("a file in its place")

    return damage


def edited(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(root: Path) -> None:
        path = root / FILE
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return damage


def listed_without_file(root: Path) -> None:
    path = root / "ImageSets/Segmentation/train-5i.txt"
    path.write_text(path.read_text() + "2012_999999\n")


FILE = "annotations/instances_train2014.json"
JSON = r"instances_train2014\.json"
VOC = pascal_tree.TRAIN[0]
COCO_PICTURE = f"train2014/{coco_tree.PICTURES[0]['file_name']}"


@pytest.mark.parametrize(
    ("reader", "damage", "message"),
    [
        (own, cut(f"images/{P3}.png", 0), rf"{P3}\.png cannot be read as a picture: get a new copy"),
        (own, cut(f"images/{P3}.png", 0.5), rf"{P3}\.png cannot be read as a picture: get a new copy"),
        (own, cut(f"masks/{P3}.png", 0.6), rf"{P3}\.png cannot be read as a mask .*: get a new copy"),
        (own, gone(f"masks/{P3}.png"), rf"{P3}\.png: has no mask .*: add it or remove the picture"),
        (
            own,
            instead(f"masks/{P3}.png", np.ones((H, W + 2), np.uint8)),
            rf"{P3}\.png: has 32 x 24 pixels, but its mask",
        ),
        (
            own,
            instead(f"masks/{P3}.png", RGB),
            rf"{P3}\.png is a colour picture \(RGB\): a mask needs",
        ),
        (
            own,
            instead(f"masks/{P3}.png", np.full((H, W), 9, np.uint8)),
            rf"{P3}\.png: its mask has class id 9,",
        ),
        (own, no_folder("images"), r"no pictures in .*images: put them there"),
        (own, no_folder("masks"), r"no masks in .*masks: add STEM\.png"),
        (
            pascal,
            cut(f"JPEGImages/{VOC}.jpg", 0.7),
            rf"{VOC}\.jpg cannot be read as a picture: get a new copy",
        ),
        (pascal, cut(f"JPEGImages/{VOC}.jpg", 0), rf"{VOC}\.jpg cannot be read as a picture: get a new copy"),
        (pascal, listed_without_file, r"1 of the 4 pictures .* the first is .*2012_999999\.jpg: run `python -m"),
        (pascal, no_folder("JPEGImages"), r"no JPEGImages/ in .*: run `python -m"),
        (pascal, no_folder("SegmentationClassAug"), r"3 of the 3 masks .* are missing, .*: run `python -m"),
        (coco, cut(COCO_PICTURE, 0.7), r"0300\.jpg cannot be read as a picture: get a new copy"),
        (coco, gone(COCO_PICTURE), r"1 of the 3 pictures .*0300\.jpg: unpack the picture archive completely"),
        (
            coco,
            cut("annotations/instances_train2014.json", 0.5),
            rf"{JSON} is not a COCO annotation file: .*again",
        ),
        (coco, edited(lambda c: c["images"][0].pop("file_name")), rf"{JSON}: picture 300 has no file_name"),
        (coco, edited(lambda c: c["annotations"][0].pop("category_id")), rf"{JSON}.*category_id"),
        (
            coco,
            edited(lambda c: c["annotations"][0].update(category_id=7)),
            rf"{JSON}: .* 1000 has category 7",
        ),
        (coco, edited(lambda c: c["images"][0].update(id=9)), rf"{JSON}: two of its images have the same id"),
        (
            coco,
            edited(lambda c: c["annotations"][0].update(id=999)),
            rf"{JSON}: two of its annotations have the same",
        ),
        (
            coco,
            edited(lambda c: c["images"][0].update(height=21)),
            r"0300\.jpg: has 30 x 20 pixels, but its mask",
        ),
    ],
)
def test_wrong_is_named(tmp_path: Path, reader: Callable[[Path], Reader], damage: Damage, message: str) -> None:
    TREES[reader](tmp_path)
    if reader is own:
        use(own(tmp_path))  # all is well before
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        use(reader(tmp_path))
