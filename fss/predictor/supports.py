"""Supports as the network sees them, and their file.

Shapes: S side of the square, K supports.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fss.files.text import is_name
from fss.files.whole import whole
from fss.geometry import Geometry
from fss.models.views import Support

_FORMAT = "fss supports 1"


Shots = Mapping[str, Sequence[Support]]


def save_supports(path: Path, supports: Shots, negatives: Shots, size: int, geometry: Geometry) -> None:
    """Writes supports and negatives of all classes into one safetensors file, whole or not at all.

    Raises:
        OSError: The file could not be written.
    """
    tensors: dict[str, Tensor] = {}
    counts: list[list[str | int]] = []
    for number, (name, shots) in enumerate(sorted(supports.items())):
        without = negatives.get(name, ())
        counts.append([name, len(shots), *([len(without)] if without else [])])
        for shot, support in enumerate((*shots, *without)):
            tensors[f"{number}.{shot}.image"] = support.image.contiguous().clone()
            tensors[f"{number}.{shot}.mask"] = support.mask.contiguous().clone()
    told = {"format": _FORMAT, "size": size, "geometry": geometry, "classes": counts}
    content = save(tensors, {"supports": json.dumps(told)})
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


def load_supports(
    path: Path, size: int, geometry: Geometry
) -> tuple[dict[str, list[Support]], dict[str, list[Support]]]:
    """Supports and negatives of every class, from what `save_supports` wrote for the same size and geometry.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or made for another size or geometry.
    """
    if not os.path.isfile(path):  # which does not mind names that no file can have
        raise FileNotFoundError(f"no file {path}: give one that save_supports wrote")
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("supports", "null"))
            counts = _checked(told, path, size, geometry)
            shapes = {"image": ("F32", [3, size, size]), "mask": ("U8", [size, size])}
            if len(file.keys()) != len(shapes) * sum(
                k + negative for _, k, negative in counts
            ):  # before numbers are believed
                raise ValueError(f"{path} is damaged: it holds other tensors than it says")
            keys = {
                f"{n}.{shot}.{part}"
                for n, (_, k, negative) in enumerate(counts)
                for shot in range(k + negative)
                for part in shapes
            }
            if set(file.keys()) != keys:
                raise ValueError(f"{path} is damaged: it holds other tensors than it says")
            for key in keys:
                part = file.get_slice(key)
                if (part.get_dtype(), part.get_shape()) != shapes[key.rpartition(".")[2]]:
                    raise ValueError(f"{path} is damaged: {key} is {part.get_dtype()} {part.get_shape()}")
            supports: dict[str, list[Support]] = {}
            negatives: dict[str, list[Support]] = {}
            for n, (name, k, negative) in enumerate(counts):
                for shot in range(k + negative):
                    image, mask = (file.get_tensor(f"{n}.{shot}.{part}") for part in shapes)
                    of = supports if shot < k else negatives
                    of.setdefault(name, []).append(_support(image, mask, shows=shot < k, path=path))
            return supports, negatives
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no file of supports ({str(error)[:200]})") from error


def _checked(told: object, path: Path, size: int, geometry: Geometry) -> list[tuple[str, int, int]]:
    """Names of classes with the numbers of their supports and negatives."""
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
            case [str(name), int(k), *more] if is_name(name) and 1 <= k <= 10_000 and _is_count(more):
                counts.append((name, int(k), *more) if more else (name, int(k), 0))
            case _:
                raise ValueError(f"{path} is damaged: its list of classes cannot be used")
    if len({name for name, *_ in counts}) < len(counts):
        raise ValueError(f"{path} is damaged: it names a class twice")
    return counts


def _is_count(more: list[object]) -> bool:
    """Whether what follows a class's supports is nothing, or a number of negatives."""
    return not more or (len(more) == 1 and type(more[0]) is int and 0 <= more[0] <= 10_000)


def _support(image: Tensor, mask: Tensor, shows: bool, path: Path) -> Support:
    in_range = torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 255
    if not in_range or bool((mask == 1).any()) != shows:
        raise ValueError(f"{path} is damaged: a picture has values outside 0..255, or a mask is empty")
    return Support(image, mask)
