"""The embedded data set `shapes`: what its pictures promise, and that every process sees the same ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.multiprocessing
from support import ROOT
from torch.multiprocessing.spawn import start_processes

from fss.data.readers.shapes import Shapes, layout, painting
from fss.data.readers.shapes import reader as shapes_reader
from fss.data.readers.shapes.classes import CLASSES, OUTLINES, TEXTURES, Field, Tint


def digest(reader: Shapes) -> str:
    parts = [reader.image(i).tobytes() + reader.mask(i).tobytes() for i in range(len(reader))]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture
def cv2_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


# Classes


def test_sixteen_classes_each_with_a_shape_and_a_texture_of_its_own() -> None:
    assert len(Shapes.classes) == len(set(Shapes.classes)) == 16
    assert Shapes.classes[0] == "star-stripes"
    assert Shapes.classes[15] == "ell-split"
    assert {c.shape for c in CLASSES} == set(OUTLINES)
    assert {c.texture for c in CLASSES} == set(TEXTURES)


@pytest.mark.parametrize("name", TEXTURES)
def test_texture_stays_in_range_and_shows_both_tints(name: str) -> None:
    axis = np.linspace(-1, 1, 60, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    field = TEXTURES[name](x, y, np.random.default_rng(0), 30.0)
    assert field.dtype == np.float32
    assert field.shape == x.shape
    assert field.min() >= -1e-5
    assert field.max() <= 1 + 1e-5
    assert field.max() - field.min() > 0.8


# Reader protocol


def test_reader_protocol() -> None:
    reader = Shapes("train", size=48, images=20)
    assert len(reader) == 20
    assert reader.name(12) == "shapes/train/00012"
    image, mask = reader.image(12), reader.mask(12)
    assert image.shape == (48, 48, 3)
    assert mask.shape == (48, 48)
    assert image.dtype == mask.dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, r"split must be one of train, val, not 'test'"),
        ({"split": "train", "size": 31}, "size must be at least 32, not 31"),
        ({"split": "train", "images": 0}, "images must be at least 1, not 0"),
        ({"split": "val", "seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_bad_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shapes(**arguments)


@pytest.mark.parametrize("index", [-1, 4])
@pytest.mark.parametrize("method", ["name", "image", "mask"])
def test_index_out_of_range(method: str, index: int) -> None:
    with pytest.raises(IndexError, match=f"picture {index} of 4"):
        getattr(Shapes("val", size=32, images=4), method)(index)


# Layout


@pytest.mark.parametrize(
    ("split", "size", "images"),
    [("train", 128, 1600), ("val", 128, 800), ("train", 32, 400), ("val", 200, 200)],
)
def test_every_object_of_every_picture_is_visible(split: str, size: int, images: int) -> None:
    reader = Shapes(split, size=size, images=images, seed=3)
    objects = np.zeros(4, int)
    for index in range(images):
        layout = reader._layout(index)
        mask = reader.mask(index)
        ids = [item.class_id for item in layout.objects]
        objects[len(ids)] += 1
        assert 1 + index % 16 in ids
        assert len(set(ids)) == len(ids) <= 3
        assert set(np.unique(mask)) == {0, *ids}
        assert set(ids) <= set(range(1, 17))

        hidden = np.zeros((size, size), bool)  # from front to back: what lies in front
        for item in reversed(layout.objects):
            full = np.zeros((size, size), bool)
            full[item.rows, item.columns] = item.alpha > 127
            visible = full & ~hidden
            assert np.array_equal(visible, mask == item.class_id)
            assert visible.sum() >= 0.6 * full.sum()
            assert visible.sum() > 0.012 * size * size
            hidden |= full
    # 15, 45 and 40 % were drawn; few distractors find no place.
    assert np.abs(objects[1:] / images - [0.15, 0.45, 0.40]).max() < 0.1


def test_classes_are_balanced() -> None:
    reader = Shapes("train", size=64, images=320)
    ids, counts = np.unique(np.concatenate([np.unique(reader.mask(i)) for i in range(320)]), return_counts=True)
    assert ids.tolist() == list(range(17))
    assert counts[0] == 320
    assert counts[1:].min() > 0.7 * counts[1:].mean()


def test_distractor_without_a_place_is_dropped_and_never_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = layout.well_visible
    monkeypatch.setattr(layout, "well_visible", lambda objects, mask: len(objects) == 1 and honest(objects, mask))
    reader = Shapes("train", size=64, images=32)
    for index in range(32):
        assert np.unique(reader.mask(index)).tolist() == [0, 1 + index % 16]


def test_mask_needs_no_painting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_reader, "paint", lambda *_: pytest.fail("painted"))
    Shapes("train", size=64, images=4).mask(3)


# Painting


def test_objects_are_painted_where_the_mask_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red target, blue distractors, black ground: the colours must give the mask back, and no shifted one."""
    reader = Shapes("train", size=128, images=48)
    target: list[int] = [0]

    def flat(tint: Tint, rng: np.random.Generator) -> Field:
        kind = CLASSES[target[0] - 1]
        return np.array([1, 0, 0] if tint in (kind.first, kind.second) else [0, 0, 1], np.float32)

    monkeypatch.setattr(painting, "_vary", flat)
    monkeypatch.setattr(painting, "_background", lambda split, size, rng: np.zeros((size, size, 3), np.float32))

    def agreement(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
        return float((a & b).sum() / (a | b).sum())

    straight, shifted = [], []
    for index in range(len(reader)):
        target[0] = 1 + index % 16
        image, mask = reader.image(index).astype(int), reader.mask(index)
        for channel, truth in ((0, mask == target[0]), (2, (mask > 0) & (mask != target[0]))):
            painted = (image[..., channel] > 100) & (image[..., channel] > image[..., 2 - channel])
            if truth.any():
                straight.append(agreement(painted, truth))
                shifted += [agreement(np.roll(painted, 1, axis), truth) for axis in (0, 1)]
    assert min(straight) > 0.88
    assert np.mean(straight) > 0.97
    assert np.mean(shifted) < 0.95


def test_pictures_are_neither_blank_nor_alike() -> None:
    reader = Shapes("val", size=64, images=32)
    images = [reader.image(i) for i in range(32)]
    assert min(image.std() for image in images) > 10
    assert len({image.tobytes() for image in images}) == 32


def test_validation_has_photographs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(painting.PHOTOGRAPHS["train"]) & set(painting.PHOTOGRAPHS["val"])
    used: set[str] = set()
    load = painting._photograph

    def spy(name: str) -> npt.NDArray[np.uint8]:
        used.add(name)
        return load(name)

    monkeypatch.setattr(painting, "_photograph", spy)
    for split, names in painting.PHOTOGRAPHS.items():
        used.clear()
        reader = Shapes(split, size=32, images=100)
        for index in range(100):
            reader.image(index)
        assert used == set(names)


def test_missing_photograph_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(painting.PHOTOGRAPHS, "val", ("chelsea.png", "nowhere.png"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png is missing.*pip install.*scikit-image"):
        Shapes("val", size=32, images=1)
    Shapes("train", size=32, images=1)


# The same pictures everywhere


def test_same_arguments_same_pictures_whatever_the_order(cv2_threads: None) -> None:
    first, second = (Shapes("train", size=160, images=24) for _ in range(2))
    cv2.setNumThreads(1)
    forward = [first.image(i) for i in range(24)]
    cv2.setNumThreads(4)
    for index in reversed(range(24)):
        assert np.array_equal(second.image(index), forward[index])
        assert np.array_equal(second.mask(index), first.mask(index))


def test_split_and_seed_change_the_pictures() -> None:
    readers = [Shapes("train", 64, 4), Shapes("val", 64, 4), Shapes("train", 64, 4, seed=1)]
    for get in (Shapes.image, Shapes.mask):
        assert len({get(reader, 2).tobytes() for reader in readers}) == 3


def test_number_of_pictures_does_not_change_them() -> None:
    assert np.array_equal(Shapes("val", 64, 3).image(2), Shapes("val", 64, 30).image(2))


def test_fresh_interpreter_makes_the_same_pictures() -> None:
    program = (
        "import hashlib, cv2; from fss.data.readers.shapes import Shapes; cv2.setNumThreads(3);"
        "r = Shapes('val', 96, 16);"
        "parts = [r.image(i).tobytes() + r.mask(i).tobytes() for i in range(16)];"
        "print(hashlib.sha256(b''.join(parts)).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.strip() == digest(Shapes("val", 96, 16))


# Cache


def test_cache_is_safe_from_the_callers_writes() -> None:
    reader = Shapes("train", size=64, images=2)
    original = reader.image(1)
    kept = original.copy()
    original[:] = 7
    again = reader.image(1)
    assert np.array_equal(again, kept)
    again[:] = 8
    reader.mask(1)[:] = 9
    assert np.array_equal(reader.image(1), kept)
    assert reader.mask(1).max() <= 16


def test_picture_is_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Shapes("train", size=64, images=2)
    first = reader.image(0)
    monkeypatch.setattr(shapes_reader, "paint", lambda *_: pytest.fail("painted again"))
    assert np.array_equal(reader.image(0), first)


def _paint_last(rank: int, reader: Shapes) -> None:
    reader.image(len(reader) - 1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_worker_paints_is_kept_for_all(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    expected = Shapes("train", size=64, images=4).image(3)
    reader = Shapes("train", size=64, images=4)
    # A process of torch.multiprocessing, as a data loader's are: it is what hands over shared tensors.
    start_processes(_paint_last, args=(reader,), nprocs=1, start_method=method)
    monkeypatch.setattr(shapes_reader, "paint", lambda *_: pytest.fail("the worker's picture is not seen"))
    assert np.array_equal(reader.image(3), expected)


def test_too_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Shapes("train", size=64, images=2).image(1)

    def fail(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.warns(UserWarning, match="shared memory .No space left"):
        reader = Shapes("train", size=64, images=2)
    assert np.array_equal(reader.image(1), expected)
