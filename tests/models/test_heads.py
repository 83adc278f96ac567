"""Heads, their shared operations, and the segmenter that puts them on a backbone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tiny import CHANNELS, TinyBackbone
from torch import Tensor, nn

from fss.models.backbones import Backbone, ResNetBackbone, TimmBackbone, VGGBackbone
from fss.models.heads import Baseline, CrossAttention, Features, Head, Match, PFENet, Prediction, PriorMask
from fss.models.heads.ops import gram_matrix, masked_average_pool, prior_masks
from fss.models.losses import cross_entropy
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import frozen, svf

PYRAMIDS = {"sides": (6, 3, 2), "fractions": (1.0, 0.5, 0.25, 0.125)}


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny_segmenter(head: Head | None = None) -> FewShotSegmenter:
    return FewShotSegmenter(TinyBackbone(), head or PFENet(CHANNELS, width=8, pyramid=PYRAMIDS["sides"]))


def episode(b: int = 2, k: int = 1, size: tuple[int, int] = (32, 24)) -> tuple[Tensor, Tensor, Tensor]:
    """Query and support pictures, and support masks of a box each."""
    masks = torch.zeros(b, k, *size)
    for i in range(b):
        for j in range(k):
            masks[i, j, 4 + 2 * i : 20 + 2 * j, 3 + j : 15] = 1
    return torch.randn(b, 3, *size), torch.randn(b, k, 3, *size), masks


def features(b: int, k: int | None, grid: tuple[int, int], high: tuple[int, int] | None = None) -> Features:
    lead = (b,) if k is None else (b, k)
    grids = (grid, grid, high or grid)
    return Features(*(torch.randn(*lead, c, *g).relu() for c, g in zip(CHANNELS, grids, strict=True)))


def close(ours: Prediction, expected: Prediction, tolerance: float = 1e-4) -> None:
    assert len(ours.inner) == len(expected.inner)
    theirs = (expected.logits, expected.prior, *expected.inner)
    for a, b in zip((ours.logits, ours.prior, *ours.inner), theirs, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


# Prototype and prior mask, against loops


def test_masked_average_pool_by_loops() -> None:
    maps, mask = torch.randn(2, 3, 4, 5), torch.rand(2, 1, 4, 5)
    pooled = masked_average_pool(maps, mask)
    assert pooled.shape == (2, 3, 1, 1)
    for b in range(2):
        for c in range(3):
            total, area = 0.0, 0.0
            for y in range(4):
                for x in range(5):
                    total += float(maps[b, c, y, x] * mask[b, 0, y, x])
                    area += float(mask[b, 0, y, x])
            assert float(pooled[b, c]) == pytest.approx(total / (area + 0.0005), rel=1e-5)


def test_masked_average_pool_of_an_empty_mask_is_zero() -> None:
    assert not masked_average_pool(torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).any()


def loop_prior(query: Tensor, support: Tensor) -> Tensor:
    """One query (C, h, w), one support (C, h', w'): the best cosine of each location, stretched to 0..1."""
    best = torch.zeros(query.shape[1:])
    for y in range(query.shape[1]):
        for x in range(query.shape[2]):
            q = query[:, y, x].tolist()
            cosines = []
            for s in support.flatten(1).T.tolist():
                norms = math.hypot(*q) * math.hypot(*s)
                cosines.append(sum(a * b for a, b in zip(q, s, strict=True)) / (norms + 1e-7))
            best[y, x] = max(cosines)
    return (best - best.min()) / (best.max() - best.min() + 1e-7)


def prior_mask(query: Tensor, support: Tensor) -> Tensor:
    """(B, 1, h, w) of a single shot (B, C, h', w')."""
    return prior_masks(query, support[:, None])


def test_prior_mask_by_loops() -> None:
    query, support = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 2, 6)
    support[..., :3] = 0  # masked away
    prior = prior_mask(query, support)
    assert prior.shape == (2, 1, 4, 3)
    for b in range(2):
        torch.testing.assert_close(prior[b, 0], loop_prior(query[b], support[b]), rtol=1e-4, atol=1e-5)


def test_prior_mask_is_stretched_over_each_query() -> None:
    prior = prior_mask(
        torch.randn(3, 5, 6, 6) * torch.tensor([1e-2, 1, 1e2]).reshape(3, 1, 1, 1), torch.randn(3, 5, 6, 6)
    )
    assert prior.min() >= 0
    assert prior.max() <= 1
    torch.testing.assert_close(prior.amin((1, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(prior.amax((1, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)


def test_prior_mask_finds_the_same_feature() -> None:
    query = torch.randn(1, 8, 5, 5)
    support = torch.zeros(1, 8, 5, 5)
    support[..., 0, 4] = 3 * query[..., 2, 1]
    assert int(prior_mask(query, support).argmax()) == 2 * 5 + 1


def test_prior_masks_are_those_of_the_shots() -> None:
    query, supports = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 5, 4, 4)
    priors = prior_masks(query, supports)
    assert priors.shape == (2, 3, 4, 4)
    for k in range(3):
        torch.testing.assert_close(priors[:, k : k + 1], prior_mask(query, supports[:, k]))


def test_gram_matrix_by_loops() -> None:
    maps = torch.randn(2, 3, 4, 5)
    gram = gram_matrix(maps)
    assert gram.shape == (2, 3, 3)
    for b in range(2):
        for i in range(3):
            for j in range(3):
                one, other = maps[b, i].flatten().tolist(), maps[b, j].flatten().tolist()
                product = sum(x * y for x, y in zip(one, other, strict=True))
                cosine = product / (math.hypot(*one) * math.hypot(*other))
                assert float(gram[b, i, j]) == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gram_matrix_is_float32_under_autocast(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 4, 3, 3).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        gram = gram_matrix(maps)
    assert gram.dtype == torch.float32
    assert torch.equal(gram, gram_matrix(maps.float()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_prior_mask_is_float32_under_autocast(dtype: torch.dtype) -> None:
    query, support = torch.randn(1, 64, 6, 6).to(dtype), torch.randn(1, 64, 6, 6).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prior = prior_mask(query, support)
    assert prior.dtype == torch.float32
    assert torch.equal(prior, prior_mask(query.float(), support.float()))


def test_prior_mask_keeps_float64() -> None:
    assert prior_mask(torch.randn(1, 4, 3, 3).double(), torch.randn(1, 4, 3, 3).double()).dtype == torch.float64


@pytest.mark.parametrize(("batch", "shots"), [(1, 1), (3, 1), (2, 3)])
def test_gradient_of_prior_masks_is_that_of_all_similarities(batch: int, shots: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(batch, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    supports = torch.randn(batch, shots, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    inside = torch.zeros(batch, shots, 1, 5, 4, dtype=torch.float64)
    inside[..., 1:3, 1:4] = 1
    inside[0, ..., 4, 0] = 0.5
    inside[-1, -1] = 1 if batch > 1 else inside[-1, -1]  # an object everywhere

    def whole(query: Tensor, supports: Tensor) -> Tensor:
        q, s = query.flatten(2)[:, None], supports.flatten(3)
        norms = s.norm(dim=2)[..., None] * q.norm(dim=2)[:, :, None]
        best = (s.mT @ q / (norms + 1e-7)).amax(2)
        low, high = best.amin(2, keepdim=True), best.amax(2, keepdim=True)
        return ((best - low) / (high - low + 1e-7)).reshape(batch, shots, 5, 4)

    weights = torch.randn(batch, shots, 5, 4, dtype=torch.float64)
    results = []
    for priors in (prior_masks, whole):
        found = priors(query, supports * inside)
        results.append((found, *torch.autograd.grad((found * weights).sum(), (query, supports))))
    torch.testing.assert_close(*results)


def test_prior_mask_of_nothing_is_zero_and_its_gradient_finite() -> None:
    query, support = torch.randn(1, 4, 3, 3, requires_grad=True), torch.zeros(1, 4, 3, 3, requires_grad=True)
    prior = prior_mask(query, support)
    assert not prior.any()
    prior.sum().backward()
    for leaf in (query, support):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


# PFENet


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("pyramid", PYRAMIDS)
@pytest.mark.parametrize(("grid", "size"), [((8, 8), (64, 64)), ((5, 7), (40, 56))], ids=["square", "oblong"])
def test_pfenet_shapes(shots: int, pyramid: str, grid: tuple[int, int], size: tuple[int, int]) -> None:
    head = PFENet(CHANNELS, width=8, pyramid=PYRAMIDS[pyramid]).eval()
    masks = episode(2, shots, size)[2]
    support = head.encode_support(features(2, shots, grid, (3, 4)), masks)
    query = head.encode_query(features(2, None, grid, (3, 4)))
    assert support.prototypes.shape == (2, shots, 8, 1, 1)
    assert support.high.shape == (2, shots, 5, 3, 4)
    assert query.features.shape == (2, 8, *grid)
    prediction = head.decode(query, support, size)
    with torch.no_grad():
        alone = head.decode(query, support, size)
    torch.testing.assert_close(alone[:2], prediction[:2])
    assert alone.inner == ()  # which only losses look at
    with pytest.raises(ValueError, match="predict with gradients enabled"):
        head.losses(alone, masks[:, 0].long(), None)
    assert prediction.logits.shape == (2, 2, *size)
    assert prediction.prior.shape == (2, 1, *grid)
    assert [logits.shape for logits in prediction.inner] == [(2, 2, *size)] * len(PYRAMIDS[pyramid])
    for maps in (prediction.logits, *prediction.inner):
        assert torch.isfinite(maps).all()
        assert maps.std() > 0


@pytest.mark.parametrize(
    ("pyramid", "grid", "sides"),
    [
        ((60, 30, 15, 8), (60, 60), [(60, 60), (30, 30), (15, 15), (8, 8)]),
        ((6, 3), (5, 7), [(6, 6), (3, 3)]),
        ((1.0, 0.5, 0.25, 0.125), (13, 4), [(13, 4), (6, 2), (3, 1), (1, 1)]),
    ],
)
def test_pyramid_scales(
    pyramid: Sequence[float], grid: tuple[int, int], sides: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At what sizes the features are looked at: in locations above 1, else fractions of the map."""
    seen: list[tuple[int, ...]] = []
    pool = F.adaptive_avg_pool2d

    def noting(maps: Tensor, size: Any) -> Tensor:
        pooled = pool(maps, size)
        seen.append(tuple(pooled.shape[-2:]))
        return pooled

    monkeypatch.setattr(F, "adaptive_avg_pool2d", noting)
    head = PFENet(CHANNELS, width=2, pyramid=pyramid).eval()
    masks = torch.ones(1, 1, 16, 16)
    with torch.no_grad():
        head.decode(
            head.encode_query(features(1, None, grid)), head.encode_support(features(1, 1, grid), masks), (16, 16)
        )
    assert seen == sides


