"""Finds which classes each picture shows, and hence which episodes are possible."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np

from fss.data import index_cache
from fss.data.parallel import cores, for_each
from fss.data.readers.reader import FileReader, Reader, RemarkingReader
from fss.files.text import printable, some

logger = logging.getLogger(__name__)

WORTHWHILE = (
    256  # with at least this many pictures, scanning takes longer than starting processes and checking the cache
)
NAMED = 50  # of many problems; the others are counted


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


class _Scan(NamedTuple):
    """What one picture holds: (class, pixels) of each class, what to tell of it, and why it cannot be used."""

    classes: list[tuple[int, int]]
    remark: str = ""
    problem: str = ""


def build_index(reader: Reader, description: str = "Reading masks") -> Index:
    """Scans every mask of a reader once; many files are scanned on all cores and the index is cached beside them.

    Args:
        reader: The pictures and masks to scan.
        description: Text shown beside the progress bar.

    What a reader has to say of single pictures (`RemarkingReader`) is told, every time.

    Raises:
        ValueError: If two classes have one name, two pictures are the same file, or masks are missing, damaged,
            different in size from their picture, or contain unknown class ids; the message names them.
    """
    _check_names(reader.classes)
    if not isinstance(reader, FileReader) or len(reader) < WORTHWHILE:
        index, remarks = _scan_all(reader, description, workers=1)
    else:
        key = index_cache.fingerprint(reader.classes, reader.files())
        kept = index_cache.load(reader.cache, key, (*Index._fields, "remarks"))
        if kept is not None and _fits(reader, **kept):
            remarks = kept.pop("remarks").tolist()
            index = Index(**kept)
        else:
            index, remarks = _scan_all(reader, description, cores())
            keep_index(reader, key, index, remarks)
    if remarks:
        logger.warning("%d of %d pictures: %s", len(remarks), len(reader), some(remarks, 5, "; "))
    return index


def keep_index(reader: FileReader, key: str, index: Index, remarks: Sequence[str]) -> None:
    """Caches what a scan found beside the reader's data, for the state of files that `key` stands for."""
    index_cache.save(reader.cache, key, {**index._asdict(), "remarks": np.array(remarks, np.str_)})


def _fits(
    reader: Reader, image: np.ndarray, class_id: np.ndarray, pixels: np.ndarray, remarks: np.ndarray
) -> bool:
    """Whether kept numbers can be those of a reader; data that others pass on may bring a cache along."""
    columns = (image, class_id, pixels)
    if remarks.dtype.kind != "U" or any(c.dtype != np.int64 or c.shape != image.shape[:1] for c in columns):
        return False
    return bool(
        (
            (image >= 0)
            & (image < len(reader))
            & (class_id > 0)
            & (class_id <= len(reader.classes))
            & (pixels > 0)
        ).all()
        and (np.diff(image) >= 0).all()
    )


def _check_names(names: Sequence[str]) -> None:
    """Results are told by name."""
    if twins := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two classes are called {some(map(repr, twins))}: give each its own name")


def _check_files(reader: FileReader) -> None:
    """By links or otherwise one file can have two names; a support would be the query itself."""
    names: dict[tuple[int, int], str] = {}
    for number, path in enumerate(reader.pictures()):
        try:
            info = os.stat(path)
        except OSError:  # the scan will name it
            continue
        if (other := names.setdefault((info.st_dev, info.st_ino), reader.name(number))) != reader.name(number):
            raise ValueError(f"{other} and {reader.name(number)} are one file: remove one of them")


def _scan_all(reader: Reader, description: str, workers: int) -> tuple[Index, list[str]]:
    if isinstance(reader, FileReader):
        _check_files(reader)
    scans = for_each(partial(_scan, reader), range(len(reader)), workers, description)
    if problems := [scan.problem for scan in scans if scan.problem]:
        head = f"{len(problems)} of {len(reader)} pictures cannot be used:\n" if len(problems) > 1 else ""
        raise ValueError(head + some(problems, NAMED, "\n"))
    rows = [(i, c, pixels) for i, scan in enumerate(scans) for c, pixels in scan.classes]
    image, class_id, pixels = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Index(image, class_id, pixels), [scan.remark for scan in scans if scan.remark]


