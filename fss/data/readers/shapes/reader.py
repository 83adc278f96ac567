"""The reader of `shapes`, which shares its painted pictures among all processes."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from fss.data.readers.shapes.classes import CLASSES
from fss.data.readers.shapes.layout import Bytes, Layout, lay_out
from fss.data.readers.shapes.painting import PHOTOGRAPHS, paint, photograph_path
from fss.data.shared_memory import shared_zeros

SPLITS = tuple(PHOTOGRAPHS)

_LAYOUT, _PAINT = 0, 1  # numbers of the random streams


class Shapes:
    """Reader of the procedural data set `shapes`; nothing is stored on disk.

    A picture depends only on seed, split, index and size, not on the process or the order of access. It shows
    1 to 3 objects of different classes: the target of class index % 16 + 1, and distractors. At least 60 % of
    each object's pixels are visible, and they cover more than 1.2 % of the picture.

    Attributes:
        classes: Class names; class c (1..16) is `classes[c - 1]`.
        split: "train" or "val", which use different photographs and random streams.
        size: Side of a picture in pixels.
        seed: Seed of all random choices.
    """

    classes: tuple[str, ...] = tuple(kind.name for kind in CLASSES)

    def __init__(self, split: str, size: int = 128, images: int = 1600, seed: int = 0) -> None:
        """Checks the arguments and allocates memory for the painted pictures (3 * size**2 bytes each).

        Args:
            split: "train" or "val".
            size: Side of a picture in pixels, at least 32.
            images: Number of pictures, at least 1.
            seed: Seed of all random choices, at least 0.

        Raises:
            ValueError: If an argument is out of range.
            FileNotFoundError: If scikit-image lacks one of the split's photographs.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        for what, value, least in (("size", size, 32), ("images", images, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{what} must be at least {least}, not {value}")
        for name in PHOTOGRAPHS[split]:
            photograph_path(name)
        self.split, self.size, self.seed = split, size, seed
        # Loader workers may live only for one epoch, so pictures are kept in memory that all processes share.
        # Forked workers inherit the tensors; torch.multiprocessing passes them to spawned workers.
        try:
            self._pictures, self._painted = shared_zeros((images, size, size, 3)), shared_zeros((images,))
        except MemoryError as error:
            warnings.warn(
                f"shapes: {error}; every worker process will paint its own pictures. In a container, raise the "
                "limit, for example with docker run --shm-size",
                stacklevel=2,
            )
            self._pictures = torch.zeros((images, size, size, 3), dtype=torch.uint8)
            self._painted = torch.zeros((images,), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._painted)

    def name(self, index: int) -> str:
        """Readable name of a picture, such as "shapes/train/00012"."""
        self._check(index)
        return f"shapes/{self.split}/{index:05d}"

    def image(self, index: int) -> Bytes:
        """Returns the caller's own copy of a picture: (size, size, 3) uint8 RGB."""
        self._check(index)
        kept = self._pictures[index].numpy()
        # No lock is needed: two processes that paint the same picture at once write the same bytes, and a
        # picture counts as painted only after its last byte is written.
        if not self._painted[index]:
            kept[:] = paint(self._layout(index), self.split, self._rng(index, _PAINT))
            self._painted[index] = 1
        return kept.copy()

    def mask(self, index: int) -> Bytes:
        """Returns the labels (size, size) uint8, 0 background or the class id, without painting the picture."""
        self._check(index)
        return self._layout(index).mask

    def _layout(self, index: int) -> Layout:
        return lay_out(1 + index % len(CLASSES), self.size, self._rng(index, _LAYOUT))

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, SPLITS.index(self.split), index, stream])

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
