"""What is trained and at which rate, and checkpoints of what was trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.tiny import TinyBackbone, cheap_svd
from torch import Tensor, nn

from fss.models.backbones import Backbone, Channels, LayeredBackbone, ResNetBackbone, TimmBackbone
from fss.models.checkpoints import load_checkpoint, load_published
from fss.models.heads import PFENet
from fss.models.parameters import PartCount, count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import bias, frozen, full, norm, svf
from fss.svf import singular_values
from fss.training.schedules import build_schedule

pytestmark = pytest.mark.usefixtures("one_thread")


def segmenter_of(backbone: Backbone) -> FewShotSegmenter:
    return FewShotSegmenter(backbone, PFENet(backbone.channels, width=8, pyramid=(3, 2)))


def lite0() -> TimmBackbone:
    return TimmBackbone("tf_efficientnet_lite0")


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


LITE0_STAGES = {0: r"conv_stem|bn1|blocks\.0\.", 1: r"blocks\.1\.", 2: r"blocks\.2\.", 3: r"blocks\.[34]\."}


def lite0_weights(stages: Collection[int]) -> dict[str, nn.Conv2d]:
    """The convolutions of stages, by their names in the backbone."""
    pattern = "|".join(LITE0_STAGES[stage] for stage in stages if stage in LITE0_STAGES)
    return {
        f"network.model.{name}": module
        for name, module in timm.create_model("tf_efficientnet_lite0").named_modules()
        if isinstance(module, nn.Conv2d) and re.match(pattern, name)
    }


RESNET_NORM = re.compile(r"\.bn\d|downsample\.1|layer0\.[147]\.")


# What is trained


@pytest.mark.parametrize("stages", [(2, 3, 4), (3,), [0, 1]])
def test_svf_on_lite0_trains_the_singular_values_of_its_stages(stages: Collection[int]) -> None:
    backbone = lite0()
    svf(backbone, stages)
    expected = {
        name for name, conv in lite0_weights(stages).items() if conv.groups == 1 and type(conv) is nn.Conv2d
    }
    assert trained(backbone) == {f"{name}.S" for name in expected}
    assert {value.name for value in singular_values(backbone)} == expected
    assert len(expected) > 2


@pytest.mark.parametrize("stages", [(2, 3, 4), (4,), (0, 2)])
def test_svf_on_resnet_trains_the_singular_values_of_its_stages(stages: Collection[int]) -> None:
    backbone = ResNetBackbone()
    convolutions = {name for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)}
    svf(backbone, stages, svd=cheap_svd)
    layers = tuple(f"layer{stage}." for stage in stages)
    expected = {f"{name}.S" for name in convolutions if name.startswith(layers)}
    assert trained(backbone) == expected
    assert len(singular_values(backbone)) == len(expected)  # nothing else is decomposed


def test_svf_takes_stages_2_to_4_if_not_told() -> None:
    backbone = TinyBackbone()
    svf(backbone)
    assert trained(backbone) == {"layer2.0.S", "layer3.0.S", "layer4.0.S"}


@pytest.mark.parametrize("build", [lite0, ResNetBackbone])
def test_frozen_trains_nothing(build: Callable[[], Backbone]) -> None:
    backbone = build()
    names = list(backbone.state_dict())
    frozen(backbone)
    assert trained(backbone) == set()
    assert list(backbone.state_dict()) == names


@pytest.mark.parametrize("stages", [(2, 3, 4), (3,), [0, 1]])
def test_full_on_lite0_trains_the_weights_of_its_stages(stages: Collection[int]) -> None:
    backbone = lite0()
    full(backbone, stages)
    assert trained(backbone) == {f"{name}.weight" for name in lite0_weights(stages)}


@pytest.mark.parametrize("stages", [(2, 3, 4), (4,), (0, 2)])
def test_full_on_resnet_trains_the_weights_of_its_stages(stages: Collection[int]) -> None:
    backbone = ResNetBackbone()
    names = {name for name, _ in backbone.named_parameters()}
    full(backbone, stages)
    layers = tuple(f"layer{stage}." for stage in stages)
    expected = {name for name in names if name.startswith(layers) and not RESNET_NORM.search(name)}
    assert trained(backbone) == expected
    assert all(backbone.get_parameter(name).ndim == 4 for name in expected)


def test_full_on_convnext_leaves_layer_norms_and_takes_scales_and_biases() -> None:
    backbone = TimmBackbone("convnext_atto", low=1, mid=2)
    full(backbone, (2, 3))
    stages = r"network\.model\.stages\.[12]\."
    expected = {
        name
        for name, _ in backbone.named_parameters()
        if re.match(stages, name) and not re.search(r"\.norm\.|downsample\.0\.", name)
    }
    assert trained(backbone) == expected
    assert {"gamma", "weight", "bias"} <= {name.rpartition(".")[2] for name in expected}


@pytest.mark.parametrize("train", [["S"], ["U"], ["V"], ["S", "U"], ["S", "V"], ["S", "U", "V"]], ids="".join)
def test_svf_trains_the_factors_asked_for(train: list[str]) -> None:
    segmenter = segmenter_of(TinyBackbone())
    svf(segmenter.backbone, (2, 4), train)
    assert trained(segmenter.backbone) == {f"layer{stage}.0.{factor}" for stage in (2, 4) for factor in train}
    answer_of_training(segmenter).sum().backward()
    moved = {n for n, p in segmenter.backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == trained(segmenter.backbone)


@pytest.mark.parametrize("train", [[], ["W"], ["S", "bias"]])
def test_factors_that_cannot_be(train: list[str]) -> None:
    with pytest.raises(ValueError, match=r"tuning\.train=\[.*factors S, U and V"):
        svf(TinyBackbone(), (2,), train)


def test_bias_and_norm_on_resnet() -> None:
    backbone = ResNetBackbone()
    norms = {name for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)}
    late = {name for name in norms if name.startswith(("layer3.", "layer4."))}
    bias(backbone, (3, 4))
    assert trained(backbone) == {f"{name}.bias" for name in late}  # its convolutions have none
    norm(backbone, (3, 4))
    assert trained(backbone) == {f"{name}.{leaf}" for name in late for leaf in ("weight", "bias")}
    norm(backbone)
    assert len(trained(backbone)) == 2 * len([name for name in norms if name[5] in "234"])


def test_bias_and_norm_on_a_network_with_biases_and_other_norms() -> None:
    backbone = TimmBackbone("convnext_atto", low=1, mid=2)
    bias(backbone)
    assert all(name.endswith(".bias") for name in trained(backbone))
    assert any(".conv_dw." in name for name in trained(backbone))
    norm(backbone)
    assert all(".norm." in name or ".downsample.0." in name for name in trained(backbone))
    assert trained(backbone)


def test_norm_of_stages_without_norms() -> None:
    backbone = LayeredBackbone([nn.Conv2d(3, 3, 1, bias=False) for _ in range(5)], Channels(3, 3, 3))
    for tuning, name in ((bias, "bias"), (norm, "norm")):
        with pytest.raises(ValueError, match=rf"tuning\.stages=\[2, 3, 4\].*tuning={name} trains"):
            tuning(backbone)


@pytest.mark.parametrize("tuning", [frozen, svf, full])
def test_norms_are_not_trained_otherwise(tuning: Callable[[Backbone], None]) -> None:
    for backbone in (TinyBackbone(), lite0(), TimmBackbone("vit_tiny_patch16_224", 1, 2, image_size=64)):
        tuning(backbone)
        norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
        assert norms
        assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())


def test_tuning_leaves_the_head_alone_and_decides_anew() -> None:
    segmenter = segmenter_of(TinyBackbone())
    full(segmenter.backbone, (4,))
    full(segmenter.backbone, (1,))
    assert trained(segmenter.backbone) == {"layer1.0.weight", "layer1.0.bias"}
    frozen(segmenter.backbone)
    assert trained(segmenter.backbone) == set()
    assert all(parameter.requires_grad for parameter in segmenter.head.parameters())


@pytest.mark.parametrize("tuning", [svf, full, bias, norm])
@pytest.mark.parametrize("stages", [(), [5], [-1], (2, 7), ["layer2"]])
def test_stages_that_cannot_be(tuning: Callable[..., None], stages: Any) -> None:
    with pytest.raises(ValueError, match=r"tuning\.stages=\[.*0 to 4"):
        tuning(TinyBackbone(), stages)


def test_stage_without_layers_to_decompose() -> None:
    """What comes after mid is pruned from timm's networks."""
    with pytest.raises(ValueError, match=r"tuning\.stages=\[4\].*nothing to decompose"):
        svf(lite0(), (4,))


