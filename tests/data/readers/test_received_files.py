"""Pictures, masks and lists as strangers and other tools make them."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.own_pictures import NAMES, H, W, mask_of, stem, write

from fss.data.index import build_index
from fss.data.readers import pictures
from fss.data.readers.folder import Folder, open_folder
from fss.data.readers.fss1000 import FSS1000
from fss.data.readers.pascal import read_list
from fss.data.readers.pictures import image_size, read_image, read_mask, read_region


def noise(height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)


# Checksums


def test_no_flipped_bit_of_a_mask_goes_unseen(tmp_path: Path) -> None:
    """823 of 4872 flips gave another mask in silence."""
    Image.fromarray(mask_of(1)).save(tmp_path / "sound.png")
    sound, expected = (tmp_path / "sound.png").read_bytes(), mask_of(1)
    path, refusals = tmp_path / "mask.png", []
    for bit in range(8 * len(sound)):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_mask(path)
        except ValueError as error:
            refusals.append(str(error))
        else:
            np.testing.assert_array_equal(found, expected)
    assert len(refusals) > 0.9 * 8 * len(sound)
    assert all("mask.png" in refusal for refusal in refusals)


def test_damaged_png_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.stack([noise()] * 3, -1)).save(path)
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture\.png cannot be read as a picture"):
        read_image(path)


# Sizes


def png_of(width: int, height: int) -> bytes:
    """A small file that claims to be large: zeros, well compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))  # one bit a pixel
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [read_image, read_mask, read_region, image_size])
def test_large_picture_is_refused_before_it_is_decoded(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """It took 77 s and 5.1 GB."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(30000, 30000))
    assert path.stat().st_size < 200_000
    with pytest.raises(
        ValueError,
        match=r"bomb\.png: .*pixels.* more than dataset\.max_pixels=100000000 \(predict\.py: max_pixels\): make",
    ):
        read(path)


def test_limit_is_a_setting(tmp_path: Path) -> None:
    write(tmp_path)
    reader = open_folder(str(tmp_path), max_pixels=H * W - 1)
    with pytest.raises(ValueError, match=rf"{stem(0)}\.png: 32 x 24 pixels are more than dataset\.max_pixels=767"):
        build_index(reader)
    build_index(open_folder(str(tmp_path), max_pixels=H * W))


def test_larger_limit_than_pillows_own(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_of(14000, 14000))  # beyond what Pillow refuses by itself
    before = Image.MAX_IMAGE_PIXELS
    assert image_size(path, 200_000_000) == (14000, 14000)
    assert before == Image.MAX_IMAGE_PIXELS  # of the whole process


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_large_masks_are_decoded(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"mask.{ending}"
    Image.fromarray(mask_of(1)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    np.testing.assert_array_equal(read_mask(path, H * W), mask_of(1))
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_and_forks_leave_pillows_own_limit(tmp_path: Path) -> None:
    path, before = tmp_path / "large.png", Image.MAX_IMAGE_PIXELS
    path.write_bytes(png_of(14000, 14000))
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(image_size, path, 200_000_000) for _ in range(40)]
        for _ in range(5):
            if (child := os.fork()) == 0:
                os._exit(image_size(path, 200_000_000) != (14000, 14000) or before != Image.MAX_IMAGE_PIXELS)
            assert os.waitpid(child, 0)[1] == 0
        assert {one.result() for one in found} == {(14000, 14000)}
    assert before == Image.MAX_IMAGE_PIXELS


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=r"a\.png cannot be read as a"):
            read(path)


# Numbers


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_few_bits_are_read_as_they_stand(tmp_path: Path, bits: int) -> None:
    """Of four bits id 1 was read as 17."""
    ids = (np.arange(16).reshape(4, 4) % 2**bits).astype(np.uint8)
    packed = np.packbits(((ids[..., None] >> np.arange(bits)[::-1]) & 1).reshape(4, -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    content = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", 4, 4, bits, 0, 0, 0, 0)
    for kind, part in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")):
        content += struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
    (tmp_path / "mask.png").write_bytes(content)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


def test_palette_of_few_bits(tmp_path: Path) -> None:
    ids = (np.arange(16).reshape(4, 4) % 4).astype(np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(bytes(range(255, 243, -1)))
    image.save(tmp_path / "mask.png", bits=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


def test_masks_with_losses_are_refused(tmp_path: Path) -> None:
    Image.fromarray(mask_of(1)).save(tmp_path / "mask.png", "JPEG")
    with pytest.raises(ValueError, match=r"mask\.png is a JPEG, which changes values"):
        read_mask(tmp_path / "mask.png")
    Image.fromarray(mask_of(1).astype(np.float32)).save(tmp_path / "mask.png", "TIFF")
    with pytest.raises(ValueError, match=r"mask\.png has fractions"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("classes", [False, True])
def test_photograph_in_a_masks_place(tmp_path: Path, classes: bool) -> None:
    write(tmp_path, classes=classes)
    Image.fromarray(noise()).save(tmp_path / f"masks/{stem(3)}.png")
    reader = Folder(str(tmp_path))
    assert len(reader.classes) == 5  # not 254
    with pytest.raises(ValueError, match=rf"{stem(3)}\.png looks like a photograph"):
        build_index(reader)


def test_masks_of_255_among_masks_of_ids_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    for i in (2, 5):
        binary = (mask_of(i) > 0).astype(np.uint8) * 255
        Image.fromarray(binary).save(tmp_path / f"masks/{stem(i)}.png")
    build_index(Folder(str(tmp_path)))
    assert "2 of 15 pictures: the mask of" in caplog.text
    assert (
        f"{stem(2)}.png holds 255 (ignored) and no class id; masks of 0 and 255 belong in masks/CLASS/"
        in caplog.text
    )
    assert f"{stem(5)}.png" in caplog.text


def test_empty_masks_of_classes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, per_class=True)
    Image.fromarray(np.zeros((H, W), np.uint8)).save(tmp_path / f"masks/cat/{stem(1)}.png")
    build_index(Folder(str(tmp_path)))
    assert "1 of 15 pictures" in caplog.text
    assert f"{stem(1)}.png shows no pixel of cat, its mask is empty" in caplog.text


# Lists of classes


@pytest.mark.parametrize("name", ["_background_", "background", "__ignore__", "Background"])
def test_background_is_no_class(tmp_path: Path, name: str) -> None:
    """It shifted every name by one."""
    write(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join([name, *NAMES]))
    with pytest.raises(
        ValueError, match=rf"classes\.txt lists {name}: background is 0 and has no line.*remove it"
    ):
        Folder(str(tmp_path))
    per_class = write(tmp_path / "per class", per_class=True, classes=False)
    (per_class / "masks" / name).mkdir()
    with pytest.raises(ValueError, match=rf"masks/{name} is no class"):
        Folder(str(per_class))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark", "utf-32"])
def test_encodings_of_lists(tmp_path: Path, encoding: str) -> None:
    write(tmp_path)
    text = "\r\n".join(["fourmi éé", *NAMES[1:]])
    content = b"\xff\xfe" + text.encode("utf-16-le") if "mark" in encoding else text.encode(encoding)
    (tmp_path / "classes.txt").write_bytes(content)
    assert Folder(str(tmp_path)).classes == ("fourmi éé", *NAMES[1:])


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
def test_other_encodings_of_lists_are_named(tmp_path: Path, encoding: str) -> None:
    write(tmp_path)
    (tmp_path / "classes.txt").write_bytes("\n".join(["fourmi é", *NAMES[1:]]).encode(encoding))
    with pytest.raises(
        ValueError, match=r"classes\.txt (is not text in UTF-8.*cp1252|holds NULs).*save it as UTF-8"
    ):
        Folder(str(tmp_path))


def test_damaged_list_gives_a_short_message(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "classes.txt").write_bytes(os.urandom(3_000_000))
    with pytest.raises(ValueError, match=r"classes\.txt") as error:
        Folder(str(tmp_path))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("stem_", ["../../etc/passwd", "/etc/passwd", "a/b", ".."])
def test_lists_of_pictures_stay_in_the_folder(tmp_path: Path, stem_: str) -> None:
    (tmp_path / "train.txt").write_text(f"2007_000032\n{stem_}\n")
    with pytest.raises(ValueError, match=r"train\.txt lists what cannot be the name of a picture"):
        read_list(tmp_path / "train.txt")


# Names of files and folders


def test_hidden_files_and_folders_are_not_data(tmp_path: Path) -> None:
    write(tmp_path, per_class=True, classes=False)
    for folder in ("masks/.ipynb_checkpoints", "images/.ipynb_checkpoints", "masks/ant/.ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        Image.fromarray(noise()).save(tmp_path / folder / f"{stem(0)}-checkpoint.png")
    (tmp_path / f"images/._{stem(0)}.png").write_bytes(b"what macOS leaves")
    (tmp_path / f"masks/ant/._{stem(0)}.png").write_bytes(b"what macOS leaves")
    reader = Folder(str(tmp_path))
    assert reader.classes == NAMES
    assert len(reader) == 15
    build_index(reader)


def test_hidden_folders_of_fss1000(tmp_path: Path) -> None:
    for folder in ("ant", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(tmp_path / folder / "1.jpg")
        Image.fromarray((mask_of(0) > 0).astype(np.uint8) * 255).save(tmp_path / folder / "1.png")
    assert FSS1000(str(tmp_path)).classes == ("ant",)


def test_names_in_latin_1(tmp_path: Path) -> None:
    """Names that are no UTF-8 are read, and told in characters that every file and console can hold."""
    write(tmp_path, per_class=True, classes=False)
    for folder in ("images", *(f"masks/{name}" for name in NAMES)):
        path = os.fsencode(tmp_path / folder / f"{stem(1)}.png")
        if os.path.exists(path):
            os.rename(path, os.fsencode(tmp_path / folder) + b"/caf\xe9.png")
    os.rename(tmp_path / "masks/ant", os.fsencode(tmp_path / "masks") + b"/fourmi\xe9")
    reader = Folder(str(tmp_path))
    build_index(reader)
    names = [reader.name(i) for i in range(len(reader))]
    assert any(name.endswith("caf\\xe9.png") for name in names)
    assert "fourmi\\xe9" in reader.classes
    for text in (*names, *reader.classes):
        text.encode()
    for i in range(len(reader)):
        assert reader.image(i).shape[:2] == reader.mask(i).shape


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "own")
    assert len(open_folder("~/own")) == 15
    assert len(open_folder("~/own", like=str(tmp_path / "own"))) == 15


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_under_two_names(tmp_path: Path, link: Callable[[str, str], None]) -> None:
    """A support would be the query itself."""
    write(tmp_path)
    (tmp_path / f"images/{stem(4)}.png").unlink()
    link(str(tmp_path / f"images/{stem(3)}.png"), str(tmp_path / f"images/{stem(4)}.png"))
    with pytest.raises(ValueError, match=rf"{stem(3)}\.png and .*{stem(4)}\.png are one file: remove one"):
        build_index(Folder(str(tmp_path)))


def test_many_problems_give_a_message_that_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, n=200)
    for i in range(200):
        (tmp_path / f"masks/{stem(i)}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="200 of 200 pictures cannot be used") as error:
        build_index(Folder(str(tmp_path)))
    assert "and 150 more" in str(error.value)


# Classes of two folders


def test_classes_of_evaluation_pictures_are_matched_by_name(tmp_path: Path) -> None:
    train, other = write(tmp_path / "train"), write(tmp_path / "other")
    (other / "classes.txt").write_text("\n".join(NAMES[::-1]))
    reader = open_folder(str(other), like=str(train))
    assert reader.classes == NAMES
    for i in range(15):
        own = mask_of(i)  # id 1 is elk here, which is 5 in training
        np.testing.assert_array_equal(reader.mask(i), np.where(own > 0, 6 - own, 0))
    index = build_index(reader)
    assert set(index.class_id.tolist()) == {1, 2, 3, 4, 5}


def test_ignored_pixels_stay_ignored_when_classes_are_matched(tmp_path: Path) -> None:
    train, other = write(tmp_path / "train"), write(tmp_path / "other")
    (other / "classes.txt").write_text("\n".join(NAMES[::-1]))
    mask = mask_of(0)
    mask[0, :] = 255
    Image.fromarray(mask).save(other / f"masks/{stem(0)}.png")
    assert (open_folder(str(other), like=str(train)).mask(0)[0] == 255).all()


def test_some_of_the_classes_are_enough(tmp_path: Path) -> None:
    train, other = (
        write(tmp_path / "train", per_class=True),
        write(tmp_path / "other", per_class=True, classes=False),
    )
    for name in NAMES[:3]:
        for path in (other / "masks" / name).iterdir():
            path.unlink()
        (other / "masks" / name).rmdir()
    for i in range(15):  # pictures that show nothing else
        if not any((other / "masks" / name / f"{stem(i)}.png").exists() for name in NAMES[3:]):
            (other / f"images/{stem(i)}.png").unlink()
    reader = open_folder(str(other), like=str(train))
    assert reader.classes == NAMES
    assert set(build_index(reader).class_id.tolist()) == {4, 5}


def test_unknown_classes_are_refused_by_name(tmp_path: Path) -> None:
    train, other = write(tmp_path / "train"), write(tmp_path / "other")
    (other / "classes.txt").write_text("\n".join([*NAMES[:4], "wasp"]))
    with pytest.raises(ValueError, match=r"other has classes that .*train does not have: wasp; .*matched by name"):
        open_folder(str(other), like=str(train))


# FSS-1000's known faults


def test_mask_of_another_size_is_resized_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ant").mkdir()
    region = np.zeros((224, 224), np.uint8)
    region[56:168, 28:140] = 255
    for i, size in ((1, 224), (2, 448), (3, 100)):
        Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(tmp_path / f"ant/{i}.jpg")
        Image.fromarray(region).resize((size, size), Image.Resampling.NEAREST).save(tmp_path / f"ant/{i}.png")
    reader = FSS1000(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        build_index(reader)
    assert reader.mask(1).shape == (224, 224)
    np.testing.assert_array_equal(reader.mask(1), region // 255)
    assert abs(int(reader.mask(2).sum()) - 112 * 112) < 112 * 5
    assert "2 of 3 pictures" in caplog.text
    assert "ant/2.png (448 x 448 pixels) is resized to its picture's 224 x 224" in caplog.text
    assert "ant/3.png (100 x 100 pixels)" in caplog.text


def test_photograph_in_place_of_a_region(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"a\.png looks like a photograph"):
        read_region(tmp_path / "a.png")
