"""Queries from files: pictures, and the frames of videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fss.data.readers.pictures import MAX_PIXELS, SUFFIXES, read_image
from fss.files.text import printable
from fss.predictor.refusals import check_count

VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"}


class Query(NamedTuple):
    """A picture to be read: a file of its own, or one frame of a video, counted from 0."""

    file: Path
    frame: int | None = None

    @property
    def name(self) -> str:
        """How files of its answer are named."""
        return self.file.stem if self.frame is None else f"{self.file.stem}-{self.frame:06d}"


def find_queries(place: Path, every: int = 1) -> tuple[list[Query], dict[str, str]]:
    """Lists the queries at a place, in the order of their names.

    Args:
        place: A picture, a video, or a folder of these; what else a folder holds is not looked at.
        every: Of a video, every how many frames one is taken.

    Returns:
        The queries, and reasons why videos among them cannot be read, by file.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: Two would give files of the same name, or `every` is below 1.
    """
    check_count("every", every)
    place = place.expanduser()
    if not place.exists():
        raise FileNotFoundError(f"no queries {printable(place)}: give a picture, a video, or a folder of them")
    files = [place]
    if place.is_dir():
        visible = sorted(path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
        files = [path for path in visible if path.suffix.lower() in SUFFIXES | VIDEOS]
        if not files:
            kinds = ", ".join(sorted(SUFFIXES | VIDEOS))
            raise FileNotFoundError(f"no pictures or videos in {printable(place)} ({kinds})")
    queries: list[Query] = []
    unreadable = {}
    for file in files:
        if file.suffix.lower() not in VIDEOS:
            queries.append(Query(file))
        elif frames := _frames(file):
            queries += [Query(file, frame) for frame in range(0, frames, every)]
        else:
            unreadable[str(file)] = f"{printable(file)} cannot be read as a video"
    names: dict[str, Query] = {}
    for query in queries:
        if (twin := names.setdefault(query.name, query)) is not query:
            raise ValueError(
                f"{printable(twin.file)} and {printable(query.file)} would share {query.name}.png: rename one"
            )
    return queries, unreadable


class QueryReader:
    """Reads queries; a video stays open as long as its frames follow one another.

    Args:
        max_pixels: Larger pictures are refused before they are decoded.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._file: Path | None = None
        self._frames: Iterator[np.ndarray] = iter(())
        self._next = 0

    def read(self, query: Query) -> np.ndarray:
        """Reads a query: (h, w, 3) uint8 RGB.

        Raises:
            OSError: There is no such file.
            ValueError: It cannot be read, or is too large.
        """
        if query.frame is None:
            return read_image(query.file, self._max_pixels)
        if self._file != query.file or query.frame < self._next:
            self._file, self._frames, self._next = query.file, self._opened(query.file), 0
        for frame in self._frames:
            self._next += 1
            if self._next > query.frame:
                return frame
        raise ValueError(f"{printable(query.file)} ends before frame {query.frame}")

    def _opened(self, file: Path) -> Iterator[np.ndarray]:
        video = cv2.VideoCapture(str(file))
        try:
            width = int(video.get(cv2.CAP_PROP_FRAME_WIDTH))
            height = int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
            if width * height > self._max_pixels:
                raise ValueError(
                    f"{printable(file)}: frames of {width} x {height} pixels are more than "
                    f"max_pixels={self._max_pixels}"
                )
            while (got := video.read())[0]:
                yield cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)
        finally:
            video.release()


def _frames(file: Path) -> int:
    """Number of frames that a video says it has, or that it has where it says none; 0 if it cannot be read."""
    video = cv2.VideoCapture(str(file))
    try:
        if not video.isOpened():
            return 0
        told = int(video.get(cv2.CAP_PROP_FRAME_COUNT))  # made of the duration: without one, nonsense below 0
        return told if told > 0 else sum(1 for _ in iter(video.grab, False))
    finally:
        video.release()
