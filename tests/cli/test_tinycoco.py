"""The whole way on real COCO pictures; skipped where the sample is not there.

FSS_TINYCOCO names a folder with COCO's layout for 2017 that holds a few dozen pictures of train2017.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from support import ROOT, warm

from fss.data.index import build_index
from fss.data.readers.coco import Coco

SAMPLE = Path(os.environ.get("FSS_TINYCOCO", ROOT.parent / "shared" / "tinycoco")).resolve()

pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample of COCO; name one with FSS_TINYCOCO")


def train(tmp_path: Path, *overrides: str) -> dict:
    typed = [
        "dataset=coco20i",
        f"dataset.root={SAMPLE}",
        "dataset.year=2017",
        "dataset.eval_set=train",  # the sample's validation pictures are too few: classes are held out
        f"run_dir={tmp_path}",
        "start=imagenet",  # no base learner: its first stage has tests of its own, on pictures that are made up
        "trainer=cpu",
        "presence_episodes=0",
        *overrides,
    ]
    done = warm.run("train.py", *typed, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(next(tmp_path.rglob("metrics.json")).read_text())


def test_index_agrees_with_pycocotools() -> None:
    reader = Coco(str(SAMPLE), "train", 2017)
    index = build_index(reader)
    coco = COCO(str(SAMPLE / "annotations/instances_train2017.json"))
    ids = sorted(i for i in coco.imgs if coco.imgToAnns[i])
    categories = sorted(coco.cats)
    assert len(reader) == len(ids)
    assert len(reader.classes) == 80
    for number, image_id in enumerate(ids):
        rows = index.image == number
        found = dict(zip(index.class_id[rows].tolist(), index.pixels[rows].tolist(), strict=True))
        annotations = coco.imgToAnns[image_id]
        # at most the union of a class's instances, and all pixels of any instance are some class's
        assert set(found) <= {categories.index(a["category_id"]) + 1 for a in annotations}
        union = rle.area(rle.merge([coco.annToRLE(a) for a in annotations]))
        assert sum(found.values()) == int(union)
        for class_id, pixels in found.items():
            own = [coco.annToRLE(a) for a in annotations if categories.index(a["category_id"]) + 1 == class_id]
            assert pixels <= int(rle.area(rle.merge(own)))


@pytest.mark.slow
def test_trains_and_evaluates_held_out_classes(tmp_path: Path) -> None:
    content = train(
        tmp_path,
        "fold=1",
        "backbone=efficientnet_lite0",
        "dataset.size=129",
        "dataset.train_episodes=16",
        "dataset.val_episodes=4",
        "episodes=8",
        "dataset.epochs=1",
        "dataset.num_workers=1",
        "method.head.width=16",
    )
    held_out = {COCO_NAMES[i] for i in range(1, 80, 4)}
    assert content["classes"]
    assert content["classes"].keys() <= held_out
    assert content["classes_left_out"]
    for name in content["classes_left_out"]:  # they count 0 in the protocol, as published
        assert content["classes"][name]["iou"] == 0
    assert held_out - set(content["classes_left_out"])
    assert 0 <= content["miou"] <= 1
    assert len([*tmp_path.glob("results/last-custom-8x321*/episodes.png")]) == 1


@pytest.mark.slow
@pytest.mark.nightly  # two and a half minutes; the golden values hold this network every day
def test_resnet50_at_full_size(tmp_path: Path) -> None:
    content = train(
        tmp_path,
        "fold=1",
        "backbone=resnet50",
        "backbone.weights=null",
        "batch_size=1",
        "dataset.train_episodes=2",
        "dataset.val_episodes=1",
        "episodes=1",
        "dataset.epochs=1",
        "dataset.num_workers=0",
        "trainer.num_sanity_val_steps=0",
    )
    assert content["config"]["dataset"]["size"] == 641
    assert np.isfinite(content["miou"])


if SAMPLE.is_dir():
    COCO_NAMES = Coco(str(SAMPLE), "train", 2017).classes
