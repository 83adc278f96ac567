"""Pretrained backbone weights: reading them and mapping their names to this program's."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from fss.display.shown import shown
from fss.files.checked_zip import check_zip, is_zip
from fss.svf import plain_state_dict


def read_state_dict(file: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint file, with `module.` prefixes removed.

    Only tensors and plain values are unpickled (`weights_only`); safetensors files hold nothing else. Files
    written by torch 1.6 or later have checksums, which are verified; in older files, damage is detected only if it
    makes a weight infinite.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is not a checkpoint, or contains no tensors of finite values.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights file {path}: give the path of a checkpoint (.pth, .ckpt, .safetensors)"
        )
    if is_zip(path):
        check_zip(path)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for files that are not checkpoints
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors: {_reason(error)}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise ValueError(f"{path} contains no state dict (a mapping of names to tensors)")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    if odd := [name for name, value in state.items() if not _is_finite(value)]:
        more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
        raise ValueError(
            f"{path}: {shown(', '.join(odd[:4]))}{more} hold what is "
            "not a finite real number (NaN, infinity) or are no plain tensors: take another checkpoint, as an "
            "earlier one of the same run"
        )
    return state


def _reason(error: Exception) -> str:
    """Why torch has not read a file, without its advice to trust the file."""
    if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL (\S+)", str(error))):
        return f"it holds objects ({shown(code[1])}), which could run code; save its state dict alone"
    if isinstance(error, pickle.UnpicklingError | LookupError | EOFError):  # whose text tells of a stack or a byte
        return "it is none, or damaged; give a .pth, .ckpt or .safetensors file"
    return shown(error)


def _is_finite(value: Tensor) -> bool:
    """Whether a tensor lies in memory as it is and holds real numbers, all finite."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
        return False
    if not value.is_floating_point() or not value.numel():
        return True
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return False
    # one number out of memory that was sent once can stand for terabytes
    stored = value.untyped_storage().nbytes() // value.element_size()
    if value.numel() > stored:
        return False
    return bool(torch.isfinite(value.sum(dtype=torch.float64) if value.dtype == torch.float32 else value).all())


def load_strictly(module: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Loads a state dict; raises a ValueError that lists missing, unexpected and wrongly shaped entries."""
    # a decomposed module accepts plain weights and factors them while loading
    own = plain_state_dict(module.state_dict())
    # files written before torch 0.4.1 lack the norms' batch counters, which inference never reads
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if missing or extra or shapes:
        lines = [
            f"{label}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
            for label, names in (("missing", missing), ("unexpected", extra), ("wrong shape", shapes))
            if names
        ]
        raise ValueError(f"the weights of {source} do not fit {type(module).__name__}; " + "; ".join(lines))
    module.load_state_dict(dict(state), strict=False)


def load_backbone_weights(
    backbone: nn.Module,
    weights: str,
    rename: Mapping[str, str],
    classifier: Sequence[str],
    torchvision_model: str | None,
) -> None:
    """Loads ImageNet weights, or the backbone part of a published few-shot checkpoint.

    Args:
        backbone: Network with parts `layer0` to `layer4`.
        weights: A torchvision enum name ("IMAGENET1K_V2"; downloaded on first use) or a file.
        rename: Module names in ImageNet weights -> names in this program, where they differ.
        classifier: Top-level modules of the ImageNet classifier, which are skipped.
        torchvision_model: The torchvision model whose enum names are accepted, or None for no names.

    Raises:
        FileNotFoundError: If `weights` is neither a file nor an accepted enum name.
        ValueError: If entries do not fit, or the weights cannot be downloaded.
    """
    enum = torchvision.models.get_model_weights(torchvision_model).__members__ if torchvision_model else {}
    if weights in enum:
        state = _of_torchvision(enum[weights])
    elif Path(weights).is_file():
        state = backbone_part(read_state_dict(weights))
    else:
        names = f", a torchvision name ({', '.join(enum)})" if enum else ""
        raise FileNotFoundError(f"backbone.weights={weights}: no such file; give a file{names} or null")
    ours: dict[str, Tensor] = {}
    published = any(name.startswith("layer0.") for name in state)  # a few-shot checkpoint: same names, plus a head
    for name, value in state.items():
        path, _, leaf = name.rpartition(".")
        if published:
            if name.startswith("layer"):
                ours[name] = value
        elif name.split(".")[0] not in classifier:
            ours[f"{rename.get(path, path)}.{leaf}"] = value
    load_strictly(backbone, ours, weights)


def _of_torchvision(weights: torchvision.models.WeightsEnum) -> Mapping[str, Any]:
    try:
        return weights.get_state_dict(check_hash=True)
    except OSError as error:  # urllib's are some
        raise ValueError(
            f"backbone.weights={weights.name}: {weights.url} cannot be downloaded ({error}): fetch it elsewhere, "
            f"and put it into {Path(torch.hub.get_dir()) / 'checkpoints'}, or name it with backbone.weights=FILE"
        ) from error


def backbone_part(state: dict[str, Tensor], inside: str = "") -> dict[str, Tensor]:
    """The entries `inside` the backbone of this program's checkpoints; any other state dict unchanged."""
    prefix = f"segmenter.backbone.{inside}"
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return plain_state_dict(part) or state
