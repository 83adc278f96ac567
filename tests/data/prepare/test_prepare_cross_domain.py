"""ISIC and DeepGlobe from small archives with the real names."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss.data.index import build_index
from fss.data.prepare import cross_domain
from fss.data.prepare.__main__ import main
from fss.data.prepare.cross_domain import prepare_deepglobe, prepare_isic
from fss.data.readers.deepglobe import CLASSES, open_deepglobe
from fss.data.readers.isic import MASKS, PICTURES
from fss.files import lock


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_tiles_of_deepglobe(tmp_path: Path) -> None:
    """Tiles of the first column but the last have two halves; the others one colour, or 2 % of black."""
    colours = np.zeros((96, 96, 3), np.uint8)
    colours[...] = [255, 255, 0]  # agriculture
    for i, colour in enumerate(([0, 250, 255], [255, 0, 255], [3, 255, 0], [0, 0, 255], [255, 255, 255])):
        colours[16 * i : 16 * i + 8, :16] = colour
    colours[:1, 32:37] = 0  # 5 of 256 pixels
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("train/12_sat.jpg", encoded(np.full((96, 96, 3), 90, np.uint8), "JPEG"))
        archive.writestr("train/12_mask.png", encoded(colours, "PNG"))
        archive.writestr("valid/13_sat.jpg", b"")
    [line] = prepare_deepglobe(tmp_path / "out", tmp_path, workers=1)
    assert "agriculture 5, urban 1, rangeland 1, forest 1, water 1, barren 1" in line
    reader = open_deepglobe(str(tmp_path / "out"))
    assert sorted(path.name for path in reader.pictures()[:5]) == [f"12_{i}0.jpg" for i in range(5)]
    assert build_index(reader).pixels.tolist() == [128] * 10
    assert len(CLASSES) == 6
    with pytest.raises(FileNotFoundError, match=r"no archive\.zip in .*kaggle"):
        prepare_deepglobe(tmp_path / "other", tmp_path / "other", workers=1)


def test_isic(tmp_path: Path) -> None:
    for folder, name in ((PICTURES, "ISIC_0000000.jpg"), (MASKS, "ISIC_0000000_segmentation.png")):
        with zipfile.ZipFile(tmp_path / f"{folder}.zip", "w") as archive:
            archive.writestr(f"{folder}/{name}", b"content")
            archive.writestr(f"{folder}/LICENSE.txt", b"")
    lines = prepare_isic(tmp_path / "out", tmp_path)
    assert lines == ["isic: 1 pictures, 1 masks", "The official archives have 2594 of each."]
    assert (tmp_path / f"out/{MASKS}/ISIC_0000000_segmentation.png").is_file()


def command(monkeypatch: pytest.MonkeyPatch, root: Path, archives: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["prepare", "isic", f"--root={root}", f"--archives={archives}"])
    return main()


def test_new_folder_is_held_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new/isic"
    monkeypatch.setattr(cross_domain, "prepare_isic", lambda root, *_: [f"held: {(root / lock.NAME).is_file()}"])
    assert command(monkeypatch, root, tmp_path) == 0
    assert capsys.readouterr().out == "held: True\n"


def test_refusal_leaves_no_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, tmp_path / "new/isic", tmp_path) == 2
    with zipfile.ZipFile(tmp_path / f"{PICTURES}.zip", "w") as archive:
        archive.writestr("other.txt", b"")
    assert command(monkeypatch, tmp_path / "new/isic", tmp_path) == 2
    assert [":".join(line.split(":")[:2]) for line in capsys.readouterr().err.splitlines()] == [
        f"error: no {PICTURES}.zip in {tmp_path} or {tmp_path}/new/isic",
        f"error: {tmp_path}/{PICTURES}.zip is not the official archive (no file matches (?",
    ]
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    assert command(monkeypatch, tmp_path / "there", tmp_path) == 2
    assert not list((tmp_path / "there").iterdir())
