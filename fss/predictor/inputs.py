"""Pictures and masks in whatever form a caller has them, as arrays.

Shapes: h w height and width of the picture, in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fss.data.readers.pictures import MAX_PIXELS, read_image, read_mask, upright
from fss.files.text import printable
from fss.labels import IGNORE

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_FORMS = "a file, a PIL picture, an array or a tensor"
_FRACTIONS = (torch.float64, torch.float32, torch.float16)  # that numpy has too


def is_picture(given: Any) -> bool:
    """Whether a value is one picture rather than several."""
    return isinstance(given, str | os.PathLike | Image.Image | np.ndarray | Tensor)


def as_list(given: Any, what: str = "picture") -> list[Any]:
    """One picture or several as a list.

    Args:
        given: The picture, or any number of them.
        what: What messages call one.

    Raises:
        ValueError: It is neither.
    """
    return [given] if is_picture(given) else list(several(given, what))


def several(given: Any, what: str = "picture") -> Iterable[Any]:
    """Several pictures as they come; see `as_list`."""
    if isinstance(given, bytes | bytearray | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{_shown(given)} is no {what}: give {_FORMS}, or a list of these")
    return given


def name_of(picture: Picture, number: int) -> str:
    """How messages and files refer to a picture: its file's name without suffix, or its number."""
    return Path(picture).stem if isinstance(picture, str | os.PathLike) else f"picture {number}"


def as_picture(picture: Picture, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns a picture as (h, w, 3) uint8 RGB; alpha is dropped, and grey and 16 bits are converted.

    Args:
        picture: A file or a PIL picture, which are turned as their EXIF orientation says; an array (h, w),
            (h, w, 1), (h, w, 3) or (h, w, 4); or a tensor with channels first. Whole numbers are in 0..255, of
            uint16 in 0..65535, fractions in 0..1.
        max_pixels: Larger pictures are refused, files before they are decoded.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such picture, or too large.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(_file(picture, "picture"), max_pixels)
    if isinstance(picture, Image.Image):
        values = _pil_values(picture, max_pixels)
    elif isinstance(picture, Tensor):
        values = _tensor_values(picture)
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    elif isinstance(picture, np.ndarray):
        values = picture
    else:
        raise ValueError(f"{_shown(picture)} is no picture: give {_FORMS}")
    if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"a picture of shape {values.shape} (channels last): give one picture at a time, as an array "
            "(height, width, 3) or a tensor (3, height, width)"
        )
    _check_area(values.shape[0], values.shape[1], max_pixels)
    values = _bytes(values)
    colours = values[..., None] if values.ndim == 2 else values
    colours = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours[..., :3]
    return np.ascontiguousarray(colours)


def _shown(given: Any) -> str:
    """What was given in place of a picture, in a few words."""
    return "None" if given is None else f"a value of type {type(given).__name__}"


def _file(given: str | os.PathLike[str], what: str) -> Path:
    """The path of a file that exists."""
    name = os.fspath(given)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{name!r} is no name of a {what}: give {_FORMS}")
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        raise ValueError(f"{printable(path)} is a folder, no {what}: give its files, in a list")
    if not os.path.exists(path):
        raise FileNotFoundError(f"no {what} {printable(name)[:200]}: give a file that exists")
    return path


def _pil_values(picture: Image.Image, max_pixels: int) -> np.ndarray:
    """(h, w) or (h, w, 3), turned upright; of 16 bits and of Pillow's modes I and F as numbers, else RGB."""
    turned = _turned(picture, max_pixels)
    # as Pillow opens PGM of 16 bits
    if turned.mode in _SIXTEEN_BITS or (turned.mode == "I" and picture.format == "PPM"):
        return np.asarray(turned).astype(np.uint16)
    if turned.mode in ("I", "F"):
        return np.asarray(turned)
    try:
        return np.asarray(turned.convert("RGB"))
    except ValueError as error:
        raise ValueError(f"a PIL picture of mode {turned.mode}: convert it to RGB") from error


