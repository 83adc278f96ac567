"""Picture and mask files to arrays, with errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import ExifTags, Image

AnyPath = TypeVar("AnyPath", str, Path)


def read_image(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB of any picture file: grey, CMYK, 16-bit too; turned as its EXIF says, without alpha.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, or cut short.
    """
    encoded = path.read_bytes()  # imread would not tell a missing file from a damaged one
    image = None if _is_cut_short(encoded) else _decoded(encoded)
    if image is None:
        raise ValueError(f"{path} cannot be read as a picture: get this file anew")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decoded(encoded: bytes) -> np.ndarray | None:
    if not encoded:
        return None
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # OpenCV refuses some damaged headers so, others by None
        return None


def _is_cut_short(encoded: bytes) -> bool:
    """Whether a JPEG ends within its pixels, for which OpenCV would make up the rest in grey."""
    end_of_picture, start_of_scan = b"\xff\xd9", b"\xff\xda"  # neither can occur within the pixels
    if not encoded.startswith(b"\xff\xd8") or encoded.endswith(end_of_picture):
        return False
    return encoded.rfind(end_of_picture) < encoded.rfind(start_of_scan)


def image_size(path: Path) -> tuple[int, int]:
    """(h, w) that `read_image` would give; reads no more than both ends of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, or surely cut short.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            # of a TIFF Pillow gives the size after turning
            turned = file.format != "TIFF" and file.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            marker = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(file.format or "", b"")
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a picture: get this file anew") from error
    if marker not in _tail(path):
        read_image(path)  # an odd ending, which is rare: only this tells
    return (width, height) if turned else (height, width)


def _tail(path: Path, length: int = 256) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(length, path.stat().st_size), os.SEEK_END)
        return file.read()


def read_mask(path: Path) -> np.ndarray:
    """(h, w) uint8 numbers of a one-channel or palette picture, as they stand in the file.

    By Pillow: OpenCV would turn a palette's numbers into the brightness of its colours.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, has colours in place of numbers, or numbers above 255.
    """
    mask = _open_mask(path)
    mode, values = mask.mode, np.asarray(mask)
    if values.ndim != 2:
        raise ValueError(f"{path} is a picture in colours ({mode}): a mask needs one number a pixel or a palette")
    if values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise ValueError(f"{path} holds numbers from {values.min()} to {values.max()}: a mask has 0 to 255")
    return values.astype(np.uint8)


def read_region(path: Path) -> np.ndarray:
    """(h, w) bool: where a picture of any kind that shows one object is bright.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture.
    """
    return np.asarray(_open_mask(path).convert("L")) >= 128


def _open_mask(path: Path) -> Image.Image:
    try:
        with Image.open(path) as file:
            file.load()
            return file
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for damaged PNGs
        raise ValueError(f"{path} cannot be read as a mask ({error}): get this file anew") from error


def absent(paths: Iterable[AnyPath]) -> list[AnyPath]:
    """Those of the files that are not there; lists folders, which is faster than asking for each file.

    Of a hundred thousand files strings take a tenth of the time that paths take.
    """
    paths = list(paths)
    names = [os.path.split(path) for path in paths]
    there = {folder: _listed(folder) for folder in {folder for folder, _ in names}}
    return [path for path, (folder, name) in zip(paths, names, strict=True) if name not in there[folder]]


def _listed(folder: str) -> set[str]:
    return set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
