"""Converts a network's plain layers to their SVF form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fss.svf.fused import split_svd
from fss.svf.layers import SVD, SVFConv2d, SVFLinear, exact_svd
from fss.svf.slots import Slot, plain_slots, replace
from fss.svf.values import FORMS, Trained

M = TypeVar("M", bound=nn.Module)


class SingularValues(NamedTuple):
    """The singular values of one decomposed layer.

    Attributes:
        name: Dotted name of the layer in the network.
        S: (R,) current values, detached.
        S0: (R,) values of the original weight, in descending order; of a weight that is factored in parts, those
            of one part after another.
    """

    name: str
    S: Tensor
    S0: Tensor


def decompose(
    module: M,
    only: str | Sequence[str] | Callable[[str, nn.Module], bool] | None = None,
    progress: Callable[[Sequence[Slot]], Iterable[Slot]] = iter,
    svd: SVD = exact_svd,
    parts: Callable[[str, nn.Module], int] = lambda name, layer: 1,
    trained: Trained = "S",
) -> M:
    """Replaces plain layers with their exact, full-rank SVF form, in place.

    `nn.Conv2d` with one group and `nn.Linear` are replaced, whatever their kernel, stride, padding,
    dilation and bias. Grouped and depthwise convolutions, subclasses of the two types and layers
    that are already decomposed are left alone. S requires gradients, U and V do not; the bias and
    all other parameters keep their `requires_grad`.

    Args:
        module: Any torch network (not itself a single layer).
        only: Which layers to decompose: names of submodules ("layer2", "layer3.0.conv1"; everything
            inside them is included), one name alone, or a predicate on a layer's name and the layer. Default: all.
        progress: Wraps the list of layers while they are decomposed, to show a progress bar
            (`rich.progress.track` and `tqdm.tqdm` work as they are).
        svd: Factors a weight (O, I, ...) into U (O, R), S (R,) and V (R, I, ...). The default is exact and
            runs in float64 on the weight's device.
        parts: Number of matrices of equally many rows that the weight of a layer, given with its name, is made of;
            each is factored on its own. `qkv_parts` takes the fused attention of timm's transformers apart.
        trained: What requires gradients: S itself, or delta in S = relu(S0 + delta), or z in S = S0 z.

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
        stems = (only,) if isinstance(only, str) else tuple(only)  # text is a sequence too, of its letters
        names = {name for name, _ in module.named_modules(remove_duplicate=False)}
        if unknown := sorted(set(stems) - names):
            raise ValueError(
                f"no submodule named {', '.join(unknown)}; at the top are "
                f"{', '.join(name for name, _ in module.named_children())}"
            )
        chosen = lambda name, layer: any(name == s or name.startswith(s + ".") for s in stems)  # noqa: E731
    plain = plain_slots(module)
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
        form = FORMS[trained]
        return form.conv(layer, own) if isinstance(layer, nn.Conv2d) else form.linear(layer, own)  # type: ignore[arg-type]

    replace(progress(slots), factored)
    return module


def singular_values(module: nn.Module) -> list[SingularValues]:
    """Returns the singular values of every decomposed layer, in the order of `named_modules`."""
    return [
        SingularValues(name, layer.S.detach(), layer.S0)
        for name, layer in module.named_modules()
        if isinstance(layer, SVFConv2d | SVFLinear)
    ]
