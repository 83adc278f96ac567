"""Finds which classes each picture shows, and hence which episodes are possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

from fss.data import index_cache
from fss.data.parallel import cores, for_each
from fss.data.readers.reader import FileReader, Reader

logger = logging.getLogger(__name__)

WORTHWHILE = (
    256  # with at least this many pictures, scanning takes longer than starting processes and checking the cache
)


class Index(NamedTuple):
    """One row for each class in each picture, ordered by picture.

    Attributes:
        image: (rows,) picture numbers.
        class_id: (rows,) class ids.
        pixels: (rows,) number of pixels of the class at original size.
    """

    image: np.ndarray
    class_id: np.ndarray
    pixels: np.ndarray


def build_index(reader: Reader, description: str = "Reading masks") -> Index:
    """Scans every mask of a reader once; many files are scanned on all cores and the index is cached beside them.

    Args:
        reader: The pictures and masks to scan.
        description: Text shown beside the progress bar.

    Raises:
        ValueError: If masks are missing, damaged, different in size from their picture, or contain unknown class
            ids; the message names every one of them.
    """
    if not isinstance(reader, FileReader) or len(reader) < WORTHWHILE:
        return _scan_all(reader, description, workers=1)
    key = index_cache.fingerprint(reader.classes, reader.files())
    if columns := index_cache.load(reader.cache, key, Index._fields):
        return Index(**columns)
    index = _scan_all(reader, description, cores())
    index_cache.save(reader.cache, key, index._asdict())
    return index


def _scan_all(reader: Reader, description: str, workers: int) -> Index:
    size = reader.size if isinstance(reader, FileReader) else None  # asked once: it takes as long as a mask
    scans = for_each(partial(_scan, reader, size), range(len(reader)), workers, description)
    if problems := [scan for scan in scans if isinstance(scan, str)]:
        head = f"{len(problems)} of {len(reader)} pictures cannot be used:\n" if len(problems) > 1 else ""
        raise ValueError(head + "\n".join(problems))
    rows = [(i, c, pixels) for i, scan in enumerate(scans) if not isinstance(scan, str) for c, pixels in scan]
    image, class_id, pixels = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Index(image, class_id, pixels)


def _scan(reader: Reader, size: Callable[[int], tuple[int, int]] | None, i: int) -> list[tuple[int, int]] | str:
    """Returns (class, pixels) for each class of a picture, or a message that says what is wrong with it."""
    try:
        mask = reader.mask(i)
        if size is not None and size(i) != mask.shape:
            (h, w), (mask_h, mask_w) = size(i), mask.shape
            return f"{reader.name(i)}: has {w} x {h} pixels, but its mask {mask_w} x {mask_h}: they must be equal"
    except (ValueError, OSError) as error:
        return str(error)
    ignore = np.iinfo(mask.dtype).max
    counts = np.bincount(mask.ravel(), minlength=ignore + 1)
    counts[ignore] = 0
    present = np.flatnonzero(counts[1:]) + 1
    n = len(reader.classes)
    if len(present) and present[-1] > n:
        return f"{reader.name(i)}: its mask has class id {present[-1]}, but there are {n} classes: fix the mask"
    return [(int(c), int(counts[c])) for c in present]


class Pool(NamedTuple):
    """The pictures from which episodes are drawn.

    Attributes:
        queries: Numbers of the pictures that can be queries, ascending.
        classes_of: Eligible classes of each query, ascending.
        images_of: Numbers of the pictures that show each class, ascending.
        left_out: Classes with too few pictures for one episode.
    """

    queries: np.ndarray
    classes_of: dict[int, tuple[int, ...]]
    images_of: dict[int, np.ndarray]
    left_out: tuple[int, ...]


def build_pool(
    index: Index,
    classes: Iterable[int],
    shot: int,
    min_pixels: int,
    exclude: Iterable[int] = (),
    names: dict[int, str] | None = None,
) -> Pool:
    """Finds the pictures for episodes of the given classes.

    Args:
        index: The reader's index.
        classes: Class ids of the episodes.
        shot: Supports per episode (K); a class needs K + 1 pictures.
        min_pixels: Minimum number of pixels for a class to count as present in a picture (2048 as published).
        exclude: Pictures with any pixel of these classes are dropped (`exclude_novel`).
        names: Class names for messages.

    Raises:
        ValueError: If no class has K + 1 pictures.
    """
    wanted = sorted(set(classes))
    dropped = np.unique(index.image[np.isin(index.class_id, list(exclude))])
    usable = (index.pixels >= min_pixels) & ~np.isin(index.image, dropped)
    images_of = {c: index.image[usable & (index.class_id == c)] for c in wanted}
    counts = {c: len(images) for c, images in images_of.items()}
    left_out = tuple(c for c in wanted if counts[c] < shot + 1)

    def listed(ids: Iterable[int]) -> str:
        return ", ".join(f"{(names or {}).get(c, f'class {c}')} ({counts[c]})" for c in ids)

    if len(left_out) == len(wanted):
        raise ValueError(
            f"no class has the {shot + 1} pictures with at least {min_pixels} pixels of it that {shot}-shot "
            f"episodes need; found: {listed(wanted)}. Reduce shot or dataset.min_pixels, use another fold or "
            "image set, or add pictures"
        )
    if left_out:
        logger.warning(
            "left out (fewer than %d pictures with at least %d pixels): %s", shot + 1, min_pixels, listed(left_out)
        )
    images_of = {c: images for c, images in images_of.items() if c not in left_out}
    # rows of the usable classes, sorted by picture and then by class
    row = np.flatnonzero(usable & np.isin(index.class_id, list(images_of)))
    row = row[np.lexsort((index.class_id[row], index.image[row]))]
    queries, first = np.unique(index.image[row], return_index=True)
    ids, bounds = index.class_id[row].tolist(), [*first.tolist(), len(row)]
    classes_of = {
        query: tuple(ids[start:end])
        for query, start, end in zip(queries.tolist(), bounds[:-1], bounds[1:], strict=True)
    }
    return Pool(queries, classes_of, images_of, left_out)
