"""The file of an adapter or of a head: safetensors, with what it belongs to and a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fss.svf.digest import weights_digest

VERSION = "1"
_LARGEST_HEADER = 2**20  # bytes
_HEAD = "head."
_METADATA = {"svf_adapter", "weights", "layers", "sha256"}
_NUMBERS = (  # of a head: types in which torch can tell NaN and infinity
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


class AdapterFile(NamedTuple):
    """What an adapter file holds.

    Attributes:
        weights: Digest of the plain network that it belongs to.
        layers: Number of singular values of each layer, in the order of S; empty in a file of a head alone.
        S: All singular values, one layer after another.
        head: State dict of a head; empty without one.
    """

    weights: str
    layers: dict[str, int]
    S: Tensor
    head: dict[str, Tensor]


def read_adapter(path: str | Path) -> AdapterFile:
    """Reads a file of `save_adapter` or `save_head`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no adapter {path}: give a file of save_adapter")
    try:
        return _read(path)
    except (ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be used as an adapter ({error}): take another copy of it") from error


def _read(path: Path) -> AdapterFile:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(path.stat().st_size - 8, _LARGEST_HEADER):
        raise ValueError("it is cut short, or no safetensors file")
    with safe_open(path, "pt") as file:
        told = file.metadata() or {}
        if told.keys() != _METADATA or told["svf_adapter"] != VERSION:
            raise ValueError(f"it is no adapter of version {VERSION}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    if _checksum(told, tensors) != told["sha256"]:
        raise ValueError("its checksum is not that of its content")
    layers, S = json.loads(told["layers"]), tensors.pop("S", torch.empty(0))
    sizes_are_counts = isinstance(layers, dict) and all(type(n) is int and n > 0 for n in layers.values())
    if not sizes_are_counts or S.shape != (sum(layers.values()),):
        raise ValueError("its singular values are not as many as its layers have")
    if any(not name.startswith(_HEAD) for name in tensors):
        raise ValueError("it holds other tensors than S and a head")
    if S.dtype != torch.float32:
        raise ValueError("its singular values are not float32")
    _check_numbers((S, *tensors.values()))
    head = {name.removeprefix(_HEAD): value.clone() for name, value in tensors.items()}
    return AdapterFile(told["weights"], layers, S.clone(), head)


def write_adapter(path: str | Path, adapter: AdapterFile) -> None:
    """Writes an adapter, whole or not at all.

    Raises:
        OSError: The file cannot be written.
        ValueError: It holds what is not finite, or numbers of a type that would not be read again.
    """
    path = Path(path)
    tensors = {f"{_HEAD}{name}": value.cpu().contiguous() for name, value in adapter.head.items()}
    if adapter.layers:
        tensors["S"] = adapter.S.to(torch.float32)
    try:
        _check_numbers(tensors.values())
    except ValueError as error:
        raise ValueError(f"{path} is not written: {error}") from error
    layers = json.dumps(adapter.layers, separators=(",", ":"))
    told = {"svf_adapter": VERSION, "weights": adapter.weights, "layers": layers}
    content = save(tensors, {**told, "sha256": _checksum(told, tensors)})
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)  # whole or not at all
    finally:
        unfinished.unlink(missing_ok=True)


def _check_numbers(tensors: Iterable[Tensor]) -> None:
    for value in tensors:
        if value.dtype not in _NUMBERS:
            raise ValueError(f"it holds {value.dtype}, must be one of {', '.join(map(str, _NUMBERS))}")
        if not torch.isfinite(value).all():
            raise ValueError("it holds NaN or infinity")


def _checksum(told: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    text = "\n".join(told[key] for key in ("svf_adapter", "weights", "layers"))
    return hashlib.sha256(f"{text}\n{weights_digest(tensors)}".encode()).hexdigest()
