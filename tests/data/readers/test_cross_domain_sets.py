"""DeepGlobe, ISIC, chest X-rays and SUIM from small trees with the real names, and evaluations on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.scripts import start

from fss.data import index
from fss.data.folds import check_base, fold_classes
from fss.data.index import build_index
from fss.data.readers import deepglobe, isic, suim
from fss.data.readers.chestxray import open_chestxray
from fss.data.readers.deepglobe import open_deepglobe
from fss.data.readers.isic import open_isic
from fss.data.readers.reader import FileReader
from fss.data.readers.suim import open_suim
from fss.evaluation.results import read_metrics

H, W = 16, 20
REGION = np.zeros((H, W), bool)
REGION[4:12, 5:15] = True


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(path: Path, grey: bool = False) -> None:
    save(path, np.full((H, W) if grey else (H, W, 3), 90, np.uint8))


def write_deepglobe(root: Path) -> None:
    for c in range(1, 7):
        for i in range(3):
            folder = root / f"Deepglobe/{c}/test"
            picture(folder / f"origin/{c}00_0{i}.jpg")
            save(folder / f"groundtruth/{c}00_0{i}.png", np.repeat(REGION[..., None] * np.uint8(255), 3, axis=2))


def write_isic(root: Path) -> None:
    rows = ["ID,Class"]
    for i, kind in enumerate(("nevus", "melanoma", "seborrheic_keratosis") * 3):
        picture(root / f"{isic.PICTURES}/ISIC_000000{i}.jpg")
        save(root / f"{isic.MASKS}/ISIC_000000{i}_segmentation.png", REGION * np.uint8(255))
        rows.append(f"ISIC_000000{i},{kind}")
    (root / "class_id.csv").write_text("\r\n".join(rows) + "\r\n", newline="")


def write_chestxray(root: Path) -> None:
    for i in range(3):
        picture(root / f"CXR_png/CHNCXR_000{i}_0.png", grey=True)
        save(root / f"masks/CHNCXR_000{i}_0_mask.png", np.where(REGION, 251, 3).astype(np.uint8))  # as of a JPEG
        picture(root / f"CXR_png/MCUCXR_000{i}_1.PNG", grey=True)
        save(root / f"masks/MCUCXR_000{i}_1.PNG", REGION)
    picture(root / "CXR_png/CHNCXR_0009_1.png")  # no mask


def write_suim(root: Path) -> None:
    for part, n in (("train_val", 3), ("TEST", 2)):
        for i in range(n):
            picture(root / f"{part}/images/d_r_{i}_.jpg")
            colours = np.zeros((H, W, 3), np.uint8)
            for c in range(1, 8):
                colours[2 * c : 2 * c + 2] = [250 * (c >> 2 & 1), 200 * (c >> 1 & 1), 255 * (c & 1)]
            save(root / f"{part}/masks/d_r_{i}_.bmp", colours)


SETS: dict[str, tuple[Callable[[Path], None], Callable[[str], FileReader], int, int]] = {
    "deepglobe": (write_deepglobe, open_deepglobe, 6, 18),
    "isic": (write_isic, open_isic, 3, 9),
    "chestxray": (write_chestxray, open_chestxray, 1, 3),
    "suim": (write_suim, open_suim, 7, 5),
}


@pytest.mark.parametrize("name", SETS)
def test_pictures_and_masks(name: str, tmp_path: Path) -> None:
    write, open_, classes, pictures = SETS[name]
    write(tmp_path)
    reader = open_(str(tmp_path))
    assert (len(reader.classes), len(reader)) == (classes, pictures)
    assert set(build_index(reader).class_id.tolist()) == set(range(1, classes + 1))
    assert reader.image(0).shape == (H, W, 3)
    if name != "suim":
        np.testing.assert_array_equal(reader.mask(0), REGION * reader.mask(0).max())
    assert all(Path(path).is_file() for path in reader.files())
    with pytest.raises(FileNotFoundError, match=r"set dataset\.root"):
        open_(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no "):
        open_(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", SETS)
def test_missing_and_odd_masks_are_named(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write, open_, *_ = SETS[name]
    write(tmp_path)
    first, second, third = [Path(path) for path in open_(str(tmp_path)).files()][-3:]
    first.unlink()
    save(second, np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        build_index(open_(str(tmp_path)))
    if first.suffix != ".png" or name != "chestxray":  # there, pictures without a mask do not count
        assert first.name in str(error.value)
    assert f"{second.name} looks like a photograph" in str(error.value)
    write(tmp_path)
    save(third, np.zeros((2 * H, 2 * W, 3), np.uint8))
    build_index(open_(str(tmp_path)))
    assert third.name in caplog.text


def test_colours_of_suim_are_bits(tmp_path: Path) -> None:
    write_suim(tmp_path)
    mask = open_suim(str(tmp_path)).mask(0)
    assert mask[::2, 0].tolist() == list(range(8))
    assert dict(zip(suim.CODES, suim.CLASSES, strict=True))["FV"] == suim.CLASSES[mask[12, 0] - 1]


def test_suim_with_a_mask_for_each_class(tmp_path: Path) -> None:
    for code in suim.CODES:
        for i in range(2):
            picture(tmp_path / f"images/d_r_{i}_.jpg")
            save(tmp_path / f"masks/{code}/d_r_{i}_.bmp", REGION * np.uint8(255))
    reader = open_suim(str(tmp_path))
    assert len(reader) == 14
    assert build_index(reader).class_id.tolist() == [c for c in range(1, 8) for _ in range(2)]


def test_isic_in_folders_and_with_faulty_lists(tmp_path: Path) -> None:
    write_isic(tmp_path)
    listed = tmp_path / "class_id.csv"
    listed.write_text("ID,Class\nISIC_0000000,nevus\n")
    with pytest.raises(ValueError, match=r"class_id\.csv has no class for ISIC_0000001\.jpg"):
        open_isic(str(tmp_path))
    listed.write_text("name\n")
    with pytest.raises(ValueError, match="must have the columns ID,Class"):
        open_isic(str(tmp_path))
    listed.unlink()
    with pytest.raises(FileNotFoundError, match=r"class_id\.csv: put the list"):
        open_isic(str(tmp_path))
    for i, path in enumerate(sorted((tmp_path / isic.PICTURES).glob("*.jpg"))):
        (path.parent / str(i % 3 + 1)).mkdir(exist_ok=True)
        path.rename(path.parent / str(i % 3 + 1) / path.name)
    reader = open_isic(str(tmp_path))
    assert reader.classes == ("1", "2", "3")
    assert len(reader) == 9


def test_kept_index_of_isic_goes_by_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of pictures is the same in both."""
    monkeypatch.setattr(index, "WORTHWHILE", 1)
    write_isic(tmp_path)
    for first in (3, 2):
        rows = [f"ISIC_000000{i},{'melanoma' if i < first else 'nevus'}" for i in range(9)]
        (tmp_path / "class_id.csv").write_text("\n".join(["ID,Class", *rows]))
        assert build_index(open_isic(str(tmp_path))).class_id.tolist() == [1] * first + [2] * (9 - first)


