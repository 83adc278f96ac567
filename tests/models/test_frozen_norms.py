"""Norms folded into convolutions, features computed twice: the same numbers and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone, cheap_svd
from torch import Tensor, nn
from torchvision.models import resnet

from fss.models.backbones.frozen_norms import Bottleneck, ConvSequence, convolve
from fss.models.heads import PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.svf import decompose


def randomised(module: nn.Module) -> nn.Module:
    """Norms as after training, in float64 and eval mode."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(values)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    return module.double().eval()


def gradients(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of a loss that depends on every output, with respect to the input and what is trained."""
    x = x.clone().requires_grad_()
    (module(x) ** 3).sum().backward()
    assert x.grad is not None
    return {"x": x.grad, **{name: p.grad for name, p in module.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("factored", [False, True], ids=["plain", "svf"])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_and_norm_are_the_two_in_turn(factored: bool, trained: bool, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=bias)
    ours = randomised(ConvSequence(conv, nn.BatchNorm2d(8), nn.ReLU(inplace=True)))
    ours.requires_grad_(trained)
    if factored:
        decompose(ours)
    plain = nn.Sequential(*copy.deepcopy(ours).children())
    x = torch.randn(2, 3, 8, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), plain(x))
    mine, theirs = gradients(ours, x), gradients(plain, x)
    assert mine.keys() == theirs.keys()
    assert ("0.S" in mine) == factored
    assert ("1.weight" in mine) == trained
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "padding", [{"padding": "same"}, {"padding": "valid"}, {"padding": (1, 2), "padding_mode": "reflect"}], ids=str
)
def test_svf_keeps_its_layers_padding(padding: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = randomised(ConvSequence(nn.Conv2d(3, 8, (3, 5), **padding), nn.BatchNorm2d(8))).requires_grad_(False)
    decompose(ours)
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), nn.Sequential(*ours.children())(x))


def test_norm_in_training_is_not_folded() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    out = convolve(conv, norm, 5 + torch.randn(8, 3, 6, 6))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert int(norm.num_batches_tracked or 0) == 1


@pytest.mark.parametrize("stride", [1, 2])
def test_block_is_torchvisions(stride: int) -> None:
    torch.manual_seed(0)
    parts = {"downsample": nn.Sequential(nn.Conv2d(8, 16, 1, stride, bias=False), nn.BatchNorm2d(16))}
    ours = randomised(Bottleneck(8, 4, stride, **parts))
    theirs = resnet.Bottleneck(8, 4, stride, **copy.deepcopy(parts)).double().eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 9, 8, dtype=torch.float64)
    for module in (ours, theirs):
        module.requires_grad_(False)
    decompose(ours, svd=cheap_svd)
    before = x.clone()
    torch.testing.assert_close(ours(x), theirs(x))
    mine, expected = gradients(ours, x), gradients(theirs, x)
    torch.testing.assert_close(mine["x"], expected["x"])
    assert sorted(set(mine) - {"x"}) == sorted(f"{c}.S" for c in ("conv1", "conv2", "conv3", "downsample.0"))
    assert torch.equal(x, before)  # nothing is done in place to what others may use


def test_features_computed_twice_give_the_same_gradients() -> None:
    kept, found = {}, {}
    for less in (False, True):
        torch.manual_seed(0)
        segmenter = FewShotSegmenter(TinyBackbone(), PFENet(CHANNELS, width=8, pyramid=(1.0, 0.5), dropout=0.0))
        segmenter.tune(lambda backbone: svf(backbone, svd=cheap_svd))
        segmenter.eval()  # the head's classifiers would drop channels
        if less:
            segmenter.keep_less()
        masks = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
        masks[:, :, 8:20, 4:30] = 1
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        images = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 3, 32, 32)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            prediction = segmenter(*images, masks)
        prediction.logits.square().sum().backward()
        kept[less] = sum(sizes.values())
        found[less] = {name: p.grad for name, p in segmenter.named_parameters() if p.grad is not None}
    assert any(name.endswith("S") for name in found[True])
    torch.testing.assert_close(found[True], found[False])
    assert kept[True] < kept[False]


def test_what_cannot_be_computed_twice_is_refused() -> None:
    head = PFENet(CHANNELS, width=8, pyramid=(1.0,))
    with pytest.raises(ValueError, match=r"checkpointing=true .* backbone\.norms=batch"):
        FewShotSegmenter(TinyBackbone(), head, norms="batch").keep_less()
