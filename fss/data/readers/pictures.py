"""Reads picture and mask files into arrays, with errors that name the file.

Nothing is decoded before its size is known, and only common formats are decoded at all.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fss.files.text import printable

AnyPath = TypeVar("AnyPath", str, Path)

# Pixels that a picture may have (10 000 x 10 000): a small file can claim to be gigabytes.
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF")
# by which pictures are found in folders; a file that is named is judged by its content
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
Image.init()  # or some of them would not be known yet
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are judged here
_LIMIT = threading.Lock()  # of Pillow's limit; a process is forked only while no thread holds it
os.register_at_fork(before=_LIMIT.acquire, after_in_parent=_LIMIT.release, after_in_child=_LIMIT.release)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = 0  # PNG's colour type of one number a pixel
# what Pillow raises for damaged files; SyntaxError is for PNGs
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
)


class TooLargeError(ValueError):
    """A picture with more pixels than were allowed."""


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads any picture file as (h, w, 3) uint8 RGB.

    Grey, CMYK and 16-bit pictures are converted, the EXIF orientation is applied, and alpha is dropped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a picture, truncated, of more than 16 bits a number, or (`TooLargeError`) larger
            than `max_pixels`.
    """
    encoded = path.read_bytes()  # imread does not distinguish a missing file from a damaged one
    file = _open(path, encoded, max_pixels, "picture")
    if _bits(file) > 16:
        raise ValueError(f"{printable(path)} has numbers of {_bits(file)} bits: convert it to 8 or 16 bits")
    _check_png(path, encoded, "picture")
    image = None if _is_cut_short(encoded) else _decoded(encoded)
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        raise _unreadable(path, "picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _unreadable(path: Path, what: str, why: object = None) -> ValueError:
    reason = f" ({str(why)[:200]})" if why and what == "mask" else ""
    return ValueError(f"{printable(path)} cannot be read as a {what}{reason}: get a new copy of this file")


def _bits(file: Image.Image) -> int:
    """Bits of one number of a TIFF; of other formats, which have 16 at most, 8."""
    told = getattr(file, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 8)
    return max(told) if isinstance(told, tuple) else told


def _decoded(encoded: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # OpenCV raises for some damaged headers and returns None for others
        return None


def _open(path: Path, encoded: bytes, max_pixels: int, what: str) -> Image.Image:
    """The picture with its header read and nothing decoded."""
    try:
        with _pillow_takes(max_pixels):
            file = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+ pixels", str(error))
        raise _too_large(path, pixels[0] if pixels else "its pixels", max_pixels) from None
    except UnidentifiedImageError as error:
        if encoded.startswith(_TIFF):
            raise ValueError(
                f"{printable(path)} is a TIFF of a kind that is not read here, such as fractions, or damaged: "
                "convert it to 8 or 16 bits, or get a new copy of this file"
            ) from error
        raise _unreadable(path, what, f"none of {', '.join(FORMATS)}") from error
    except _DAMAGE as error:
        raise _unreadable(path, what, error) from error
    width, height = file.size
    if width * height > max_pixels:
        raise _too_large(path, f"{width} x {height} pixels", max_pixels)
    return file


@contextmanager
def _pillow_takes(max_pixels: int) -> Iterator[None]:
    """Raises Pillow's own limit where it is the lower one, and only for now: it is that of the whole process."""
    with _LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        if before is not None and max_pixels > before:
            Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _too_large(path: Path, size: str, max_pixels: int) -> TooLargeError:
    return TooLargeError(
        f"{printable(path)}: {size} are more than dataset.max_pixels={max_pixels} (predict.py: max_pixels): "
        "make it smaller, or raise the setting if you trust the file"
    )


def _is_cut_short(encoded: bytes) -> bool:
    """Whether a JPEG ends within its pixel data, in which case OpenCV would fill the rest with grey."""
    end_of_picture, start_of_scan = b"\xff\xd9", b"\xff\xda"  # neither can occur within the pixel data
    if not encoded.startswith(_JPEG) or encoded.endswith(end_of_picture):
        return False
    return encoded.rfind(end_of_picture) < encoded.rfind(start_of_scan)


def _check_png(path: Path, encoded: bytes, what: str) -> None:
    """Verifies a PNG's checksums; decoders skip them, so that a flipped bit would give another picture."""
    if not encoded.startswith(_PNG):
        return
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        if len(encoded) < at + 12:
            raise _unreadable(path, what, "cut short")
        length, kind = struct.unpack(">I4s", encoded[at : at + 8])
        checked = encoded[at + 4 : at + 8 + length]  # a slice that ends early fails the comparison
        if zlib.crc32(checked) != int.from_bytes(encoded[at + 8 + length : at + 12 + length]):
            raise _unreadable(path, what, f"damaged: checksum at byte {at}")
        at += 12 + length


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns the (h, w) of `read_image`, usually reading only the beginning and end of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a picture, certainly truncated, or larger than `max_pixels`.
    """
    with path.open("rb") as raw:
        head = raw.read(1 << 16)
    try:
        file = _open(path, head, max_pixels, "picture")
        width, height = file.size
        # for a TIFF, Pillow gives the size after applying the orientation
        turned = file.format != "TIFF" and file.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except TooLargeError:
        raise
    except (ValueError, *_DAMAGE):
        # the header is longer than what was read, as in some TIFFs, or damaged
        height, width = read_image(path, max_pixels).shape[:2]
        return height, width
    marker = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(file.format or "", b"")
    if marker not in _tail(path):
        read_image(path, max_pixels)  # an unusual ending, which is rare: decode the file to be sure
    return (width, height) if turned else (height, width)


def _tail(path: Path, length: int = 256) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(length, path.stat().st_size), os.SEEK_END)
        return file.read()


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads the raw values (h, w) uint8 of a single-channel or palette picture, its EXIF orientation applied.

    Uses Pillow, since OpenCV would convert a palette's indices to the brightness of their colours.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a picture, is larger than `max_pixels`, is stored with losses, or has colours,
            fractions, or values above 255.
    """
    encoded = path.read_bytes()
    mask = _load_mask(path, encoded, max_pixels)
    mode, values = mask.mode, np.asarray(upright(mask))
    if values.ndim != 2:
        raise ValueError(
            f"{printable(path)} is a colour picture ({mode}): a mask needs one value per pixel or a palette"
        )
    if mask.format in ("JPEG", "WEBP"):
        raise ValueError(
            f"{printable(path)} is a {mask.format}, which changes values when it compresses: save the mask as PNG"
        )
    if values.dtype.kind == "f":
        raise ValueError(f"{printable(path)} has fractions ({mode}): a mask needs one whole number per pixel")
    if values.dtype.itemsize > 1 and (values.min() < 0 or values.max() > 255):
        raise ValueError(
            f"{printable(path)} has values from {values.min()} to {values.max()}: a mask must have 0 to 255"
        )
    depth, colours = encoded[24:26] if encoded.startswith(_PNG) else b"\x08\x00"
    if colours == _GREY and depth in (2, 4):  # Pillow stretches them to 0..255, so that 1 would be 85 or 17
        values = values // (255 // (2**depth - 1))
    return values.astype(np.uint8)


def read_region(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads the mask of a single object from any kind of picture: (h, w) bool, True for bright pixels.

    The EXIF orientation is applied, here and by `read_colours`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a picture, looks like a photograph, or is larger than `max_pixels`.
    """
    brightness = np.asarray(upright(_load_mask(path, path.read_bytes(), max_pixels)).convert("L"))
    between = np.count_nonzero((brightness >= 64) & (brightness < 192)) / brightness.size
    if between > 0.2:
        raise ValueError(
            f"{printable(path)} looks like a photograph, {between:.0%} of it is neither dark nor bright: a mask "
            "of one object is black and white"
        )
    return brightness >= 128


def read_colours(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a mask whose classes are colours of 0 and 255: (h, w, 3) uint8, 1 for bright red, green and blue.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a picture, looks like a photograph, or is larger than `max_pixels`.
    """
    colours = np.asarray(upright(_load_mask(path, path.read_bytes(), max_pixels)).convert("RGB"))
    between = np.mean(((colours >= 64) & (colours < 192)).any(axis=2))
    if between > 0.2:
        raise ValueError(
            f"{printable(path)} looks like a photograph, {between:.0%} of its colours are of no class: a mask of "
            "this data set has colours of 0 and 255 alone"
        )
    return (colours >= 128).astype(np.uint8)


def _load_mask(path: Path, encoded: bytes, max_pixels: int) -> Image.Image:
    mask = _open(path, encoded, max_pixels, "mask")
    _check_png(path, encoded, "mask")
    is_large = mask.width * mask.height > MAX_PIXELS  # within Pillow's limit, others are decoded side by side
    try:
        with _pillow_takes(max_pixels) if is_large else nullcontext():
            mask.load()
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise _unreadable(path, "mask", error) from error
    return mask


def upright(picture: Image.Image) -> Image.Image:
    """A decoded picture turned as its EXIF orientation says; EXIF that cannot be read says nothing."""
    try:
        return ImageOps.exif_transpose(picture)
    except _DAMAGE:
        return picture


def absent(paths: Iterable[AnyPath]) -> list[AnyPath]:
    """Returns the files that are missing; lists whole folders, which is faster than checking each file.

    For a hundred thousand files, strings take a tenth of the time of Path objects.
    """
    paths = list(paths)
    names = [os.path.split(path) for path in paths]
    there = {folder: _listed(folder) for folder in {folder for folder, _ in names}}
    return [path for path, (folder, name) in zip(paths, names, strict=True) if name not in there[folder]]


def _listed(folder: str) -> set[str]:
    return set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
