"""The check of a data set: its numbers against counting by hand, the published lists, the sheet."""

from __future__ import annotations

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
from fss.data.check import census
from fss.data.check.census import count_classes, count_folds, oracles
from fss.data.index import Index

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


def test_published_lists_are_known_of_pascal_and_coco_2014_alone() -> None:
    (train, _), (evaluation, _) = random_index(0, 60, 20), random_index(1, 60, 20)
    folds = count_folds(train, evaluation, 20, "contiguous", 2048)
    pascal = oracles("pascal5i", None, (5953, 1449), folds)
    assert len(pascal) == 2 + 3 * 4
    assert [o.found == o.published for o in pascal[:2]] == [True, True]
    assert [o.found for o in pascal[2:6]] == [fold.excluded for fold in folds]
    assert [o.published for o in pascal[2:6]] == [4208, 3726, 2752, 4510]
    assert [o.what for o in oracles("coco20i", 2014, (1, 2), folds)] == ["pictures, train", "pictures, val"]
    assert not oracles("coco20i", 2017, (1, 2), folds)
    assert not oracles("folder", None, (1, 2), folds)


def test_data_unlike_the_published_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pascal_tree.write(tmp_path / "VOC2012")
    command = ("dataset=pascal5i", f"dataset.root={tmp_path}", "pictures=0")
    with pytest.raises(SystemExit) as stop:
        run(*command)
    assert stop.value.code == 1
    told = capsys.readouterr().out
    assert "14 numbers differ from the published lists" in told
    assert "-5950" in told  # three pictures of 5953
    # had the lists been so short, all would be well; objects here are too small to count
    for name in ("PASCAL_EXCLUDED", "PASCAL_NOT_EXCLUDED", "PASCAL_EVALUATION"):
        monkeypatch.setattr(census, name, (0, 0, 0, 0))
    monkeypatch.setattr(census, "PASCAL_LISTS", (len(pascal_tree.TRAIN), len(pascal_tree.VAL)))
    run(*command)
    assert "equal" in capsys.readouterr().out
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
