"""The base learner as the first stage of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from support.scripts import ROOT, SMALL, succeed

from fss.cli import base_stage

BASE = Path("outputs/shapes/base-efficientnet_lite0/fold0/seed0")


def composed(*typed: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(typed))


def test_what_is_typed_for_the_stage() -> None:
    typed = [
        *(
            "dataset=coco20i",
            "method=bam",
            "shot=5",
            "tuning.head_lr=1",
            "method.base_width=64",
            "fold=2",
            "seed=7",
        ),
        *("dataset.epochs=1", "outputs=there", "batch_size=2", "resume=true", "episodes=9", "logger=none"),
    ]
    assert base_stage.stage_overrides(composed(*typed), typed) == [
        *("method=base", "dataset=coco20i", "fold=2", "dataset.epochs=1", "outputs=there", "logger=none"),
        *("method.base_width=64", "dataset.base.epochs=1", "seed=7"),
    ]
    typed = ["dataset=pascal5i", "dataset.epochs=2", "dataset.base.epochs=5", "method.base_seed=3"]
    assert base_stage.stage_overrides(composed(*typed), typed) == [
        *("method=base", "dataset=pascal5i", "dataset.epochs=2", "dataset.base.epochs=5", "seed=3")
    ]


def test_the_stage_trains_where_the_run_looks(tmp_path: Path) -> None:
    typed = ["dataset=coco20i", "method=pfenet", "backbone=resnet50", "fold=3", "seed=2", "outputs=o", "shot=5"]
    cfg = composed(*typed)
    stage = composed(*base_stage.stage_overrides(cfg, typed))
    assert f"{stage.run_dir}/checkpoints/best.ckpt" == cfg.method.base_checkpoint


@pytest.mark.parametrize(
    ("typed", "error", "message"),
    [
        (["start=other"], ValueError, "must be imagenet or base_learner"),
        (["method=bam", "start=imagenet"], ValueError, "method=bam needs a base learner"),
        (
            ["method=bam", "method.train_base=false", "fold=1", "shot=5"],
            FileNotFoundError,
            r"no base learner outputs/.*/fold1/seed0/checkpoints/best\.ckpt: train it first \(python train\.py "
            r"method=base fold=1 seed=0\) or name a file with method\.base_checkpoint",
        ),
        (["method=bam", "method.base_checkpoint=no.ckpt"], FileNotFoundError, "no base learner no.ckpt"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_refused(
    typed: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        base_stage.base_learner(composed(*typed), typed)


def test_a_run_from_imagenet_needs_none() -> None:
    assert base_stage.base_learner(composed(), []) is None
    assert base_stage.base_learner(composed("method=base"), ["method=base"]) is None


@pytest.mark.nightly
@pytest.mark.slow
def test_trained_once_resumed_and_shared(tmp_path: Path) -> None:
    small = [s for s in SMALL if not s.startswith("dataset.epochs")] + [
        "dataset.base.width=16",
        "dataset.epochs=1",
    ]
    first = succeed("train.py", *small, "method=bam", "method.head.width=16", cwd=tmp_path)
    assert "It is trained first" in first
    assert "[1/2] python train.py method=base" in first
    checkpoint = tmp_path / BASE / "checkpoints/best.ckpt"
    before = checkpoint.read_bytes()
    # another method that starts there takes the same one
    second = succeed("train.py", *small, "start=base_learner", cwd=tmp_path)
    assert f"Starts from the base learner {BASE}/checkpoints/best.ckpt, trained before" in second
    assert checkpoint.read_bytes() == before
    [config] = (tmp_path / "outputs/shapes").glob("pfenet-*/1shot/fold0/seed0/results/*/metrics.json")
    assert json.loads(config.read_text())["differs_from_recipe"]["start"] == ["base_learner", "imagenet"]
    # its backbone is the base learner's: layers that SVF leaves alone are equal
    theirs = torch.load(checkpoint, weights_only=True)["state_dict"]
    [last] = (tmp_path / "outputs/shapes").glob("pfenet-*/1shot/fold0/seed0/checkpoints/last.ckpt")
    ours = torch.load(last, weights_only=True)["state_dict"]
    frozen = [n for n in theirs.keys() & ours.keys() if n.startswith("segmenter.backbone.") and "bn" in n]
    assert len(frozen) > 20
    assert all(torch.equal(theirs[name], ours[name]) for name in frozen)
    # a stage that was stopped goes on
    (tmp_path / BASE / "training.json").unlink()
    third = succeed("train.py", *small, "method=bam", "method.head.width=16", "seed=0", cwd=tmp_path)
    assert "whose training has not ended" in third
    assert f"Resuming from {BASE}/checkpoints/" in third
