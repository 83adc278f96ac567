"""Own pictures: both kinds of masks, and everything that people's folders have wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.own_pictures import NAMES, H, W, check, mask_of, stem, write

from fss.data.datamodule import FewShotDataModule
from fss.data.index import build_index
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.folder import Folder
from fss.data.transforms import TrainingTransform


@pytest.mark.parametrize("palette", [False, True])
def test_masks_of_class_ids(tmp_path: Path, palette: bool) -> None:
    reader = Folder(str(write(tmp_path, palette=palette)))
    assert reader.classes == NAMES
    check(reader)


@pytest.mark.parametrize("classes", [False, True])
def test_a_folder_of_masks_for_each_class(tmp_path: Path, classes: bool) -> None:
    reader = Folder(str(write(tmp_path, per_class=True, classes=classes)))
    assert reader.classes == NAMES
    check(reader)


def test_order_of_the_list_decides_ids_and_overlaps(tmp_path: Path) -> None:
    write(tmp_path, n=1, per_class=True)
    (tmp_path / "classes.txt").write_text(
        "\ufeffnobody\r\nbee\r\nant\r\n", encoding="utf-8"
    )  # as Windows writes it
    full = Image.fromarray(np.ones((H, W), np.uint8))
    full.save(tmp_path / "masks/bee" / f"{stem(0)}.png")
    reader = Folder(str(tmp_path))
    assert reader.classes == ("nobody", "bee", "ant")
    np.testing.assert_array_equal(reader.mask(0), np.where(mask_of(0) == 1, 3, 2))


def test_classes_are_counted_where_they_are_not_named(tmp_path: Path) -> None:
    reader = Folder(str(write(tmp_path, classes=False)))
    assert reader.classes == ("class 1", "class 2", "class 3", "class 4", "class 5")
    check(reader)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".webp", ".bmp", ".tif"])
def test_kinds_of_pictures(tmp_path: Path, suffix: str) -> None:
    write(tmp_path)
    (tmp_path / f"images/{stem(3)}.png").unlink()
    Image.fromarray(np.full((H, W), 30, np.uint8)).save(tmp_path / f"images/{stem(3)}{suffix}")
    (tmp_path / "images/notes.txt").write_text("no picture")
    reader = Folder(str(tmp_path))
    assert len(reader) == 15
    assert Path(reader.name(3)).suffix == suffix
    assert np.abs(reader.image(3).astype(int) - 30).max() <= 1


@pytest.mark.parametrize("per_class", [False, True])
def test_episodes(tmp_path: Path, per_class: bool) -> None:
    write(tmp_path, per_class=per_class)
    datamodule = FewShotDataModule(
        train_reader=lambda: Folder(str(tmp_path)),
        eval_reader=lambda: Folder(str(tmp_path)),
        train_transform=TrainingTransform(16, (0.9, 1.1)),
        eval_transform=EvaluationTransform(16),
        fold=0,
        fold_scheme="uneven",
        shot=1,
        seed=0,
        batch_size=2,
        val_episodes=6,
        test_episodes=6,
        min_pixels=1,
        exclude_novel=False,
        num_workers=0,
    )
    datamodule.setup("fit")
    assert set(datamodule.evaluated_classes(6).values()) <= {"ant", "elk"}
    for episode in (datamodule.evaluation[number] for number in range(6)):
        i = int(Path(episode.names[0]).stem.split()[1])
        own = mask_of(i) == int(episode.class_id)
        assert own.any()
        np.testing.assert_array_equal(np.asarray(episode.label), own)
    assert isinstance(next(iter(datamodule.train_dataloader())).query, torch.Tensor)


# What is wrong


def test_problems_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path)
    images, masks = tmp_path / "images", tmp_path / "masks"
    (masks / f"{stem(0)}.png").unlink()
    Image.fromarray(np.ones((H, W + 1), np.uint8)).save(masks / f"{stem(2)}.png")
    (masks / f"{stem(4)}.png").write_bytes((masks / f"{stem(4)}.png").read_bytes()[:40])
    Image.fromarray(np.full((H, W), 6, np.uint8)).save(masks / f"{stem(6)}.png")
    (images / f"{stem(8)}.png").write_bytes(b"")
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(masks / f"{stem(10)}.png")
    reader = Folder(str(tmp_path))
    with pytest.raises(ValueError, match="6 of 15 pictures cannot be used") as error:
        build_index(reader)
    lines = str(error.value).splitlines()[1:]
    for line, i, what in zip(
        lines,
        (0, 2, 4, 6, 8, 10),
        (
            "has no mask",
            "has 32 x 24 pixels, but its mask 33 x 24",
            "cannot be read as a mask",
            "has class id 6, but there are 5 classes",
            "cannot be read as a picture",
            "is a colour picture",
        ),
        strict=True,
    ):
        assert stem(i) in line
        assert what in line


def test_problems_of_folders_of_classes(tmp_path: Path) -> None:
    write(tmp_path, per_class=True)
    for name in NAMES:
        (tmp_path / "masks" / name / f"{stem(0)}.png").unlink(missing_ok=True)
    Image.fromarray(np.arange(H * W, dtype=np.uint8).reshape(H, W)).save(tmp_path / f"masks/bee/{stem(1)}.png")
    Image.fromarray(np.ones((H, W + 1), np.uint8)).save(tmp_path / f"masks/cat/{stem(2)}.png")
    with pytest.raises(ValueError, match="3 of 15 pictures cannot be used") as error:
        build_index(Folder(str(tmp_path)))
    lines = str(error.value).splitlines()[1:]
    assert f"{stem(0)}.png: has no mask" in lines[0]
    assert f"bee/{stem(1)}.png: contains the values 0, 1, 2, 3, 4 ...; a mask in a class's folder" in lines[1]
    assert f"dog/{stem(2)}.png: differs in size from" in lines[2]


def without_root(root: Path) -> None:
    for folder in ("images", "masks"):
        for path in (root / folder).iterdir():
            path.unlink()
        (root / folder).rmdir()
    (root / "classes.txt").unlink()
    root.rmdir()


def without_pictures(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.rename(path.with_suffix(".txt"))


def without_masks(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()


def twins(root: Path) -> None:
    Image.fromarray(np.zeros((H, W), np.uint8)).save(root / f"images/{stem(3)}.jpg")


def class_twice(root: Path) -> None:
    (root / "classes.txt").write_text("ant\nbee\nant")


def no_class(root: Path) -> None:
    (root / "classes.txt").write_text("\n\n")


def too_many(root: Path) -> None:
    (root / "classes.txt").write_text("\n".join(map(str, range(255))))


def binary_masks(root: Path) -> None:
    (root / "classes.txt").unlink()
    for path in (root / "masks").iterdir():
        Image.fromarray(np.eye(H, W, dtype=np.uint8) * 255).save(path)


def colour_masks(root: Path) -> None:
    binary_masks(root)
    for path in (root / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_root, r"no folder .*: set dataset\.root to a folder with images/, and masks/"),
        (without_pictures, r"no pictures in .*images: put them there"),
        (without_masks, r"no masks in .*masks: add STEM\.png"),
        (twins, rf"{stem(3)}\.\w+ and .*{stem(3)}\.\w+ would share a mask: rename"),
        (class_twice, r"classes\.txt names a class twice"),
        (no_class, r"has 0 classes, must be 1 to 254"),
        (too_many, r"has 255 classes, must be 1 to 254"),
        (
            binary_masks,
            r"contain no class id \(255 is ignored\): put masks of 0 and 255 into one folder per class",
        ),
        (colour_masks, rf"{stem(0)}\.png is a colour picture \(RGB\): a mask needs one value per pixel"),
    ],
)
def test_folder_that_cannot_be_used(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    root = write(tmp_path / "own")
    damage(root)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        Folder(str(root))


def test_folder_of_a_class_that_is_not_listed(tmp_path: Path) -> None:
    write(tmp_path, per_class=True)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\nelk")
    with pytest.raises(ValueError, match=r"masks has folders that .*classes\.txt does not name: dog"):
        Folder(str(tmp_path))


def test_masks_without_picture_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    (tmp_path / f"images/{stem(7)}.png").unlink()
    with caplog.at_level(logging.WARNING):
        reader = Folder(str(tmp_path))
    assert f"1 masks in {tmp_path}/masks have no picture: {stem(7)}" in caplog.text
    assert len(reader) == 14
    build_index(reader)


def test_photograph_turned_by_exif(tmp_path: Path) -> None:
    write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / f"images/{stem(0)}.png").unlink()
    Image.fromarray(np.zeros((W, H, 3), np.uint8)).save(tmp_path / f"images/{stem(0)}.jpg", exif=exif)
    reader = Folder(str(tmp_path))
    assert reader.size(0) == reader.image(0).shape[:2] == (H, W)
    build_index(reader)
