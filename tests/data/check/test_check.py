"""The check of a data set: its numbers against counting by hand, the published lists, the sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from support import ROOT, pascal_tree
from support.own_pictures import NAMES
from support.own_pictures import write as write_folder

from fss.data.check import __main__ as check
from fss.data.check import published
from fss.data.check.census import count_classes, count_folds
from fss.data.check.published import Fact, compare
from fss.data.index import Index
from fss.data.readers import chestxray
from fss.files.digests import digest

CONF = ROOT / "conf"


def run(*overrides: str) -> None:
    """What the command does, in this process."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check.main.__wrapped__(compose("check", list(overrides)))


def random_index(seed: int, pictures: int, classes: int) -> tuple[Index, list[dict[int, int]]]:
    """An index and the same by picture: pixels of each class."""
    noise = np.random.default_rng(seed)
    held = [
        {int(c): int(noise.integers(1, 5000)) for c in sorted(noise.choice(classes, 3, replace=False) + 1)}
        for _ in range(pictures)
    ]
    rows = [(i, c, n) for i, picture in enumerate(held) for c, n in picture.items()]
    return Index(*np.array(rows).T), held


@pytest.mark.parametrize(("scheme", "classes"), [("contiguous", 20), ("interleaved", 20), ([[1, 2], [3], [9]], 9)])
def test_folds_and_classes_agree_with_counting(scheme: Any, classes: int) -> None:
    (train, held), (evaluation, seen) = (random_index(seed, 60, classes) for seed in (0, 1))
    folds = count_folds(train, evaluation, classes, scheme, 2048)
    assert len(folds) == (4 if isinstance(scheme, str) else 3)
    for fold in folds:
        novel, base = fold.classes
        with_base = [p for p in held if any(p.get(c, 0) >= 2048 for c in base)]
        assert fold.not_excluded == len(with_base)
        assert fold.excluded == sum(not set(p) & set(novel) for p in with_base)
        assert fold.evaluation == sum(any(p.get(c, 0) >= 2048 for c in novel) for p in seen)
    assert count_classes(train, classes, 2048) == [
        sum(p.get(c, 0) >= 2048 for p in held) for c in range(1, classes + 1)
    ]


def test_facts_are_those_of_the_published_lists() -> None:
    """The golden file holds the lists' digests as they were published; supports by class are one fact here."""
    golden = json.loads((ROOT / "tests/golden/voc_lists.json").read_text())
    known = json.loads(published.FACTS.read_text())["pascal5i"]["lists"]
    assert len(known) == len(golden) == 12
    for name, of in golden.items():
        facts = known[name.replace("val/exclude_novel", "val")]
        by_class = [f"{c} {count} {sha256}" for c, (count, sha256) in of["supports"].items()]
        assert facts["queries"] == [of["queries"], of["queries_sha256"]]
        assert facts["supports"] == [sum(count for count, _ in of["supports"].values()), digest(by_class)]
        assert facts["query_classes"] == [of["query_classes"], of["query_classes_sha256"]]