def _scan(reader: Reader, i: int) -> _Scan:
    name = reader.name(i)
    try:
        mask = reader.mask(i)
        if isinstance(reader, FileReader) and reader.size(i) != mask.shape:
            (h, w), (mask_h, mask_w) = reader.size(i), mask.shape
            why = f"{name}: has {w} x {h} pixels, but its mask {mask_w} x {mask_h}: they must be equal"
            return _Scan([], problem=why)
    except (ValueError, OSError) as error:
        return _Scan([], problem=printable(str(error)))
    ignore = np.iinfo(mask.dtype).max
    counts = np.bincount(mask.ravel(), minlength=ignore + 1)
    counts[ignore] = 0
    present = np.flatnonzero(counts[1:]) + 1
    n = len(reader.classes)
    if len(present) and present[-1] > n:
        why = f"{name}: its mask has class id {present[-1]}, but there are {n} classes: fix the mask"
        return _Scan([], problem=why)
    remark = reader.remark(i, mask) if isinstance(reader, RemarkingReader) else ""
    return _Scan([(int(c), int(counts[c])) for c in present], remark)


QueryClasses = Literal["any", "eligible"]


class Pool(NamedTuple):
    """The pictures from which episodes are drawn.

    Attributes:
        queries: Numbers of the pictures that can be queries, ascending.
        classes_of: Classes that each query can be paired with, ascending.
        images_of: Numbers of the pictures that can be supports of each class, ascending.
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
    query_classes: QueryClasses = "eligible",
) -> Pool:
    """Finds the pictures for episodes of the given classes.

    Args:
        index: The reader's index.
        classes: Class ids of the episodes.
        shot: Supports per episode (K); a class needs K + 1 pictures.
        min_pixels: Minimum number of pixels for a class to count as present in a picture (2048 as published).
        exclude: Pictures with any pixel of these classes are dropped (`exclude_novel`).
        names: Class names for messages.
        query_classes: What a query may be asked for: "any" of the classes that it shows, of any size, as
            published, where `min_pixels` decides only which pictures are queries and supports; or "eligible",
            those of at least `min_pixels`.

    Raises:
        ValueError: If no class has K + 1 pictures, or `query_classes` is unknown.
    """
    if query_classes not in get_args(QueryClasses):
        raise ValueError(f"dataset.query_classes={query_classes!r}: must be 'any' or 'eligible'")
    wanted = sorted(set(classes))
    images_of = images_by_class(index, wanted, min_pixels, exclude)
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
    queries = np.unique(np.concatenate(list(images_of.values())))
    classes_of = classes_by_image(index, queries, images_of, 1 if query_classes == "any" else min_pixels)
    return Pool(queries, classes_of, images_of, left_out)


def images_by_class(
    index: Index, classes: Iterable[int], min_pixels: int, exclude: Iterable[int] = ()
) -> dict[int, np.ndarray]:
    """The pictures that show each class with enough pixels, ascending; see `build_pool`."""
    dropped = np.unique(index.image[np.isin(index.class_id, list(exclude))])
    usable = (index.pixels >= min_pixels) & ~np.isin(index.image, dropped)
    return {c: index.image[usable & (index.class_id == c)] for c in classes}


def classes_by_image(
    index: Index, images: np.ndarray, classes: Iterable[int], min_pixels: int
) -> dict[int, tuple[int, ...]]:
    """Those of the classes that each of some pictures shows with enough pixels, ascending; () where none."""
    row = np.flatnonzero(
        (index.pixels >= min_pixels) & np.isin(index.class_id, list(classes)) & np.isin(index.image, images)
    )
    row = row[np.lexsort((index.class_id[row], index.image[row]))]
    shown, first = np.unique(index.image[row], return_index=True)
    ids, bounds = index.class_id[row].tolist(), [*first.tolist(), len(row)]
    found = {
        image: tuple(ids[start:end])
        for image, start, end in zip(shown.tolist(), bounds[:-1], bounds[1:], strict=True)
    }
    return {image: found.get(image, ()) for image in images.tolist()}
