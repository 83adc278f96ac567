"""Convolutions of maps that are concatenated, by parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fss.models.heads.parts import convolve_parts
from fss.models.heads.pspnet import PSPHead
from fss.resize import resize

SIZES = {
    "equal": ((7, 5), (7, 5)),
    "coarse": ((7, 5), (1, 1), (2, 2), (3, 6)),
    "coarse alone": ((1, 1), (3, 2)),
    "finer than the output": ((7, 5), (9, 12)),
}


def whole(layer: nn.Module, parts: list[Tensor], size: tuple[int, int]) -> Tensor:
    result: Tensor = layer(torch.cat([resize(part, size) for part in parts], 1))
    return result


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_the_same_numbers_and_gradients_as_of_concatenated_maps(name: str, bias: bool, kernel: int) -> None:
    torch.manual_seed(0)
    parts = [
        torch.randn(2, 3 + i, *side, dtype=torch.float64, requires_grad=True) for i, side in enumerate(SIZES[name])
    ]
    conv = nn.Conv2d(sum(part.shape[1] for part in parts), 4, kernel, padding=kernel // 2, bias=bias)
    layer = nn.Sequential(conv, nn.ReLU(inplace=True)).double()
    found = []
    for convolve in (convolve_parts, whole):
        out = convolve(layer, parts, (7, 5))
        found.append((out, *torch.autograd.grad((out**2).sum(), (*parts, *conv.parameters()))))
    if name == "coarse alone" and kernel == 1:
        assert found[0][0].shape[2:] == (7, 5)
    torch.testing.assert_close(*found)


def test_of_constants_alone_the_output_has_its_size() -> None:
    conv = nn.Conv2d(3, 4, 1)
    out = convolve_parts(conv, [torch.randn(2, 3, 1, 1)], (7, 5))
    assert out.shape == (2, 4, 7, 5)


@pytest.mark.parametrize("size", [(12, 9), (4, 4)])
def test_base_learner_is_that_of_concatenated_maps(size: tuple[int, int]) -> None:
    """Also where the grids have more cells than the features."""
    torch.manual_seed(0)
    head = PSPHead(16, base_classes=3, width=8).double().eval()
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    pooling, classify = head
    torch.testing.assert_close(head(x), whole(classify, pooling(x), size))
