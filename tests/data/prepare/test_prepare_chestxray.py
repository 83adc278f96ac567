"""Chest X-rays from small archives with the real names: whole, with faulty lungs, interrupted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss.data.index import build_index
from fss.data.prepare import chestxray
from fss.data.prepare.chestxray import prepare_chestxray
from fss.data.readers.chestxray import open_chestxray

H, W = 24, 30
LEFT, RIGHT = np.zeros((2, H, W), bool)
LEFT[4:20, 16:26] = RIGHT[6:18, 3:12] = True
MONTGOMERY = ("MCUCXR_0001_0", "MCUCXR_0104_1")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def montgomery(change: Callable[[dict[str, bytes]], object] = dict) -> dict[str, bytes]:
    """The files of the official archive, after a change."""
    files = {"MontgomerySet/NLM-MontgomeryCXRSet-ReadMe.pdf": b"", "MontgomerySet/CXR_png/Thumbs.db": b""}
    for stem in MONTGOMERY:
        files[f"MontgomerySet/CXR_png/{stem}.png"] = png(np.full((H, W), 90, np.uint8))
        files[f"MontgomerySet/ManualMask/leftMask/{stem}.png"] = png(LEFT)
        files[f"MontgomerySet/ManualMask/rightMask/{stem}.png"] = png(RIGHT * np.uint8(255))
    change(files)
    return files


def kaggle() -> dict[str, bytes]:
    """Everything twice, as some copies have it; one picture of Shenzhen has no mask."""
    files = {}
    for top in ("Lung Segmentation", "data/Lung Segmentation"):
        for stem, mask in (("CHNCXR_0001_0", "CHNCXR_0001_0_mask"), ("MCUCXR_0001_0", "MCUCXR_0001_0")):
            files[f"{top}/CXR_png/{stem}.png"] = png(np.full((H, W), 90, np.uint8))
            files[f"{top}/masks/{mask}.png"] = png((LEFT | RIGHT) * np.uint8(255))
        files[f"{top}/CXR_png/CHNCXR_0025_0.png"] = png(np.full((H, W), 90, np.uint8))
        files[f"{top}/test/CHNCXR_0025_0.png"] = b""
    return files


def archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)


def test_lungs_of_montgomery_are_joined(tmp_path: Path) -> None:
    archive(tmp_path / "NLM-MontgomeryCXRSet.zip", montgomery())
    told = prepare_chestxray(tmp_path / "out", tmp_path, workers=1)
    assert told == ["chestxray montgomery: 2 pictures, 2 masks (the official archives have 138 masks)"]
    reader = open_chestxray(str(tmp_path / "out"), ("montgomery",))
    assert len(reader) == len(MONTGOMERY)
    np.testing.assert_array_equal(reader.mask(1), LEFT | RIGHT)
    assert build_index(reader).pixels.tolist() == [160 + 108] * 2
    with pytest.raises(FileNotFoundError, match="leave shenzhen out"):
        open_chestxray(str(tmp_path / "out"))


def test_both_hospitals_of_kaggle_and_lungs_that_it_lacks(tmp_path: Path) -> None:
    archive(tmp_path / "archive.zip", kaggle())
    told = prepare_chestxray(tmp_path / "out", tmp_path, workers=1)
    assert [line.partition(" (")[0] for line in told] == [
        "chestxray shenzhen: 2 pictures, 1 masks",
        "chestxray montgomery: 1 pictures, 1 masks",
    ]
    before = (tmp_path / "out/masks/MCUCXR_0001_0.png").read_bytes()
    archive(tmp_path / "NLM-MontgomeryCXRSet.zip", montgomery())
    assert "2 pictures, 2 masks" in prepare_chestxray(tmp_path / "out", tmp_path, workers=1)[1]
    assert (tmp_path / "out/masks/MCUCXR_0001_0.png").read_bytes() == before


def test_no_archive_is_told_with_both_addresses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither archive\.zip nor NLM-.*kaggle.*openi\.nlm.*--archives"):
        prepare_chestxray(tmp_path / "out", tmp_path, workers=1)
    archive(tmp_path / "archive.zip", {"train/12_sat.jpg": b""})  # Kaggle calls every archive so
    with pytest.raises(ValueError, match=r"archive\.zip is not the official archive"):
        prepare_chestxray(tmp_path / "out", tmp_path, workers=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda files: files.pop("MontgomerySet/ManualMask/rightMask/MCUCXR_0104_1.png"),
            r"lacks 1 masks of its pictures, the first is ManualMask/rightMask/MCUCXR_0104_1\.png.*again",
        ),
        (
            lambda files: files.update({"MontgomerySet/ManualMask/leftMask/MCUCXR_0104_1.png": png(LEFT[1:])}),
            r"leftMask/MCUCXR_0104_1\.png has 30 x 23 pixels, its picture 30 x 24: delete it and run",
        ),
        (
            lambda files: files.update(
                {
                    "MontgomerySet/ManualMask/leftMask/MCUCXR_0104_1.png": png(
                        np.random.default_rng(0).integers(0, 256, (H, W), np.uint8)
                    )
                }
            ),
            r"leftMask/MCUCXR_0104_1\.png looks like a photograph",
        ),
    ],
)
def test_faulty_lungs_are_named(change: Callable[[dict[str, bytes]], object], told: str, tmp_path: Path) -> None:
    archive(tmp_path / "NLM-MontgomeryCXRSet.zip", montgomery(change))
    with pytest.raises(ValueError, match=told):
        prepare_chestxray(tmp_path / "out", tmp_path, workers=1)
    archive(tmp_path / "NLM-MontgomeryCXRSet.zip", montgomery())
    for lung in (tmp_path / "out/ManualMask").rglob("MCUCXR_0104_1.png"):
        lung.unlink()
    prepare_chestxray(tmp_path / "out", tmp_path, workers=1)
    assert len(open_chestxray(str(tmp_path / "out"), ("montgomery",))) == len(MONTGOMERY)


def test_interrupted_joining_leaves_no_half_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "NLM-MontgomeryCXRSet.zip", montgomery())
    reads = []

    def interrupted(path: Path) -> np.ndarray:
        reads.append(path)
        if len(reads) == 4:  # the second lung of the second picture
            raise KeyboardInterrupt
        return np.asarray(Image.open(path)) > 0

    with monkeypatch.context() as patched:
        patched.setattr(chestxray, "read_region", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_chestxray(tmp_path / "out", tmp_path, workers=1)
    left = tmp_path / "out/masks/.MCUCXR_0104_1.png.1.part"  # as a killed process leaves it
    left.write_bytes(b"half")
    assert [path.name for path in (tmp_path / "out/masks").glob("*.png")] == ["MCUCXR_0001_0.png"]
    prepare_chestxray(tmp_path / "out", tmp_path, workers=2)
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == [f"{s}.png" for s in MONTGOMERY]
