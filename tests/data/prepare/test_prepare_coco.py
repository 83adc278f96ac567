"""COCO's masks drawn once: the same as drawn at every start, and never stale or half."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import ROOT
from support.coco_tree import ANNOTATIONS, PICTURES, annotation, polygon, write
from support.reading import use

from fss.data.prepare import coco
from fss.data.prepare.coco import prepare_coco
from fss.data.readers.coco import Coco, Crowd

SAMPLE = Path(os.environ.get("FSS_TINYCOCO", ROOT.parent / "shared" / "tinycoco")).resolve()


def prepare(root: Path, crowd: Crowd = "include", workers: int = 1, archives: Path | None = None) -> list[str]:
    return prepare_coco(root, archives or root, "train", 2014, crowd, workers)


def masks(reader: Coco) -> list[np.ndarray]:
    return [reader.mask(i) for i in range(len(reader))]


def is_drawn_at_start(reader: Coco) -> bool:
    return reader._drawing is not None


@pytest.mark.parametrize("crowd", ["include", "ignore"])
@pytest.mark.parametrize("workers", [1, 2])
def test_same_as_drawn_at_start(tmp_path: Path, crowd: Crowd, workers: int) -> None:
    root = write(tmp_path)
    before = Coco(str(root), "train", crowd=crowd)
    assert prepare(root, crowd, workers) == [
        "train2014: 3 masks drawn, 0 already existed.",
        "coco20i train2014: 3 pictures, 3 masks, 3 classes",
    ]
    after = Coco(str(root), "train", crowd=crowd)
    assert is_drawn_at_start(before)
    assert not is_drawn_at_start(after)
    assert after.classes == before.classes
    assert [after.name(i) for i in range(3)] == [before.name(i) for i in range(3)]
    for new, old in zip(masks(after), masks(before), strict=True):
        assert new.dtype == np.uint8
        np.testing.assert_array_equal(new, old)
    assert any((mask == 255).any() for mask in masks(after)) == (crowd == "ignore")
    other: Crowd = "ignore" if crowd == "include" else "include"
    assert is_drawn_at_start(Coco(str(root), "train", crowd=other))
    files = sorted(path.name for path in (root / f"masks/train2014-{crowd}").iterdir())
    used = [PICTURES[i]["file_name"] for i in (0, 1, 3)]
    assert files == sorted(["contents.json", *(f"{name}.png" for name in used)])
    assert sorted(path.name for path in (root / "masks").iterdir()) == [f"train2014-{crowd}"]


def test_prepared_masks_are_what_is_read(tmp_path: Path) -> None:
    root = write(tmp_path)
    prepare(root)
    marked = np.full((20, 30), 3, np.uint8)
    Image.fromarray(marked).save(root / f"masks/train2014-include/{PICTURES[0]['file_name']}.png")
    np.testing.assert_array_equal(Coco(str(root), "train").mask(2), marked)


def test_second_run_does_nothing(tmp_path: Path) -> None:
    root = write(tmp_path)
    prepare(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert prepare(root)[0] == "train2014: nothing to do, everything is in place."
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_annotations_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path)
    prepare(root)
    path = root / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{**annotation(300, 1, polygon(0, 0, 20, 30)), "id": 1}]
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        reader = Coco(str(root), "train")
    assert "is therefore not used" in caplog.text
    assert len(reader) == 1
    assert (reader.mask(0) == 1).all()
    assert prepare(root)[0] == "train2014: 1 masks drawn, 0 already existed."
    assert not is_drawn_at_start(Coco(str(root), "train"))
    assert (Coco(str(root), "train").mask(0) == 1).all()
    assert len(list((root / "masks/train2014-include").glob("*.png"))) == 1


def test_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path)
    real, calls = coco.write_mask, 0

    def interrupted(path: Path, mask: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        real(path, mask)

    monkeypatch.setattr(coco, "write_mask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(root)
    assert is_drawn_at_start(Coco(str(root), "train"))
    assert not (root / "masks/train2014-include").exists()
    monkeypatch.undo()
    assert prepare(root)[0] == "train2014: 1 masks drawn, 2 already existed."
    assert not is_drawn_at_start(Coco(str(root), "train"))


def test_lost_masks(tmp_path: Path) -> None:
    root = write(tmp_path)
    prepare(root)
    (root / f"masks/train2014-include/{PICTURES[0]['file_name']}.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 3 masks .* the first is COCO_train2014_000000000300\.jpg"
    ):
        Coco(str(root), "train")
    assert prepare(root)[0] == "train2014: 1 masks drawn, 2 already existed."
    assert len(masks(Coco(str(root), "train"))) == 3


@pytest.mark.parametrize("content", ["", "{}", '{"annotations": 1}', "[]"])
def test_damaged_contents(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path)
    prepare(root)
    (root / "masks/train2014-include/contents.json").write_text(content)
    assert is_drawn_at_start(Coco(str(root), "train"))
    assert "contents.json is damaged" in caplog.text
    prepare(root)
    assert not is_drawn_at_start(Coco(str(root), "train"))


def test_damaged_annotation_is_named(tmp_path: Path) -> None:
    damaged: Any = [[1.0, 2.0]]
    write(tmp_path, annotations=[*ANNOTATIONS, annotation(77, 1, damaged)])
    with pytest.raises(
        ValueError, match=r"instances_train2014\.json: annotation 994 of a name with spaces\.jpg is"
    ):
        prepare(tmp_path, workers=2)
    assert is_drawn_at_start(Coco(str(tmp_path), "train"))


def packed(tmp_path: Path) -> Path:
    """The two archives of a tree."""
    tree, downloads = write(tmp_path / "tree"), tmp_path / "downloads"
    downloads.mkdir()
    for name, folder in (("annotations_trainval2014.zip", "annotations"), ("train2014.zip", "train2014")):
        with zipfile.ZipFile(downloads / name, "w") as archive:
            for path in sorted((tree / folder).iterdir()):
                archive.write(path, path.relative_to(tree))
    return downloads


def test_archives_to_reader(tmp_path: Path) -> None:
    downloads = packed(tmp_path)
    root = tmp_path / "data"
    said = prepare(root, archives=downloads)
    assert said[0] == "train2014: annotations unpacked from annotations_trainval2014.zip."
    assert said[1] == "train2014: 4 pictures unpacked from train2014.zip."
    reader, drawn = Coco(str(root), "train"), Coco(str(tmp_path / "tree"), "train")
    assert not is_drawn_at_start(reader)
    for i in range(3):
        np.testing.assert_array_equal(reader.mask(i), drawn.mask(i))
        np.testing.assert_array_equal(reader.image(i), drawn.image(i))
    assert use(reader) == {PICTURES[i]["file_name"] for i in (0, 1, 3)}
    assert prepare(root, archives=tmp_path / "nowhere")[0] == "train2014: nothing to do, everything is in place."


@pytest.mark.parametrize("name", ["annotations_trainval2014.zip", "train2014.zip"])
def test_truncated_archive_is_named(tmp_path: Path, name: str) -> None:
    downloads = packed(tmp_path)
    content = (downloads / name).read_bytes()
    (downloads / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{name} is damaged or truncated"):
        prepare(tmp_path / "data", archives=downloads)


def test_wrong_or_missing_archive_is_named(tmp_path: Path) -> None:
    downloads = packed(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no annotations_trainval2017\.zip in .*downloads or .*data"):
        prepare_coco(tmp_path / "data", downloads, "train", 2017, "include", 1)
    with pytest.raises(ValueError, match=r"annotations_trainval2014\.zip contains no instances_val2014\.json"):
        prepare_coco(tmp_path / "data", downloads, "val", 2014, "include", 1)
    (downloads / "train2014.zip").write_bytes((downloads / "annotations_trainval2014.zip").read_bytes())
    with pytest.raises(ValueError, match=r"train2014\.zip is not the official archive"):
        prepare(tmp_path / "data", archives=downloads)


def test_command(tmp_path: Path) -> None:
    write(tmp_path, split="val2017")
    command = [sys.executable, "-m", "fss.data.prepare", "coco20i", "--root", str(tmp_path), "--sets", "val"]
    done = subprocess.run([*command, "--year", "2017"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "val2017: 3 masks drawn, 0 already existed.",
        "coco20i val2017: 3 pictures, 3 masks, 3 classes",
    ]
    assert not is_drawn_at_start(Coco(str(tmp_path), "val", 2017))
    wrong = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: no annotations_trainval2014.zip in")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample of COCO; name one with FSS_TINYCOCO")
@pytest.mark.parametrize("crowd", ["include", "ignore"])
def test_real_coco(tmp_path: Path, crowd: Crowd) -> None:
    for name in ("annotations", "images"):
        (tmp_path / name).symlink_to(SAMPLE / name)
    before = Coco(str(tmp_path), "train", 2017, crowd)
    prepare_coco(tmp_path, tmp_path, "train", 2017, crowd, 2)
    after = Coco(str(tmp_path), "train", 2017, crowd)
    assert not is_drawn_at_start(after)
    assert after.classes == before.classes
    for new, old in zip(masks(after), masks(before), strict=True):
        np.testing.assert_array_equal(new, old)