@pytest.mark.parametrize("pyramid", [(), (60, 0), (1.0, -0.5), (float("inf"),), (float("nan"),)])
def test_pyramid_that_cannot_be(pyramid: Sequence[float]) -> None:
    with pytest.raises(ValueError, match=r"method\.pyramid"):
        PFENet(CHANNELS, pyramid=pyramid)


def test_one_shot_model_runs_with_five_shots() -> None:
    """No parameter knows the number of shots."""
    segmenter = tiny_segmenter().eval()
    with torch.no_grad():
        one, five = segmenter(*episode(k=1)), segmenter(*episode(k=5))
    assert one.logits.shape == five.logits.shape


@pytest.mark.parametrize(
    "head",
    [
        PFENet(CHANNELS, 8, (6, 3, 2)),
        CrossAttention(CHANNELS, 8),
        PriorMask(CHANNELS, 0.5),
        Match(CHANNELS, ["mid"], 0.5, 0.02),
    ],
    ids=["pfenet", "cross_attention", "prior", "match"],
)
def test_identical_supports_give_the_one_shot_answer(head: Head) -> None:
    segmenter = tiny_segmenter(head).eval()
    query, support, masks = episode(k=3)
    with torch.no_grad():
        first = segmenter(query, support[:, :1], masks[:, :1])
        again = segmenter(query, support[:, :1].expand(-1, 5, -1, -1, -1), masks[:, :1].expand(-1, 5, -1, -1))
        three = segmenter(query, support, masks)
        turned = segmenter(query, support.flip(1), masks.flip(1))
    close(again, first)
    close(turned, three)
    assert not torch.allclose(three.prior, first.prior, atol=1e-3)