def test_gradients_reach_what_is_trained_and_nothing_else() -> None:
    segmenter = segmenter_of(TinyBackbone()).train()
    svf(segmenter.backbone, (2, 3, 4))
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :40, :40] = 1
    prediction = segmenter(torch.randn(1, 3, 64, 64), torch.randn(1, 1, 3, 64, 64), masks)
    losses = segmenter.head.losses(prediction, masks[:, 0], None)
    torch.stack(list(losses.values())).sum().backward()
    assert {name for name, p in segmenter.named_parameters() if p.grad is not None} == trained(segmenter)
    assert {"backbone.layer2.0.S", "backbone.layer3.0.S", "backbone.layer4.0.S"} <= trained(segmenter)


# How many


@pytest.mark.parametrize("tuning", [frozen, svf, full, bias, norm])
@pytest.mark.parametrize("build", [TinyBackbone, lite0])
def test_counts_add_up(tuning: Callable[[Backbone], None], build: Callable[[], Backbone]) -> None:
    segmenter = segmenter_of(build())
    tuning(segmenter.backbone)
    counts = count_parameters(segmenter)
    assert sum(count.all for count in counts) == sum(p.numel() for p in segmenter.parameters())
    assert sum(count.trained for count in counts) == sum(
        segmenter.get_parameter(name).numel() for name in trained(segmenter)
    )
    head = sum(p.numel() for p in segmenter.head.parameters())
    assert counts[-1] == PartCount("head", head, head)
    for count in counts[:-1]:
        stage = count.part.removeprefix("backbone stage ")
        reached = tuning is not frozen and stage in "234"
        assert (count.trained > 0) is reached


