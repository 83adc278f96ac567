"""Back to plain layers: networks and state dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fss.svf.layers import SVFConv2d, SVFLinear, compose
from fss.svf.lora import LoRA, lora_weight
from fss.svf.slots import replace, slots_of
from fss.svf.values import with_values

M = TypeVar("M", bound=nn.Module)
_MERGEABLE = (SVFConv2d, SVFLinear, LoRA)


def merge(module: M) -> M:
    """Replaces SVF and LoRA layers with plain layers that hold the composed weight, in place.

    The result contains no such layers and computes the same function up to rounding. A module without any
    is returned unchanged, so merging twice is harmless. The merged weights are trainable;
    freeze them if they should not be. Bottleneck adapters are no linear maps, and stay.

    Args:
        module: Any torch network; copy it first (`copy.deepcopy`) if training is to continue.

    Returns:
        The same module.

    Raises:
        ValueError: If a composed weight is not finite; names the layer and leaves the network unchanged.
    """
    slots = [slot for slot in slots_of(module) if isinstance(slot[3], _MERGEABLE)]
    for name, _, _, layer in slots:
        if not torch.isfinite(layer.weight).all():  # type: ignore[arg-type]
            raise ValueError(f"{name} holds NaN or infinite values, not merged: training has diverged")
    replace(slots, lambda _, layer: layer.merge())  # type: ignore[operator]
    return module


def plain_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts a tuned network's state dict to the plain network's.

    Every U, S (or what it is computed from) and V becomes `weight`, and so does a weight with its low-rank change.
    Of a bottleneck adapter, `down` and `up` stay beside the weight.

    The opposite direction needs no function: a decomposed network accepts a plain state dict and
    decomposes its weights while loading.

    Args:
        state_dict: From a network that is fully, partly or not at all tuned.

    Returns:
        A new dict; entries of plain layers are copied unchanged.
    """
    state = with_values(state_dict)
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        path, dot, leaf = key.rpartition(".")
        stem = path + dot
        weight = next((kind for kind in _KINDS if all(stem + entry in state for entry in kind.needs)), None)
        if weight is None or leaf not in weight.entries:
            plain[key] = value
        elif leaf == weight.entries[0]:
            plain[stem + "weight"] = weight.compose(*(state[stem + entry] for entry in weight.needs))
    return plain


class _Kind(NamedTuple):
    """How a tuned layer's weight comes from the entries of a state dict.

    Attributes:
        needs: What tells such a layer, and the weight is made of.
        entries: What the weight takes the place of, where the first of them is.
        compose: From what it needs to the weight.
    """

    needs: tuple[str, ...]
    entries: tuple[str, ...]
    compose: Callable[..., Tensor]


_KINDS = (
    _Kind(("U", "S", "V"), ("U", "S", "V", "S0"), compose),
    _Kind(("W", "A", "B", "scale"), ("W", "A", "B", "scale"), lora_weight),
    _Kind(("W", "down", "up"), ("W",), lambda W, down, up: W),
)
