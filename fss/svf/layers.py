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
from torch.autograd.function import once_differentiable

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


class _FactoredConv2d(torch.autograd.Function):
    """Convolutions V and U with S between them, for frozen U and V.

    S and the input need nothing but the output of V on the way back, so this is all that is kept; torch by itself
    would also keep the inputs of both convolutions, which only the gradients of U and V need.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        x, U, S, V, scale, shift, *window = given
        inner = F.conv2d(x, V, None, *window)  # (B, R, h', w')
        ctx.save_for_backward(inner, U, S, V, scale)
        ctx.window, ctx.size = window, x.shape[-2:]
        # S stays in its own precision even where maps do not, so that small changes of it count
        if inner.dtype == S.dtype:  # then S goes into U, which is smaller
            return F.conv2d(inner, _outer(U * S, scale), shift)
        return F.conv2d((inner * S[:, None, None]).to(inner.dtype), _outer(U, scale), shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inner, U, S, V, scale = ctx.saved_tensors
        x_needs, _, S_needs, _, _, shift_needs, *_ = ctx.needs_input_grad
        of_x = of_S = None
        of_shift = gradient.sum((0, 2, 3)) if shift_needs else None
        gradient = F.conv_transpose2d(gradient, _outer(U, scale))  # with respect to S * inner
        if S_needs:
            of_S = (gradient.to(S.dtype) * inner).sum((0, 2, 3))
        if x_needs:
            stride, padding, dilation = ctx.window
            if gradient.dtype == S.dtype:
                gradient.mul_(S[:, None, None])  # it is ours alone
            else:
                gradient = (gradient * S[:, None, None]).to(gradient.dtype)
            # rows and columns at the end that a stride leaves out
            rest = [
                size + 2 * p - d * (k - 1) - 1 - s * (out - 1)
                for size, out, k, s, p, d in zip(
                    ctx.size, inner.shape[-2:], V.shape[-2:], stride, padding, dilation, strict=True
                )
            ]
            of_x = F.conv_transpose2d(gradient, V, None, stride, padding, rest, 1, dilation)
        return of_x, None, of_S, None, None, of_shift, None, None, None


def _outer(U: Tensor, scale: Tensor | None) -> Tensor:
    """U (O, R) as a 1x1 convolution whose outputs are multiplied by scale (O,)."""
    return (U if scale is None else U * scale[:, None])[..., None, None]


def _factored_conv2d(
    x: Tensor, U: Tensor, S: Tensor, V: Tensor, scale: Tensor | None, shift: Tensor | None, *window: Any
) -> Tensor:
    """diag(scale) U diag(S) V + shift on x (B, I, h, w); window is stride, padding and dilation, each a pair."""
    if torch.compiler.is_compiling():  # a compiler decides by itself what to keep
        inner = F.conv2d(x, V, None, *window)
        return F.conv2d(inner * S[:, None, None], _outer(U, scale), shift)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, U, V = x.to(dtype), U.to(dtype), V.to(dtype)
        scale, shift = (value if value is None else value.to(dtype) for value in (scale, shift))
    with torch.autocast(device, enabled=False):
        result: Tensor = _FactoredConv2d.apply(x, U, S, V, scale, shift, *window)
    return result


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
        The factored form is therefore not dearer if R (m + n) * 2 <= m n * 3; with R = min(m, n), that
        is if min / max <= 1/2. It also keeps less in memory.
        """
        trains_s_alone = self.S.requires_grad and not (self.U.requires_grad or self.V.requires_grad)
        if self.plain is not None or not (torch.is_grad_enabled() and trains_s_alone):
            return False
        (m, rank), n = self.U.shape, self.V[0].numel()
        return 2 * rank * (m + n) <= 3 * m * n

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

    def forward(
        self,
        x: Tensor,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        padding: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Maps x (B, I, h, w) to (B, O, h', w').

        Args:
            x: The input.
            scale: (O,), by which the outputs are to be multiplied, as by a frozen norm that follows; it costs
                nothing, because the weight is multiplied instead. It must not require gradients.
            shift: (O,), in place of the bias.
            padding: Rows and columns of zeros on each side, in place of the layer's own padding.
        """
        if padding is None:
            x, padding = self._padded(x)
        shift = self.bias if shift is None else shift
        if self._run_factored():
            window = self.stride, padding, self.dilation
            return _factored_conv2d(x, self.U, self.S, self.V, scale, shift, *window)
        weight = self.weight if scale is None else self.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, self.stride, padding, self.dilation)

    def _padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The input, padded if a convolution cannot do it, and how it is then to be padded."""
        padding = self.padding
        if self.padding_mode != "zeros" or isinstance(padding, str):
            mode = self.padding_mode.replace("zeros", "constant")
            return F.pad(x, self._sides, mode=mode), (0, 0)
        return x, padding

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
