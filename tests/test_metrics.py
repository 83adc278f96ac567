"""Class-wise IoU against torchmetrics' Jaccard index, and its sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import JaccardIndex

from fss.metrics import ClassIoU, intersection_and_union, predict_at_original_size


class Episode(NamedTuple):
    logits: Tensor  # (2, 32, 32)
    label: Tensor  # (h, w)
    class_id: int


def random_episodes(n: int, classes: Sequence[int], seed: int = 0) -> list[Episode]:
    """Pictures of all proportions; coarse blobs that prediction and label partly share, a tenth ignored."""
    g = torch.Generator().manual_seed(seed)
    episodes = []
    for _ in range(n):
        h, w = (int(side) for side in torch.randint(20, 60, (2,), generator=g))
        logits = F.interpolate(torch.randn(1, 2, 6, 6, generator=g), (32, 32), mode="bilinear")[0]
        label = (resized(logits, h, w) ^ (torch.rand(h, w, generator=g) < 0.3)).to(torch.uint8)
        label[torch.rand(h, w, generator=g) < 0.1] = 255
        episodes.append(Episode(logits, label, classes[int(torch.randint(len(classes), (), generator=g))]))
    return episodes


def resized(logits: Tensor, h: int, w: int) -> Tensor:
    """Whether the foreground wins, for a picture in the top left of the square."""
    side = max(h, w)
    large = F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=True)[0, :, :h, :w]
    return large[1] > large[0]


def jaccard(episodes: Sequence[Episode]) -> Tensor:
    """Background and foreground (2,), over all pixels of the episodes together."""
    index = JaccardIndex(task="multiclass", num_classes=2, average="none", ignore_index=255)
    for episode in episodes:
        index.update(resized(episode.logits, *episode.label.shape)[None].long(), episode.label[None].long())
    return index.compute().double()


def measure(episodes: Sequence[Episode], classes: Sequence[int]) -> ClassIoU:
    metric = ClassIoU(classes)
    for episode in episodes:
        metric.update(*episode)
    return metric


def same(a: ClassIoU, b: ClassIoU) -> None:
    for state in ("intersection", "union", "episodes"):
        assert torch.equal(getattr(a, state), getattr(b, state))
    assert all(torch.equal(value, b.compute()[name]) for name, value in a.compute().items())


# Against the oracle


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchmetrics(seed: int) -> None:
    classes = [4, 11, 2]
    episodes = random_episodes(24, classes, seed)
    scores = measure(episodes, classes).compute()
    expected = torch.stack([jaccard([e for e in episodes if e.class_id == c])[1] for c in classes])
    assert 0.1 < expected.min() < expected.max() < 0.95
    torch.testing.assert_close(scores["class_iou"], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(scores["miou"], expected.mean(), rtol=0, atol=1e-6)
    torch.testing.assert_close(scores["fb_iou"], jaccard(episodes).mean(), rtol=0, atol=1e-6)


def test_sums_are_over_a_class_and_not_means_of_pictures() -> None:
    """Class 1: a large picture all wrong, a small one all right; class 2: half of a picture."""
    yes = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    half = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    half[1, :, 4:] = -1
    metric = ClassIoU([1, 2])
    metric.update(-yes, torch.ones(30, 30), 1)
    metric.update(yes, torch.ones(10, 10), 1)
    metric.update(half, torch.ones(8, 8), 2)
    scores = metric.compute()
    assert scores["class_iou"].tolist() == [100 / 1000, 32 / 64]
    assert float(scores["miou"]) == pytest.approx((0.1 + 0.5) / 2)
    # foreground 132 of 1064; no label is background, so its union is what was wrongly called so
    assert float(scores["fb_iou"]) == pytest.approx((132 / 1064 + 0) / 2)


# Prediction at the picture's size


@pytest.mark.parametrize("shape", [(4, 8), (8, 4), (8, 8), (1, 8)])
def test_prediction_is_the_top_left_of_the_square(shape: tuple[int, int]) -> None:
    logits = torch.randn(2, 8, 8)
    h, w = shape
    assert torch.equal(predict_at_original_size(logits, h, w), logits.argmax(0)[:h, :w])


@pytest.mark.parametrize("shape", [(20, 33), (47, 12), (100, 64)])
def test_prediction_of_other_sizes_is_resized_then_cut(shape: tuple[int, int]) -> None:
    logits = random_episodes(1, [1])[0].logits
    prediction = predict_at_original_size(logits, *shape)
    assert prediction.shape == shape
    assert 0 < prediction.float().mean() < 1
    assert torch.equal(prediction.bool(), resized(logits, *shape))


def test_logits_are_resized_before_a_class_is_chosen() -> None:
    logits = torch.zeros(2, 2, 2)
    logits[1] = torch.tensor([[3.0, -1.0], [3.0, -1.0]])  # the foreground reaches three quarters across
    assert predict_at_original_size(logits, 1, 9).tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 0]]


def test_half_precision_logits() -> None:
    logits = random_episodes(1, [1])[0].logits.bfloat16()
    assert torch.equal(predict_at_original_size(logits, 40, 30).bool(), resized(logits.float(), 40, 30))


# Sums


def test_intersection_and_union_by_hand() -> None:
    prediction = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0]])
    label = torch.tensor([[0, 1, 1, 0], [255, 255, 1, 0]], dtype=torch.uint8)
    intersection, union = intersection_and_union(prediction, label)
    assert intersection.tolist() == [2, 2]
    assert union.tolist() == [4, 4]
    assert intersection.dtype == union.dtype == torch.int64


@pytest.mark.parametrize("seed", range(3))
def test_intersection_and_union_pixel_by_pixel(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, 2, (7, 9), generator=g)
    label = torch.tensor([0, 1, 255])[torch.randint(0, 3, (7, 9), generator=g)]
    intersection, union = [0, 0], [0, 0]
    for p, t in zip(prediction.flatten().tolist(), label.flatten().tolist(), strict=True):
        for c in (0, 1):
            if t != 255:
                intersection[c] += p == c and t == c
                union[c] += p == c or t == c
    ours = intersection_and_union(prediction, label)
    assert [sums.tolist() for sums in ours] == [intersection, union]


def test_sums_stay_exact_where_float32_would_stop_counting() -> None:
    side = 4097  # 4097^2 is odd and above 2^24
    everything = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    metric = ClassIoU([1])
    metric.update(everything, torch.ones(side, side, dtype=torch.uint8), 1)
    assert metric.intersection.tolist() == [[0, side**2]]
    assert metric.union.tolist() == [[0, side**2]]
    metric.update(everything, torch.zeros(1, 1), 1)
    assert metric.intersection.tolist() == [[0, side**2]]
    assert metric.union.tolist() == [[1, side**2 + 1]]
    iou = float(metric.compute()["class_iou"])
    assert iou == side**2 / (side**2 + 1)
    assert iou < 1


def test_order_does_not_matter() -> None:
    classes = [1, 2, 3]
    episodes = random_episodes(12, classes)
    same(measure(episodes, classes), measure(episodes[::-1], classes))


def test_parts_add_up() -> None:
    classes = [1, 2, 3]
    episodes = random_episodes(12, classes)
    whole, first, second = (measure(part, classes) for part in (episodes, episodes[:5], episodes[5:]))
    by_hand = ClassIoU(classes)
    for state in ("intersection", "union", "episodes"):
        setattr(by_hand, state, getattr(first, state) + getattr(second, state))
    by_hand._update_count = 1  # else torchmetrics warns that nothing has been measured
    same(by_hand, whole)
    first.merge_state(second)
    same(first, whole)


def test_processes_add_up() -> None:
    metric = measure(random_episodes(6, [1, 2]), [1, 2])
    before = {name: getattr(metric, name).clone() for name in ("intersection", "union", "episodes")}
    scores = metric.compute()
    # two processes that have seen the same
    metric.sync(dist_sync_fn=lambda sums, group: [sums, sums], distributed_available=lambda: True)
    for name, sums in before.items():
        assert sums.any()
        assert torch.equal(getattr(metric, name), 2 * sums)
        assert getattr(metric, name).dtype == torch.int64
    metric.unsync()
    assert all(torch.equal(metric.compute()[name], value) for name, value in scores.items())


def test_reset_starts_anew() -> None:
    episodes = random_episodes(4, [1, 2])
    metric = measure(episodes, [1, 2])
    metric.reset()
    for episode in episodes:
        metric.update(*episode)
    same(metric, measure(episodes, [1, 2]))


# Classes


def test_results_come_in_the_order_of_the_classes() -> None:
    episodes = random_episodes(8, [9, 5])
    metric, turned = measure(episodes, [9, 5]), measure(episodes, [5, 9])
    assert metric.classes == [9, 5]
    assert torch.equal(metric.compute()["class_iou"], turned.compute()["class_iou"].flip(0))
    assert metric.episodes.tolist() == [sum(e.class_id == c for e in episodes) for c in (9, 5)]
    assert metric.episodes.sum() == 8


def test_class_without_episode_counts_as_zero() -> None:
    episodes = random_episodes(5, [3])
    alone, beside = measure(episodes, [3]).compute(), measure(episodes, [3, 7]).compute()
    assert beside["class_iou"].tolist() == [float(alone["miou"]), 0.0]
    assert float(beside["miou"]) == pytest.approx(float(alone["miou"]) / 2)
    assert torch.equal(beside["fb_iou"], alone["fb_iou"])


def test_unknown_class_is_an_error_that_names_it() -> None:
    episode = random_episodes(1, [3])[0]
    metric = ClassIoU([1, 2])
    with pytest.raises((KeyError, ValueError), match="3"):
        metric.update(*episode)
    assert not metric.union.any()
    assert not metric.episodes.any()


def test_label_that_is_ignored_altogether() -> None:
    logits = random_episodes(1, [1])[0].logits
    metric = ClassIoU([1])
    metric.update(logits, torch.full((20, 30), 255, dtype=torch.uint8), 1)
    assert metric.episodes.tolist() == [1]
    assert not metric.union.any()
    assert all(torch.equal(value, torch.zeros_like(value)) for value in metric.compute().values())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32])
def test_type_of_the_label_does_not_matter(dtype: torch.dtype) -> None:
    episodes = random_episodes(3, [1])
    other = [episode._replace(label=episode.label.to(dtype)) for episode in episodes]
    same(measure(other, [1]), measure(episodes, [1]))


def test_scores_are_float64() -> None:
    scores = measure(random_episodes(3, [1, 2]), [1, 2]).compute()
    assert {name: (value.dtype, tuple(value.shape)) for name, value in scores.items()} == {
        "class_iou": (torch.float64, (2,)),
        "miou": (torch.float64, ()),
        "fb_iou": (torch.float64, ()),
    }
