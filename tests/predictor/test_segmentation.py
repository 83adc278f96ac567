"""What an answer shows and how it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from fss.predictor import Segmentation
from fss.visualize import class_color

H, W = 10, 12


def answer(**changes: object) -> Segmentation:
    """Class a in two parts, b over one of them with a higher probability, c nowhere."""
    margins = np.full((3, H, W), -2.0, np.float32)
    margins[0, 1:4, 1:5] = 1.0
    margins[0, 6:9, 6:11] = 1.0
    margins[1, 7:10, 8:12] = 2.0
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    presence = {"a": 0.9, "b": 0.8, "c": 0.1}
    return Segmentation(image, ("a", "b", "c"), margins, presence, **changes)  # type: ignore[arg-type]


def test_the_most_probable_class_above_the_threshold_wins() -> None:
    found = answer()
    expected = np.zeros((H, W), np.uint8)
    for i in range(H):
        for j in range(W):
            scores = 1 / (1 + np.exp(-found.margins[:, i, j].astype(float)))
            if scores.max() > 0.5:
                expected[i, j] = scores.argmax() + 1
    np.testing.assert_array_equal(found.labels, expected)
    assert set(np.unique(expected)) == {0, 1, 2}
    assert found.labels.dtype == np.uint8
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-found.margins)), rtol=1e-5)
    assert found.present == {"a": 0.9, "b": 0.8}
    np.testing.assert_array_equal(found.mask("b"), expected == 2)
    with pytest.raises(KeyError, match="no class 'x'"):
        found.mask("x")


def test_another_threshold_and_absent_classes() -> None:
    found = answer()
    assert set(np.unique(found.at(0.8).labels)) == {0, 2}  # a has 0.73
    assert not found.at(1.0).labels.any()
    assert found.at(0.0).labels.all()
    with pytest.raises(ValueError, match=r"must be a number in 0\.\.1"):
        found.at(1.1)
    without = answer(absent=frozenset({"b"}))
    assert without.present == {"a": 0.9}
    assert without.mask("a").sum() == 27  # what b covered too


def test_half_is_background_as_in_argmax() -> None:
    margins = np.array([[[0.0, 1e-9, -1e-9]]], np.float32)
    found = Segmentation(np.zeros((1, 3, 3), np.uint8), ("a",), margins, {"a": 1.0})
    assert found.labels.tolist() == [[0, 1, 0]]


def test_instances_are_connected_parts() -> None:
    parts = answer().instances()
    assert [(part.name, part.box, part.area) for part in parts] == [
        ("a", (1, 1, 4, 3), 12),
        ("a", (6, 6, 5, 3), 15 - 6),
        ("b", (8, 7, 4, 3), 12),
    ]
    for part in parts:
        assert part.mask.sum() == part.area
        assert part.score == pytest.approx({"a": 0.7311, "b": 0.8808}[part.name], abs=1e-4)
    assert [part.area for part in answer().instances(smallest=10)] == [12, 12]


def test_files_hold_the_answer(tmp_path: Path) -> None:
    found = answer(name="desk")
    found.save(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"desk.png", "desk-overlay.jpg", "desk.json"}
    palette = Image.open(tmp_path / "new/desk.png")
    np.testing.assert_array_equal(np.asarray(palette), found.labels)
    colors = np.asarray(palette.convert("RGB"))
    assert tuple(colors[2, 2]) == class_color(1)
    assert tuple(colors[0, 0]) == (0, 0, 0)
    coco = COCO(str(tmp_path / "new/desk.json"))  # the format's own reader
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["a", "b", "c"]
    drawn = np.zeros((H, W), np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        region = coco.annToMask(annotation)
        drawn[region > 0] = annotation["category_id"]
        assert run_lengths.area(annotation["segmentation"]) == annotation["area"] == region.sum()
        assert run_lengths.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
    np.testing.assert_array_equal(drawn, found.labels)
    assert json.loads((tmp_path / "new/desk.json").read_text())["images"][0]["file_name"] == "desk"


def test_overlay_leaves_the_background() -> None:
    found = answer()
    overlay = np.asarray(found.overlay())
    far = np.ones((H, W), bool)
    far[0:5, 0:6] = far[5:, 5:] = False  # objects with their contours
    np.testing.assert_array_equal(overlay[far], found.image[far])
    assert (overlay[found.labels > 0] != found.image[found.labels > 0]).any(axis=1).all()
