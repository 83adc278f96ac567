"""What SVF is compared with: LoRA, bottleneck adapters, and S computed from what is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from support.tiny import TinyBackbone
from torch import Tensor, nn

from fss.models.backbones import Backbone, TimmBackbone, ViTBackbone
from fss.models.card import ModelCard, Part
from fss.models.checkpoints import load_checkpoint, published_state_dict
from fss.models.heads import BAM, PFENet
from fss.models.model_file import read_model, save_model
from fss.models.parameters import count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import adapter, lora, svf
from fss.svf import (
    Bottleneck,
    LoRA,
    SVFConv2d,
    SVFLinear,
    decompose,
    merge,
    plain_state_dict,
    put_beside,
    singular_values,
    with_values,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class Case(NamedTuple):
    """A tuning, and what it adds to a layer: the leaves of its parameters' names."""

    tune: Callable[..., None]
    leaves: tuple[str, ...]
    merges: bool = True


CASES = {
    "svf": Case(svf, ("S",)),
    "relu": Case(partial(svf, form="delta"), ("delta",)),
    "z": Case(partial(svf, form="z"), ("z",)),
    "lora": Case(partial(lora, rank=2, alpha=3.0), ("A", "B")),
    "adapter": Case(partial(adapter, width=3), ("down", "up"), merges=False),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "timm": {"name": "test_efficientnet", "low": 1, "mid": 2},
    "vit": {"name": "test_vit"},
}
BUILD: dict[str, type[Backbone]] = {"timm": TimmBackbone, "vit": ViTBackbone}
HEAD: dict[str, Any] = {"width": 8, "pyramid": [1.0, 0.6], "dropout": 0.0}


def segmenter_of(kind: str) -> FewShotSegmenter:
    torch.manual_seed(0)
    backbone = TinyBackbone() if kind == "tiny" else BUILD[kind](**NETWORKS[kind])
    return FewShotSegmenter(backbone, PFENet(list(backbone.channels), **HEAD)).eval()


def given() -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(2, 1, 48, 48)
    masks[..., 4:30, 8:40] = 1
    return images[:2], images[2:, None], masks


def answer(segmenter: FewShotSegmenter) -> Tensor:
    with torch.no_grad():
        return segmenter.eval()(*given()).logits


def close(ours: Tensor, expected: Tensor) -> None:
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


