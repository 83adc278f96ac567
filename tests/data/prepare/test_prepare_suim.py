"""SUIM from small archives with the real names: whole, with faulty masks, cut short."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss.data.prepare.suim import prepare_suim
from fss.data.readers.suim import CLASSES, open_suim

H, W = 16, 20
STEMS = {"train_val": ("d_r_1_", "f_r_1058_"), "TEST": ("w_r_7_",)}


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def colours(height: int = H) -> np.ndarray:
    """Two rows of each class, of colours that are not quite pure."""
    mask = np.zeros((height, W, 3), np.uint8)
    for c in range(1, 8):
        mask[2 * c : 2 * c + 2] = [250 * (c >> 2 & 1), 200 * (c >> 1 & 1), 255 * (c & 1)]
    return mask


def write(folder: Path, changes: dict[str, bytes | None] | None = None) -> None:
    for part, stems in STEMS.items():
        files: dict[str, bytes | None] = {f"{part}/readme.txt": b""}
        for stem in stems:
            files[f"{part}/images/{stem}.jpg"] = encoded(np.full((H, W, 3), 90, np.uint8), "JPEG")
            files[f"{part}/masks/{stem}.bmp"] = encoded(colours(), "BMP")
        files |= {name: content for name, content in (changes or {}).items() if name.startswith(part)}
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for name, content in files.items():
                if content is not None:
                    archive.writestr(name, content)


def test_both_parts(tmp_path: Path) -> None:
    write(tmp_path)
    first, second = prepare_suim(tmp_path / "out", tmp_path)
    assert first == "suim: 3 pictures (the official archives have 1635)"
    assert all(f"{name} 3" in second for name in CLASSES)
    assert len(open_suim(str(tmp_path / "out"))) == 3
    assert not list((tmp_path / "out").rglob("readme.txt"))


def test_masks_of_another_size_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The official archive has some: f_r_1058_ is one of them."""
    write(tmp_path, {"train_val/masks/f_r_1058_.bmp": encoded(colours(H + 3), "BMP")})
    prepare_suim(tmp_path / "out", tmp_path)
    assert "f_r_1058_.bmp (20 x 19 pixels) is resized to its picture's 20 x 16" in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"TEST/masks/w_r_7_.bmp": None, "TEST/masks/w_r_8_.bmp": encoded(colours(), "BMP")},
            r"TEST\.zip: 2 pictures and masks are alone, the first is TEST's w_r_7_ without a mask.*again",
        ),
        (
            {"train_val/masks/d_r_1_.bmp": encoded(np.full((H, W, 3), 100, np.uint8), "BMP")},
            r"d_r_1_\.bmp looks like a photograph, 100% of its colours are of no class",
        ),
        (
            {"train_val/masks/d_r_1_.bmp": encoded(colours(), "BMP")[:-100]},
            r"d_r_1_\.bmp cannot be read as a mask.*get a new copy",
        ),
    ],
)
def test_faulty_masks_are_named(changes: dict[str, bytes | None], told: str, tmp_path: Path) -> None:
    write(tmp_path, changes)
    with pytest.raises(ValueError, match=told):
        prepare_suim(tmp_path / "out", tmp_path)


def test_archives_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no train_val\.zip in .*irvlab.*--archives$"):
        prepare_suim(tmp_path / "out", tmp_path)
    with pytest.raises(ValueError, match="its checksum is not known here"):
        prepare_suim(tmp_path / "out", tmp_path, download=True)


def test_a_cut_archive_leaves_only_whole_files_and_the_next_run_goes_on(tmp_path: Path) -> None:
    write(tmp_path)
    whole = (tmp_path / "train_val.zip").read_bytes()
    (tmp_path / "train_val.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"train_val\.zip is damaged or truncated.*download it again"):
        prepare_suim(tmp_path / "out", tmp_path)
    assert not list((tmp_path / "out").rglob("*.part"))
    (tmp_path / "train_val.zip").write_bytes(whole)
    assert len(prepare_suim(tmp_path / "out", tmp_path)) == 2
