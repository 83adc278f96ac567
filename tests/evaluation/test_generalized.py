"""The generalised setting: its episodes, its fusion rules, its metric."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import TinyBackbone
from torchmetrics.classification import MulticlassJaccardIndex

from fss.data.draws import MakeDraws, Replayed, Shuffled
from fss.data.generalized_episodes import GeneralizedEpisodes, generalized_pool
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.evaluation.generalized import RULES, GeneralizedEvaluation, GeneralizedIoU, Rule, merge_maps
from fss.evaluation.reuse import Reuse
from fss.models.backbones import TimmBackbone
from fss.models.heads import BAM, PFENet, Prediction
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf

NOVEL, BASE = (1, 3), (2, 4)
COUNT = 90  # episodes, more than there are queries


class Pictures:
    """40 pictures of 4 classes: novel alone, base alone, both, and none."""

    classes = ("ant", "bee", "cat", "dog")

    def __len__(self) -> int:
        return 40

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int) -> np.ndarray:
        return np.full((16, 12 + index % 5, 3), index, np.uint8)

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((16, 12 + index % 5), np.uint8)
        kind = index % 4
        if kind in (0, 2):
            mask[2:6, 2:9] = NOVEL[index // 4 % 2]
        if kind in (1, 2):
            mask[8:12, 2:9] = BASE[index // 4 % 2]
        if index % 8 == 2:
            mask[13:15, 2:9] = 3  # beside class 1
        mask[0] = 255
        return mask


class Noise(Pictures):
    """The same objects on pictures that a network answers differently everywhere."""

    def image(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (16, 12 + index % 5, 3), dtype=np.uint8)


def episodes(
    seed: int = 0, shot: int = 2, draws: MakeDraws = Shuffled, pictures: type[Pictures] = Pictures
) -> GeneralizedEpisodes:
    reader = pictures()
    index = build_index(reader)
    pool = generalized_pool(index, build_pool(index, NOVEL, shot, 1), BASE, 1)
    transform = EvaluationTransform(16)
    return GeneralizedEpisodes(
        reader, pool, shot, seed, transform, with_label=True, base_classes=BASE, draws=draws
    )


def test_every_picture_with_a_class_is_a_query() -> None:
    drawn = Counter(episodes().draw(i).query for i in range(30))
    assert set(drawn) == {i for i in range(40) if i % 4 != 3}
    assert set(drawn.values()) == {1}


def test_novel_class_need_not_be_in_the_query() -> None:
    dataset = episodes()
    absent = 0
    for i in range(300):
        draw = dataset.draw(i)
        shown = set(np.unique(Pictures().mask(draw.query)).tolist())
        assert draw.class_id in NOVEL
        assert draw.query not in draw.supports
        assert all(draw.class_id in Pictures().mask(support) for support in draw.supports)
        if not shown & set(BASE):
            assert draw.class_id in shown
        absent += draw.class_id not in shown
    assert 80 < absent < 220
    assert [episodes().draw(i) for i in range(40)] == [dataset.draw(i) for i in range(40)]
    assert [episodes(1).draw(i) for i in range(40)] != [dataset.draw(i) for i in range(40)]


def test_published_episodes_walk_the_list() -> None:
    """Drawn anew here by the published rule, with one stream for each of three processes."""
    dataset = episodes(shot=1, draws=partial(Replayed, workers=3))
    pictures = [i for i in range(40) if i % 4 != 3]
    base = int(torch.empty((), dtype=torch.int64).random_(generator=torch.Generator().manual_seed(0)))
    streams = [random.Random(base + worker) for worker in range(3)]
    shows = {i: set(np.unique(Pictures().mask(i)).tolist()) for i in pictures}
    for place, query in enumerate(pictures):
        stream = streams[place % 3]
        class_id = stream.choice(NOVEL if shows[query] & set(BASE) else sorted(shows[query] & set(NOVEL)))
        files = [i for i in pictures if class_id in shows[i]]
        stream.choice(files)
        support = query
        while support == query:
            support = stream.choice(files)
        assert dataset.draw(place) == (class_id, query, (support,))


def test_labels_hold_base_classes_and_the_novel_one() -> None:
    dataset = episodes()
    for i in range(30):
        draw, label = dataset.draw(i), np.asarray(dataset[i].label)
        truth = Pictures().mask(draw.query)
        expected = np.select([truth == 2, truth == 4, truth == 255, truth == draw.class_id], [1, 2, 255, 3], 0)
        np.testing.assert_array_equal(label, expected)


def test_fusion_rules_by_hand() -> None:
    final = torch.zeros(1, 2, 1, 4)
    final[0, 1, 0] = torch.tensor([9.0, 9.0, 0.0, 0.0])  # the novel class is likely in the first two
    base = torch.zeros(1, 3, 1, 4)
    base[0, 2, 0] = torch.tensor([5.0, -5.0, 5.0, -5.0])  # base class 2 in the first and third
    base[0, 1, 0] = -9
    assert merge_maps(final, base, "final", 0.9).tolist() == [[[3, 3, 2, 0]]]
    assert merge_maps(final, base, "base", 0.9).tolist() == [[[2, 3, 2, 0]]]
    assert merge_maps(final, base, "final", 0.99999).tolist() == [[[2, 0, 2, 0]]]


def test_metric_against_torchmetrics() -> None:
    """Two novel classes are two classes; every other label is shared by all episodes."""
    g = torch.Generator().manual_seed(0)
    n, size = 3, 12
    rules: tuple[Rule, ...] = ("final", "base")
    for rule in rules:
        metric = GeneralizedIoU(n, (7, 9), rule, 0.6)
        oracle = MulticlassJaccardIndex(n + 3, average="none", ignore_index=255)
        for episode in range(10):
            final = 3 * torch.randn(2, size, size, generator=g)
            base = torch.randn(n + 1, size, size, generator=g)
            label = torch.randint(0, n + 2, (size, 9), generator=g)
            label[torch.rand(label.shape, generator=g) < 0.1] = 255
            class_id = (7, 9)[episode % 2]
            metric.update(final, base, label.to(torch.uint8), class_id)
            merged = merge_maps(final[None], base[None], rule, 0.6)[0][:, :9]
            shift = episode % 2  # labels n + 1 and n + 2
            oracle.update(
                torch.where(merged == n + 1, n + 1 + shift, merged),
                torch.where(label == n + 1, n + 1 + shift, label),
            )
        scores, expected = metric.compute(), oracle.compute()
        torch.testing.assert_close(scores["class_iou"].float(), expected[1:])
        assert float(scores["base"]) == pytest.approx(float(expected[1 : n + 1].mean()), abs=1e-6)
        assert float(scores["novel"]) == pytest.approx(float(expected[n + 1 :].mean()), abs=1e-6)
        assert float(scores["all"]) == pytest.approx(float(expected[1:].mean()), abs=1e-6)


def test_sums_are_of_all_processes() -> None:
    metric = GeneralizedIoU(3, (7, 9), "final", 0.6)
    logits = torch.linspace(-1, 1, 32).reshape(2, 4, 4)
    base = torch.linspace(-1, 1, 64).sin().reshape(4, 4, 4)
    metric.update(logits, base, torch.arange(16, dtype=torch.uint8).reshape(4, 4) % 5, 7)
    own = metric.compute()
    metric._computed = None
    metric.distributed_available_fn, metric.dist_sync_fn = lambda: True, lambda state, group: [state, state]
    both = metric.compute()
    assert own["union"].sum() > 0
    for sums in ("intersection", "union"):
        assert torch.equal(both[sums], 2 * own[sums])
    assert torch.equal(both["class_iou"], own["class_iou"])


def test_classes_never_met_count_in_no_mean() -> None:
    metric = GeneralizedIoU(3, (7, 9), "final", 0.6)
    label = torch.ones(4, 4, dtype=torch.uint8)
    base = torch.zeros(4, 4, 4)
    base[1] = 5
    metric.update(torch.zeros(2, 4, 4), base, label, 7)
    scores = metric.compute()
    assert (float(scores["base"]), float(scores["novel"]), float(scores["all"])) == (1, 0, 1)


def test_classes_never_met_count_as_0_where_all_count() -> None:
    metric = GeneralizedIoU(3, (7, 9), "final", 0.6, count_absent=True)
    label = torch.ones(4, 4, dtype=torch.uint8)
    base = torch.zeros(4, 4, 4)
    base[1] = 5
    metric.update(torch.zeros(2, 4, 4), base, label, 7)
    scores = metric.compute()
    expected = [1 / 3, 0, 1 / 5]
    assert [float(scores[part]) for part in ("base", "novel", "all")] == pytest.approx(expected, abs=1e-12)


def answering(dataset: GeneralizedEpisodes) -> tuple[FewShotSegmenter, float]:
    """A BAM in float64 whose base learner answers every class, and the threshold of half of the pixels."""
    torch.manual_seed(0)
    backbone = TinyBackbone()
    segmenter = FewShotSegmenter(backbone, BAM(backbone.channels, len(BASE), 2, width=8, base_width=8))
    segmenter.tune(svf)
    segmenter.double().eval()
    classifier = segmenter.head.get_submodule("learner_base.1.4")
    with torch.no_grad():
        for name, parameter in segmenter.backbone.named_parameters():
            if name.endswith(".S"):
                parameter.mul_(1 + torch.rand_like(parameter))
        maps = [prediction.base for _, prediction in plain_loop(segmenter, dataset) if prediction.base is not None]
        classifier.get_parameter("bias").sub_(torch.cat(maps).mean((0, 2, 3)))
    novel = [prediction.logits.softmax(1)[:, 1] for _, prediction in plain_loop(segmenter, dataset)]
    return segmenter, float(torch.cat(novel).median())


@torch.inference_mode()
def plain_loop(segmenter: FewShotSegmenter, dataset: GeneralizedEpisodes) -> Iterator[tuple[Any, Prediction]]:
    """Every picture of every episode encoded anew."""
    normalize = segmenter.backbone.normalize
    for i in range(COUNT):
        episode = dataset[i]
        images = (normalize(part)[None] for part in (episode.query, episode.support))
        yield episode, segmenter(*images, episode.support_mask[None])


def plain_sums(segmenter: FewShotSegmenter, dataset: GeneralizedEpisodes, threshold: float) -> list[list[int]]:
    """Intersections and unions by both rules."""
    metrics = [GeneralizedIoU(len(BASE), NOVEL, rule, threshold) for rule in RULES]
    for episode, prediction in plain_loop(segmenter, dataset):
        assert prediction.base is not None
        for metric in metrics:
            metric.update(prediction.logits[0], prediction.base[0], episode.label, int(episode.class_id))
    return [part.tolist() for metric in metrics for part in (metric.intersection, metric.union)]


@pytest.mark.parametrize(
    ("limit_gb", "batch", "world"), [(1.0, 1, 1), (0.0, 1, 1), (1e-4, 1, 1), (1.0, 3, 2), (1.0, 1, 50)]
)
def test_each_picture_is_encoded_once_with_the_counts_of_a_plain_loop(
    limit_gb: float, batch: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = episodes(pictures=Noise)
    segmenter, threshold = answering(dataset)
    expected = plain_sums(segmenter, dataset, threshold)
    assert all(sum(part) > 0 for part in expected)
    assert expected[:2] != expected[2:], "both rules answer alike: this would test only one"
    data: Any = SimpleNamespace(
        evaluation=dataset,
        eval_seed=dataset.seed,
        test_episodes=COUNT,
        num_workers=0,
        base_classes=list(BASE),
        evaluated_classes=lambda count: dict.fromkeys(NOVEL, ""),
        absent="leave_out",
        geometry="published",
    )
    sums = np.zeros((4, len(BASE) + len(NOVEL)), int)
    encoded: Counter[str] = Counter()
    for rank in range(world):
        trainer = SimpleNamespace(global_rank=rank, world_size=world)
        monkeypatch.setattr(GeneralizedEvaluation, "trainer", trainer)
        evaluation = GeneralizedEvaluation(segmenter, data, threshold, Reuse(limit_gb, batch))
        batches = list(evaluation.test_dataloader())
        assert batches, "Lightning would pass over this process, and the others would wait for it"
        evaluation.on_test_start()
        for number, pictures in enumerate(batches):
            with torch.inference_mode():
                evaluation.test_step(pictures, number)
        for row, metric in enumerate(evaluation.metrics.values()):
            sums[2 * row] += metric.intersection.numpy()
            sums[2 * row + 1] += metric.union.numpy()
        assert evaluation._evaluator is not None
        encoded.update(evaluation._evaluator.encoded)
    assert sums.tolist() == expected
    drawn = [dataset.draw(i) for i in range(COUNT)]
    supports = {(draw.class_id, support) for draw in drawn for support in draw.supports}
    if limit_gb == 1 and world == 1:
        assert encoded["support"] == len(supports) < 2 * COUNT
        assert encoded["query"] == len({draw.query for draw in drawn}) < COUNT
    elif limit_gb == 0:
        assert encoded["support"] == 2 * COUNT


def test_settings_that_cannot_be() -> None:
    backbone = TimmBackbone("resnet18", low=1, mid=2)
    segmenter = FewShotSegmenter(backbone, PFENet(backbone.channels, width=8, pyramid=(1.0,)))
    data: Any = None
    with pytest.raises(ValueError, match="setting=generalized needs a method with a base learner"):
        GeneralizedEvaluation(segmenter, data, 0.9, Reuse(1.0))
    with pytest.raises(ValueError, match=r"threshold=1\.5"):
        GeneralizedEvaluation(segmenter, data, 1.5, Reuse(1.0))
    with pytest.raises(ValueError, match=r"reuse\.limit_gb=-1"):
        GeneralizedEvaluation(answering(episodes())[0], data, 0.9, Reuse(-1.0))