def _turned(picture: Image.Image, max_pixels: int) -> Image.Image:
    """A PIL picture, decoded and upright."""
    _check_area(picture.height, picture.width, max_pixels)
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, AttributeError, AssertionError) as error:  # whatever Pillow raises
        raise ValueError("a PIL picture whose file is closed or damaged: open it again") from error
    return upright(picture)


def _tensor_values(tensor: Tensor) -> np.ndarray:
    try:
        plain = tensor.detach().cpu()
        return (plain.float() if plain.is_floating_point() and plain.dtype not in _FRACTIONS else plain).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantised, or without content
        raise ValueError(f"a tensor of {tensor.dtype} that is no array of numbers: give a dense one") from error


def _bytes(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values * np.uint8(255)
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    whole = values.dtype.kind in "iu"
    if not (whole or values.dtype.kind == "f"):
        raise ValueError(f"a picture of {values.dtype}: give uint8 in 0..255 or fractions in 0..1")
    low, high = values.min(), values.max()
    most, allowed = (255, "0..255, or of uint16 in 0..65535") if whole else (1, "0..1")
    if not (low >= 0 and high <= most):  # NaN fails too
        raise ValueError(f"a picture of {values.dtype} from {low} to {high}: values must be in {allowed}")
    return (values if whole else np.rint(values * 255)).astype(np.uint8)


def as_mask(mask: Picture, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns the mask of one object as (h, w) uint8: 1 object, 0 background, 255 ignored.

    Args:
        mask: A file or PIL picture of one channel or with a palette, which are turned as their EXIF orientation
            says; or an array or tensor (h, w). 0 is background
            and one other value the object; 255 is ignored if it is a third one.
        size: (h, w) of the picture.
        max_pixels: See `as_picture`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such mask, is of another size, or shows nothing.
    """
    if isinstance(mask, str | os.PathLike):
        file = _file(mask, "mask")
        values, what = read_mask(file, max_pixels), f"the mask {file}"
    else:
        values, what = _mask_values(mask, max_pixels), "the mask"
    if values.shape != tuple(size):
        turned = ", perhaps because the picture is turned by its EXIF orientation" * (values.shape == size[::-1])
        raise ValueError(
            f"{what} has {' x '.join(map(str, values.shape))} pixels (height x width), the picture "
            f"{' x '.join(map(str, size))}{turned}: they must have the same size"
        )
    found = [int(value) for value in np.unique(values) if value]
    objects = [value for value in found if value != IGNORE] or found
    if not objects:
        raise ValueError(f"{what} is empty: mark the object with a value other than 0")
    if len(objects) > 1:
        raise ValueError(
            f"{what} holds {len(objects)} values besides 0 ({', '.join(map(str, objects[:5]))}"
            f"{', ...' * (len(objects) > 5)}): give the mask of one class, such as `labels == {objects[0]}`"
        )
    result = (values == objects[0]).astype(np.uint8)
    if objects[0] != IGNORE:
        result[values == IGNORE] = IGNORE
    return result


def _mask_values(mask: Image.Image | np.ndarray | Tensor, max_pixels: int) -> np.ndarray:
    """(h, w) whole numbers."""
    if isinstance(mask, Image.Image):
        values = np.asarray(_turned(mask, max_pixels))
    elif isinstance(mask, np.ndarray | Tensor):
        values = _tensor_values(mask) if isinstance(mask, Tensor) else mask
        values = values.squeeze() if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]) else values
    else:
        raise ValueError(f"{_shown(mask)} is no mask: give {_FORMS}")
    if values.ndim != 2:
        raise ValueError(f"a mask of shape {values.shape}: it needs one value per pixel, (height, width)")
    if values.dtype.kind not in "biu":
        if values.dtype.kind != "f" or not np.isin(values, (0, 1)).all():
            raise ValueError(f"a mask of {values.dtype}: give whole numbers, booleans, or 0. and 1.")
        values = values.astype(np.uint8)
    return values


def _check_area(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise ValueError(
            f"a picture of {width} x {height} pixels is larger than max_pixels={max_pixels}: make it smaller, or "
            "raise max_pixels"
        )
