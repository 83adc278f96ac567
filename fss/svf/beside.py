"""Plain layers with something small trained beside them: y = W x + path(x), where W is frozen.

Shapes: O outputs, I inputs, r width of the path, kh kw kernel (1 of a linear layer), B batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.svf.slots import plain_slots, replace

M = TypeVar("M", bound=nn.Module)


class Beside(nn.Module):
    """A linear layer or convolution W, and a path from its inputs to its outputs that is r wide.

    The path first applies `first` (r, I, ...) as the layer applies its own weight (the same stride, padding and
    dilation), and then `second` (O, r) at each location. `second` begins at 0, so that the layer begins as it was,
    to the bit.

    Args:
        layer: The plain layer; its weight and bias are shared, not copied, and the weight is frozen.
        width: r; no more than the layer has inputs and outputs.

    Attributes:
        W: (O, I, ...), the plain weight.
        bias: (O,) or None.
        first, second: Names of the parameters of the path.
    """

    first = "first"
    second = "second"
    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, width: int) -> None:
        super().__init__()
        outputs, *inputs = layer.weight.shape
        width = min(width, outputs, math.prod(inputs))
        self.W = layer.weight.requires_grad_(False)
        self.bias = layer.bias
        first = layer.weight.new_empty(width, *inputs)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5))  # as torch begins its own layers
        self.register_parameter(self.first, nn.Parameter(first))
        self.register_parameter(self.second, nn.Parameter(layer.weight.new_zeros(outputs, width)))
        # in a tuple, so that it is no submodule: how the layer applies a weight
        self._layer = (copy.deepcopy(layer).to("meta"),)

    @property
    def width(self) -> int:
        """r."""
        return self.get_parameter(self.second).shape[1]

    @property
    def weight(self) -> Tensor:
        """The weight (O, I, ...) for whoever applies it on their own, past this layer."""
        return self.W

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., I) or (B, I, h, w) as the plain layer does, and adds the path."""
        middle = self._between(self._apply_as_layer(x, self.get_parameter(self.first), None))
        second = self.get_parameter(self.second)
        if isinstance(self._layer[0], nn.Conv2d):
            path = F.conv2d(middle, second[..., None, None])
        else:
            path = F.linear(middle, second)
        return self._apply_as_layer(x, self.W, self.bias) + path

    def _between(self, middle: Tensor) -> Tensor:
        """What happens between the two steps of the path."""
        raise NotImplementedError

    def _apply_as_layer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer = self._layer[0]
        if isinstance(layer, nn.Conv2d):
            return layer._conv_forward(x, weight, bias)
        return F.linear(x, weight, bias)

    def _plain(self, weight: Tensor) -> nn.Module:
        """The plain layer with another weight."""
        layer = copy.deepcopy(self._layer[0])
        layer.weight, layer.bias = nn.Parameter(weight.detach()), self.bias
        return layer.train(self.training)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also accepts a plain layer's `weight`; its path, if the state dict has none, is none."""
        if prefix + "weight" in state_dict and prefix + "W" not in state_dict:
            state_dict[prefix + "W"] = state_dict.pop(prefix + "weight")
            for name, value in self.state_dict().items():
                if name not in ("W", "bias"):
                    given = torch.zeros_like(value) if name == self.second else value
                    state_dict.setdefault(prefix + name, given)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self._layer[0].extra_repr()}, width={self.width}"


def put_beside(module: M, new: Callable[[nn.Linear | nn.Conv2d], Beside], only: Callable[[str], bool]) -> M:
    """Replaces the plain layers that `decompose` would factor by ones with a path beside them, in place.

    Args:
        module: Any torch network (not itself a single layer).
        new: Makes a layer of a plain one.
        only: Whether to replace the layer of a name.

    Returns:
        The same module.

    Raises:
        ValueError: No layer was chosen.
    """
    slots = [slot for slot in plain_slots(module) if only(slot[0])]
    if not slots:
        raise ValueError("no plain Conv2d (one group) or Linear layer was chosen")
    replace(slots, lambda _, layer: new(layer))  # type: ignore[arg-type]
    return module
