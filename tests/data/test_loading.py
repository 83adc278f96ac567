"""Whole episodes of files, the same however they are loaded."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.digests import apart, digest

from fss.data.episodes import EpisodeDataset, collate
from fss.data.index import build_index, build_pool
from fss.data.loading import build_loader, training_loader
from fss.data.parallel import cores
from fss.data.picture_cache import CachedReader, PictureCache
from fss.data.readers.folder import Folder
from fss.data.sampler import EpisodeSampler
from fss.data.transforms import TrainingTransform

EPISODES, EPOCH, SHOT = 24, 2, 2
IDS = range(EPISODES * EPOCH, EPISODES * (EPOCH + 1))


def write_pictures(root: Path, n: int = 16) -> None:
    """JPEGs of several sizes with masks of three classes, some of them with two."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for i in range(n):
        noise = np.random.default_rng(i)
        h, w = 40 + i % 5, 52 - i % 7
        Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(root / f"images/{i}.jpg")
        mask = np.zeros((h, w), np.uint8)
        mask[5:20, 6 : 12 + i % 9] = 1 + i % 3
        if i % 4 == 0:
            mask[24:36, 10:40] = 1 + (i + 1) % 3
        Image.fromarray(mask).save(root / f"masks/{i}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


def episodes_of(root: Path, cache_bytes: int = 0) -> EpisodeDataset:
    reader = Folder(str(root))
    pool = build_pool(build_index(reader), (1, 2, 3), SHOT, min_pixels=1)
    source = CachedReader(reader, PictureCache(cache_bytes)) if cache_bytes else reader
    return EpisodeDataset(source, pool, SHOT, 7, TrainingTransform(32, (0.8, 1.25)))


def loaded(root: Path, workers: int, cache_bytes: int, world: int, rank: int) -> dict[int, str]:
    """Digest of each episode that one process of several loads."""
    sampler = EpisodeSampler(EPISODES, rank, world, start=lambda: EPISODES * EPOCH)
    loader = build_loader(episodes_of(root, cache_bytes), sampler, 3, workers, collate)
    return {int(episode.id): digest(episode) for batch in loader for episode in apart(batch)}


def test_same_episodes_whatever_workers_processes_order_and_cache(root: Path) -> None:
    alone = episodes_of(root)
    expected = {i: digest(alone[i]) for i in IDS}
    assert len(set(expected.values())) == EPISODES

    shuffled = np.random.default_rng(0).permutation(IDS).tolist()
    other_order = episodes_of(root, cache_bytes=50_000)  # room for some of the pictures
    assert {i: digest(other_order[i]) for i in shuffled} == expected

    for workers in (0, 2, 4):
        for cache_bytes in (0, 50_000):
            assert loaded(root, workers, cache_bytes, world=1, rank=0) == expected
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as processes:
            shards = list(processes.map(partial(loaded, root, workers, 0, 2), range(2)))
        assert [len(shard) for shard in shards] == [EPISODES // 2] * 2
        assert shards[0] | shards[1] == expected


@pytest.mark.filterwarnings("error")  # torch warns of more workers than cores
def test_no_more_workers_than_cores(root: Path) -> None:
    dataset = episodes_of(root)
    for build in (build_loader, training_loader):
        loaders = [build(dataset, EpisodeSampler(4), 2, workers, collate) for workers in (0, 1, 10_000)]
        assert [loader.num_workers for loader in loaders] == [0, 1, cores()]
