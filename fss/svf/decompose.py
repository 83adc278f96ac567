"""Converts a network's plain layers to their SVF form and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fss.svf.fused import split_svd
from fss.svf.layers import SVD, SVFConv2d, SVFLinear, compose, exact_svd

M = TypeVar("M", bound=nn.Module)
Slot = tuple[str, nn.Module, str, nn.Module]  # dotted name, parent, attribute, layer


class SingularValues(NamedTuple):
    """The singular values of one decomposed layer.

    Attributes:
        name: Dotted name of the layer in the network.
        S: (R,) current values, detached.
        S0: (R,) values of the original weight, in descending order.
    """

    name: str
    S: Tensor
    S0: Tensor


def _is_plain(layer: nn.Module) -> bool:
    # Exact types only: a subclass may use its weight differently (standardised, "same"-padded, read by
    # a surrounding attention layer), and replacing it would change the result.
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def _slots(module: nn.Module) -> list[Slot]:
    """Every position of every layer in the network; a shared layer is listed once per position."""
    return [
        (f"{path}.{attribute}" if path else attribute, parent, attribute, child)
        for path, parent in module.named_modules(remove_duplicate=False)
        for attribute, child in parent._modules.items()
        if child is not None
    ]


def _replace(slots: Iterable[Slot], new: Callable[[str, nn.Module], nn.Module]) -> None:
    # The map keeps the replaced layers alive, so that no id is reused.
    done: dict[int, tuple[nn.Module, nn.Module]] = {}
    for name, parent, attribute, layer in slots:
        if id(layer) not in done:
            done[id(layer)] = (layer, new(name, layer).train(layer.training))
        setattr(parent, attribute, done[id(layer)][1])


def decompose(
    module: M,
    only: Sequence[str] | Callable[[str, nn.Module], bool] | None = None,
    progress: Callable[[Sequence[Slot]], Iterable[Slot]] = iter,
    svd: SVD = exact_svd,
    parts: Callable[[str, nn.Module], int] = lambda name, layer: 1,
) -> M:
    """Replaces plain layers with their exact, full-rank SVF form, in place.

    `nn.Conv2d` with one group and `nn.Linear` are replaced, whatever their kernel, stride, padding,
    dilation and bias. Grouped and depthwise convolutions, subclasses of the two types and layers
    that are already decomposed are left alone. S requires gradients, U and V do not; the bias and
    all other parameters keep their `requires_grad`.

    Args:
        module: Any torch network (not itself a single layer).
        only: Which layers to decompose: names of submodules ("layer2", "layer3.0.conv1"; everything
            inside them is included), or a predicate on a layer's name and the layer. Default: all.
        progress: Wraps the list of layers while they are decomposed, to show a progress bar
            (`rich.progress.track` and `tqdm.tqdm` work as they are).
        svd: Factors a weight (O, I, ...) into U (O, R), S (R,) and V (R, I, ...). The default is exact and
            runs in float64 on the weight's device.
        parts: Number of matrices of equally many rows that the weight of a layer, given with its name, is made of;
            each is factored on its own. `qkv_parts` takes the fused attention of timm's transformers apart.

    Returns:
        The same module.

    Raises:
        ValueError: If `only` names a submodule that does not exist, if no layer matches, or if a
            weight contains NaN or infinite values.
    """
    if callable(only):
        chosen = only
    elif only is None:
        chosen = lambda name, layer: True  # noqa: E731
    else:
        names = {name for name, _ in module.named_modules(remove_duplicate=False)}
        if unknown := sorted(set(only) - names):
            raise ValueError(
                f"no submodule named {', '.join(unknown)}; at the top are "
                f"{', '.join(name for name, _ in module.named_children())}"
            )
        stems = tuple(only)
        chosen = lambda name, layer: any(name == s or name.startswith(s + ".") for s in stems)  # noqa: E731
    plain = [slot for slot in _slots(module) if _is_plain(slot[3])]
    # a layer used in several places is decomposed in all of them if it is chosen in one
    taken = {id(layer) for name, _, _, layer in plain if chosen(name, layer)}
    slots = [slot for slot in plain if id(slot[3]) in taken]
    if not slots:
        raise ValueError("nothing to decompose: no plain Conv2d (one group) or Linear layer was chosen")

    for name, _, _, layer in slots:
        if not torch.isfinite(layer.weight).all():  # type: ignore[arg-type]
            raise ValueError(f"{name}: the weight holds NaN or infinite values, so it has no singular values")

    def factored(name: str, layer: nn.Module) -> nn.Module:
        n = parts(name, layer)
        own = svd if n == 1 else split_svd(n, svd)
        return SVFConv2d(layer, own) if isinstance(layer, nn.Conv2d) else SVFLinear(layer, own)  # type: ignore[arg-type]

    _replace(progress(slots), factored)
    return module


def merge(module: M) -> M:
    """Replaces SVF layers with plain layers that hold the composed weight, in place.

    The result contains no SVF layers and computes the same function up to rounding. A module without SVF
    layers is returned unchanged, so merging twice is harmless. The merged weights are trainable;
    freeze them if they should not be.

    Args:
        module: Any torch network; copy it first (`copy.deepcopy`) if training is to continue.

    Returns:
        The same module.

    Raises:
        ValueError: If a composed weight is not finite; names the layer and leaves the network unchanged.
    """
    slots = [slot for slot in _slots(module) if isinstance(slot[3], SVFConv2d | SVFLinear)]
    for name, _, _, layer in slots:
        if not torch.isfinite(layer.weight).all():  # type: ignore[arg-type]
            raise ValueError(f"{name} holds NaN or infinite values, not merged: training has diverged")
    _replace(slots, lambda _, layer: layer.merge())  # type: ignore[operator]
    return module


def singular_values(module: nn.Module) -> list[SingularValues]:
    """Returns the singular values of every decomposed layer, in the order of `named_modules`."""
    return [
        SingularValues(name, layer.S.detach(), layer.S0)
        for name, layer in module.named_modules()
        if isinstance(layer, SVFConv2d | SVFLinear)
    ]


def plain_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts a decomposed network's state dict to the plain network's: every U, S, V becomes `weight`.

    The opposite direction needs no function: a decomposed network accepts a plain state dict and
    decomposes its weights while loading.

    Args:
        state_dict: From a network that is fully, partly or not at all decomposed.

    Returns:
        A new dict; entries that belong to no SVF layer are copied unchanged.
    """
    stems = {key[:-1] for key in state_dict if key.rpartition(".")[2] == "S" and key[:-1] + "U" in state_dict}
    plain: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        path, dot, leaf = key.rpartition(".")
        stem = path + dot
        if stem not in stems or leaf not in ("U", "S", "V", "S0"):
            plain[key] = value
        elif leaf == "U":
            plain[stem + "weight"] = compose(value, state_dict[stem + "S"], state_dict[stem + "V"])
    return plain
