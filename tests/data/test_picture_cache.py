"""Pictures that are kept in memory: what comes back, how much is kept, and who sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fss.data.picture_cache import CachedReader, PictureCache, keeper

SIDE = 10  # of pictures: 300 bytes, their masks 100 or 200
N = 6


class Counting:
    """Pictures that differ in size and content; counts what is asked for, in all processes."""

    classes: Sequence[str] = ("ant",)

    def __init__(self, mask_type: type[np.unsignedinteger] = np.uint8) -> None:
        self.mask_type = mask_type
        self.decoded = torch.zeros(2, N, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return N

    def name(self, index: int) -> str:
        return f"picture {index}"

    def image(self, index: int) -> np.ndarray:
        self.decoded[0, index] += 1
        return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def mask(self, index: int) -> np.ndarray:
        self.decoded[1, index] += 1
        greatest = np.iinfo(self.mask_type).max
        shape = (SIDE, SIDE) if index else (SIDE, 1)  # one column is still two-dimensional
        return np.random.default_rng(index).integers(0, greatest, shape, dtype=self.mask_type)


def counts(reader: Counting) -> list[list[int]]:
    return reader.decoded.tolist()


@pytest.mark.parametrize("mask_type", [np.uint8, np.uint16])
def test_comes_back_as_it_was_and_is_decoded_once(mask_type: type[np.unsignedinteger]) -> None:
    reader, plain = Counting(mask_type), Counting(mask_type)
    cached = CachedReader(reader, PictureCache(10_000))
    for _ in range(3):
        for i in reversed(range(N)):
            for got, expected in ((cached.image(i), plain.image(i)), (cached.mask(i), plain.mask(i))):
                assert got.dtype == expected.dtype
                np.testing.assert_array_equal(got, expected)
                got[:] = 0  # the caller's own
    assert counts(reader) == [[1] * N] * 2
    assert (len(cached), cached.name(2), cached.classes) == (N, "picture 2", ("ant",))


def test_keeps_no_more_than_the_limit() -> None:
    reader = Counting()
    cached = CachedReader(reader, PictureCache(3 * 304 - 4))  # a picture takes 300, rounded up to whole eights
    for _ in range(2):
        for i in range(N):
            cached.image(i)
    assert counts(reader)[0] == [1, 1, 1, 2, 2, 2]


def test_readers_share_one_limit() -> None:
    first, second = Counting(), Counting()
    keep = keeper(2 * 304 / 2**30)
    readers = [keep(first), keep(second)]
    for _ in range(2):
        for reader in readers:
            for i in range(2):
                reader.image(i)
    assert Counter((*counts(first)[0], *counts(second)[0])) == {1: 2, 2: 2, 0: 8}


class Pictures(Dataset[int]):
    def __init__(self, reader: CachedReader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> int:
        return int(self.reader.image(index).sum())


def test_what_one_worker_decodes_all_processes_have() -> None:
    reader = Counting()
    cached = CachedReader(reader, PictureCache(10_000))
    expected = [int(Counting().image(i).sum()) for i in range(N)]
    for _ in range(2):  # other workers the second time
        assert [int(x) for batch in DataLoader(Pictures(cached), 1, num_workers=2) for x in batch] == expected
    assert [int(cached.image(i).sum()) for i in range(N)] == expected
    assert counts(reader)[0] == [1] * N


def test_zero_leaves_readers_as_they_are() -> None:
    reader = Counting()
    assert keeper(0)(reader) is reader


def test_limits_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="cache_gb=-1: must be 0 or more"):
        keeper(-1)
    with pytest.raises(ValueError, match=r"cache_gb=1e\+06: no .* MiB of shared memory .*reduce it"):
        keeper(1e6)