def test_counts_of_lite0_by_hand() -> None:
    segmenter = segmenter_of(lite0())
    svf(segmenter.backbone)
    expected = []
    model = timm.create_model("tf_efficientnet_lite0")
    for stage, pattern in LITE0_STAGES.items():
        all_ = sum(p.numel() for name, p in model.named_parameters() if re.match(pattern, name))
        singular = 0
        for conv in lite0_weights([stage]).values():
            m, n = conv.weight.flatten(1).shape
            if stage >= 2 and conv.groups == 1:
                singular += min(m, n)
                all_ += min(m, n) * (m + 1 + n) - m * n  # U, S and V in place of the weight
        expected.append(PartCount(f"backbone stage {stage}", singular, all_))
    # Expansions and projections: stage 2 has 24 -> 144 -> 40 and 40 -> 240 -> 40,
    # stage 3 40 -> 240 -> 80, twice 80 -> 480 -> 80, 80 -> 480 -> 112 and twice 112 -> 672 -> 112.
    assert [count.trained for count in expected] == [
        0,
        0,
        24 + 40 + 40 + 40,
        40 + 80 + 2 * (80 + 80) + 80 + 112 + 2 * (112 + 112),
    ]
    assert count_parameters(segmenter)[:-1] == expected


def test_counts_name_only_stages_that_exist() -> None:
    parts = [count.part for count in count_parameters(segmenter_of(TinyBackbone()))]
    assert parts == [*(f"backbone stage {stage}" for stage in range(5)), "head"]
    parts = [count.part for count in count_parameters(segmenter_of(TimmBackbone("convnext_atto", low=1, mid=2)))]
    assert parts == ["backbone stage 1", "backbone stage 2", "backbone stage 3", "head"]


# Learning rates


def rates(name: Any, steps: int, warmup_steps: int = 0) -> list[float]:
    """Of every step, and the one that would come after the last; a second group keeps its proportion."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": parameters[:1], "lr": 2.0}, {"params": parameters[1:], "lr": 0.2}], lr=1.0
    )
    schedule = build_schedule(name, optimizer, steps, warmup_steps)
    seen = []
    for _ in range(steps + 1):
        fast, slow = (group["lr"] for group in optimizer.param_groups)
        assert slow == pytest.approx(fast / 10)
        seen.append(fast / 2)
        optimizer.step()
        schedule.step()
    return seen


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "poly": lambda done: (1 - done) ** 0.9,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("warmup_steps", [0, 1, 8])
def test_schedule_at_every_step(name: str, warmup_steps: int) -> None:
    steps = 48
    rest = steps - warmup_steps
    expected = [0.1 + 0.9 * i / warmup_steps for i in range(warmup_steps)]
    expected += [SHAPES[name](i / rest) for i in range(rest + 1)]
    assert rates(name, steps, warmup_steps) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "start", "middle", "end"),
    [("constant", 1, 1, 1), ("cosine", 1, 0.5, 0), ("poly", 1, 0.5358867, 0)],
)
def test_schedule_at_start_middle_and_end(name: str, start: float, middle: float, end: float) -> None:
    seen = rates(name, 100)
    assert [seen[0], seen[50], seen[100]] == pytest.approx([start, middle, end], abs=1e-6)


@pytest.mark.parametrize(("steps", "warmup_steps"), [(10, 10), (10, 11), (10, -1), (0, 0)])
def test_warmup_that_cannot_be(steps: int, warmup_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"warmup_steps={warmup_steps}.*{steps} steps"):
        rates("constant", steps, warmup_steps)


def test_unknown_schedule() -> None:
    with pytest.raises(ValueError, match=r"schedule='linear'.*'constant', 'cosine' or 'poly'"):
        rates("linear", 10)


# Checkpoints


def write(segmenter: FewShotSegmenter, file: Path) -> None:
    """As a training leaves it behind."""
    state = {f"segmenter.{name}": value for name, value in segmenter.state_dict().items()}
    torch.save({"epoch": 2, "global_step": 9, "state_dict": state, "optimizer_states": [{"state": {}}]}, file)


def published_state(segmenter: FewShotSegmenter, prefix: str = "") -> dict[str, Tensor]:
    """Under the published programs' names, every value its own."""
    return {
        f"{prefix}{name.partition('.')[2]}": torch.rand_like(v.float())
        for name, v in segmenter.state_dict().items()
    }


