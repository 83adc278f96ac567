"""Low-rank adaptation: y = W x + (alpha / r) B A x, which is a plain layer again once it is merged.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. Convolutions: A has the layer's kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fss.svf.beside import Beside


class LoRA(Beside):
    """A linear layer or convolution with a low-rank change.

    Args:
        layer: See `Beside`.
        rank: r; no more than the weight's own.
        alpha: Factor of the change, divided by the rank.

    Attributes:
        A: (r, I, ...), trained.
        B: (O, r), trained; begins at 0.
        scale: alpha / r, a number in a tensor so that a state dict has it.
    """

    first, second = "A", "B"
    A: Tensor
    B: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__(layer, rank)
        self.register_buffer("scale", torch.tensor(alpha / self.width).to(self.W))

    @property
    def weight(self) -> Tensor:
        """The changed weight (O, I, ...)."""
        return lora_weight(self.W, self.A, self.B, self.scale)

    def _between(self, middle: Tensor) -> Tensor:
        return middle * self.scale

    def merge(self) -> nn.Module:
        """The plain layer with the changed weight."""
        return self._plain(self.weight)


def lora_weight(W: Tensor, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """W (O, I, ...) + scale B (O, r) A (r, I, ...), in the tensors' own precision."""
    with torch.autocast(W.device.type, enabled=False):
        return W + (scale * B @ A.flatten(1)).reshape(W.shape)
