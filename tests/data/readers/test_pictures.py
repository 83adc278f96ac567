"""Picture and mask files of every kind that people have, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fss.data.readers.pictures import absent, image_size, read_image, read_mask, read_region

H, W = 20, 30
RGB = np.zeros((H, W, 3), np.uint8)
RGB[:10], RGB[10:, :15], RGB[10:, 15:] = (200, 30, 60), (10, 120, 220), (90, 90, 10)
IDS = np.random.default_rng(0).choice([0, 1, 7, 20, 255], (H, W)).astype(np.uint8)


def save(path: Path, values: np.ndarray = RGB, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a name with spaces.png", "ünïcode 図.jpg", "a.bmp", "a.webp"])
def test_rgb(tmp_path: Path, name: str) -> None:
    image = read_image(save(tmp_path / name, quality=95, subsampling=0, lossless=True))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - RGB).mean() < (3 if name.endswith("jpg") else 1e-9)


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", mode="L"))
    np.testing.assert_array_equal(image, np.asarray(Image.fromarray(RGB).convert("L"))[..., None].repeat(3, 2))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.arange(H * W, dtype=np.uint8).reshape(H, W)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), RGB)


def test_palette_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).quantize(8).save(path)
    assert np.abs(read_image(path).astype(int) - RGB).max() <= 2


def test_cmyk(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.jpg", mode="CMYK", quality=100))
    assert image.shape == (H, W, 3)
    assert np.abs(image.astype(int) - RGB).mean() < 8


def test_sixteen_bits(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", np.full((H, W), 257 * 90, np.uint16)))
    assert image.shape == (H, W, 3)
    assert image.dtype == np.uint8
    assert set(image.ravel().tolist()) == {90}


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    image = read_image(save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0))
    assert np.abs(image.astype(int) - np.rot90(RGB, -1)).mean() < 3


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("keep", [0, 1, 0.5, -2])
def test_damaged_picture_is_named(tmp_path: Path, name: str, keep: float) -> None:
    path = save(tmp_path / name, np.random.default_rng(0).integers(256, size=(H, W, 3), dtype=np.uint8))
    content = path.read_bytes()
    length = int(keep * len(content)) if isinstance(keep, float) else len(content) + keep if keep < 0 else keep
    if name == "a.png" and keep == -2:
        length -= 40  # the pixels end before the file does
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a picture: get a new copy of this file"):
        read_image(path)


def test_no_picture_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as a picture"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        read_image(tmp_path / "b.jpg")


def test_bytes_after_the_picture_do_no_harm(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_image(path).shape == (H, W, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((H, W), 70_000, np.int32), r"a\.tif has numbers of 32 bits: convert it to 8 or 16 bits$"),
        (np.full((H, W), 0.5, np.float32), r"a\.tif has numbers of 32 bits: convert it to 8 or 16 bits$"),
        (
            RGB.astype(np.float32) / 255,
            r"a\.tif is a TIFF of a kind that is not read here.* convert it to 8 or 16",
        ),
        (RGB.astype(np.float64), r"a\.tif is a TIFF of a kind that is not read here.* convert it to 8 or 16"),
    ],
)
def test_sound_tiffs_of_more_bits_are_told_to_be_converted(
    values: np.ndarray, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.tif"
    if values.ndim == 2:
        save(path, values)
    else:
        cv2.imwrite(str(path), values)
    with pytest.raises(ValueError, match=message):
        read_image(path)
    assert "OpenCV" not in capfd.readouterr().err


def test_tiffs_of_8_and_16_bits_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif")), RGB)
    cv2.imwrite(str(tmp_path / "b.tif"), RGB[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), RGB)


# Sizes without decoding


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_size_is_that_of_the_image(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, **({} if suffix == "bmp" else {"exif": exif}))  # type: ignore[arg-type]
    assert image_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("length", [0, 20, -1000])
def test_damage_is_noticed_without_decoding(tmp_path: Path, name: str, length: int) -> None:
    path = save(tmp_path / name, np.random.default_rng(0).integers(256, size=(H, W, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a picture: get a new copy of this file"):
        image_size(path)


def test_size_with_bytes_after_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0" * 1000)
    assert image_size(path) == (H, W)
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        image_size(tmp_path / "b.jpg")


# Masks


def test_mask_of_numbers(tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path / "a.png", IDS))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, IDS)


def test_palette_mask_is_read_as_numbers(tmp_path: Path) -> None:
    image = Image.fromarray(IDS)
    image.putpalette(np.random.default_rng(1).integers(256, size=768).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), IDS)


def test_mask_of_one_bit(tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path / "a.png", IDS == 7))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, IDS == 7)


def test_mask_of_sixteen_bits(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", IDS.astype(np.uint16))), IDS)
    save(tmp_path / "b.png", IDS.astype(np.uint16) + 300)
    with pytest.raises(ValueError, match=r"b\.png has values from 300 to 555: a mask must have 0 to 255"):
        read_mask(tmp_path / "b.png")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_pictures_are(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", IDS, exif=exif)
    expected = read_image(path)[..., 0]
    np.testing.assert_array_equal(read_mask(path), expected)
    np.testing.assert_array_equal(read_region(save(path, (IDS > 0) * np.uint8(255), exif=exif)), expected > 0)
    assert image_size(path) == expected.shape


def test_exif_that_cannot_be_read_turns_no_mask(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", IDS, exif=b"Exif\0\0nothing of it")), IDS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_in_colours_is_refused(tmp_path: Path, mode: str) -> None:
    save(tmp_path / "a.png", mode=mode)
    with pytest.raises(ValueError, match=rf"a\.png is a colour picture \({mode}\): a mask needs one value"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_damaged_mask_is_named(tmp_path: Path, keep: float) -> None:
    path = save(tmp_path / "a.png", IDS)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a mask"):
        read_mask(path)


def test_absent(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    paths = [tmp_path / "b.png", tmp_path / "a.png", tmp_path / "nowhere/a.png"]
    assert absent(iter(paths)) == [paths[0], paths[2]]
