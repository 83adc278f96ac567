"""Singular value fine-tuning: the decomposed network is the plain one, and finds back to it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from support import ROOT
from support.tiny import cheap_svd
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fss.models.backbones import Backbone, ResNetBackbone, VGGBackbone
from fss.svf import (
    SVD,
    SVFConv2d,
    SVFLinear,
    decompose,
    exact_svd,
    merge,
    plain_state_dict,
    singular_values,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class CountProducts(TorchFunctionMode):
    """Counts convolutions and linear maps: a layer in the factored form runs two of them."""

    count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func in (torch.conv2d, F.linear)
        return func(*args, **(kwargs or {}))


def svf_layers(network: nn.Module) -> dict[str, SVFConv2d | SVFLinear]:
    return {n: m for n, m in network.named_modules() if isinstance(m, SVFConv2d | SVFLinear)}


def small_network() -> nn.Sequential:
    """Both kinds of layers, both forms, for pictures of 3 channels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1, bias=False),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 20),
    ).eval()


def close(ours: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """Largest difference within a fraction of the largest value."""
    assert ours.shape == expected.shape
    assert expected.abs().max() > 0
    assert (ours - expected).abs().max() <= relative * expected.abs().max()


def gradient(of: Tensor | None) -> Tensor:
    assert of is not None
    assert of.grad is not None
    return of.grad


# The same function


def check_whole_network(
    network: nn.Module, images: Tensor, only: Sequence[str] | None = None, svd: SVD = exact_svd
) -> tuple[int, int]:
    """plain == decomposed (both forms) == merged, and after merging nothing of SVF is left.

    Returns how many layers train in the factored and how many in the composed form.
    """
    network.eval()
    keys = list(network.state_dict())
    with torch.no_grad():
        expected = network(images)
        with CountProducts() as plain:
            network(images)

        assert decompose(network, only, svd=svd) is network
        layers = svf_layers(network)
        with CountProducts() as composed:
            close(network(images), expected)
    assert composed.count == plain.count
    with CountProducts() as trained:
        close(network(images), expected)
    # Counted by hand: factored where the short side of the weight is at most half of the long one.
    shapes = [layer.weight.flatten(1).shape for layer in layers.values()]
    factored = sum(2 * min(shape) <= max(shape) for shape in shapes)
    assert trained.count == plain.count + factored

    assert merge(network) is network
    assert not svf_layers(network)
    assert list(network.state_dict()) == keys
    for name in layers:
        assert type(network.get_submodule(name)) in (nn.Conv2d, nn.Linear)
    with torch.no_grad():
        close(network(images), expected)
    return factored, len(layers) - factored


@pytest.mark.parametrize(
    ("build", "side"),
    [
        pytest.param(lambda: torchvision.models.mobilenet_v3_small(weights=None), 64, id="mobilenet_v3_small"),
        pytest.param(lambda: timm.create_model("convnext_atto"), 64, id="convnext_atto"),
        pytest.param(lambda: timm.create_model("vit_tiny_patch16_224"), 224, id="vit_tiny_patch16_224"),
    ],
)
def test_network_computes_the_same(build: Callable[[], nn.Module], side: int) -> None:
    torch.manual_seed(0)
    factored, composed = check_whole_network(build(), torch.randn(1, 3, side, side))
    assert factored > 3
    assert composed >= 1


def test_resnet50_computes_the_same_with_its_first_stage_decomposed() -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None)
    # 64 x 64 alone is square; 64 x 147, 64 x 576, 64 x 256 and 256 x 64 are not
    assert check_whole_network(network, torch.randn(1, 3, 64, 64), only=["conv1", "layer1"]) == (10, 1)


@pytest.mark.parametrize(
    ("build", "forms"),
    [
        pytest.param(lambda: torchvision.models.resnet50(weights=None), (53, 1), id="resnet50"),
        pytest.param(lambda: torchvision.models.vgg16_bn(weights=None).features, (13, 0), id="vgg16_bn"),
    ],
)
def test_large_network_computes_the_same(build: Callable[[], nn.Module], forms: tuple[int, int]) -> None:
    torch.manual_seed(0)
    assert check_whole_network(build(), torch.randn(1, 3, 64, 64), svd=cheap_svd) == forms


