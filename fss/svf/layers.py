"""Convolutional and linear layers in the form W = U diag(S) V.

Shapes: O outputs, I inputs, R singular values, kh kw kernel, B batch, h w image height and width.
Source: Sun et al., "Singular Value Fine-tuning: Few-shot Segmentation requires Few-parameters
Fine-tuning", NeurIPS 2022, equations 1-3. The published program always applies V, S and U one after
another; here each layer uses whichever is cheaper, that or one convolution with the composed weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# weight (O, I, ...) -> U (O, R), S (R,), V (R, I, ...)
SVD = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def exact_svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exact thin SVD of a weight (O, I, ...) -> U (O, R), S (R,) descending, V (R, I, ...).

    Computed in float64 on the weight's device and then converted back to its dtype. A ResNet-50 takes seconds on
    a CPU: move the network to a GPU first (with several processes, each to its own).

    Raises:
        ValueError: If the weight contains NaN or infinite values.
    """
    device = torch.device("cpu") if weight.device.type == "mps" else weight.device  # mps has no float64
    matrix = weight.detach().to(device, torch.float64).flatten(1)  # (O, I * kh * kw)
    if not torch.isfinite(matrix).all():
        raise ValueError("the weight holds NaN or infinite values, so it has no singular values")
    U, S, V = torch.linalg.svd(matrix, full_matrices=False)
    V = V.reshape(-1, *weight.shape[1:])
    return U.to(weight), S.to(weight), V.to(weight)


def compose(U: Tensor, S: Tensor, V: Tensor) -> Tensor:
    """Composes the plain weight: U (O, R), S (R,), V (R, I, ...) -> (O, I, ...)."""
    return ((U * S) @ V.flatten(1)).reshape(-1, *V.shape[1:])


class _SVF(nn.Module):
    """What both layers share: the factors, the composed weight, and loading of plain weights.

    Attributes:
        U: (O, R), frozen. A parameter rather than a buffer because DistributedDataParallel
            broadcasts buffers at every forward pass.
        S: (R,), trained.
        V: (R, I, ...), frozen.
        S0: (R,), the singular values of the original weight.
        plain: The original weight (O, I, ...), or None; see `fss.svf.adapter`. With it, the layer's weight is
            plain + U diag(S - S0) V, which is the original one to the bit where S is S0.
        bias: (O,) or None.
        svd: Factors a plain weight, both here and when a state dict is loaded.
    """

    S0: Tensor
    plain: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, svd: SVD) -> None:
        super().__init__()
        self.svd = svd
        U, S, V = svd(weight)
        self.U = nn.Parameter(U.contiguous(), requires_grad=False)
        self.S = nn.Parameter(S.clone())
        self.V = nn.Parameter(V.contiguous(), requires_grad=False)
        self.register_buffer("S0", S.clone())
        self.register_buffer("plain", None, persistent=False)
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The composed weight (O, I, ...), differentiable with respect to U, S and V.

        Composed in the factors' own precision even under autocast, so that it is rounded only once.
        """
        with torch.autocast(self.U.device.type, enabled=False):
            if self.plain is None:
                return compose(self.U, self.S, self.V)
            return self.plain + compose(self.U, self.S - self.S0, self.V)

    def _run_factored(self) -> bool:
        """Whether applying V, S and U one after another is cheaper than using the composed weight.

        Per position, the composed weight costs m n multiplications (m = O, n = I kh kw), the
        factors cost R (m + n). Training runs the composed form three times (forward, input
        gradient, weight gradient) but the factored form only twice, since U and V need no gradient.
        The factored form is therefore cheaper if R (m + n) * 2 < m n * 3; with R = min(m, n), that
        is if min / max < 1/2.
        """
        trains_s_alone = self.S.requires_grad and not (self.U.requires_grad or self.V.requires_grad)
        if self.plain is not None or not (torch.is_grad_enabled() and trains_s_alone):
            return False
        (m, rank), n = self.U.shape, self.V[0].numel()
        return 2 * rank * (m + n) < 3 * m * n

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also accepts a plain layer's `weight`, which is decomposed while loading."""
        weight = state_dict.get(prefix + "weight")
        if weight is not None and prefix + "S" not in state_dict:
            if weight.shape != self.weight.shape:
                error_messages: list[str] = args[-1]
                error_messages.append(
                    f"size mismatch for {prefix}weight: {tuple(weight.shape)} in the state dict, "
                    f"{tuple(self.weight.shape)} in the network"
                )
                return
            del state_dict[prefix + "weight"]
            if self.plain is not None:
                self.plain = weight.detach().to(self.plain).clone()
            U, S, V = self.svd(weight)
            state_dict.update({prefix + "U": U, prefix + "S": S, prefix + "V": V, prefix + "S0": S.clone()})
        super()._load_from_state_dict(state_dict, prefix, *args)


class SVFLinear(_SVF):
    """A linear layer whose weight is U diag(S) V; equal to the plain layer up to rounding.

    Args:
        layer: The plain layer; its bias is shared, not copied.
        svd: See `decompose`.
    """

    def __init__(self, layer: nn.Linear, svd: SVD = exact_svd) -> None:
        super().__init__(layer.weight, layer.bias, svd)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., I) to (..., O)."""
        if self._run_factored():
            return F.linear(F.linear(x, self.V) * self.S, self.U, self.bias)
        return F.linear(x, self.weight, self.bias)

    def merge(self) -> nn.Linear:
        """The plain layer with the composed weight."""
        weight = self.weight.detach()
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight), self.bias  # type: ignore[assignment]
        return layer.train(self.training)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, rank={len(self.S)}, bias={self.bias is not None}"


class SVFConv2d(_SVF):
    """A convolution whose weight is U diag(S) V; equal to the plain layer up to rounding.

    Args:
        layer: The plain convolution (one group; any kernel, stride, padding and dilation); its
            bias is shared, not copied.
        svd: See `decompose`.

    Raises:
        ValueError: For a grouped or depthwise convolution, whose weight is not a single matrix.
    """

    def __init__(self, layer: nn.Conv2d, svd: SVD = exact_svd) -> None:
        if layer.groups != 1:
            raise ValueError(f"a convolution with {layer.groups} groups has no SVF form: leave it plain")
        super().__init__(layer.weight, layer.bias, svd)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.padding, self.padding_mode = layer.padding, layer.padding_mode
        # torch keeps these in the order that F.pad expects, with "same" and "valid" resolved
        self._sides = layer._reversed_padding_repeated_twice

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, I, h, w) to (B, O, h', w')."""
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._sides, mode=self.padding_mode), (0, 0)
        if self._run_factored():
            x = F.conv2d(x, self.V, None, self.stride, padding, self.dilation)  # (B, R, h', w')
            return F.conv2d(x * self.S[:, None, None], self.U[..., None, None], self.bias)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation)

    def merge(self) -> nn.Conv2d:
        """The plain layer with the composed weight."""
        weight = self.weight.detach()
        layer = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]  # torch annotates its own attribute loosely
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            bias=False,
            padding_mode=self.padding_mode,
            device="meta",
        )
        layer.weight, layer.bias = nn.Parameter(weight), self.bias
        return layer.train(self.training)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, rank={len(self.S)}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"bias={self.bias is not None}"
        )
