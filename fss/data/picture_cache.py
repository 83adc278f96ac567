"""In-memory cache of decoded pictures and masks, shared by all loader processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import multiprocessing

from fss.data.readers.reader import Reader
from fss.data.shared_memory import shared_zeros

PATIENCE = 5.0  # seconds for what takes microseconds


class PictureCache:
    """Stores arrays in the order of first use until it is full; later arrays are not stored.

    Nothing is ever evicted: over epochs all pictures are used equally often, so keeping the first ones saves as
    much as keeping the most recent ones.

    Args:
        limit: Capacity in bytes of shared memory.

    Raises:
        ValueError: If there is not enough shared memory.
    """

    def __init__(self, limit: int) -> None:
        try:
            self._room = shared_zeros((limit,))
        except MemoryError as error:
            raise ValueError(
                f"cache_gb={limit / 2**30:g}: {error}; reduce it or, in a container, raise the limit, for example "
                "with docker run --shm-size"
            ) from error
        self._used = shared_zeros((1,), torch.int64)
        self._lock = multiprocessing.Lock()
        self._is_lost = False  # a process has died that held the lock

    def shelf(self, things: int) -> Shelf:
        """Reserves places for `things` arrays, which are addressed by number."""
        return Shelf(self, shared_zeros((things, 5), torch.int64))

    def fetch(self, place: torch.Tensor) -> np.ndarray | None:
        """Returns a copy of the array stored at a place of a shelf; None if there is none."""
        if not self._take():
            return None
        end, *shape, width = place.tolist()  # under the lock, so that a place is never seen before its bytes
        self._lock.release()
        if not end:
            return None
        dtype, size = np.dtype(f"u{width}"), width * int(np.prod(shape))
        kept = self._room.numpy()[end - size : end].view(dtype)
        # (h, w, 1) stands for (h, w)
        return kept.reshape(shape if shape[2] > 1 else shape[:2]).copy()

    def keep(self, place: torch.Tensor, array: np.ndarray) -> None:
        """Stores a (h, w) or (h, w, C) array of unsigned integers if there is room and it is not yet stored."""
        if not self._take():
            return
        try:
            self._keep(place, array)
        finally:
            self._lock.release()

    def _keep(self, place: torch.Tensor, array: np.ndarray) -> None:
        start = int(self._used)
        end = start + array.nbytes
        if place[0] or end > len(self._room):
            return
        self._room.numpy()[start:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        # the next array begins where numbers of any width can
        self._used.fill_(-(-end // 8) * 8)
        height, width, *channels = array.shape
        place.copy_(torch.tensor([end, height, width, *(channels or [1]), array.itemsize]))

    def _take(self) -> bool:
        """Takes the lock; False where a process died with it, whose brothers go on without the cache."""
        if not self._is_lost and not self._lock.acquire(timeout=PATIENCE):
            self._is_lost = True
        return not self._is_lost


class Shelf:
    """Arrays of a cache, addressed by number.

    Args:
        cache: The cache that stores the bytes.
        places: (n, 5) int64, initially zero: end offset in the cache, height, width, channels, bytes per value.
    """

    def __init__(self, cache: PictureCache, places: torch.Tensor) -> None:
        self._cache, self._places = cache, places

    def get(self, number: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
        """Returns the caller's own copy of the array `number`, calling `make` if it is not stored."""
        place = self._places[number]
        array = self._cache.fetch(place)
        if array is None:
            array = make(number)
            self._cache.keep(place, array)
        return array


class CachedReader:
    """A reader whose pictures and masks are decoded only once, as long as the cache has room.

    Args:
        reader: The reader to cache.
        cache: The cache, which several readers may share.
    """

    def __init__(self, reader: Reader, cache: PictureCache) -> None:
        self._reader = reader
        self._images, self._masks = cache.shelf(len(reader)), cache.shelf(len(reader))

    @property
    def classes(self) -> Sequence[str]:
        return self._reader.classes

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        return self._reader.name(index)

    def image(self, index: int) -> np.ndarray:
        return self._images.get(index, self._reader.image)

    def mask(self, index: int) -> np.ndarray:
        return self._masks.get(index, self._reader.mask)


def keeper(gigabytes: float) -> Callable[[Reader], Reader]:
    """Returns a function that wraps readers with a common cache, or returns them unchanged.

    Args:
        gigabytes: Size of the cache in GiB; 0 for no cache.

    Raises:
        ValueError: If the size is negative or exceeds the available shared memory.
    """
    if gigabytes < 0:
        raise ValueError(f"cache_gb={gigabytes}: must be 0 or more")
    if gigabytes == 0:
        return lambda reader: reader
    return partial(CachedReader, cache=PictureCache(int(gigabytes * 2**30)))