@pytest.mark.parametrize(
    ("build", "stages"),
    [
        (lambda: ResNetBackbone(stem="torchvision"), (1792, 5120, 5632)),
        (VGGBackbone, (768, 1536, 1536)),
    ],
    ids=["resnet50", "vgg16_bn"],
)
def test_number_of_singular_values(build: Callable[[], Backbone], stages: tuple[int, ...]) -> None:
    backbone = decompose(build(), only=["layer2", "layer3", "layer4"], svd=cheap_svd)
    counts: Counter[str] = Counter()
    for value in singular_values(backbone):
        counts[value.name.partition(".")[0]] += len(value.S)
    assert counts == dict(zip(("layer2", "layer3", "layer4"), stages, strict=True))
    assert sum(counts.values()) == {"ResNetBackbone": 12544, "VGGBackbone": 3840}[type(backbone).__name__]


LAYERS: dict[str, Callable[[], nn.Conv2d | nn.Linear]] = {
    "1x1 up": lambda: nn.Conv2d(4, 12, 1),
    "1x1 down, no bias": lambda: nn.Conv2d(12, 4, 1, bias=False),
    "1x1 square": lambda: nn.Conv2d(6, 6, 1),
    "3x3 strided, dilated, padded": lambda: nn.Conv2d(3, 5, 3, stride=2, dilation=2, padding=(3, 1)),
    "3x3 near square, no bias": lambda: nn.Conv2d(2, 14, 3, stride=(2, 1), padding=1, bias=False),
    "same": lambda: nn.Conv2d(3, 5, (2, 5), padding="same"),
    "same, near square": lambda: nn.Conv2d(2, 14, (4, 3), padding="same", dilation=(1, 2)),
    "valid": lambda: nn.Conv2d(3, 5, 3, padding="valid"),
    "reflect": lambda: nn.Conv2d(3, 5, 3, padding=(2, 1), padding_mode="reflect"),
    "reflect same, near square": lambda: nn.Conv2d(2, 14, (4, 3), padding="same", padding_mode="reflect"),
    "replicate": lambda: nn.Conv2d(3, 5, 3, padding=1, padding_mode="replicate", stride=2, bias=False),
    "circular": lambda: nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"),
    "linear up": lambda: nn.Linear(5, 16),
    "linear square, no bias": lambda: nn.Linear(7, 6, bias=False),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_layer_and_gradients_in_float64(build: Callable[[], nn.Conv2d | nn.Linear]) -> None:
    torch.manual_seed(0)
    plain = build().double()
    (layer,) = svf_layers(decompose(nn.Sequential(copy.deepcopy(plain)))).values()
    shape = (2, plain.in_channels, 9, 8) if isinstance(plain, nn.Conv2d) else (2, 3, plain.in_features)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()

    expected = plain(x)
    close(layer(y), expected, 1e-12)
    with torch.no_grad():
        close(layer(y), expected, 1e-12)
    (expected**3).sum().backward()
    (layer(y) ** 3).sum().backward()

    # dL/ds_i = u_i^T (dL/dW) v_i
    U, V = layer.U.detach(), layer.V.detach().flatten(1)
    close(gradient(layer.S), ((U.T @ gradient(plain.weight).flatten(1)) * V).sum(1), 1e-10)
    close(gradient(y), gradient(x), 1e-10)
    if plain.bias is not None:
        close(gradient(layer.bias), gradient(plain.bias), 1e-10)
    for frozen in (layer.U, layer.V):
        assert not frozen.requires_grad
        assert frozen.grad is None
    assert isinstance(layer.U, nn.Parameter)
    assert isinstance(layer.V, nn.Parameter)
    assert not layer.S0.requires_grad


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_factors_are_a_singular_value_decomposition(build: Callable[[], nn.Conv2d | nn.Linear]) -> None:
    torch.manual_seed(0)
    plain = build().double()
    weight = plain.weight.detach().flatten(1)
    (layer,) = svf_layers(decompose(nn.Sequential(plain))).values()
    U, S, V = layer.U.detach(), layer.S.detach(), layer.V.detach().flatten(1)
    identity = torch.eye(min(weight.shape), dtype=torch.float64)
    torch.testing.assert_close(S, torch.linalg.svdvals(weight))
    torch.testing.assert_close(U.T @ U, identity)
    torch.testing.assert_close(V @ V.T, identity)
    torch.testing.assert_close(U @ torch.diag(S) @ V, weight)


def test_factors_that_are_trained_have_gradients_too() -> None:
    """Who unfreezes U and V gets the composed form's gradients; the cheaper form is for S alone."""
    torch.manual_seed(0)
    network = decompose(nn.Sequential(nn.Linear(4, 32)))
    (layer,) = svf_layers(network).values()
    layer.U.requires_grad_()
    with CountProducts() as products:
        network(torch.randn(2, 4)).sum().backward()
    assert products.count == 1
    assert gradient(layer.U).abs().max() > 0


# What is replaced and what stays


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.after = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x, x, x)[0]
        return self.after(attended)