def test_summed_supports_are_the_mean_taken_k_times() -> None:
    """By the published program; the vectors have 5 different supports."""
    means, sums = Baseline(CHANNELS, 8).eval(), Baseline(CHANNELS, 8, shots="sum").eval()
    sums.load_state_dict(means.state_dict())
    query, support = features(2, None, (5, 4)), features(2, 3, (5, 4))
    masks = torch.ones(2, 3, 20, 16)
    mean, total = (
        h.decode(h.encode_query(query), h.encode_support(support, masks), (5, 4)) for h in (means, sums)
    )
    torch.testing.assert_close(total.prior, 3 * mean.prior)
    assert not torch.allclose(total.logits, mean.logits)
    first = Features(support.low[:, :1], support.mid[:, :1], support.high[:, :1])
    one, same = (
        h.decode(h.encode_query(query), h.encode_support(first, masks[:, :1]), (5, 4)) for h in (means, sums)
    )
    assert torch.equal(one.logits, same.logits)


def test_unknown_sum_of_supports() -> None:
    with pytest.raises(ValueError, match=r"method\.shots is 'max', must be 'mean' or 'sum'"):
        Baseline(CHANNELS, shots="max")  # type: ignore[arg-type]


@pytest.mark.parametrize("train", [True, False])
def test_query_reduction_stays_as_drawn_in_no_optimiser_group(train: bool) -> None:
    segmenter = tiny_segmenter(Baseline(CHANNELS, 8, train_query_reduction=train))
    segmenter.tune(svf)
    optimizer = torch.optim.SGD([p for p in segmenter.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in segmenter.named_parameters()}
    segmenter(*episode()).logits.square().mean().backward()
    optimizer.step()
    moved = {name for name, p in segmenter.named_parameters() if not torch.equal(p, before[name])}
    assert ("head.down_query.0.weight" in moved) is train
    assert {"head.down_supp.0.weight", "backbone.layer3.0.S"} <= moved  # gradients pass through it all the same


# Norms that go by the batch


def test_norms_in_batch_mode_see_queries_and_then_each_shot() -> None:
    """Against the published order of forward passes, written out."""
    torch.manual_seed(0)
    plain = TinyBackbone()
    segmenter = FewShotSegmenter(copy.deepcopy(plain), PFENet(CHANNELS, 8, (6, 3), dropout=0.0), norms="batch")
    segmenter.tune(frozen)
    segmenter.train()
    for module in segmenter.head.modules():
        if isinstance(module, nn.Dropout2d):
            module.eval()
    query, support, masks = episode(b=3, k=2)
    plain.train()
    with torch.no_grad():
        ours = segmenter(query, support, masks)
        lower = plain.lower(query)
        encoded = segmenter.head.encode_query(Features(lower.low, lower.mid, plain.upper(lower)))
        shots = []
        for k in range(2):
            lower = plain.lower(support[:, k])
            shots.append((lower.low, lower.mid, plain.upper(lower, masks[:, k, None])))
        stacked = Features(*(torch.stack(maps, 1) for maps in zip(*shots, strict=True)))
        theirs = segmenter.head.decode(encoded, segmenter.head.encode_support(stacked, masks), (32, 24))
    close(ours, theirs, 1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(segmenter.backbone.state_dict()[name], value)
    assert int(segmenter.backbone.state_dict()["layer4.1.num_batches_tracked"]) == 3
    assert not any(p.requires_grad for p in segmenter.backbone.parameters())


def test_norms_in_batch_mode_go_by_what_they_kept_in_evaluation() -> None:
    backbone = TinyBackbone()
    segmenter = FewShotSegmenter(backbone, PFENet(CHANNELS, 8, (6, 3)), norms="batch")
    segmenter.train()
    segmenter(*episode())
    segmenter.eval()
    kept = copy.deepcopy(backbone.state_dict())
    inputs = episode()
    with torch.no_grad():
        batch = segmenter(*inputs)
        usual = FewShotSegmenter(backbone, segmenter.head).eval()(*inputs)
        alone = segmenter(*(part[:1] for part in inputs))
    assert torch.equal(batch.logits, usual.logits)
    torch.testing.assert_close(alone.logits[0], batch.logits[0])
    assert all(torch.equal(value, kept[name]) for name, value in backbone.state_dict().items())


def test_norms_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"backbone\.norms is 'train', must be 'eval' or 'batch'"):
        FewShotSegmenter(TinyBackbone(), PriorMask(CHANNELS, 0.5), norms="train")  # type: ignore[arg-type]
    without = TimmBackbone("convnext_atto", low=1, mid=2)
    with pytest.raises(ValueError, match=r"backbone\.norms=batch: this backbone has no batch norms"):
        FewShotSegmenter(without, PriorMask(without.channels, 0.5), norms="batch")


def test_episodes_of_a_batch_do_not_mix() -> None:
    segmenter = tiny_segmenter().double().eval()  # batches of other sizes are rounded otherwise
    query, support, masks = (part.double() for part in episode(b=3, k=2))
    with torch.no_grad():
        together = segmenter(query, support, masks)
        for i in range(3):
            alone = segmenter(query[i : i + 1], support[i : i + 1], masks[i : i + 1])
            torch.testing.assert_close(alone.logits[0], together.logits[i])
            torch.testing.assert_close(alone.prior[0], together.prior[i])


def test_dropout_in_training_only() -> None:
    segmenter = tiny_segmenter()
    inputs = episode()
    assert not torch.equal(segmenter(*inputs).logits, segmenter(*inputs).logits)
    segmenter.eval()
    assert torch.equal(segmenter(*inputs).logits, segmenter(*inputs).logits)


# The prior mask as the answer


def test_prior_head_answers_where_the_prior_exceeds_its_threshold() -> None:
    query, support = features(2, None, (5, 4)), features(2, 2, (5, 4))
    masks = torch.ones(2, 2, 20, 16)
    areas = []
    for threshold in (0.2, 0.5, 0.8):
        head = PriorMask(CHANNELS, threshold)
        assert not list(head.parameters())
        prediction = head.decode(head.encode_query(query), head.encode_support(support, masks), (5, 4))
        torch.testing.assert_close(prediction.prior, prior_masks(query.high, support.high).mean(1, keepdim=True))
        foreground = prediction.logits.argmax(1)
        assert torch.equal(foreground.bool(), prediction.prior[:, 0] > threshold)
        areas.append(int(foreground.sum()))
        assert prediction.inner == ()
    assert areas[0] > areas[1] > areas[2] > 0


def test_prior_head_answers_at_the_size_asked_for() -> None:
    segmenter = tiny_segmenter(PriorMask(CHANNELS, 0.5))
    assert segmenter(*episode(size=(40, 24))).logits.shape == (2, 2, 40, 24)


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_threshold_that_cannot_be(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"threshold is {threshold}"):
        PriorMask(CHANNELS, threshold)


# Losses


def by_hand(logits: Tensor, mask: Tensor, weights: tuple[float, float]) -> float:
    """Weighted mean over the pixels that count."""
    total, weight = 0.0, 0.0
    for b, y, x in [
        (b, y, x) for b in range(mask.shape[0]) for y in range(mask.shape[1]) for x in range(mask.shape[2])
    ]:
        label = int(mask[b, y, x])
        if label != 255:
            total -= weights[label] * float(logits[b, :, y, x].double().log_softmax(0)[label])
            weight += weights[label]
    return total / weight


def masks_with_ignored() -> Tensor:
    return torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(0, 3, (2, 6, 5))]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (0.5, 2.0)])
