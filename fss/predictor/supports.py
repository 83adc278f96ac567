"""Supports as the network sees them, and their file.

Shapes: S side of the square, K supports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fss.files.text import is_name
from fss.files.whole import whole
from fss.geometry import Geometry

_FORMAT = "fss supports 1"


class Support(NamedTuple):
    """One support.

    Attributes:
        image: (3, S, S) float32 RGB in 0..255.
        mask: (S, S) uint8: 1 object, 0 background, 255 ignored.
    """

    image: Tensor
    mask: Tensor


def save_supports(path: Path, supports: Mapping[str, Sequence[Support]], size: int, geometry: Geometry) -> None:
    """Writes the supports of all classes into one safetensors file, whole or not at all.

    Raises:
        OSError: The file could not be written.
    """
    tensors: dict[str, Tensor] = {}
    counts = []
    for number, (name, shots) in enumerate(sorted(supports.items())):
        counts.append([name, len(shots)])
        for shot, support in enumerate(shots):
            tensors[f"{number}.{shot}.image"] = support.image.contiguous()
            tensors[f"{number}.{shot}.mask"] = support.mask.contiguous()
    told = {"format": _FORMAT, "size": size, "geometry": geometry, "classes": counts}
    content = save(tensors, {"supports": json.dumps(told)})
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


def load_supports(path: Path, size: int, geometry: Geometry) -> dict[str, list[Support]]:
    """Reads what `save_supports` wrote, for a model that sees pictures in the same way.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or made for another size or geometry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give one that save_supports wrote")
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("supports", "null"))
            counts = _checked(told, path, size, geometry)
            shapes = {"image": ("F32", [3, size, size]), "mask": ("U8", [size, size])}
            if len(file.keys()) != len(shapes) * sum(k for _, k in counts):  # before numbers are believed
                raise ValueError(f"{path} is damaged: it holds other tensors than it says")
            keys = {
                f"{n}.{shot}.{part}" for n, (_, k) in enumerate(counts) for shot in range(k) for part in shapes
            }
            if set(file.keys()) != keys:
                raise ValueError(f"{path} is damaged: it holds other tensors than it says")
            for key in keys:
                part = file.get_slice(key)
                if (part.get_dtype(), part.get_shape()) != shapes[key.rpartition(".")[2]]:
                    raise ValueError(f"{path} is damaged: {key} is {part.get_dtype()} {part.get_shape()}")
            return {
                name: [
                    _support(file.get_tensor(f"{n}.{shot}.image"), file.get_tensor(f"{n}.{shot}.mask"), path)
                    for shot in range(k)
                ]
                for n, (name, k) in enumerate(counts)
            }
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no file of supports ({str(error)[:200]})") from error


def _checked(told: object, path: Path, size: int, geometry: Geometry) -> list[tuple[str, int]]:
    """Names of classes with the numbers of their supports."""
    if not isinstance(told, dict) or told.get("format") != _FORMAT:
        raise ValueError(f"{path} is no file of supports: give one that save_supports wrote")
    if (told.get("size"), told.get("geometry")) != (size, geometry):
        raise ValueError(
            f"{path} holds supports for pictures of {told.get('size')!r:.20} pixels, geometry "
            f"{told.get('geometry')!r:.20}; this model takes {size}, {geometry}: fit it with the pictures again"
        )
    classes = told.get("classes")
    counts = []
    for entry in classes if isinstance(classes, list) else [None]:
        match entry:
            case [str(name), int(k)] if is_name(name) and 1 <= k <= 10_000 and not isinstance(k, bool):
                counts.append((name, k))
            case _:
                raise ValueError(f"{path} is damaged: its list of classes cannot be used")
    if len({name for name, _ in counts}) < len(counts):
        raise ValueError(f"{path} is damaged: it names a class twice")
    return counts


def _support(image: Tensor, mask: Tensor, path: Path) -> Support:
    if not (torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 255 and (mask == 1).any()):
        raise ValueError(f"{path} is damaged: a picture has values outside 0..255, or a mask is empty")
    return Support(image, mask)
