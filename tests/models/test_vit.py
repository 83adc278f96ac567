"""Vision transformers as backbones: their features restated, any size, heads, factors, adapters, graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from support import ROOT
from torch import Tensor, nn

from fss.export.export import export_model
from fss.models.backbones import ViTBackbone
from fss.models.card import ModelCard, Part
from fss.models.heads import Head, Match, PFENet, PriorMask
from fss.models.model_file import read_model, save_model
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.resize import resize
from fss.svf import merge, singular_values
from fss.svf.adapter import Adapters, read_adapter

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = {
    "vit_small_patch14_dinov2.lvd142m": 14,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_small_patch16_dinov3": 16,
    "deit_tiny_distilled_patch16_224": 16,
    "vit_base_patch16_clip_224.openai": 16,
    "vit_base_patch16_224.mae": 16,
    "samvit_base_patch16": 16,
}
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 4, "num_heads": 2}
TINY: dict[str, Any] = {"name": "test_vit"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of all families with four narrow blocks."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **SMALL, **given))


def pictures(h: int, w: int, n: int = 2) -> Tensor:
    return torch.randn(n, 3, h, w, generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


# Features


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_timms(name: str, small: None) -> None:
    """At the size that the network was made for, where nothing is resized."""
    torch.manual_seed(0)
    backbone = ViTBackbone(name, low=0, mid=2).eval()
    network: Any = timm.create_model(name).eval()
    missing, unexpected = network.load_state_dict(backbone.get_submodule("network").state_dict(), strict=False)
    assert not unexpected
    assert all(entry.startswith(("head", "neck", "fc_norm")) for entry in missing)
    side = network.pretrained_cfg["input_size"][1]
    with torch.no_grad():
        lower = backbone.lower(pictures(side, side, 1))
        expected = network.forward_intermediates(
            pictures(side, side, 1), indices=[0, 2, 3], norm=not name.startswith("sam"), intermediates_only=True
        )
        for ours, theirs in zip((lower.low, lower.mid, backbone.upper(lower)), expected, strict=True):
            close(ours, F.normalize(theirs, dim=1))
        lower = backbone.lower(pictures(2 * FAMILIES[name] + 3, 3 * FAMILIES[name] - 3))
    assert backbone.channels == (32, 32, 32)
    assert lower.low.shape == lower.mid.shape == backbone.upper(lower).shape == (2, 32, 2, 3)
    config: Any = timm.get_pretrained_cfg(name)
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor(config.mean))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor(config.std))


def restated(network: Any, images: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    """A vision transformer with registers written out; patch tokens after some blocks, normed, (B, C, h, w)."""
    patches = F.conv2d(images, network.patch_embed.proj.weight, network.patch_embed.proj.bias, stride=14)
    b, c, h, w = patches.shape
    side = int(network.pos_embed.shape[1] ** 0.5)
    grid = network.pos_embed.reshape(1, side, side, c).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (h, w), mode="bicubic", antialias=True)
    first = torch.cat([network.cls_token, network.reg_token], 1).expand(b, -1, -1)
    x = torch.cat([first, (patches + grid).flatten(2).transpose(1, 2)], 1)  # (B, 5 + n, C)
    found = []
    for i, block in enumerate(network.blocks):
        y = F.layer_norm(x, (c,), block.norm1.weight, block.norm1.bias, 1e-6)
        q, k, v = (y @ part.T for part in block.attn.qkv.weight.chunk(3))
        bias = block.attn.qkv.bias.chunk(3)
        q, k, v = (
            (m + own).unflatten(2, (2, c // 2)).transpose(1, 2) for m, own in zip((q, k, v), bias, strict=True)
        )
        attention = (q @ k.transpose(2, 3) / (c // 2) ** 0.5).softmax(3)  # (B, heads, 5 + n, 5 + n)
        y = (attention @ v).transpose(1, 2).flatten(2)
        x = x + block.ls1.gamma * (y @ block.attn.proj.weight.T + block.attn.proj.bias)
        y = F.layer_norm(x, (c,), block.norm2.weight, block.norm2.bias, 1e-6)
        y = F.gelu(y @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
        x = x + block.ls2.gamma * (y @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
        if i in blocks:
            y = F.layer_norm(x, (c,), network.norm.weight, network.norm.bias, 1e-6)
            found.append(y[:, 5:].transpose(1, 2).reshape(b, c, h, w))
    return found


def test_features_are_those_of_a_transformer_written_out(small: None) -> None:
    """With registers, and position embeddings for 3 x 5 patches instead of 37 x 37."""
    torch.manual_seed(0)
    backbone = ViTBackbone("vit_small_patch14_reg4_dinov2").eval()
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "ls" in name or name.endswith(("bias", "token")) or "pos_embed" in name:
                parameter.normal_()  # what starts at nothing would hide a mistake
        lower = backbone.lower(pictures(42, 70))
        expected = restated(backbone.get_submodule("network"), pictures(42, 70), (1, 2, 3))
    for ours, theirs in zip((lower.low, lower.mid, backbone.upper(lower)), expected, strict=True):
        close(ours, F.normalize(theirs, dim=1))


def test_a_picture_of_other_sides_is_resized_to_the_nearest_patches() -> None:
    backbone = ViTBackbone(**TINY).eval()
    with torch.no_grad():
        for (h, w), (rows, columns) in (((39, 56), (2, 4)), ((41, 5), (3, 1))):
            ours = backbone.lower(pictures(h, w))
            theirs = backbone.lower(resize(pictures(h, w), (16 * rows, 16 * columns)))
            assert ours.low.shape[-2:] == (rows, columns)
            assert torch.equal(ours.low, theirs.low)
            assert torch.equal(backbone.upper(ours), backbone.upper(theirs))


def test_blocks_norm_and_pruning() -> None:
    backbone = ViTBackbone(**TINY, low=0, mid=1, high=1, norm=False).eval()
    network: Any = backbone.get_submodule("network")
    assert len(network.blocks) == 2
    assert not any(name.startswith("network.norm.") for name, _ in backbone.named_parameters())
    with torch.no_grad():
        lower = backbone.lower(pictures(32, 32))
        assert torch.equal(backbone.upper(lower), lower.mid)
        tokens = network.blocks[0](network._pos_embed(network.patch_embed(pictures(32, 32))))
        close(lower.low, F.normalize(tokens[:, 1:].transpose(1, 2).reshape(2, 64, 2, 2), dim=1))


@pytest.mark.parametrize("blocks", [{"low": 3, "mid": 3}, {"low": -1}, {"mid": 5, "high": 4}, {"high": 6}])
def test_blocks_that_cannot_be(blocks: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be blocks of test_vit from 0 to 5, low before mid"):
        ViTBackbone(**TINY, **blocks)


def test_networks_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"resnet18 .* is a ResNet, no plain vision transformer: .*backbone=timm"):
        ViTBackbone("resnet18")
    with pytest.raises(ValueError, match=r"no network 'vitt' \(backbone.name\)"):
        ViTBackbone("vitt")
    with pytest.raises(ValueError, match=r"no weights 'other' for test_vit .*it has test_vit\.r160_in1k"):
        ViTBackbone("test_vit.other")


@pytest.mark.parametrize(("preset", "width", "depth"), [("s", 384, 12), ("b", 768, 12), ("l", 1024, 24)])
def test_presets(preset: str, width: int, depth: int) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"backbone=dinov2_{preset}", "backbone.weights=null"]).backbone
    with torch.device("meta"):
        backbone = ViTBackbone(**{key: cfg.network[key] for key in cfg.network if key != "_target_"})
    assert backbone.channels == (width, width, width)
    assert backbone.depth == depth
    assert backbone.patch == (14, 14)
    assert (backbone.low, backbone.mid, backbone.high) == (depth // 2 - 1, depth * 3 // 4 - 1, depth - 1)
    assert cfg.name == f"dinov2_{preset}"


# Stages and factors


def test_stages_are_quarters_of_the_blocks(small: None) -> None:
    backbone = ViTBackbone("vit_small_patch14_reg4_dinov2")
    stages = {
        "network.patch_embed.proj.weight": 0,
        "network.pos_embed": 0,
        "network.reg_token": 0,
        "network.blocks.0.attn.qkv": 1,
        "network.blocks.1": 2,
        "network.blocks.2.ls1.gamma": 3,
        "network.blocks.3.mlp.fc2.bias": 4,
        "network.norm.weight": 4,
    }
    assert {name: backbone.stage_of(name) for name in stages} == stages


def test_stages_of_six_blocks() -> None:
    six = ViTBackbone(**TINY)
    assert [six.stage_of(f"network.blocks.{i}.norm1") for i in range(6)] == [1, 1, 2, 3, 3, 4]


@pytest.mark.parametrize("split", [True, False])
def test_fused_projections_are_one_matrix_or_three(split: bool) -> None:
    torch.manual_seed(0)
    backbone = ViTBackbone(**TINY).eval()
    weights = {
        name: module.weight.detach().clone()
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and backbone.stage_of(name) in (3, 4)
    }
    with torch.no_grad():
        expected = backbone.lower(pictures(48, 48)).mid
        svf(backbone, (3, 4), split_qkv=split)
        close(backbone.lower(pictures(48, 48)).mid, expected)
    assert {value.name for value in singular_values(backbone)} == set(weights)
    for name, S, _ in singular_values(backbone):
        parts = weights[name].chunk(3) if split and name.endswith("qkv") else [weights[name]]
        torch.testing.assert_close(S, torch.cat([torch.linalg.svdvals(part) for part in parts]))
    with torch.no_grad():  # the queries of a block alone
        layer: Any = backbone.get_submodule("network.blocks.3.attn.qkv")
        layer.S[: len(layer.S) // 3].zero_()
        third = layer.weight[:64]
        assert (float(third.abs().max()) < 1e-6) is split
        expected = backbone.lower(pictures(48, 48)).mid
        close(merge(backbone).lower(pictures(48, 48)).mid, expected)


# On top of it


def segmenter_of(head: type[Head], **settings: Any) -> FewShotSegmenter:
    torch.manual_seed(0)
    backbone = ViTBackbone(**TINY)
    return FewShotSegmenter(backbone, head(list(backbone.channels), **settings)).eval()


def answer(segmenter: FewShotSegmenter) -> Tensor:
    images = pictures(60, 60, 4)
    masks = torch.zeros(2, 1, 60, 60)
    masks[..., 5:40, 10:50] = 1
    with torch.no_grad():
        return segmenter(images[:2], images[2:, None], masks).logits


@pytest.mark.parametrize(
    ("head", "settings"),
    [(PriorMask, {"threshold": 0.5}), (Match, {"maps": ["low", "mid"], "correspondences": 0.5, "threshold": 0.0})],
)
def test_training_free_heads(head: type[Head], settings: dict[str, Any]) -> None:
    logits = answer(segmenter_of(head, **settings))
    assert logits.shape == (2, 2, 60, 60)
    assert 0.02 < (logits[:, 1] > logits[:, 0]).float().mean() < 0.98


@pytest.fixture(scope="module")
def tuned() -> FewShotSegmenter:
    segmenter = segmenter_of(PFENet, width=8, pyramid=(1.0, 0.6), dropout=0.0)
    svf(segmenter.backbone, (3, 4), split_qkv=True)
    with torch.no_grad():
        for name, parameter in segmenter.backbone.named_parameters():
            if name.endswith(".S"):
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
    return segmenter


CARD = ModelCard(
    Part("vit", TINY), Part("pfenet", {"width": 8, "pyramid": [1.0, 0.6], "dropout": 0.0}), 60, "published", 1
)


@pytest.mark.parametrize("factored", [True, False])
def test_model_file(factored: bool, tuned: FewShotSegmenter, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", tuned, CARD, factored)
    again, _ = read_model(tmp_path / "model.safetensors")
    close(answer(again), answer(tuned))
    counts = [len(value.S) for value in singular_values(again.backbone)]
    assert counts == ([len(value.S) for value in singular_values(tuned.backbone)] if factored else [])


@pytest.mark.slow
@pytest.mark.nightly
def test_graphs(tuned: FewShotSegmenter, tmp_path: Path) -> None:
    """At a size that is no multiple of the patch, and none that the position embeddings were made for."""
    save_model(tmp_path / "model.safetensors", tuned, CARD)
    exported = export_model(tmp_path / "model.safetensors", tmp_path / "model.onnx", "onnx")
    assert exported.shot is None
    assert exported.agreement.relative < 1e-5


def test_adapters_take_fused_projections_apart_as_a_file_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone, other = ViTBackbone(**TINY).eval(), ViTBackbone(**TINY).eval()
    other.load_state_dict(backbone.state_dict())
    sizes = {"network.blocks.4.attn.qkv": 192, "network.blocks.5.attn.qkv": 64, "network.blocks.5.attn.proj": 64}
    adapters = Adapters(backbone, only=sizes)
    with torch.no_grad():
        plain = backbone.upper(backbone.lower(pictures(48, 48)))
        for value in singular_values(backbone):
            value.S.mul_(1.5)
        changed = backbone.upper(backbone.lower(pictures(48, 48)))
    adapters.save_adapter(tmp_path / "one.safetensors")
    found = read_adapter(tmp_path / "one.safetensors")
    assert found.layers == sizes
    again = Adapters(other, only=found.layers)
    again.load_adapter(tmp_path / "one.safetensors", "one")
    with torch.no_grad():
        assert torch.equal(other.upper(other.lower(pictures(48, 48))), plain)
        again.set_adapter("one")
        close(other.upper(other.lower(pictures(48, 48))), changed)
    assert not torch.allclose(changed, plain, atol=1e-3)
