"""The index of many files: scanned by several processes, kept, and never used when it may be wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.coco_tree import write as write_coco
from support.pascal_tree import TRAIN, VAL, mask_of, write

from fss.data import index as index_module
from fss.data import index_cache
from fss.data.index import Index, build_index
from fss.data.prepare.coco import prepare_coco
from fss.data.readers.coco import Coco
from fss.data.readers.pascal import Pascal

CACHE = ".fss-cache/pascal5i-train.npz"


@pytest.fixture(autouse=True)
def _every_size_is_worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "WORTHWHILE", 1)
    monkeypatch.setattr(index_module, "cores", lambda: 1)  # in this process, where it can be watched


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pictures whose masks were scanned."""
    found: list[int] = []
    real = index_module._scan

    def watched(reader: Any, i: int) -> Any:
        found.append(i)
        return real(reader, i)

    monkeypatch.setattr(index_module, "_scan", watched)
    return found


def rows(index: Index) -> list[tuple[int, int, int]]:
    return list(zip(index.image.tolist(), index.class_id.tolist(), index.pixels.tolist(), strict=True))


def expected(stems: list[str]) -> list[tuple[int, int, int]]:
    counted = []
    for i, stem in enumerate(stems):
        classes, pixels = np.unique(mask_of(stem), return_counts=True)
        counted += [(i, int(c), int(n)) for c, n in zip(classes, pixels, strict=True) if c not in (0, 255)]
    return counted


def read(root: Path) -> list[tuple[int, int, int]]:
    return rows(build_index(Pascal(str(root), "train")))


def test_second_start_scans_nothing(tmp_path: Path, scanned: list[int]) -> None:
    write(tmp_path)
    assert read(tmp_path) == expected(TRAIN)
    assert scanned == [0, 1, 2]
    assert [path.name for path in (tmp_path / ".fss-cache").iterdir()] == ["pascal5i-train.npz"]
    assert read(tmp_path) == expected(TRAIN)
    assert scanned == [0, 1, 2]
    shutil.rmtree(tmp_path / ".fss-cache")
    assert read(tmp_path) == expected(TRAIN)
    assert scanned == [0, 1, 2] * 2


def test_image_sets_do_not_share_an_index(tmp_path: Path) -> None:
    write(tmp_path)
    for _ in range(2):
        assert read(tmp_path) == expected(TRAIN)
        assert rows(build_index(Pascal(str(tmp_path), "val"))) == expected(VAL)


def new_mask(root: Path) -> None:
    Image.fromarray(mask_of(VAL[0])).save(root / f"SegmentationClassAug/{TRAIN[0]}.png")


def same_size_and_time_but_for_a_nanosecond(root: Path) -> None:
    path = root / f"SegmentationClassAug/{TRAIN[0]}.png"
    info = path.stat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1000))


def touched_picture(root: Path) -> None:
    os.utime(root / f"JPEGImages/{TRAIN[1]}.jpg", (1, 1))


def shorter_list(root: Path) -> None:
    (root / "ImageSets/Segmentation/train-5i.txt").write_text("\n".join(TRAIN[:2]))


def other_order(root: Path) -> None:
    (root / "ImageSets/Segmentation/train-5i.txt").write_text("\n".join(TRAIN[::-1]))


def other_format(root: Path) -> None:
    index_cache._FORMAT += 1


def truncated(root: Path) -> None:
    content = (root / CACHE).read_bytes()
    (root / CACHE).write_bytes(content[: len(content) // 2])


def emptied(root: Path) -> None:
    (root / CACHE).write_bytes(b"")


def scribbled(root: Path) -> None:
    content = bytearray((root / CACHE).read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (root / CACHE).write_bytes(content)


def lost_column(root: Path) -> None:
    with np.load(root / CACHE) as saved:
        columns = {name: saved[name] for name in ("key", "image", "class_id")}
    np.savez(root / CACHE, **columns)


def shorter_column(root: Path) -> None:
    with np.load(root / CACHE) as saved:
        columns = dict(saved)
    np.savez(root / CACHE, **{**columns, "pixels": columns["pixels"][:-1]})


@pytest.mark.parametrize(
    "change",
    [
        new_mask,
        same_size_and_time_but_for_a_nanosecond,
        touched_picture,
        shorter_list,
        other_order,
        other_format,
        truncated,
        emptied,
        scribbled,
        lost_column,
        shorter_column,
    ],
)
def test_stale_or_damaged_is_rebuilt(
    tmp_path: Path, scanned: list[int], change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_cache, "_FORMAT", 1)
    write(tmp_path)
    read(tmp_path)
    scanned.clear()
    change(tmp_path)
    stems = (tmp_path / "ImageSets/Segmentation/train-5i.txt").read_text().split()
    right = expected([VAL[0], *TRAIN[1:]] if change is new_mask else stems)
    assert read(tmp_path) == right
    assert scanned == list(range(len(stems)))
    assert read(tmp_path) == right
    assert scanned == list(range(len(stems)))  # and kept again


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / ".fss-cache").write_text("a file in its place")
    for _ in range(2):
        assert read(tmp_path) == expected(TRAIN)


def test_interrupted_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def interrupted(file: Any, **columns: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path)
    assert not list((tmp_path / ".fss-cache").iterdir())


def test_small_data_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "WORTHWHILE", 4)
    assert read(write(tmp_path)) == expected(TRAIN)
    assert not (tmp_path / ".fss-cache").exists()


def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "cores", lambda: 2)
    assert read(write(tmp_path)) == expected(TRAIN)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_problems_are_named_at_once(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "cores", lambda: workers)
    write(tmp_path)
    reader = Pascal(str(tmp_path), "train")
    masks = tmp_path / "SegmentationClassAug"
    Image.fromarray(np.ones((20, 31), np.uint8)).save(masks / f"{TRAIN[0]}.png")
    (masks / f"{TRAIN[1]}.png").unlink()
    Image.fromarray(np.full((20, 30), 21, np.uint8)).save(masks / f"{TRAIN[2]}.png")
    with pytest.raises(ValueError, match="3 of 3 pictures cannot be used") as error:
        build_index(reader)
    lines = str(error.value).splitlines()[1:]
    assert f"{TRAIN[0]}.jpg: has 30 x 20 pixels, but its mask 31 x 20" in lines[0]
    assert f"{TRAIN[1]}.png" in lines[1]
    assert f"{TRAIN[2]}.jpg: its mask has class id 21, but there are 20 classes" in lines[2]
    assert not (tmp_path / ".fss-cache").exists()


def test_coco(tmp_path: Path, scanned: list[int]) -> None:
    root = write_coco(tmp_path)
    drawn = rows(build_index(Coco(str(root), "train")))
    ignored = rows(build_index(Coco(str(root), "train", crowd="ignore")))
    assert drawn != ignored
    assert scanned == [0, 1, 2] * 2
    prepare_coco(root, root, "train", 2014, "include", 1)
    assert rows(build_index(Coco(str(root), "train"))) == drawn
    assert rows(build_index(Coco(str(root), "train"))) == drawn
    assert rows(build_index(Coco(str(root), "train", crowd="ignore"))) == ignored
    assert scanned == [0, 1, 2] * 3