def test_cross_entropy_by_hand(weights: tuple[float, float]) -> None:
    logits, mask = torch.randn(2, 2, 6, 5), masks_with_ignored()
    loss = cross_entropy(logits, mask, torch.tensor(weights))
    assert float(loss) == pytest.approx(by_hand(logits, mask, weights), rel=1e-5)
    if weights == (1.0, 1.0):
        torch.testing.assert_close(cross_entropy(logits, mask, None), loss)


def test_ignored_pixels_have_neither_loss_nor_gradient() -> None:
    logits, mask = torch.randn(2, 2, 6, 5, requires_grad=True), masks_with_ignored()
    ignored = (mask == 255)[:, None].expand(-1, 2, -1, -1)
    loss = cross_entropy(logits, mask, None)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].all()
    torch.testing.assert_close(cross_entropy(logits + 100 * torch.randn(2, 2, 6, 5) * ignored, mask, None), loss)


def test_pfenet_losses_are_main_and_the_mean_of_the_inner() -> None:
    head = PFENet(CHANNELS, width=8, pyramid=(6, 3, 2))
    mask, weights = masks_with_ignored(), torch.tensor([1.0, 2.0])
    prediction = Prediction(torch.randn(2, 2, 6, 5), torch.rand(2, 1, 3, 3), tuple(torch.randn(3, 2, 2, 6, 5)))
    losses = head.losses(prediction, mask, weights)
    assert list(losses) == ["main", "inner"]
    torch.testing.assert_close(
        losses["main"], F.cross_entropy(prediction.logits, mask.long(), weights, ignore_index=255)
    )
    inner = [F.cross_entropy(logits, mask.long(), weights, ignore_index=255) for logits in prediction.inner]
    torch.testing.assert_close(losses["inner"], sum(inner) / 3)
    assert list(PriorMask(CHANNELS, 0.5).losses(prediction, mask, weights)) == ["main"]


