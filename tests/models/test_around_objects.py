"""Features of supports where their objects need them are those of whole pictures."""

from __future__ import annotations

import pytest
import torch
from support.tiny import TinyBackbone, cheap_svd
from torch import Tensor, nn

from fss.margins import Margins, cut
from fss.models.backbones import ResNetBackbone, VGGBackbone
from fss.models.backbones.around_objects import reaches, run_around
from fss.models.backbones.frozen_norms import Bottleneck
from fss.models.heads import BAM, Features, Match, PFENet, PriorMask
from fss.models.heads.ops import masked_average_pool
from fss.resize import resize
from fss.svf import decompose


def blocks() -> list[nn.Module]:
    """Three blocks of a dilated ResNet, of few channels."""
    torch.manual_seed(0)
    made: list[nn.Module] = [Bottleneck(8, 2, dilation=d) for d in (1, 2, 2)]
    return [block.double().eval() for block in made]


BOXES = {
    "inside": (6, 9, 7, 12),
    "in a corner": (0, 4, 15, 20),
    "a point": (11, 12, 0, 1),
    "everything": (0, 18, 0, 20),
    "nothing": (0, 0, 0, 0),
}


@pytest.mark.parametrize("name", BOXES)
def test_the_same_numbers_and_gradients_on_the_object(name: str) -> None:
    layers = blocks()
    top, bottom, left, right = BOXES[name]
    maps = torch.randn(2, 8, 18, 20, dtype=torch.float64)
    mask = torch.zeros(2, 1, 18, 20, dtype=torch.float64)
    mask[0, :, top:bottom, left:right] = 0.3
    mask[1, :, 2:5, 2:5] = 1  # another box in the same batch

    def results(run: object) -> tuple[Tensor, Tensor]:
        x = maps.clone().requires_grad_()
        out = run(x) * mask  # type: ignore[operator]
        (out**2).sum().backward()
        assert x.grad is not None
        return out.detach(), x.grad

    reach = reaches(layers)
    assert reach == (1, 2, 2)
    around = results(lambda x: run_around(layers, reach, x, mask))
    whole = results(nn.Sequential(*layers))
    torch.testing.assert_close(around, whole)


def test_only_what_is_needed_is_run() -> None:
    seen: list[torch.Size] = []
    layers = blocks()
    for layer in layers:
        layer.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[2:]))
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    mask[..., 20:22, 5:8] = 1
    out = run_around(layers, (1, 2, 2), torch.randn(1, 8, 40, 40, dtype=torch.float64), mask)
    assert [tuple(size) for size in seen] == [(12, 13), (10, 11), (6, 7)]
    assert out.shape == (1, 8, 40, 40)
    assert not out[..., :20, :].any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 2, 3, stride=2, padding=1),
        nn.Conv2d(2, 2, 3),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.MaxPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=lambda layer: f"{type(layer).__name__} {getattr(layer, 'padding', '')}",
)
def test_layers_that_look_elsewhere_are_run_whole(layer: nn.Module) -> None:
    assert reaches([nn.ReLU(), layer]) is None


def test_backbones_know_how_far_they_look() -> None:
    with torch.device("meta"):  # shapes alone
        all_dilated, after_first, vgg = ResNetBackbone(), ResNetBackbone(dilation="after_first"), VGGBackbone()
    assert all_dilated._reaches == {"layer3": (2,) * 6, "layer4": (4,) * 3}
    assert after_first._reaches == {"layer3": (1, *(2,) * 5), "layer4": (2, 4, 4)}
    assert vgg._reaches == {"layer3": None, "layer4": (3,)}  # layer 3 pools


def test_mid_features_are_left_out_where_the_head_agrees() -> None:
    assert not PFENet.looks_around
    assert not BAM.looks_around
    assert not PriorMask.looks_around
    assert Match.looks_around


@torch.no_grad()
def test_high_features_of_supports() -> None:
    torch.manual_seed(0)
    backbone = TinyBackbone().eval()
    images, mask = torch.randn(2, 3, 48, 48), torch.zeros(2, 1, 48, 48)
    mask[0, :, 10:20, 30:40] = 1
    mask[1] = 1
    lower = backbone.lower(images)
    small = resize(mask, lower.mid.shape[-2:])
    high = backbone.upper(lower, mask)
    torch.testing.assert_close(high * small, backbone.get_submodule("layer4")(lower.mid * small) * small)
    assert not high[0, :, :, 0].any()


@pytest.mark.parametrize("shots", [1, 3])
def test_prototypes_need_no_features_outside_objects(shots: int) -> None:
    torch.manual_seed(0)
    head = PFENet((2, 3, 4), width=5).double().eval()
    maps = [torch.randn(1, shots, c, 9, 8, dtype=torch.float64) for c in (2, 3, 4)]
    masks = torch.zeros(1, shots, 36, 32, dtype=torch.float64)
    masks[:, 0, 10:20, 3:9] = 1
    masks[:, -1, 4:30, 20:32] = 1
    prototypes = head.encode_support(Features(*maps), masks).prototypes
    reduced = head.down_supp(torch.cat([maps[1][0], maps[0][0]], 1))
    whole = masked_average_pool(reduced, resize(masks[0][:, None], (9, 8)))
    torch.testing.assert_close(prototypes[0], whole)
    seen: list[torch.Size] = []
    head.down_supp[1].register_forward_hook(lambda *given: seen.append(given[2].shape[2:]))
    head.encode_support(Features(*maps), masks[:, :1].expand_as(masks))
    assert seen[0][0] < 9
    assert seen[0][1] < 8
    empty = head.encode_support(Features(*maps), torch.zeros_like(masks)).prototypes
    assert not empty.any()


class _Doubled(nn.Conv2d):
    """A convolution that cannot be folded into the norm after it."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("kind", ["plain", "svf", "other"])
@pytest.mark.parametrize("margins", [Margins(2, 2, 2, 2), Margins(0, 1, 2, 0)])
def test_margins_of_a_block_are_left_out(kind: str, margins: Margins) -> None:
    torch.manual_seed(0)
    shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8))
    block = Bottleneck(6, 2, dilation=2, downsample=shortcut)
    if kind == "svf":
        decompose(block, svd=cheap_svd)
    if kind == "other":
        block.conv2 = _Doubled(2, 2, 3, padding=2, dilation=2, bias=False)
    block = block.double().eval()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64, requires_grad=True)
    inner, whole = block(x, margins), cut(block(x), margins)
    torch.testing.assert_close(inner, whole)
    gradients = [torch.autograd.grad((out**2).sum(), x)[0] for out in (inner, whole)]
    torch.testing.assert_close(*gradients)