def test_hospitals(tmp_path: Path) -> None:
    write_chestxray(tmp_path)
    assert len(open_chestxray(str(tmp_path), ("shenzhen", "montgomery"))) == 6
    build_index(open_chestxray(str(tmp_path), ("montgomery",)))
    with pytest.raises(ValueError, match=r"dataset\.sets=\['york'\]: must be"):
        open_chestxray(str(tmp_path), ("york",))


def test_empty_class_of_deepglobe(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    for path in (tmp_path / "Deepglobe/5/test/origin").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no pictures of water in .*5/test/origin"):
        open_deepglobe(str(tmp_path))


def test_every_class_is_novel_and_none_is_trained() -> None:
    for fold in range(4):
        classes = fold_classes(len(deepglobe.CLASSES), fold, "all_novel")
        assert classes.novel == (1, 2, 3, 4, 5, 6)
        with pytest.raises(ValueError, match="no base class to train on"):
            check_base(classes, fold)


def test_training_data_of_unknown_classes_is_no_obstacle(tmp_path: Path) -> None:
    write_chestxray(tmp_path / "xray")
    data = ["dataset=chestxray", f"dataset.root={tmp_path / 'xray'}", "dataset.size=64", "dataset.num_workers=0"]
    model = ["trained_on=shapes", "method=prior", "tuning=frozen", "backbone.weights=null"]
    start("evaluate", *data, *model, "trainer=cpu", "pictures=0", "episodes=4", f"outputs={tmp_path / 'outputs'}")
    [metrics] = read_metrics(tmp_path).values()
    assert (metrics["dataset"], metrics["train_dataset"]) == ("chestxray", "shapes")
    assert list(metrics["classes"]) == ["lung"]
