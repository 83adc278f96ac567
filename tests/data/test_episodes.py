"""Episodes: what they are made of, and that (seed, id) alone decides it.

Letters: B batch, K shots, S image side.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT
from support.digests import apart, digest
from support.numbered import Corner, Numbered, S
from torch import Tensor
from torch.utils.data import DataLoader

from fss.data.draws import Draw
from fss.data.episodes import EpisodeDataset, Transform, collate
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.reader import Reader
from fss.data.readers.shapes import Shapes
from fss.data.sampler import EpisodeSampler
from fss.data.support_masks import annotate, fill_boxes
from fss.data.transforms import TrainingTransform


def dataset(
    shot: int,
    reader: Reader | None = None,
    transform: Transform | None = None,
    classes: Iterable[int] = (1, 2, 3, 4),
    seed: int = 7,
    with_label: bool = False,
    **settings: Any,
) -> EpisodeDataset:
    reader = reader or Numbered()
    pool = build_pool(build_index(reader), classes, shot, min_pixels=1)
    return EpisodeDataset(reader, pool, shot, seed, transform or Corner(), with_label, **settings)


def augmented(shot: int, seed: int = 7) -> EpisodeDataset:
    """Training episodes of the embedded data."""
    return dataset(shot, Shapes("train", 64, 96), TrainingTransform(48, (0.8, 1.25)), range(1, 17), seed)


def subprocess_digests() -> None:
    """What the test of a fresh process prints there."""
    for shot in (1, 5):
        episodes = augmented(shot)
        print(*(digest(episodes[i]) for i in range(90, 96)))


# What an episode is made of


@pytest.fixture(params=[1, 5], ids=["1-shot", "5-shot"])
def shot(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["numbered", "shapes"])
def episodes(request: pytest.FixtureRequest, shot: int) -> EpisodeDataset:
    if request.param == "numbered":
        return dataset(shot)
    return dataset(shot, Shapes("val", 64, 96), EvaluationTransform(64), (3, 4, 5, 6, 16))


def test_supports_are_distinct_others_than_the_query_and_show_the_class(episodes: EpisodeDataset) -> None:
    pool, reader = episodes.pool, episodes.reader
    for i in range(3 * len(pool.queries)):
        class_id, query, supports = episodes.draw(i)
        assert len(supports) == episodes.shot
        assert len({query, *supports}) == 1 + episodes.shot
        for number in (query, *supports):
            assert number in pool.images_of[class_id]
            assert (reader.mask(number) == class_id).any()


def test_episode_is_what_was_drawn(episodes: EpisodeDataset) -> None:
    reader = episodes.reader
    for i in range(24):
        draw, episode = episodes.draw(i), episodes[i]
        numbers = (draw.query, *draw.supports)
        assert int(episode.class_id) == draw.class_id
        assert int(episode.id) == i
        assert list(episode.names) == [reader.name(number) for number in numbers]
        images, masks = [episode.query, *episode.support], [episode.query_mask, *episode.support_mask]
        for number, image, mask in zip(numbers, images, masks, strict=True):
            side = image.shape[-1]
            labels = reader.mask(number)[:side, :side]
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), reader.image(number)[:side, :side])
            np.testing.assert_array_equal(mask.numpy() == 1, labels == draw.class_id)
            np.testing.assert_array_equal(mask.numpy() == 255, labels == 255)
            assert mask.dtype == torch.uint8
            assert set(mask.unique().tolist()) <= {0, 1, 255}
            assert (mask == 1).any()


def test_each_query_once_a_cycle_in_another_order(episodes: EpisodeDataset) -> None:
    n = len(episodes.pool.queries)
    cycles = [[episodes.draw(n * cycle + i).query for i in range(n)] for cycle in range(4)]
    for queries in cycles:
        assert sorted(queries) == episodes.pool.queries.tolist()
        assert queries != sorted(queries)
    assert len({tuple(queries) for queries in cycles}) == 4


def test_class_is_uniform_among_those_of_the_query() -> None:
    episodes = dataset(1)
    n, cycles = len(episodes.pool.queries), 300
    drawn = Counter((d.query, d.class_id) for d in map(episodes.draw, range(n * cycles)))
    for query, classes in episodes.pool.classes_of.items():
        assert len(classes) == (2 if query % 3 == 0 else 1)
        for class_id in classes:
            # half of 300 has a standard deviation of 9
            assert abs(drawn[query, class_id] / cycles - 1 / len(classes)) < 0.15


def test_class_that_is_not_asked_for_is_background() -> None:
    episodes = dataset(1, classes=(1, 2))
    with_others = 0
    for i in range(len(episodes.pool.queries)):
        draw, episode = episodes.draw(i), episodes[i]
        assert draw.class_id in (1, 2)
        other = ~np.isin(Numbered().mask(draw.query)[:S, :S], (0, 255, draw.class_id))
        with_others += int(other.any())
        assert not episode.query_mask.numpy()[other].any()
    assert with_others > 3


def test_supports_are_uniform_among_the_other_pictures_of_the_class() -> None:
    episodes = dataset(5, classes=(1,))
    others = len(episodes.pool.images_of[1]) - 1
    assert others == 7
    drawn: Counter[int] = Counter()
    for i in range(100 * (others + 1)):
        drawn.update(episodes.draw(i).supports)
    shares = np.array([drawn[int(number)] for number in episodes.pool.images_of[1]]) / sum(drawn.values())
    assert np.abs(shares - 1 / 8).max() < 0.02


# (seed, id) decides


def test_draw_and_episode_agree_after_any_history(shot: int) -> None:
    first, second = dataset(shot), dataset(shot)
    ids = [0, 1, 23, 24, 47, 48, 1000, 100_000]
    forward = [(first.draw(i), digest(first[i])) for i in ids]
    dataset(shot, seed=8)[1000]  # other data sets and many cycles in between
    for cycle in range(40):
        second.draw(24 * cycle)
    backward = [(second.draw(i), digest(second[i])) for i in reversed(ids)]
    assert backward[::-1] == forward


def test_transform_gets_a_seed_of_its_own_for_each_picture(shot: int) -> None:
    def seeds(seed: int) -> list[int]:
        transform = Corner()
        episodes = dataset(shot, transform=transform, seed=seed)
        for i in range(20):
            episodes[i]
        return transform.seeds

    first = seeds(7)
    assert len(set(first)) == len(first) == 20 * (1 + shot)
    assert seeds(7) == first
    assert not set(seeds(8)) & set(first)


def test_another_seed_or_id_is_another_episode(shot: int) -> None:
    ids = range(96)
    episodes = {seed: augmented(shot, seed) for seed in (7, 8)}
    assert len({digest(episodes[seed][i]) for seed in (7, 8) for i in (0, 1, 2, 96, 192)}) == 10

    orders: dict[int, list[Draw]] = {seed: [e.draw(i) for i in ids] for seed, e in episodes.items()}
    same_query = sum(a.query == b.query for a, b in zip(orders[7], orders[8], strict=True))
    assert same_query < 10  # 1 is expected
    of_query = {seed: {d.query: d for d in draws} for seed, draws in orders.items()}
    assert sum(of_query[7][q].supports == of_query[8][q].supports for q in of_query[7]) < 48


def test_global_random_state_plays_no_part() -> None:
    def under(state: int) -> str:
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        return digest(augmented(1)[5])

    assert under(0) == under(1)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 3), (1, 4), (2, 1), (2, 5)])
def test_same_bytes_whatever_the_workers_and_batches(shot: int, workers: int, batch_size: int) -> None:
    alone = augmented(shot)
    loader = DataLoader(
        augmented(shot),
        batch_size,
        sampler=EpisodeSampler(12, start=lambda: 36),
        num_workers=workers,
        collate_fn=collate,
    )
    loaded = [episode for batch in loader for episode in apart(batch)]
    assert [int(episode.id) for episode in loaded] == list(range(36, 48))
    assert [digest(episode) for episode in loaded] == [digest(alone[i]) for i in range(36, 48)]


def test_same_bytes_in_a_fresh_process() -> None:
    places = f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}"
    run = subprocess.run(
        [sys.executable, "-c", "import test_episodes; test_episodes.subprocess_digests()"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    expected = [" ".join(digest(augmented(shot)[i]) for i in range(90, 96)) for shot in (1, 5)]
    assert run.stdout.splitlines() == expected


# Labels, sizes, batches


def test_label_is_the_query_mask_at_original_size(shot: int) -> None:
    episodes = dataset(shot, with_label=True)
    for i in range(12):
        draw, episode = episodes.draw(i), episodes[i]
        labels = Numbered().mask(draw.query)
        assert isinstance(episode.label, Tensor)
        assert episode.label.dtype == torch.uint8
        expected = np.where(labels == 255, 255, labels == draw.class_id)
        np.testing.assert_array_equal(episode.label.numpy(), expected)


def test_no_label_unless_asked_for() -> None:
    label = dataset(1)[0].label
    assert isinstance(label, Tensor)
    assert label.numel() == 0


@pytest.mark.parametrize("shape", [(20, 25), (33, 31), (1, 1), (31, 33, 3)])
def test_picture_and_mask_of_different_sizes_name_the_file(shape: tuple[int, ...]) -> None:
    class Odd(Numbered):
        def image(self, index: int) -> np.ndarray:
            return np.zeros((31, 33, 3), np.uint8)

        def mask(self, index: int) -> np.ndarray:
            return np.ones(shape, np.uint8)

    episodes = dataset(1, Odd(), classes=(1,))
    name = rf"numbered/{episodes.draw(0).query}\.png"
    with pytest.raises(
        ValueError, match=rf"{name}: the picture has shape \(31, 33, 3\), but its mask {re.escape(str(shape))}"
    ):
        episodes[0]


def test_base_masks_and_own_class() -> None:
    episodes = dataset(1, classes=(1, 2, 4), base_classes=(2, 4), with_base_mask=True)
    own = {}
    for i in range(24):
        episode, query = episodes[i], episodes.draw(i).query
        labels = Numbered().mask(query)[:S, :S]
        expected = np.select([labels == 2, labels == 4, labels == 255], [1, 2, 255], 0)
        np.testing.assert_array_equal(episode.base_mask.numpy(), expected)
        own[int(episode.class_id)] = int(episode.own_class)
    assert own == {1: -1, 2: 0, 4: 1}


def test_base_mask_goes_the_query_s_way() -> None:
    """Where an augmented query shows the class, its base mask says that class."""
    transform = TrainingTransform(48, (0.8, 1.25))
    episodes = dataset(1, transform=transform, base_classes=(1, 2, 3, 4), with_base_mask=True)
    for i in range(8):
        episode = episodes[i]
        assert episode.base_mask.shape == (48, 48)
        assert torch.equal(episode.base_mask == episode.class_id, episode.query_mask == 1)
        assert torch.equal(episode.base_mask == 255, episode.query_mask == 255)
        plain = dataset(1, transform=transform)[i]
        assert torch.equal(plain.query, episode.query)  # the same augmentation with and without
        assert plain.base_mask.numel() == 0


def test_support_boxes() -> None:
    episodes, masks = (dataset(2, support_annotation=kind) for kind in ("box", "mask"))
    for i in range(24):
        episode = episodes[i]
        for box, mask in zip(episode.support_mask, masks[i].support_mask, strict=True):
            assert torch.equal(box == 255, mask == 255)
            rows, columns = torch.nonzero(mask == 1, as_tuple=True)
            inside = torch.zeros_like(mask, dtype=torch.bool)
            inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            assert torch.equal(box == 1, inside & (mask != 255))  # one part in each picture of Numbered
        assert torch.equal(episode.query_mask, masks[i].query_mask)


def test_boxes_are_of_connected_parts() -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = 1  # connected by their corners
    mask[5:8, 5] = mask[7, 5:9] = 1  # an L
    mask[6, 7] = 255
    expected = np.zeros((8, 9), np.uint8)
    expected[0:3, 0:3] = expected[5:8, 5:9] = 1
    expected[6, 7] = 255
    before = mask.copy()
    np.testing.assert_array_equal(fill_boxes(mask), expected)
    np.testing.assert_array_equal(mask, before)
    assert not fill_boxes(np.zeros((3, 3), np.uint8)).any()


def test_published_boxes_reach_a_pixel_further_to_the_right_and_down() -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[1:3, 2:4] = 1
    mask[6, 8] = 1  # in the corner nothing is further to the right
    mask[3, 4] = 255
    expected = np.zeros((8, 9), np.uint8)
    expected[1:4, 2:5] = expected[6:8, 8] = 1
    expected[3, 4] = 255
    np.testing.assert_array_equal(annotate(mask, "box_published"), expected)
    np.testing.assert_array_equal(annotate(mask, "box"), fill_boxes(mask))
    assert annotate(mask, "mask") is mask


def test_published_boxes_are_what_episodes_show() -> None:
    boxes = {kind: dataset(2, support_annotation=kind)[3].support_mask for kind in ("box", "box_published")}
    assert ((boxes["box_published"] == 1) >= (boxes["box"] == 1)).all()
    assert (boxes["box_published"] == 1).sum() > (boxes["box"] == 1).sum()


def test_training_batch(shot: int) -> None:
    episodes = augmented(shot)
    batch = collate([episodes[i] for i in (4, 9, 2)])
    for images, masks, lead in (
        (batch.query, batch.query_mask, (3,)),
        (batch.support, batch.support_mask, (3, shot)),
    ):
        assert images.shape == (*lead, 3, 48, 48)
        assert masks.shape == (*lead, 48, 48)
        assert images.dtype == masks.dtype == torch.uint8
        assert images.movedim(-3, -1).is_contiguous()  # channels last
    assert batch.id.tolist() == [4, 9, 2]
    assert batch.class_id.tolist() == [episodes.draw(i).class_id for i in (4, 9, 2)]
    assert batch.class_id.dtype == torch.int64
    assert [len(names) for names in batch.names] == [1 + shot] * 3
    for i, episode in zip((4, 9, 2), apart(batch), strict=True):
        assert digest(episode) == digest(episodes[i])


def test_evaluation_batch(shot: int) -> None:
    episodes = dataset(shot, transform=EvaluationTransform(40), with_label=True)
    batch = collate([episodes[i] for i in range(6)])
    assert batch.query.shape == (6, 3, 40, 40)
    assert batch.support.shape == (6, shot, 3, 40, 40)
    assert batch.query_mask.shape == (6, 40, 40)
    assert batch.support_mask.shape == (6, shot, 40, 40)
    assert batch.query.dtype == batch.support.dtype == torch.float32
    assert batch.query_mask.dtype == batch.support_mask.dtype == torch.uint8
    assert isinstance(batch.label, list)
    sizes = [tuple(label.shape) for label in batch.label]
    assert sizes == [Numbered().mask(episodes.draw(i).query).shape for i in range(6)]
    assert len(set(sizes)) > 1


# Sampler


@pytest.mark.parametrize(("episodes", "world"), [(10, 4), (7, 3), (3, 4), (16, 2), (5, 1), (1000, 7)])
def test_shards_hold_every_id_once(episodes: int, world: int) -> None:
    for epoch in range(3):
        start = partial(int, epoch * episodes)
        shards = [EpisodeSampler(episodes, rank, world, start) for rank in range(world)]
        ids = [list(shard) for shard in shards]
        assert [len(shard) for shard in shards] == [len(part) for part in ids]
        # nothing padded, nothing twice, and an epoch goes on where the last one ended
        assert sorted(i for part in ids for i in part) == list(range(epoch * episodes, (epoch + 1) * episodes))
        lengths = sorted(map(len, ids))
        assert lengths[-1] - lengths[0] == (1 if episodes % world else 0)
        assert [list(shard) for shard in shards] == ids  # can be gone through again


def test_one_process_and_several_take_the_same_steps() -> None:
    def steps(rank: int, world: int, batch_size: int) -> list[list[int]]:
        ids = list(EpisodeSampler(24, rank, world, lambda: 120))
        return [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]

    shards = [steps(rank, 4, 2) for rank in range(4)]
    together = [sorted(i for shard in shards for i in shard[step]) for step in range(3)]
    assert together == steps(0, 1, 8)