def test_all_lists_of_the_official_masks(voc2012: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("dataset=pascal5i", f"dataset.root={voc2012}", "pictures=0")
    assert "All 38 published lists agree with this copy." in capsys.readouterr().out


def test_published_lists_are_known_of_pascal_and_coco_2014_alone() -> None:
    index, _ = random_index(0, 60, 80)
    reader: Any = Plain(80)
    asked = [reader, reader], [index, index]
    coco = compare("coco20i", "interleaved", 2048, *asked, 2014, "include")
    assert [c.published.entries for c in coco if c.of.startswith("val/")] == [26052, 15305, 13138, 12640]
    assert [(c.of, c.published, c.found) for c in coco[:2]] == [
        ("train", Fact(82081), Fact(60)),
        ("val", Fact(40137), Fact(60)),
    ]
    assert len(coco) == 2 + 3 * 4
    # crowds drawn otherwise make other masks
    assert len(compare("coco20i", "interleaved", 2048, *asked, 2014, "ignore")) == 2
    assert not compare("coco20i", "interleaved", 2048, *asked, 2017, "include")
    assert not compare("coco20i", "contiguous", 2048, *asked, 2014, "include")
    assert not compare("pascal5i", "contiguous", 1, *asked)
    assert not compare("folder", "contiguous", 2048, *asked)


def test_order_counts_and_so_does_each_class() -> None:
    """An index that differs in one thing differs in the facts that hold it."""
    index, _ = random_index(0, 60, 20)
    facts = found(index)
    assert found(index) == facts
    i = int(np.flatnonzero(np.isin(index.class_id, range(1, 6)) & (index.pixels >= 2048))[0])
    smaller, gone = (index.pixels.copy() for _ in range(2))
    smaller[i], gone[i] = 2047, 0
    assert found(index._replace(pixels=smaller))["supports"] != facts["supports"]
    assert found(index._replace(pixels=gone))["query_classes"] != facts["query_classes"]
    backwards = Index(59 - index.image[::-1], index.class_id[::-1], index.pixels[::-1])
    assert found(backwards)["queries"] != facts["queries"]


class Plain:
    """A reader of 60 pictures, which nobody looks at."""

    def __init__(self, classes: int) -> None:
        self.classes = tuple(f"class {c}" for c in range(1, classes + 1))

    def __len__(self) -> int:
        return 60

    def name(self, index: int) -> str:
        return f"pictures/{index}.jpg"


def found(index: Index) -> dict[str, Fact]:
    """What is found of the lists of validation in fold 0."""
    reader: Any = Plain(20)
    compared = compare("pascal5i", "contiguous", 2048, [reader, reader], [index, index])
    return {c.part: c.found for c in compared if c.of == "val/fold0"}


def test_data_unlike_the_published_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pascal_tree.write(tmp_path / "VOC2012")
    command = ("dataset=pascal5i", f"dataset.root={tmp_path}", "pictures=0")
    with pytest.raises(SystemExit) as stop:
        run(*command)
    assert stop.value.code == 1
    told = capsys.readouterr().out
    assert "38 of 38 published lists differ" in told
    assert "not 5953" in told
    assert "[bold" not in told  # a style, not words
    # had the lists been so short, all would be well; objects here are too small to count
    facts = json.loads(published.FACTS.read_text())
    facts["pascal5i"]["pictures"] = {"train": len(pascal_tree.TRAIN), "val": len(pascal_tree.VAL)}
    for of in facts["pascal5i"]["lists"].values():
        of |= {part: [0] for part in of}
    (tmp_path / "short.json").write_text(json.dumps(facts))
    monkeypatch.setattr(published, "FACTS", tmp_path / "short.json")
    run(*command)
    assert "agree with this copy" in capsys.readouterr().out
    # another protocol is not compared
    run(*command, "dataset.min_pixels=1")
    assert "published" not in capsys.readouterr().out


@pytest.mark.parametrize("shot", [1, 2])
def test_own_pictures_and_their_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str], shot: int) -> None:
    write_folder(tmp_path / "data")
    sheet = tmp_path / "sheet.png"
    run(
        "dataset=folder",
        f"dataset.root={tmp_path / 'data'}",
        "dataset.fold_scheme=[[2,3],[1]]",
        f"shot={shot}",
        "pictures=3",
        f"sheet={sheet}",
    )
    told = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in told.splitlines()]
    for class_id, (name, fold) in enumerate(zip(NAMES, ("1", "0", "0", "", ""), strict=True), start=1):
        assert [str(class_id), name, *fold, "6", "6"] in rows
    assert str(sheet) in told
    with Image.open(sheet) as picture:
        width, height = picture.size
    row = 192 + 6 + 18
    assert (width, height) == ((shot + 2) * 198 + 6, 26 + 6 * row)  # supports, query, truth; three episodes each


def test_sheet_of_a_fold_without_base_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "data")
    sheet = tmp_path / "sheet.png"
    run(
        "dataset=folder",
        f"dataset.root={tmp_path / 'data'}",
        "dataset.fold_scheme=all_novel",
        "pictures=3",
        f"sheet={sheet}",
    )
    assert str(sheet) in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.height == 26 + 3 * (192 + 6 + 18)  # three episodes, all of evaluation


def test_number_of_pictures_of_the_official_archives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lungs = np.zeros((16, 20), np.uint8)
    lungs[4:12, 5:15] = 255
    for i in range(2):
        for path in (tmp_path / f"CXR_png/CHNCXR_000{i}_0.png", tmp_path / f"masks/CHNCXR_000{i}_0_mask.png"):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(lungs).save(path)
    sheet = tmp_path / "sheet.png"
    command = ("dataset=chestxray", f"dataset.root={tmp_path}", "dataset.min_pixels=1", f"sheet={sheet}")
    with pytest.raises(SystemExit):
        run(*command)
    told = capsys.readouterr().out
    assert "2, not 566" in told
    assert "704 masks, of which 566 are Shenzhen's" in told
    assert sheet.is_file()  # of evaluation alone, before the verdict
    monkeypatch.setitem(chestxray.MASKED, "shenzhen", 2)
    run(*command)
    assert "All 1 published lists agree" in capsys.readouterr().out