def moved(segmenter: FewShotSegmenter) -> FewShotSegmenter:
    """With everything that is trained in the backbone changed."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in segmenter.backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return segmenter


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", ["tiny", *NETWORKS])
@pytest.mark.parametrize("name", CASES)
def test_begins_as_the_frozen_network_and_trains_its_own(name: str, kind: str) -> None:
    case, segmenter = CASES[name], segmenter_of(kind)
    expected = answer(segmenter)
    layers = {
        path
        for path, module in segmenter.backbone.named_modules()
        if (type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1))
        and segmenter.backbone.stage_of(path) in (2, 3)
    }
    case.tune(segmenter.backbone, (2, 3))
    if name in ("lora", "adapter"):
        assert torch.equal(answer(segmenter), expected)
    close(answer(segmenter), expected)
    assert layers
    assert trained(segmenter.backbone) == {f"{path}.{leaf}" for path in layers for leaf in case.leaves}
    counts = count_parameters(segmenter)
    assert {count.part for count in counts if count.trained} == {"backbone stage 2", "backbone stage 3", "head"}
    assert sum(count.all for count in counts) == sum(p.numel() for p in segmenter.parameters())

    before = {n: p.detach().clone() for n, p in segmenter.named_parameters()}
    optimizer = torch.optim.SGD([p for p in segmenter.parameters() if p.requires_grad], 0.5, weight_decay=0.1)
    for _ in range(2):  # what begins at nothing blocks what is before it for a step
        optimizer.zero_grad()
        segmenter.train()(*given()).logits.square().sum().backward()
        optimizer.step()
    changed = {n for n, p in segmenter.named_parameters() if not torch.equal(p, before[n])}
    assert {f"backbone.{n}" for n in trained(segmenter.backbone)} <= changed <= trained(segmenter)


@pytest.mark.parametrize("kind", ["tiny", *NETWORKS])
@pytest.mark.parametrize("name", CASES)
def test_merges_where_the_maths_allows(name: str, kind: str) -> None:
    case, segmenter = CASES[name], segmenter_of(kind)
    plain = list(segmenter.state_dict())
    before = answer(segmenter)
    case.tune(segmenter.backbone, (2, 3))
    expected = answer(moved(segmenter))
    assert (expected - before).abs().max() > 1e-3 * before.abs().max()
    copied = copy.deepcopy(segmenter)
    close(answer(copied), expected)
    merged = merge(copied)
    close(answer(merged), expected)
    if case.merges:
        assert list(merged.state_dict()) == plain
        state = plain_state_dict(segmenter.state_dict())
        assert list(state) == plain
        assert all(torch.allclose(state[n], value, atol=1e-5) for n, value in merged.state_dict().items())
    else:
        assert {type(m) for m in merged.modules()} & {Bottleneck}
        assert set(plain) < set(plain_state_dict(merged.state_dict()))


@pytest.mark.parametrize("kind", ["tiny", *NETWORKS])
@pytest.mark.parametrize("name", CASES)
def test_checkpoints_are_evaluated_and_resumed(name: str, kind: str, tmp_path: Path) -> None:
    case, segmenter = CASES[name], segmenter_of(kind)
    case.tune(segmenter.backbone, (2, 3))
    expected = answer(moved(segmenter))
    state = {f"segmenter.{n}": value for n, value in segmenter.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    evaluated = segmenter_of(kind)
    load_checkpoint(evaluated, tmp_path / "last.ckpt")
    close(answer(evaluated), expected)
    resumed = segmenter_of(kind)
    case.tune(resumed.backbone, (2, 3))
    resumed.load_state_dict(segmenter.state_dict())
    assert torch.equal(answer(resumed), answer(segmenter))
    # a tuned network also takes plain weights, and is then the plain network
    other = segmenter_of(kind)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    resumed.load_state_dict(other.state_dict())
    close(answer(resumed), answer(other))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("factored", [False, True])
def test_model_files(name: str, kind: str, factored: bool, tmp_path: Path) -> None:
    segmenter = segmenter_of(kind)
    CASES[name].tune(segmenter.backbone, (2, 3))
    expected = answer(moved(segmenter))
    if factored and not singular_values(segmenter.backbone):
        return  # has no factors
    card = ModelCard(Part(kind, NETWORKS[kind]), Part("pfenet", HEAD), 48, "published", 1)
    save_model(tmp_path / "model.safetensors", segmenter, card, factored)
    again, _ = read_model(tmp_path / "model.safetensors")
    close(answer(again), expected)
    assert len(singular_values(again.backbone)) == factored * len(singular_values(segmenter.backbone))


def test_a_base_learner_keeps_the_untuned_backbone(tmp_path: Path) -> None:
    """Also in a model file, where the two share what is equal."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"width": 8, "dropout": 0.0, "shot": 1, "base_classes": 2, "base_width": 8}
    backbone = TimmBackbone(**NETWORKS["timm"])
    segmenter = FewShotSegmenter(backbone, BAM(list(backbone.channels), **settings)).eval()
    segmenter.tune(partial(adapter, stages=(2, 3), width=3))
    with torch.no_grad():
        segmenter.head.get_parameter("cls_merge.weight").fill_(1.0)  # what the base learner says matters
    expected = answer(moved(segmenter))
    card = ModelCard(Part("timm", NETWORKS["timm"]), Part("bam", settings), 48, "published", 1)
    save_model(tmp_path / "model.safetensors", segmenter, card)
    again, _ = read_model(tmp_path / "model.safetensors")
    close(answer(again), expected)
    assert again.base_backbone is not None
    assert not any(isinstance(module, Bottleneck) for module in again.base_backbone.modules())


# Layers


LAYERS: dict[str, Callable[[], nn.Conv2d | nn.Linear]] = {
    "linear": lambda: nn.Linear(7, 5),
    "linear, no bias": lambda: nn.Linear(4, 9, bias=False),
    "1x1": lambda: nn.Conv2d(6, 4, 1),
    "strided, dilated, padded": lambda: nn.Conv2d(3, 5, 3, stride=2, dilation=2, padding=(3, 1)),
    "reflect": lambda: nn.Conv2d(3, 5, 3, padding=(2, 1), padding_mode="reflect"),
    "same": lambda: nn.Conv2d(3, 5, (3, 5), padding="same"),
    "patches": lambda: nn.Conv2d(3, 5, 2, stride=2, bias=False),
}


