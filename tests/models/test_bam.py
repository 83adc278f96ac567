"""BAM on a backbone: its base learner's own copy of it, what is shared, and its weighing of supports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone
from torch import Tensor, nn

from fss.models.backbones import Backbone, ResNetBackbone, TimmBackbone
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.checkpoints import (
    load_base_learner,
    load_checkpoint,
    load_published,
    published_state_dict,
    save_published,
)
from fss.models.heads import BAM, Baseline, Features, PFENet, PSPHead
from fss.models.parameters import count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import bias, frozen, full, norm, svf
from fss.svf import SVFConv2d, merge

CLASSES = 5


pytestmark = pytest.mark.usefixtures("one_thread")


def bam(shot: int = 1, backbone: Backbone | None = None) -> FewShotSegmenter:
    backbone = backbone or TinyBackbone()
    return FewShotSegmenter(backbone, BAM(backbone.channels, CLASSES, shot, width=8, base_width=8))


def episode(b: int = 2, k: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(b, k, 32, 32)
    masks[..., 4:20, 3:25] = 1
    return torch.randn(b, 3, 32, 32), torch.randn(b, k, 3, 32, 32), masks


def move(segmenter: FewShotSegmenter) -> None:
    """As training does: everything that requires gradients."""
    with torch.no_grad():
        for parameter in segmenter.backbone.parameters():
            if parameter.requires_grad:
                parameter.mul_(1 + 2 * torch.rand_like(parameter)).add_(0.3 * torch.rand_like(parameter))


# The base learner's backbone


@pytest.mark.parametrize("tuning", [svf, full, bias, norm, lambda b: svf(b, (0, 3)), lambda b: full(b, (1,))])
@pytest.mark.parametrize(
    "build", [TinyBackbone, lambda: TimmBackbone("resnet18", weights=None, low=1, mid=2)], ids=["layered", "timm"]
)
def test_base_learner_sees_the_backbone_before_tuning(
    tuning: Callable[[Backbone], None], build: Callable[[], Backbone]
) -> None:
    segmenter = bam(backbone=build()).eval()
    query, support, masks = episode()
    with torch.no_grad():
        before = segmenter(query, support, masks)
        segmenter.tune(tuning)
        move(segmenter)
        after = segmenter(query, support, masks)
        parts = segmenter.decode(segmenter.encode_query(query), segmenter.encode_support(support, masks), (32, 32))
        merged = merge(segmenter)(query, support, masks)
    assert before.base is not None
    for prediction in (after, parts, merged):
        assert prediction.base is not None
        torch.testing.assert_close(prediction.base, before.base)
        torch.testing.assert_close(prediction.logits, after.logits, atol=1e-4, rtol=1e-4)
    assert (after.prior - before.prior).abs().max() > 1e-3


def test_frozen_backbone_is_not_copied() -> None:
    segmenter = bam()
    segmenter.tune(frozen)
    assert segmenter.base_backbone is None


def test_heads_without_a_base_learner_keep_no_copy() -> None:
    segmenter = FewShotSegmenter(TinyBackbone(), PFENet(CHANNELS, width=8, pyramid=(1.0,)))
    segmenter.tune(svf)
    assert segmenter.base_backbone is None


def test_what_is_equal_is_stored_once() -> None:
    segmenter = bam(backbone=ResNetBackbone())
    plain = {n: p.numel() for n, p in segmenter.backbone.named_parameters()}
    segmenter.tune(lambda backbone: svf(backbone, (4,)))
    base = segmenter.base_backbone
    assert isinstance(base, ResNetBackbone)
    assert isinstance(segmenter.backbone, ResNetBackbone)
    for shared in ("layer0", "layer1", "layer2", "layer3"):
        assert getattr(base, shared) is getattr(segmenter.backbone, shared)
    assert base.layer4 is not segmenter.backbone.layer4
    assert base.layer4[0].bn1 is segmenter.backbone.layer4[0].bn1  # type: ignore[index]
    own = {id(p) for p in base.parameters()} - {id(p) for p in segmenter.backbone.parameters()}
    by_name = {n: p for n, p in base.named_parameters() if id(p) in own}
    assert all(n.startswith("layer4.") and p.ndim == 4 for n, p in by_name.items())
    assert len(by_name) == sum(isinstance(m, SVFConv2d) for m in segmenter.backbone.modules())
    assert sum(p.numel() for p in by_name.values()) == sum(plain[n] for n in by_name)
    [part] = [p for p in count_parameters(segmenter) if p.part == "base learner"]
    head = sum(p.numel() for p in segmenter.head.get_submodule("learner_base").parameters())
    assert (part.trained, part.all) == (0, head + sum(p.numel() for p in by_name.values()))


@pytest.mark.parametrize(("stages", "runs"), [((2, 3, 4), 1), ((1, 2), 2)])
def test_stem_runs_once_where_it_is_shared(stages: tuple[int, ...], runs: int) -> None:
    segmenter = bam().eval()
    segmenter.tune(lambda backbone: svf(backbone, stages))
    assert isinstance(segmenter.backbone, TinyBackbone)
    assert isinstance(segmenter.base_backbone, TinyBackbone)
    images = []

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        images.append(len(inputs[0]))

    for layer in {segmenter.backbone.layer0, segmenter.base_backbone.layer0}:
        layer.register_forward_hook(count)
    segmenter(*episode(2, 1))
    assert sum(images) == 4 + 2 * (runs - 1)  # the base learner sees queries alone


def test_base_learner_and_its_backbone_are_never_trained() -> None:
    segmenter = bam().train()
    segmenter.tune(full)
    prediction = segmenter(*episode(), torch.tensor([0, 4]))
    losses = segmenter.head.losses(prediction, torch.ones(2, 32, 32), None, torch.ones(2, 32, 32))
    assert losses.keys() == {"main", "meta", "base"}
    assert not losses["base"].requires_grad
    torch.stack(list(losses.values())).sum().backward()
    base = segmenter.base_backbone
    assert base is not None
    assert all(p.grad is None for p in segmenter.head.get_submodule("learner_base").parameters())
    assert all(p.grad is None for p in base.parameters())
    assert not any(m.training for m in segmenter.modules() if isinstance(m, nn.BatchNorm2d))


# The method


def test_own_class_is_left_out_of_the_base_map() -> None:
    logits = torch.randn(3, CLASSES + 1, 4, 4)
    p = logits.softmax(1)
    everything = BAM._base_map(logits, None)
    torch.testing.assert_close(everything, 1 - p[:, :1])
    without = BAM._base_map(logits, torch.tensor([-1, 0, 4]))
    torch.testing.assert_close(without[0], everything[0])
    torch.testing.assert_close(without[1], everything[1] - p[1, 1:2])
    torch.testing.assert_close(without[2], everything[2] - p[2, 5:6])


def test_order_of_supports_does_not_matter() -> None:
    segmenter = bam(shot=3).eval()
    query, support, masks = episode(k=3)
    with torch.no_grad():
        segmenter.head.get_submodule("kshot_rw.2").weight.mul_(50)  # type: ignore[operator]
        one = segmenter(query, support, masks)
        other = segmenter(query, support[:, [2, 0, 1]], masks[:, [2, 0, 1]])
    torch.testing.assert_close(one.logits, other.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.prior, other.prior, atol=1e-4, rtol=1e-4)


def test_weights_sum_to_one_and_follow_the_distance() -> None:
    head = BAM(CHANNELS, CLASSES, 4, width=8, base_width=8)
    distances = torch.rand(6, 4)
    weights = head._weights(distances)
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    shuffled = head._weights(distances[:, [3, 1, 0, 2]])
    torch.testing.assert_close(shuffled, weights[:, [3, 1, 0, 2]])
    assert torch.equal(BAM(CHANNELS, CLASSES, 1, width=8)._weights(distances[:, :1]), torch.ones(6, 1))


def test_distance_of_equal_and_of_opposite_maps() -> None:
    one = torch.ones(1, 4, 4)
    assert BAM._distances(one, one[:, None]).item() == 0
    assert BAM._distances(one, torch.zeros(1, 1, 4, 4)).item() == pytest.approx(1)


def test_another_shot_is_another_model() -> None:
    segmenter = bam(shot=5)
    with pytest.raises(ValueError, match="a BAM trained with shot=5 got 1 supports"):
        segmenter(*episode(k=1))
    one, five = bam(1), bam(5)
    assert set(five.state_dict()) - set(one.state_dict()) == {
        f"head.kshot_rw.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")
    }


def test_untrained_ensemble_is_the_meta_learner_but_for_nothing() -> None:
    """gram_merge and cls_merge begin as the first of their two maps."""
    segmenter = bam().eval()
    with torch.no_grad():
        prediction = segmenter(*episode())
    assert torch.equal(prediction.logits.argmax(1), prediction.inner[0].argmax(1))
    assert prediction.base is not None
    assert prediction.base.shape == (2, CLASSES + 1, 32, 32)


def test_baseline_is_the_meta_learner_of_bam() -> None:
    segmenter = bam().eval()
    head = Baseline(CHANNELS, width=8).eval()
    head.load_state_dict({n: v for n, v in segmenter.head.state_dict().items() if n in head.state_dict()})
    alone = FewShotSegmenter(segmenter.backbone, head).eval()
    inputs = episode()
    with torch.no_grad():
        torch.testing.assert_close(alone(*inputs).logits, segmenter(*inputs).inner[0])
        five = alone(*episode(k=5))
    assert five.logits.shape == (2, 2, 32, 32)


def test_baseline_weighs_all_supports_alike() -> None:
    segmenter = FewShotSegmenter(TinyBackbone(), Baseline(CHANNELS, width=8)).eval()
    query, support, masks = episode(k=1)
    with torch.no_grad():
        one = segmenter(query, support, masks)
        again = segmenter(query, support.expand(-1, 4, -1, -1, -1), masks.expand(-1, 4, -1, -1))
    torch.testing.assert_close(again.logits, one.logits, atol=1e-5, rtol=1e-4)


def test_base_learner_head_on_any_number_of_channels() -> None:
    for channels in (8, 10, 152):
        logits = PSPHead(channels, CLASSES, width=8).eval()(torch.randn(1, channels, 7, 5))
        assert logits.shape == (1, CLASSES + 1, 7, 5)


def test_features_of_a_query_need_the_base_map() -> None:
    maps = (torch.randn(1, c, 4, 4) for c in CHANNELS)
    with pytest.raises(AssertionError):
        bam().head.encode_query(Features(*maps))


@pytest.mark.parametrize("tuning", [frozen, svf])
def test_base_learner_does_not_see_norms_that_change_with_the_batch(tuning: Callable[[Backbone], None]) -> None:
    backbone = TinyBackbone()
    head = BAM(backbone.channels, CLASSES, 1, width=8, base_width=8)
    segmenter = FewShotSegmenter(backbone, head, norms="batch")
    inputs = episode()
    with torch.no_grad():
        before = segmenter.eval()(*inputs)
        segmenter.tune(tuning)
        segmenter.train()
        for module in head.learner_base.modules():  # whose dropout would differ
            module.eval()
        for _ in range(3):
            during = segmenter(*inputs)
        after = segmenter.eval()(*inputs)
    assert before.base is not None
    for prediction in (during, after):
        torch.testing.assert_close(prediction.base, before.base)
    assert not torch.allclose(after.prior, before.prior, atol=1e-3)


# Checkpoints


def test_weights_of_the_supports_are_left_out_of_a_baseline_alone(tmp_path: Path) -> None:
    """A published baseline of several shots holds BAM's weighing of the supports and never uses it."""
    backbone = TinyBackbone()
    source = FewShotSegmenter(backbone, Baseline(backbone.channels, width=8))
    state = {name.partition(".")[2]: value for name, value in source.state_dict().items()}
    state |= {f"kshot_rw.{name}": torch.randn(2) for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    target = FewShotSegmenter(TinyBackbone(), Baseline(backbone.channels, width=8))
    load_published(target, state)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    with pytest.raises(ValueError, match=r"unexpected: head\.kshot_other"):
        load_published(target, {**state, "kshot_other.0.weight": torch.zeros(1)})


def write(segmenter: nn.Module, file: Path) -> None:
    """As a training leaves it behind."""
    torch.save({"state_dict": {f"segmenter.{n}": v for n, v in segmenter.state_dict().items()}}, file)


@pytest.mark.parametrize("tuning", [svf, full, frozen, norm])
def test_trained_bam_is_read_back(tuning: Callable[[Backbone], None], tmp_path: Path) -> None:
    source, target = bam().eval(), bam().eval()
    source.tune(tuning)
    move(source)
    write(source, tmp_path / "last.ckpt")
    load_checkpoint(target, tmp_path / "last.ckpt")
    inputs = episode()
    with torch.no_grad():
        ours, theirs = target(*inputs), source(*inputs)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)
    assert theirs.base is not None
    torch.testing.assert_close(ours.base, theirs.base)
    assert (target.base_backbone is None) is (tuning is frozen)
    # equal parts are one again
    if target.base_backbone is not None:
        assert target.base_backbone.get_submodule("layer0") is target.backbone.get_submodule("layer0")