class Standardised(nn.Conv2d):
    """Uses its weight in its own way."""


def test_grouped_convolutions_and_subclasses_stay_plain() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=2),
        Conv2dSame(8, 4, 3, stride=2),
        Standardised(4, 4, 1),
        nn.ConvTranspose2d(4, 4, 2),
        nn.Conv1d(4, 4, 1),
        nn.Conv2d(4, 4, 1),
    )
    before = list(network)
    decompose(network)
    assert list(network)[:-1] == before[:-1]
    assert list(svf_layers(network)) == ["6"]


def test_attention_keeps_its_output_projection() -> None:
    torch.manual_seed(0)
    network = Attention().eval()
    x = torch.randn(2, 5, 8)
    expected = network(x)
    decompose(network)
    assert list(svf_layers(network)) == ["after"]
    close(network(x), expected)


@pytest.mark.parametrize("gradients", [False, True])
def test_layers_whose_weight_others_read_still_have_one(gradients: bool) -> None:
    """torch's transformer layer hands `linear1.weight` to one fused operation in eval mode."""
    torch.manual_seed(0)
    network = nn.TransformerEncoderLayer(16, 2, 48, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    with torch.set_grad_enabled(gradients):
        expected = network(x)
        decompose(network)
        assert set(svf_layers(network)) == {"linear1", "linear2"}
        close(network(x), expected)


def test_grouped_convolution_has_no_svf_form() -> None:
    with pytest.raises(ValueError, match="2 groups"):
        SVFConv2d(nn.Conv2d(4, 4, 1, groups=2))


def test_bias_flags_modes_and_types_are_kept() -> None:
    network = small_network().requires_grad_(False)
    network[3].train()
    biases = {name: p for name, p in network.named_parameters() if name.endswith("bias")}
    decompose(network)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {"0.S", "3.S", "7.S"}
    assert all(network.get_parameter(name) is bias for name, bias in biases.items())
    assert [m.training for m in network] == [i == 3 for i in range(8)]
    merge(network)
    assert [m.training for m in network] == [i == 3 for i in range(8)]
    assert all(network.get_parameter(name) is bias for name, bias in biases.items())
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"0.weight", "3.weight", "7.weight"}


def test_decomposing_again_changes_nothing_but_what_is_new() -> None:
    network = decompose(small_network(), only=["0"])
    first = network[0]
    decompose(network)
    assert network[0] is first
    assert list(svf_layers(network)) == ["0", "3", "7"]
    with pytest.raises(ValueError, match="nothing to decompose"):
        decompose(network)