def inputs(layer: nn.Conv2d | nn.Linear) -> Tensor:
    shape = (2, layer.in_channels, 9, 8) if isinstance(layer, nn.Conv2d) else (2, 3, layer.in_features)
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_low_rank_change_of_a_weight(build: Callable[[], nn.Conv2d | nn.Linear]) -> None:
    """The path beside a layer is the layer with the changed weight, and merging gives that."""
    torch.manual_seed(0)
    plain = build().double()
    (layer,) = put_beside(nn.Sequential(copy.deepcopy(plain)), lambda p: LoRA(p, 2, 5.0), lambda name: True)
    assert isinstance(layer, LoRA)
    x = torch.randn(
        (2, plain.in_channels, 9, 8) if isinstance(plain, nn.Conv2d) else (2, 3, plain.in_features)
    ).double()
    assert torch.equal(layer(x), plain(x))
    with torch.no_grad():
        layer.B.normal_()
        change = 2.5 * torch.einsum("or,r...->o...", layer.B, layer.A)
        plain.weight.add_(change)
    torch.testing.assert_close(layer(x), plain(x))
    merged = layer.merge()
    assert type(merged) is type(plain)
    torch.testing.assert_close(merged(x), plain(x))
    assert repr(merged) == repr(plain)


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_bottleneck_written_out(build: Callable[[], nn.Conv2d | nn.Linear]) -> None:
    torch.manual_seed(0)
    plain = build().double()
    layer = Bottleneck(copy.deepcopy(plain), 2)
    x = torch.randn(
        (2, plain.in_channels, 9, 8) if isinstance(plain, nn.Conv2d) else (2, 3, plain.in_features)
    ).double()
    assert torch.equal(layer(x), plain(x))
    with torch.no_grad():
        layer.get_parameter("up").normal_()
        down = copy.deepcopy(plain)
        down.weight, down.bias = nn.Parameter(layer.get_parameter("down")), None
        middle = F.relu(down(x))
        middle = middle.movedim(1, -1) if isinstance(plain, nn.Conv2d) else middle
        path = middle @ layer.get_parameter("up").T
        path = path.movedim(-1, 1) if isinstance(plain, nn.Conv2d) else path
    torch.testing.assert_close(layer(x), plain(x) + path)


@pytest.mark.parametrize("form", ["delta", "z"])
def test_computed_values(form: Any) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 12), nn.Conv2d(3, 4, 3))
    network = decompose(copy.deepcopy(plain), trained=form)
    changed = decompose(copy.deepcopy(plain))
    with torch.no_grad():
        for ours, theirs in zip(network, changed, strict=True):
            assert isinstance(ours, SVFConv2d | SVFLinear)
            assert isinstance(theirs, SVFConv2d | SVFLinear)
            assert torch.equal(ours.S, ours.S0)
            parameter = ours.get_parameter(form)
            parameter.add_(torch.linspace(-2, 2, len(parameter)))
            theirs.S.copy_((theirs.S0 + parameter).clamp(min=0) if form == "delta" else theirs.S0 * parameter)
    if form == "delta":
        assert any(not value.S.all() for value in singular_values(network))  # some were cut at zero
    x = torch.randn(5, 4)
    torch.testing.assert_close(network[0](x), changed[0](x))
    state = with_values(network.state_dict())
    assert state.keys() == changed.state_dict().keys()
    assert all(torch.equal(value, changed.state_dict()[n]) for n, value in state.items())
    again = decompose(copy.deepcopy(plain), trained=form)
    again.load_state_dict(changed.state_dict())
    torch.testing.assert_close(again[0](x), changed[0](x))


# What cannot be


def test_settings_that_cannot_be() -> None:
    backbone = TinyBackbone()
    unknown: Any = "exp"
    cases: list[tuple[Callable[..., None], str]] = [
        (partial(lora, rank=0), r"tuning\.rank=0: must be at least 1"),
        (partial(lora, alpha=float("inf")), r"tuning\.alpha=inf: must be above 0, and finite"),
        (partial(lora, alpha=0.0), r"tuning\.alpha=0\.0: must be above 0"),
        (partial(adapter, width=0), r"tuning\.width=0: must be at least 1"),
        (partial(svf, form=unknown), r"tuning\.form='exp': must be one of S, delta, z"),
    ]
    for tune, match in cases:
        with pytest.raises(ValueError, match=match):
            tune(backbone)
    for named in (lora, adapter):
        with pytest.raises(ValueError, match=r"tuning\.stages=\[5\]"):
            named(backbone, stages=[5])
        with pytest.raises(ValueError, match=r"tuning\.stages=\[4\] of this backbone: no plain Conv2d"):
            named(TimmBackbone(**NETWORKS["timm"]), stages=[4])


def test_width_is_no_more_than_the_layer_has() -> None:
    assert LoRA(nn.Linear(3, 8), 64, 1.0).width == 3
    assert Bottleneck(nn.Conv2d(2, 5, 3), 64).width == 5


def test_adapters_have_no_place_in_published_programs() -> None:
    segmenter = segmenter_of("tiny")
    adapter(segmenter.backbone)
    with pytest.raises(ValueError, match=r"adapters .* cannot be written for the published programs"):
        published_state_dict(segmenter)