def test_a_loaded_bam_can_be_tuned_further(tmp_path: Path) -> None:
    source, target = bam().eval(), bam().eval()
    source.tune(full)
    move(source)
    write(source, tmp_path / "last.ckpt")
    load_checkpoint(target, tmp_path / "last.ckpt")
    target.tune(lambda backbone: full(backbone, (0, 1, 2, 3, 4)))
    move(target)
    inputs = episode()
    with torch.no_grad():
        ours, theirs = target(*inputs), source(*inputs)
    torch.testing.assert_close(ours.base, theirs.base)  # what it saw before all tuning
    assert (ours.prior - theirs.prior).abs().max() > 1e-3


def test_checkpoint_of_another_bam_leaves_everything_as_it_was(tmp_path: Path) -> None:
    source, target = bam(shot=5), bam(shot=1)
    source.tune(svf)
    write(source, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"unexpected: head\.kshot_rw"):
        load_checkpoint(target, tmp_path / "last.ckpt")
    assert target.base_backbone is None


def base_segmenter(high: Literal["layer4", "low+mid"] = "layer4") -> BaseLearnerSegmenter:
    backbone = TinyBackbone(high)
    return BaseLearnerSegmenter(backbone, PSPHead(backbone.channels.high, CLASSES, width=8)).eval()


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("into", ["base", "bam"])
def test_base_learner_is_read(published: bool, into: str, tmp_path: Path) -> None:
    source = base_segmenter()
    file = tmp_path / "best.pth"
    if published:
        save_published(source, file)
        names = set(torch.load(file, weights_only=True)["state_dict"])
        assert {"layer0.0.weight", "encoder.4.0.weight", "ppm.features.3.1.weight", "cls.4.bias"} <= names
        assert all(n.startswith(("layer", "encoder.", "ppm.", "cls.")) for n in names)
    else:
        write(source, file)
    images = torch.randn(2, 3, 32, 32)
    target: BaseLearnerSegmenter | FewShotSegmenter
    with torch.no_grad():
        if into == "base":
            target = base_segmenter()
            load_base_learner(target, file)
            found = target(images)
        else:
            target = bam().eval()
            load_base_learner(target, file)
            found = target(images, *episode()[1:]).base
        torch.testing.assert_close(found, source(images))


