"""Scores of episodes by how many classes their query shows, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import made_up

from bench.crowded import Part, collect, shown_classes, split
from fss.data.readers.pascal import IMAGES, LISTS, MASKS
from fss.evaluation.results import EpisodeResult


def _data(root: Path) -> Path:
    """Three validation pictures: one class, two classes, and one with a few pixels of a second."""
    voc = root / "VOC2012"
    for folder in (IMAGES, MASKS, Path(LISTS["val"]).parent):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    masks = {name: np.zeros((20, 20), np.uint8) for name in ("alone", "both", "speck")}
    for mask in masks.values():
        mask[:10] = 1
    masks["both"][10:15] = 2
    masks["speck"][19, :3] = 2
    for name, mask in masks.items():
        Image.fromarray(mask, "L").save(voc / MASKS / f"{name}.png")
        Image.new("RGB", (20, 20)).save(voc / IMAGES / f"{name}.jpg")
    (voc / LISTS["val"]).write_text("\n".join(masks) + "\n")
    return root


def _episode(number: int, query: str, intersection: int, union: int, class_id: int = 1) -> EpisodeResult:
    name = ("cat", "dog")[class_id - 1]
    return EpisodeResult(321, number, class_id, name, query, ("s.jpg",), intersection, union, 10, 10)


def test_pictures_by_what_they_show(tmp_path: Path) -> None:
    data = _data(tmp_path)
    assert shown_classes(data, 50) == {"alone": 1, "both": 2, "speck": 1}
    assert shown_classes(data, 1) == {"alone": 1, "both": 2, "speck": 2}


def test_episodes_are_scored_apart() -> None:
    episodes = [
        *(_episode(0, "a/alone.jpg", 9, 10), _episode(1, "a/both.jpg", 1, 10)),
        *(_episode(2, "a/both.jpg", 2, 10), _episode(3, "a/both.jpg", 5, 10, class_id=2)),
    ]
    found = split(episodes, {"alone": 1, "both": 2})
    assert tuple(found) == pytest.approx((0.9, (0.15 + 0.5) / 2, 3))
    assert split(episodes[:1], {"alone": 1}) == Part(0.9, None, 0)
    with pytest.raises(ValueError, match=r"the query a/both\.jpg is no picture of the data"):
        split(episodes, {"alone": 1})


def test_rows(tmp_path: Path) -> None:
    data = _data(tmp_path / "data")
    outputs = tmp_path / "outputs"
    settings = {"config": {"dataset": {"min_pixels": 50}}}
    for variant, iou in (("usual", 8), ("no_supports", 4)):
        for fold in (0, 1):
            made = [_episode(0, "alone.jpg", iou, 10), _episode(1, "both.jpg", iou - fold, 20)]
            made_up.evaluation(outputs / variant, dataset="pascal5i", fold=fold, made=made, changes=settings)
    made_up.evaluation(outputs / "usual", dataset="pascal5i", checkpoint="best", made=made, changes=settings)
    rows = collect(outputs, data)
    assert {name: len(parts) for (name, _), parts in rows.items()} == {
        "pfenet, svf": 2,
        "no supports: pfenet, svf": 2,
    }
    assert [part.several for part in rows["pfenet, svf", 1]] == [pytest.approx(0.4), pytest.approx(0.35)]
    assert tuple(rows["no supports: pfenet, svf", 1][0]) == pytest.approx((0.4, 0.2, 1))
    with pytest.raises(FileNotFoundError, match="no evaluation of novel classes below"):
        collect(tmp_path / "data", data)
    made_up.evaluation(outputs / "usual", dataset="pascal5i", backbone="vgg16", made=made, changes=settings)
    rows = collect(outputs, data)
    assert len(rows["pfenet, svf, vgg16", 1]) == 1  # those of other backbones are rows of their own
    assert {len(parts) for (name, _), parts in rows.items() if "vgg16" not in name} == {2}
