"""Bottleneck adapters beside layers: y = W x + up relu(down x). Being no linear map, they stay in the network.

Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019; in parallel to a layer, as in Rebuffi
et al., "Efficient parametrization of multi-domain deep neural networks", CVPR 2018 (convolutions), and He et al.,
"Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR 2022 (transformers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from fss.svf.beside import Beside, put_beside

M = TypeVar("M", bound=nn.Module)


class Bottleneck(Beside):
    """A linear layer or convolution with a bottleneck beside it.

    What applies the layer's `weight` on its own, as torch's and a few of timm's attention layers do, passes the
    bottleneck by.

    Args:
        layer: See `Beside`.
        width: r, channels of the bottleneck.

    Attributes:
        down: (r, I, ...), trained; with the layer's kernel, so that any stride and padding fit.
        up: (O, r), trained; begins at 0.
    """

    first, second = "down", "up"

    def _between(self, middle: Tensor) -> Tensor:
        return F.relu(middle)


def put_bottlenecks(module: M, widths: Mapping[str, int]) -> M:
    """Puts bottlenecks beside layers of a plain network, in place, for a state dict that has them.

    Args:
        module: The network.
        widths: Width of each bottleneck by the name of its layer, see `bottlenecks_of`; may be empty. Layers that
            have one already are left alone.

    Raises:
        ValueError: A layer does not exist, or can have none.
    """
    there = {name for name, layer in module.named_modules() if isinstance(layer, Bottleneck)}
    for name, width in widths.items():
        if name in there:
            continue
        try:
            put_beside(module, lambda layer, width=width: Bottleneck(layer, width), lambda n, name=name: n == name)  # type: ignore[misc]
        except ValueError as error:
            raise ValueError(f"the network has no layer {name!r:.200} with a bottleneck beside it") from error
    return module


def bottlenecks_of(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, int]:
    """The bottlenecks among the entries of a state dict: their widths by the names of their layers.

    Args:
        shapes: Shape of each entry.
        prefix: Of the network in it, with a dot at the end; left out of the names.
    """
    stems = [name.removesuffix("up") for name in shapes if name.startswith(prefix) and name.endswith(".up")]
    return {
        stem.removeprefix(prefix).removesuffix("."): shapes[f"{stem}up"][-1] if shapes[f"{stem}up"] else 0
        for stem in stems
        if f"{stem}down" in shapes
    }
