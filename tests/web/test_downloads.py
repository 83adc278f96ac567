"""The file that is downloaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from fss.predictor import FewShotPredictor
from fss.web.downloads import write_zip
from fss.web.examples import shapes
from fss.web.session import Session


def test_masks_and_objects_are_the_answers(training_free: FewShotPredictor, tmp_path: Path) -> None:
    session = Session()
    session.take(shapes(shots=1, queries=2, size=96), training_free)
    session.search()
    write_zip(session.found, tmp_path / "answers.zip")
    names = [found.name for found in session.found]
    assert len(names) == 2
    with zipfile.ZipFile(tmp_path / "answers.zip") as archive:
        assert sorted(archive.namelist()) == sorted(
            ["predictions.json", *(f"masks/{n}.png" for n in names), *(f"overlays/{n}.jpg" for n in names)]
        )
        masks = [np.asarray(Image.open(archive.open(f"masks/{name}.png"))) for name in names]
        told = json.loads(archive.read("predictions.json"))
    assert [category["name"] for category in told["categories"]] == ["ring-dots", "star-stripes"]
    assert [image["id"] for image in told["images"]] == [1, 2]
    assert [one["id"] for one in told["annotations"]] == list(range(1, len(told["annotations"]) + 1))
    for number, (found, mask) in enumerate(zip(session.found, masks, strict=True), start=1):
        assert np.array_equal(mask, found.labels)
        drawn = np.zeros_like(found.labels)
        for one in told["annotations"]:
            if one["image_id"] == number:
                drawn[run_lengths.decode(one["segmentation"]) > 0] = one["category_id"]
        assert np.array_equal(drawn, found.labels)
    assert masks[0].any()
    assert masks[1].any()