def answer_of_training(segmenter: FewShotSegmenter) -> Tensor:
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :40, :40] = 1
    return segmenter.train()(torch.randn(1, 3, 64, 64), torch.randn(1, 1, 3, 64, 64), masks).logits


def answer(segmenter: FewShotSegmenter) -> Tensor:
    g = torch.Generator().manual_seed(3)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :40, :40] = 1
    images = torch.randn(2, 1, 3, 64, 64, generator=g)
    with torch.no_grad():
        return segmenter.eval()(images[0], images[1:], masks).logits


@pytest.mark.parametrize("build", [TinyBackbone, lite0])
def test_our_checkpoint_is_merged_on_the_way(tmp_path: Path, build: Callable[[], Backbone]) -> None:
    source, target = segmenter_of(build()), segmenter_of(build())
    plain = list(target.state_dict())
    before = answer(source)
    svf(source.backbone)
    with torch.no_grad():
        for parameter in source.backbone.parameters():
            if parameter.requires_grad:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    expected = answer(source)
    write(source, tmp_path / "last.ckpt")
    load_checkpoint(target, tmp_path / "last.ckpt")
    assert list(target.state_dict()) == plain
    assert (answer(target) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (before - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("tuning", [frozen, full])
def test_our_checkpoint_without_svf(tmp_path: Path, tuning: Callable[[Backbone], None]) -> None:
    source, target = segmenter_of(TinyBackbone()), segmenter_of(TinyBackbone())
    tuning(source.backbone)
    write(source, tmp_path / "last.ckpt")
    load_checkpoint(target, str(tmp_path / "last.ckpt"))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoint(tmp_path: Path, prefix: str) -> None:
    segmenter = segmenter_of(TinyBackbone())
    state = published_state(segmenter, prefix)
    torch.save({"epoch": 195, "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "best.pth")
    load_checkpoint(segmenter, tmp_path / "best.pth")
    for name, value in segmenter.state_dict().items():
        assert torch.equal(value, state[f"{prefix}{name.partition('.')[2]}"].to(value.dtype)), name

    again = segmenter_of(TinyBackbone())
    load_published(again, state)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in segmenter.state_dict().items())


def test_published_weights_are_decomposed_on_the_way() -> None:
    segmenter, plain = segmenter_of(TinyBackbone()), segmenter_of(TinyBackbone())
    state = published_state(plain)
    load_published(plain, state)
    svf(segmenter.backbone)
    load_published(segmenter, state)
    expected = answer(plain)
    assert (answer(segmenter) - expected).abs().max() < 1e-4 * expected.abs().max()


def change(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    del state[f"{prefix}layer3.0.weight"]
    state[f"{prefix}layer2.0.weight"] = torch.zeros(1, 2)
    state[f"{prefix}layer9.bias"] = torch.zeros(1)
    return state


MISMATCH = (
    r"missing: backbone\.layer3\.0\.weight; unexpected: backbone\.layer9\.bias; "
    r"wrong shape: backbone\.layer2\.0\.weight \(1, 2\) instead of \(4, 4, 3, 3\)$"
)


@pytest.mark.parametrize("prefix", ["", "module.", "segmenter.backbone."])
def test_mismatches_are_listed(tmp_path: Path, prefix: str) -> None:
    segmenter = segmenter_of(TinyBackbone())
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    if prefix.startswith("segmenter"):
        state = {f"segmenter.{name}": value for name, value in before.items()}
    else:
        state = published_state(segmenter, prefix)
    torch.save({"state_dict": change(state, prefix)}, tmp_path / "some.pth")
    with pytest.raises(ValueError, match=MISMATCH) as error:
        load_checkpoint(segmenter, tmp_path / "some.pth")
    assert "some.pth do not fit FewShotSegmenter" in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())


def test_published_head_entries_are_the_heads() -> None:
    segmenter = segmenter_of(TinyBackbone())
    state = published_state(segmenter)
    state["cls.7.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"the state dict do not fit.*unexpected: head\.cls\.7\.weight$"):
        load_published(segmenter, state)


def test_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    write(segmenter_of(lite0()), tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"missing: backbone\.layer0\.0\.weight.*unexpected: backbone\.network"):
        load_checkpoint(segmenter_of(TinyBackbone()), tmp_path / "last.ckpt")


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    segmenter = segmenter_of(TinyBackbone())
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        load_checkpoint(segmenter, tmp_path / "nowhere.ckpt")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.ckpt cannot be read"):
        load_checkpoint(segmenter, tmp_path / "junk.ckpt")
