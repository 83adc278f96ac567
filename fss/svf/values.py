"""Singular values that are computed from what is trained: S = relu(S0 + delta), or S = S0 z.

The first is Han et al., "SVDiff: Compact Parameter Space for Diffusion Fine-Tuning", ICCV 2023, equation 3: values
stay non-negative, and weight decay pulls towards the original weight rather than towards zero. The second is the
scaling of Sun et al., "Transformer-Squared: Self-adaptive LLMs", ICLR 2025: every value moves in proportion to its
size. Both begin as the original weight, exactly.

Shapes: R singular values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.svf.layers import SVD, SVFConv2d, SVFLinear, exact_svd


class _Computed(nn.Module):
    """What replaces the parameter S of a layer by another one.

    Attributes:
        trained: Name of the parameter (R,), which is trained in place of S.
    """

    trained: str
    S0: Tensor

    @property
    def S(self) -> Tensor:
        """(R,), differentiable with respect to the parameter."""
        return FORMS[self.trained].values(self.get_parameter(self.trained), self.S0)

    def _replace_values(self) -> None:
        S = self._parameters.pop("S")
        assert S is not None
        self.register_parameter(self.trained, nn.Parameter(FORMS[self.trained].from_values(S.detach(), self.S0)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also accepts S, and with the layer's own a plain weight."""
        if prefix + self.trained not in state_dict and prefix + "S" in state_dict:
            S, S0 = state_dict.pop(prefix + "S"), state_dict[prefix + "S0"]
            state_dict[prefix + self.trained] = FORMS[self.trained].from_values(S, S0)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Shifted(_Computed):
    trained = "delta"


class _Scaled(_Computed):
    trained = "z"


class ShiftedLinear(SVFLinear, _Shifted):
    """A linear layer with S = relu(S0 + delta); delta begins at 0."""

    def __init__(self, layer: nn.Linear, svd: SVD = exact_svd) -> None:
        super().__init__(layer, svd)
        self._replace_values()


class ShiftedConv2d(SVFConv2d, _Shifted):
    """A convolution with S = relu(S0 + delta); delta begins at 0."""

    def __init__(self, layer: nn.Conv2d, svd: SVD = exact_svd) -> None:
        super().__init__(layer, svd)
        self._replace_values()


class ScaledLinear(SVFLinear, _Scaled):
    """A linear layer with S = S0 z; z begins at 1."""

    def __init__(self, layer: nn.Linear, svd: SVD = exact_svd) -> None:
        super().__init__(layer, svd)
        self._replace_values()


class ScaledConv2d(SVFConv2d, _Scaled):
    """A convolution with S = S0 z; z begins at 1."""

    def __init__(self, layer: nn.Conv2d, svd: SVD = exact_svd) -> None:
        super().__init__(layer, svd)
        self._replace_values()


class Form(NamedTuple):
    """How singular values come from what is trained.

    Attributes:
        linear, conv: The layers.
        values: (parameter (R,), S0 (R,)) -> S (R,).
        from_values: (S (R,), S0 (R,)) -> the parameter (R,) that gives it.
    """

    linear: Callable[[nn.Linear, SVD], SVFLinear]
    conv: Callable[[nn.Conv2d, SVD], SVFConv2d]
    values: Callable[[Tensor, Tensor], Tensor]
    from_values: Callable[[Tensor, Tensor], Tensor]


Trained = Literal["S", "delta", "z"]
FORMS: dict[str, Form] = {
    "S": Form(SVFLinear, SVFConv2d, lambda S, S0: S, lambda S, S0: S.clone()),
    "delta": Form(ShiftedLinear, ShiftedConv2d, lambda delta, S0: F.relu(S0 + delta), lambda S, S0: S - S0),
    "z": Form(
        ScaledLinear,
        ScaledConv2d,
        lambda z, S0: S0 * z,
        lambda S, S0: torch.where(S0 > 0, S / S0, torch.ones_like(S)),  # a value of 0 stays
    ),
}


def with_values(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which every factored layer has its S, whatever was trained in its place.

    Args:
        state_dict: From a network that is fully, partly or not at all decomposed.

    Returns:
        A new dict, which a network decomposed with S loads.
    """
    found: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        stem, _, leaf = key.rpartition(".")
        dot = f"{stem}." if stem else ""
        if leaf in FORMS and leaf != "S" and f"{dot}S0" in state_dict:
            found[f"{dot}S"] = FORMS[leaf].values(value, state_dict[f"{dot}S0"])
        else:
            found[key] = value
    return found