@pytest.mark.parametrize("published", [False, True])
def test_gain_of_features_of_unit_length(published: bool, tmp_path: Path) -> None:
    """Multiplied in stage 1; BAM and the published programs have it in their weights."""
    source = base_segmenter("low+mid")
    assert float(source.gain) == pytest.approx((10 / 2) ** 0.5)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = source(images)
        write(source, tmp_path / "best.ckpt")
        file = tmp_path / ("best.pth" if published else "best.ckpt")
        if published:
            save_published(source, file)
        target = bam(backbone=TinyBackbone("low+mid")).eval()
        load_base_learner(target, file)
        torch.testing.assert_close(target(images, *episode()[1:]).base, expected)
        again = base_segmenter("low+mid")
        load_base_learner(again, file)
        torch.testing.assert_close(again(images), expected)
    assert float(again.gain) == (1 if published else float(source.gain))


def test_checkpoints_without_gain(tmp_path: Path) -> None:
    source = base_segmenter("low+mid")
    state = source.state_dict()
    del state["gain"]
    target = base_segmenter("low+mid")
    target.load_state_dict(state)
    assert float(target.gain) == 1


def test_file_that_is_no_base_learner(tmp_path: Path) -> None:
    write(bam(), tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt is not a base learner's checkpoint: .*method=base"):
        load_base_learner(bam(), tmp_path / "last.ckpt")
    write(BaseLearnerSegmenter(TinyBackbone(), PSPHead(CHANNELS.high, 9, width=8)), tmp_path / "nine.ckpt")
    with pytest.raises(ValueError, match=r"head\.1\.4\.weight \(10, 8, 1, 1\) instead of \(6, 8, 1, 1\)"):
        load_base_learner(bam(), tmp_path / "nine.ckpt")


@pytest.mark.parametrize("factored", [False, True])
def test_svf_is_written_as_the_published_programs_do(factored: bool, tmp_path: Path) -> None:
    segmenter = FewShotSegmenter(TinyBackbone(), Baseline(CHANNELS, width=8)).eval()
    plain = segmenter.state_dict()
    segmenter.tune(lambda backbone: svf(backbone, (3, 4)))
    move(segmenter)
    state = published_state_dict(segmenter, factored)
    if factored:
        names = {n.removeprefix("layer3.0.") for n in state if n.startswith("layer3.0.")}
        assert names == {"conv_U.weight", "conv_U.bias", "conv_V.weight", "vector_S"}
        assert state["layer3.0.conv_U.weight"].shape == (6, 6, 1, 1)
        assert state["layer3.0.conv_V.weight"].shape == (6, 4, 3, 3)
        assert state["layer3.0.vector_S"].shape == (1, 6, 1, 1)
    else:
        assert {f"head.{n}" if not n.startswith("layer") else f"backbone.{n}" for n in state} == plain.keys()
    save_published(segmenter, tmp_path / "theirs.pth", factored)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.pth"]
    target = FewShotSegmenter(TinyBackbone(), Baseline(CHANNELS, width=8)).eval()
    load_checkpoint(target, tmp_path / "theirs.pth")
    inputs = episode()
    with torch.no_grad():
        torch.testing.assert_close(target(*inputs).logits, segmenter(*inputs).logits, atol=1e-5, rtol=1e-4)


def test_published_svf_with_a_floored_rank_is_merged() -> None:
    """The published program keeps 24 of the 27 singular values of a stem."""
    backbone = ResNetBackbone()
    segmenter = FewShotSegmenter(backbone, Baseline(backbone.channels, width=8))
    state = published_state_dict(segmenter)
    U, S, V = torch.linalg.svd(state.pop("layer0.0.weight").flatten(1), full_matrices=False)
    U, S, V = U[:, :24], S[:24], V[:24]
    state["module.layer0.0.conv_U.weight"] = U[..., None, None]
    state["module.layer0.0.vector_S"] = S[None, :, None, None]
    state["module.layer0.0.conv_V.weight"] = V.reshape(24, 3, 3, 3)
    load_published(segmenter, state)
    expected = (U * S) @ V
    torch.testing.assert_close(backbone.layer0[0].weight.flatten(1), expected)  # type: ignore[index]


def test_two_backbones_survive_the_way_out_and_in(tmp_path: Path) -> None:
    source, target = bam().eval(), bam().eval()
    source.tune(svf)
    move(source)
    save_published(source, tmp_path / "theirs.pth", factored=True)
    load_checkpoint(target, tmp_path / "theirs.pth")
    inputs = episode()
    with torch.no_grad():
        ours, theirs = target(*inputs), source(*inputs)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.base, theirs.base)


def test_timm_networks_are_unknown_to_the_published_programs() -> None:
    backbone = TimmBackbone("resnet18", low=1, mid=2)
    with pytest.raises(ValueError, match=r"a TimmBackbone cannot be written.*ResNet and VGG"):
        published_state_dict(FewShotSegmenter(backbone, Baseline(backbone.channels, width=8)))