def test_losses_are_float32_whatever_the_logits() -> None:
    logits, mask = torch.randn(2, 2, 6, 5).bfloat16(), masks_with_ignored()
    loss = cross_entropy(logits, mask, torch.tensor([1.0, 2.0]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_hand(logits, mask, (1.0, 2.0)), rel=1e-5)
    assert cross_entropy(logits.double(), mask, None).dtype == torch.float64


# The segmenter


@pytest.mark.parametrize(
    ("build", "size"),
    [
        pytest.param(ResNetBackbone, (48, 40), id="resnet50"),
        pytest.param(lambda: ResNetBackbone(stem="torchvision", high="low+mid"), (48, 40), id="resnet50 low+mid"),
        pytest.param(VGGBackbone, (48, 40), id="vgg16"),
        pytest.param(lambda: TimmBackbone("tf_efficientnet_lite0"), (64, 48), id="lite0"),
        pytest.param(lambda: TimmBackbone("convnext_atto", low=1, mid=2, grid="mid"), (64, 48), id="convnext"),
        pytest.param(lambda: TimmBackbone("vit_tiny_patch16_224", 5, 8, image_size=64), (64, 64), id="vit"),
    ],
)
def test_forward_is_the_three_functions_in_one(build: Callable[[], Backbone], size: tuple[int, int]) -> None:
    backbone = build()
    segmenter = FewShotSegmenter(backbone, PFENet(backbone.channels, width=8, pyramid=(6, 3))).eval()
    query, support, masks = episode(2, 2, size)
    masks[..., size[0] // 2 :, :] = 1  # seen on coarse grids too
    with torch.no_grad():
        at_once = segmenter(query, support, masks)
        encoded = segmenter.encode_support(support, masks)
        close(segmenter.decode(segmenter.encode_query(query), encoded, size), at_once)
        # what the supports say can be kept
        other = torch.randn_like(query)
        close(segmenter.decode(segmenter.encode_query(other), encoded, size), segmenter(other, support, masks))
    assert at_once.logits.shape == (2, 2, *size)
    assert 0 <= at_once.prior.min() < at_once.prior.max() <= 1
    assert at_once.logits.std() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_only_ones_in_the_support_mask_are_the_object(dtype: torch.dtype) -> None:
    segmenter = tiny_segmenter().eval()
    query, support, masks = episode(k=2)
    ignored, filled = masks.clone(), masks.clone()
    ignored[..., -8:, :] = 255
    filled[..., -8:, :] = 1
    with torch.no_grad():
        expected = segmenter(query, support, masks)
        for given in (masks, ignored):
            close(segmenter(query, support, given.to(dtype)), expected)
            kept = segmenter.encode_support(support, given.to(dtype))
            close(segmenter.decode(segmenter.encode_query(query), kept, (32, 24)), expected)
        assert not torch.allclose(segmenter(query, support, filled.to(dtype)).prior, expected.prior, atol=1e-3)


def test_supports_are_masked_and_queries_are_not() -> None:
    """Outside the object a support may show anything, as far as the network's view does not reach in."""
    segmenter = tiny_segmenter().eval()
    query, support, masks = episode(b=1, size=(64, 64))
    masks.zero_()
    masks[..., :24, :] = 1
    changed = support.clone()
    changed[..., -8:, :] = torch.randn(1, 1, 3, 8, 64)
    moved = query.clone()
    moved[..., -8:, :] = torch.randn(1, 3, 8, 64)
    with torch.no_grad():
        expected = segmenter(query, support, masks)
        close(segmenter(query, changed, masks), expected)
        assert not torch.allclose(segmenter(moved, support, masks).prior, expected.prior, atol=1e-3)


def test_backbone_stays_in_eval_mode() -> None:
    segmenter = tiny_segmenter()
    learner = nn.Sequential(segmenter)  # as where something else holds it
    for mode in (True, False, True):
        learner.train(mode)
        assert segmenter.training is mode
        assert all(module.training is mode for module in segmenter.head.modules())
        assert not any(module.training for module in segmenter.backbone.modules())


def test_backbone_starts_in_eval_mode() -> None:
    segmenter = tiny_segmenter()
    assert segmenter.training
    assert segmenter.head.training
    assert not segmenter.backbone.training


def test_training_step_leaves_running_statistics_as_they_were() -> None:
    segmenter = tiny_segmenter().train()
    with torch.no_grad():
        for module in segmenter.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    state = {name: value.clone() for name, value in segmenter.state_dict().items()}
    optimizer = torch.optim.SGD(segmenter.parameters(), lr=0.1)
    query, support, masks = episode()
    losses = segmenter.head.losses(segmenter(query, support, masks), masks[:, 0], None)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    moved = {name for name, value in segmenter.state_dict().items() if not torch.equal(value, state[name])}
    buffers = {name for name, _ in segmenter.named_buffers()}
    assert any("running_mean" in name for name in buffers)
    assert not moved & buffers
    assert {name.partition(".")[0] for name in moved} == {"backbone", "head"}


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize(
    "head", [PFENet(CHANNELS, 8, (6, 3, 2)), PriorMask(CHANNELS, 0.5)], ids=["pfenet", "prior"]
)
def test_empty_support_mask_gives_a_finite_answer(head: Head, shots: int) -> None:
    segmenter = tiny_segmenter(head).train()
    query, support, masks = episode(k=shots)
    prediction = segmenter(query, support, torch.zeros_like(masks))
    assert not prediction.prior.any()
    assert torch.isfinite(prediction.logits).all()
    losses = head.losses(prediction, masks[:, 0], None)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in segmenter.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_runs_under_autocast() -> None:
    segmenter = tiny_segmenter().eval()
    inputs = episode(k=2)
    with torch.no_grad():
        expected = segmenter(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = segmenter(*inputs)
    assert torch.isfinite(prediction.logits).all()
    assert (prediction.logits.float() - expected.logits).abs().max() < 0.1 * expected.logits.abs().max()
