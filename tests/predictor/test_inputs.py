"""Pictures and masks in every form that callers have them in, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fss.data.readers.pictures import read_image
from fss.predictor.inputs import Picture, as_mask, as_picture

H, W = 6, 9
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
MASK = np.zeros((H, W), np.uint8)
MASK[1:4, 2:5] = 1


def test_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(RGB).save(file)
    alpha = np.dstack([RGB, np.full((H, W), 7, np.uint8)])
    forms: list[Picture] = [
        *(file, str(file), Image.open(file), RGB, alpha, Image.fromarray(alpha)),
        *(torch.from_numpy(RGB).permute(2, 0, 1), RGB.astype(np.int64), RGB / 255, RGB.astype(np.uint16) * 256),
        torch.from_numpy(alpha).permute(2, 0, 1).float() / 255,
    ]
    for form in forms:
        found = as_picture(form)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, RGB)


def test_grey_of_8_and_16_bits_and_palettes(tmp_path: Path) -> None:
    grey = RGB[..., 0]
    deep = grey.astype(np.uint16) * 256 + 17
    file = tmp_path / "deep.png"
    Image.fromarray(deep).save(file)
    for form in (grey, grey[..., None], Image.fromarray(grey), Image.fromarray(deep), deep, file):
        np.testing.assert_array_equal(as_picture(form), np.repeat(grey[..., None], 3, axis=2))
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([0, 0, 0, 10, 20, 30])
    np.testing.assert_array_equal(as_picture(palette), MASK[..., None] * np.array([10, 20, 30], np.uint8))
    np.testing.assert_array_equal(as_picture(MASK == 1)[..., 1], MASK * 255)


def test_pil_pictures_of_32_bits_follow_the_rules_of_arrays() -> None:
    grey = RGB[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    for values in (grey.astype(np.int32), grey.astype(np.float32) / 255):
        np.testing.assert_array_equal(as_picture(Image.fromarray(values)), expected)
    deep = io.BytesIO(b"P5 9 6 65535\n" + (grey.astype(">u2") * 257).tobytes())
    np.testing.assert_array_equal(as_picture(Image.open(deep)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_tensors_of_numbers_that_numpy_lacks(dtype: torch.dtype) -> None:
    tensor = torch.tensor(MASK, dtype=torch.float32).to(dtype)
    np.testing.assert_array_equal(as_picture(tensor[None])[..., 0], MASK * 255)
    np.testing.assert_array_equal(as_mask(tensor, (H, W)), MASK)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_with_their_pictures(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(MASK).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(np.repeat(MASK[..., None], 3, axis=2)).save(tmp_path / "picture.png", exif=exif)
    expected = as_picture(tmp_path / "picture.png")[..., 0]
    for mask in (tmp_path / "mask.png", Image.open(tmp_path / "mask.png")):
        np.testing.assert_array_equal(as_mask(mask, expected.shape), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_files(orientation: int, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(file, exif=exif)
    expected = read_image(file)
    np.testing.assert_array_equal(as_picture(Image.open(file)), expected)
    assert expected.shape == ((W, H, 3) if orientation >= 5 else (H, W, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, H, W, 3), np.uint8), "one picture at a time"),
        (np.zeros((H, 0, 3), np.uint8), "one picture at a time"),
        (np.zeros((3, H, W), np.uint8), "channels last"),
        (np.full((H, W, 3), np.nan), "must be in 0..1"),
        (np.full((H, W, 3), 200.0), "must be in 0..1"),
        (np.full((H, W, 3), 256), "must be in 0..255"),
        (np.zeros((H, W, 3), complex), "give uint8"),
        (np.zeros((200, 100, 3), np.uint8), "larger than max_pixels=10000"),
        (Image.new("I", (W, H), 70_000), r"from 70000 to 70000: values must be in 0\.\.255, or of uint16"),
        (Image.new("F", (W, H), 200), r"from 200\.0 to 200\.0: values must be in 0\.\.1$"),
        (torch.zeros(3, H, W).to_sparse(), "a tensor of torch.float32 .* give a dense one"),
        (torch.zeros(3, H, W, device="meta"), "a tensor of torch.float32 .* give a dense one"),
        (Image.new("La", (W, H)), "mode La: convert it to RGB"),
        (Image.new("L", (200, 100)), "larger than max_pixels=10000"),
    ],
)
def test_what_is_no_picture(given: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_picture(given, max_pixels=10_000)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "a.jpg"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as a picture"):
        as_picture(text)
    with pytest.raises(FileNotFoundError, match=r"no picture .*absent\.jpg: give a file that exists"):
        as_picture(tmp_path / "absent.jpg")
    Image.fromarray(RGB).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    Image.fromarray(RGB).save(tmp_path / "closed.png")
    with Image.open(tmp_path / "closed.png") as closed:
        pass
    for opened in (Image.open(tmp_path / "cut.png"), closed):
        with pytest.raises(ValueError, match="a PIL picture whose file is closed or damaged: open it again"):
            as_picture(opened)
    Image.new("1", (200, 100)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match=r"huge\.png: 200 x 100 pixels are more than"):
        as_picture(tmp_path / "huge.png", max_pixels=10_000)


def test_every_form_of_a_mask(tmp_path: Path) -> None:
    palette = Image.fromarray(MASK * 3, "P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(MASK * 255).save(tmp_path / "grey.png")
    forms = [
        *(MASK, MASK == 1, MASK * 255, MASK.astype(np.int64) * 7, MASK.astype(float), MASK[..., None]),
        *(torch.from_numpy(MASK), torch.from_numpy(MASK)[None] == 1, Image.fromarray(MASK), palette),
        *(tmp_path / "palette.png", tmp_path / "grey.png", Image.fromarray(MASK == 1)),
    ]
    for form in forms:
        found = as_mask(form, (H, W))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, MASK)


def test_255_beside_an_object_is_ignored() -> None:
    values = MASK * 4
    values[0] = 255
    found = as_mask(values, (H, W))
    assert (found[0] == 255).all()
    np.testing.assert_array_equal(found[1:], MASK[1:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((H, W), np.uint8), "the mask is empty"),
        (MASK[:-1], r"the mask has 5 x 9 pixels \(height x width\), the picture 6 x 9: "),
        (MASK.T, "perhaps because the picture is turned"),
        (np.arange(H * W).reshape(H, W) % 4, r"holds 3 values besides 0 \(1, 2, 3\): give .* `labels == 1`"),
        (np.zeros((H, W, 3), np.uint8), "one value per pixel"),
        (MASK * 0.5, "give whole numbers"),
    ],
)
def test_what_is_no_mask(given: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_mask(given, (H, W))


def test_a_mask_with_losses_is_refused(tmp_path: Path) -> None:
    Image.fromarray(MASK * 255).save(tmp_path / "mask.jpg")
    with pytest.raises(ValueError, match="save the mask as PNG"):
        as_mask(tmp_path / "mask.jpg", (H, W))