class Shared(nn.Module):
    """A layer in two places, and a block in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.block = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 4))
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.second(self.block(self.first(x))))


def test_shared_layer_becomes_one_shared_layer() -> None:
    torch.manual_seed(0)
    network = Shared()
    x = torch.randn(3, 4)
    expected = network(x)
    decompose(network)
    assert isinstance(network.first, SVFLinear)
    assert network.first is network.second
    assert network.block is network.again
    assert [value.name for value in singular_values(network)] == ["first", "block.0", "block.1"]
    close(network(x), expected)
    merge(network)
    assert type(network.first) is nn.Linear
    assert network.first is network.second
    close(network(x), expected)


def test_shared_layer_stays_shared_when_one_of_its_names_is_chosen() -> None:
    network = decompose(Shared(), only=["second"])
    assert isinstance(network.second, SVFLinear)
    assert network.first is network.second


def test_shared_block_is_found_by_each_of_its_names() -> None:
    network = decompose(Shared(), only=["again"])
    assert all(isinstance(layer, SVFLinear) for layer in network.block)
    assert type(network.first) is nn.Linear


# `only`, `progress`


def nested() -> nn.Module:
    network = nn.Module()
    for name in ("layer1", "layer10", "layer2"):
        setattr(network, name, nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 1)), nn.Linear(2, 2)))
    return network


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["layer1"], ["layer1.0.0", "layer1.1"]),
        (("layer2", "layer1.0"), ["layer1.0.0", "layer2.0.0", "layer2.1"]),
        (["layer10.1"], ["layer10.1"]),
        (None, [f"{layer}.{leaf}" for layer in ("layer1", "layer10", "layer2") for leaf in ("0.0", "1")]),
        (lambda name, layer: isinstance(layer, nn.Linear), ["layer1.1", "layer10.1", "layer2.1"]),
        (lambda name, layer: name == "layer2.0.0", ["layer2.0.0"]),
    ],
    ids=["stage", "stage and block", "leaf", "all", "by layer", "by name"],
)
def test_only(only: Any, chosen: list[str]) -> None:
    assert list(svf_layers(decompose(nested(), only))) == chosen


def test_unknown_name_is_an_error_that_lists_the_known() -> None:
    network = nested()
    with pytest.raises(ValueError, match=r"layer3.*layer1, layer10, layer2"):
        decompose(network, only=["layer1", "layer3"])
    assert not svf_layers(network)


@pytest.mark.parametrize(
    ("network", "only"),
    [
        (nn.Sequential(nn.ReLU()), None),
        (nested(), []),
        (nested(), lambda name, layer: False),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), ["1"]),
        (nn.Linear(2, 2), None),
    ],
    ids=["no layers", "no names", "predicate", "norm", "single layer"],
)
def test_nothing_chosen_is_an_error(network: nn.Module, only: Any) -> None:
    with pytest.raises(ValueError, match="nothing to decompose"):
        decompose(network, only)


def test_progress_sees_every_layer() -> None:
    seen: list[str] = []

    def progress(layers: Sequence[Any]) -> Iterable[Any]:
        for i, layer in enumerate(layers):
            seen.append(f"{i + 1}/{len(layers)} {layer[0]}")
            yield layer

    network = decompose(small_network(), progress=progress)
    assert seen == ["1/3 0", "2/3 3", "3/3 7"]
    assert len(svf_layers(network)) == 3


# Singular values


def test_singular_values_tell_where_training_has_moved() -> None:
    torch.manual_seed(0)
    plain = small_network()
    network = decompose(copy.deepcopy(plain))
    expected = {
        name: torch.linalg.svdvals(plain.get_parameter(f"{name}.weight").detach().flatten(1))
        for name in ("0", "3", "7")
    }
    values = singular_values(network)
    assert [value.name for value in values] == list(expected)
    for value in values:
        torch.testing.assert_close(value.S, expected[value.name])
        torch.testing.assert_close(value.S0, expected[value.name])
        assert not value.S.requires_grad

    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    for value in singular_values(network):
        assert (value.S - expected[value.name]).abs().max() > 1e-4
        torch.testing.assert_close(value.S0, expected[value.name])


def test_plain_network_has_no_singular_values() -> None:
    assert singular_values(small_network()) == []


# Merging


def test_merging_keeps_what_training_has_changed() -> None:
    torch.manual_seed(0)
    network = decompose(small_network())
    images = torch.randn(2, 3, 8, 8)
    before = network(images)
    with torch.no_grad():
        for layer in svf_layers(network).values():
            layer.S.mul_(torch.rand_like(layer.S) + 0.5)
        expected = network(images)
        assert (expected - before).abs().max() > 0.01
        close(merge(network)(images), expected)


def test_merging_twice_is_harmless() -> None:
    network = merge(decompose(small_network()))
    layers = list(network)
    weights = copy.deepcopy(network.state_dict())
    assert merge(network) is network
    assert list(network) == layers
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_network_is_not_merged(value: float) -> None:
    network = decompose(small_network())
    with torch.no_grad():
        svf_layers(network)["7"].S[2] = value
    layers = list(network)
    with pytest.raises(ValueError, match=r"^7 holds NaN"):
        merge(network)
    assert list(network) == layers


def test_merged_layer_keeps_its_settings() -> None:
    plain = nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(2, 1), dilation=2, padding_mode="reflect")
    same = nn.Conv2d(3, 5, 3, padding="same", padding_mode="circular", bias=False)
    for layer in (plain, same):
        assert repr(merge(decompose(nn.Sequential(layer)))[0]) == repr(layer)


# State dicts


def test_plain_state_dict_loads_into_a_decomposed_network() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    source, network = small_network(), decompose(small_network())
    state = source.state_dict()
    keys = list(state)
    network.load_state_dict(state)
    assert list(state) == keys  # the caller's is left alone
    close(network(images), source(images))
    for value in singular_values(network):
        weight = source.get_parameter(f"{value.name}.weight").detach().flatten(1)
        torch.testing.assert_close(value.S, torch.linalg.svdvals(weight))
        torch.testing.assert_close(value.S0, value.S)
    assert not any(network.get_parameter(f"{name}.U").requires_grad for name in ("0", "3", "7"))


def test_decomposed_state_dict_round_trip() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    source, network, plain = decompose(small_network()), decompose(small_network()), small_network()
    with torch.no_grad():
        svf_layers(source)["0"].S.mul_(1.5)
    expected = source(images)
    network.load_state_dict(source.state_dict())
    torch.testing.assert_close(network(images), expected)
    value = singular_values(network)[0]
    torch.testing.assert_close(value.S, value.S0 * 1.5)

    merged = plain_state_dict(source.state_dict())
    assert list(merged) == list(plain.state_dict())
    plain.load_state_dict(merged)
    close(plain(images), expected)


def test_plain_state_dict_passes_on_what_is_plain() -> None:
    network = decompose(small_network(), only=["3"])
    state = network.state_dict()
    merged = plain_state_dict(state)
    assert all(merged[name] is value for name, value in state.items() if not name.startswith("3."))
    assert set(merged) == set(small_network().state_dict())
    untouched = {"S": torch.zeros(2), "block.S": torch.zeros(2), "block.V": torch.zeros(2)}
    assert plain_state_dict(untouched) == untouched
    assert list(state)[-1] in state  # nor is the given dict changed
    assert "3.U" in state


def test_plain_state_dict_of_a_single_layer() -> None:
    layer = nn.Linear(3, 5)
    merged = plain_state_dict(SVFLinear(layer).state_dict())
    assert set(merged) == {"weight", "bias"}
    torch.testing.assert_close(merged["weight"], layer.weight.detach())


def test_weight_of_another_shape_is_named() -> None:
    network = decompose(small_network())
    state = small_network().state_dict() | {"7.weight": torch.zeros(20, 9)}
    with pytest.raises(RuntimeError, match=r"7\.weight: \(20, 9\).*\(20, 8\)"):
        network.load_state_dict(state)


def test_factors_of_another_shape_are_named() -> None:
    network = decompose(small_network())
    state = network.state_dict() | {"3.S": torch.zeros(5)}
    with pytest.raises(RuntimeError, match=r"3\.S"):
        network.load_state_dict(state)


def test_missing_weight_is_an_error() -> None:
    network = decompose(small_network())
    state = small_network().state_dict()
    del state["3.weight"]
    with pytest.raises(RuntimeError, match=r"3\.S"):
        network.load_state_dict(state)


def test_copies_are_independent() -> None:
    torch.manual_seed(0)
    network = decompose(small_network())
    images = torch.randn(2, 3, 8, 8)
    expected = network(images).detach()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        svf_layers(twin)["0"].S.zero_()
    merge(twin)
    assert len(svf_layers(network)) == 3
    torch.testing.assert_close(network(images).detach(), expected)
    assert not torch.allclose(twin(images), expected)


def test_survives_pickling_and_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = decompose(small_network())
    images = torch.randn(2, 3, 8, 8)
    again = pickle.loads(pickle.dumps(network))
    torch.testing.assert_close(again(images), network(images))
    assert not again[0].U.requires_grad
    assert again[0].S.requires_grad

    torch.save(network.state_dict(), tmp_path / "svf.pth")
    other = decompose(small_network())
    other.load_state_dict(torch.load(tmp_path / "svf.pth", weights_only=True))
    torch.testing.assert_close(other(images), network(images))


# Unusual weights


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weight_that_is_not_finite_is_an_error(value: float) -> None:
    network = small_network()
    with torch.no_grad():
        network.get_parameter("7.weight")[3, 3] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        decompose(network)
    with pytest.raises(ValueError, match="NaN or infinite"):
        decompose(small_network()).load_state_dict(network.state_dict())


def test_weight_that_is_not_finite_is_named() -> None:
    network = nested()
    with torch.no_grad():
        network.get_parameter("layer10.0.0.weight").fill_(float("nan"))
    with pytest.raises(ValueError, match=r"layer10\.0\.0"):
        decompose(network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 32), nn.Linear(32, 32)).to(dtype)
    network = decompose(copy.deepcopy(plain))
    x = torch.randn(4, 32, dtype=dtype)
    expected = plain(x).float()
    tolerance = 8 * torch.finfo(dtype).eps
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert {b.dtype for b in network.buffers()} == {dtype}
    for value in singular_values(network):
        weight = plain.get_parameter(f"{value.name}.weight").detach().double()
        close(value.S.double(), torch.linalg.svdvals(weight), torch.finfo(dtype).eps)
    close(network(x).float(), expected, tolerance)
    with torch.no_grad():
        close(network(x).float(), expected, tolerance)
    merge(network)
    assert {p.dtype for p in network.parameters()} == {dtype}
    close(network(x).float(), expected, tolerance)


def test_rank_one_and_zero_weights() -> None:
    torch.manual_seed(0)
    rank_one, zero = nn.Linear(6, 4), nn.Linear(6, 20)
    with torch.no_grad():
        rank_one.weight.copy_(torch.outer(torch.arange(4.0), torch.arange(6.0)))
        zero.weight.zero_()
    x = torch.randn(3, 6)
    for plain, rank in ((rank_one, 1), (zero, 0)):
        layer = SVFLinear(plain)
        close(layer(x), plain(x))
        assert (layer.S > 1e-5).sum() == rank


# Alone


def test_needs_torch_alone() -> None:
    """Imported into a fresh interpreter, it brings nothing but itself beside torch and the standard library."""
    program = (
        "import sys, torch; before = set(sys.modules); import fss.svf; "
        "new = {n for n in sys.modules if n not in before and n.split('.')[0] not in sys.stdlib_module_names}; "
        "print(*sorted(n for n in new if not n.startswith('torch.')))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    found = result.stdout.split()
    assert "fss.svf.layers" in found
    assert all(name == "fss" or f"{name}.".startswith("fss.svf.") for name in found), found


# The factorisation


def test_another_factorisation_is_used_for_layers_and_for_what_they_load() -> None:
    factored: list[tuple[int, ...]] = []

    def svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factored.append(tuple(weight.shape))
        return cheap_svd(weight)

    plain, images = small_network(), torch.randn(2, 3, 8, 8)
    network = decompose(copy.deepcopy(plain), svd=svd)
    shapes = [(8, 3, 3, 3), (8, 8, 1, 1), (20, 8)]
    assert factored == shapes
    close(network(images), plain(images))
    other = small_network()
    network.load_state_dict(other.state_dict())
    assert factored == 2 * shapes
    close(network(images), other(images))
    assert not torch.equal(svf_layers(network)["0"].S, exact_svd(other.get_parameter("0.weight"))[1])


def test_weights_are_factored_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is a GPU: several processes would all take the first, and trainer=cpu none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked: list[torch.device] = []
    svd = torch.linalg.svd

    def noted(A: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(A.device)
        return svd(A, full_matrices)

    monkeypatch.setattr(torch.linalg, "svd", noted)
    decompose(small_network())
    assert asked == 3 * [torch.device("cpu")]
