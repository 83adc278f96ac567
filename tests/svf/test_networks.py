"""Networks of many makes are factored as they are: which layers, exactly, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.svf import (
    SVFConv2d,
    SVFLinear,
    decompose,
    exact_svd,
    merge,
    plain_state_dict,
    qkv_parts,
    singular_values,
    split_svd,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class HFAttention(nn.Module):
    """Attention as Hugging Face's transformers have it: a projection each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(width, width, bias=bias) for bias in (True, False, True)
        )
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class HFBlock(nn.Module):
    """A block of such attention on patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, stride=8)
        self.attention = HFAttention(24, 3)
        self.up, self.down = nn.Linear(24, 96), nn.Linear(96, 24)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = x + self.attention(x)
        return x + self.down(F.gelu(self.up(x)))


def swin() -> nn.Module:
    sizes: dict[str, Any] = {
        "depths": (2, 1),
        "num_heads": (2, 4),
        "embed_dim": 16,
        "img_size": 56,
        "num_classes": 5,
    }
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (lambda: timm.create_model("test_vit", img_size=64), 64),
    "vit with registers": (lambda: timm.create_model("test_vit3", img_size=64), 64),
    "rotary": (
        lambda: timm.create_model("vit_small_patch16_dinov3", embed_dim=32, depth=2, num_heads=2, img_size=64),
        64,
    ),
    "swin": (swin, 56),
    "convnext": (lambda: timm.create_model("test_convnext"), 64),
    "efficientnet": (lambda: timm.create_model("test_efficientnet"), 64),
    "mobilenet": (lambda: timm.create_model("mobilenetv3_small_050"), 64),
    "attention in parts": (HFBlock, 32),
}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_factored_and_back(name: str, split: bool) -> None:
    torch.manual_seed(0)
    build, side = NETWORKS[name]
    network = build().eval()
    images = torch.randn(2, 3, side, side)
    plain = {n: value.clone() for n, value in network.state_dict().items()}
    layers = {
        n: qkv_parts(n, module) if split else 1
        for n, module in network.named_modules()
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
    }
    with torch.no_grad():
        expected = network(images)
        decompose(network, parts=qkv_parts) if split else decompose(network)
        ours = network(images)
    trained = network(images)  # in the form that training takes
    tolerance = 1e-5 * float(expected.abs().max())
    for each in (ours, trained.detach()):
        torch.testing.assert_close(each, expected, rtol=0, atol=tolerance)
    trained.sum().backward()
    values = {value.name: value.S for value in singular_values(network)}
    assert set(values) == set(layers)
    assert len(layers) >= 7
    for n, parts in layers.items():
        layer = network.get_submodule(n)
        assert isinstance(layer, SVFConv2d | SVFLinear)
        matrices = plain[f"{n}.weight"].flatten(1).chunk(parts)
        singular = torch.cat([torch.linalg.svdvals(matrix) for matrix in matrices])
        torch.testing.assert_close(values[n], singular, rtol=1e-4, atol=1e-5)
        assert layer.S.grad is not None
        # dL/ds_i = u_i^T (dL/dW) v_i has as many numbers as there are values, whatever the number of matrices
        assert layer.S.grad.shape == singular.shape
    assert (3 in layers.values()) is (split and name in ("vit", "vit with registers", "rotary", "swin"))
    state = plain_state_dict(network.state_dict())
    assert state.keys() == plain.keys()
    assert all(torch.allclose(state[n], value, atol=1e-5) for n, value in plain.items())
    with torch.no_grad():
        torch.testing.assert_close(merge(network)(images), expected, rtol=0, atol=tolerance)
    assert network.state_dict().keys() == plain.keys()


def test_torchs_own_attention_stays_plain() -> None:
    """Its three projections are a parameter of no layer, and its last one is read past its layer's forward."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, batch_first=True), "after": nn.Linear(8, 8)})
    plain = dict(network["attention"].named_parameters())
    decompose(network, parts=qkv_parts)
    assert {value.name for value in singular_values(network)} == {"after"}
    assert dict(network["attention"].named_parameters()) == plain
    assert set(plain) == {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}


@pytest.mark.parametrize("parts", [2, 3])
def test_factors_of_several_matrices(parts: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(12, 5, dtype=torch.float64)
    U, S, V = split_svd(parts)(weight)
    rank = parts * min(12 // parts, 5)
    assert (U.shape, S.shape, V.shape) == ((12, rank), (rank,), (rank, 5))
    torch.testing.assert_close((U * S) @ V, weight)
    for own, left, right in zip(weight.chunk(parts), U.chunk(parts), V.chunk(parts), strict=True):
        block = left[:, left.abs().sum(0) > 0]
        assert block.shape[1] == rank // parts
        torch.testing.assert_close(block.mT @ block, torch.eye(rank // parts, dtype=torch.float64))
        torch.testing.assert_close(right.abs(), exact_svd(own)[2].abs())
    with pytest.raises(ValueError, match="a weight of 12 rows is not 5 matrices"):
        split_svd(5)(weight)


def test_several_matrices_are_never_run_in_the_form_that_would_cost_more() -> None:
    torch.manual_seed(0)
    network = decompose(nn.Sequential(nn.Linear(16, 48)), parts=lambda name, layer: 3)
    (layer,) = network
    assert isinstance(layer, SVFLinear)
    assert not layer._run_factored()  # R (m + n) = 48 * 64 twice is more than m n = 48 * 16 three times
    (fused,) = decompose(nn.Sequential(nn.Linear(16, 48)))
    assert isinstance(fused, SVFLinear)
    assert fused._run_factored()
