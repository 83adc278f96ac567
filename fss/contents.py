"""Whether a tensor's numbers can be looked at, so that what a picture does not need can be left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_contents(maps: Tensor) -> bool:
    """False while a graph is made, and for tensors that have nothing but shapes."""
    return not torch.compiler.is_compiling() and not isinstance(maps, FakeTensor)
