"""The reader of `shapes`, and the pictures it keeps for all processes."""

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

    A picture depends on seed, split, index and size alone, not on the process or on the order of access.
    It shows 1 to 3 objects of different classes: the target, of class index % 16 + 1, and distractors. At
    least 60 % of each object's pixels are visible, and they are more than 1.2 % of the picture.

    Attributes:
        classes: names; class id c, 1..16, is classes[c - 1].
        split: "train" or "val"; the two differ in their photographs and random streams.
        size: side of a picture in pixels.
        seed: of all randomness.
    """

    classes: tuple[str, ...] = tuple(kind.name for kind in CLASSES)

    def __init__(self, split: str, size: int = 128, images: int = 1600, seed: int = 0) -> None:
        """Checks the arguments and makes room for the painted pictures (3 * size**2 bytes each).

        Args:
            split: "train" or "val".
            size: side of a picture in pixels, at least 32.
            images: number of pictures, at least 1.
            seed: at least 0.

        Raises:
            ValueError: an argument is out of its range.
            FileNotFoundError: scikit-image lacks one of the split's photographs.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        for what, value, least in (("size", size, 32), ("images", images, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{what} must be at least {least}, not {value}")
        for name in PHOTOGRAPHS[split]:
            photograph_path(name)
        self.split, self.size, self.seed = split, size, seed
        # Workers of a data loader live for an epoch only, so pictures are kept where all processes see them.
        # Forked workers inherit the tensors; torch.multiprocessing hands them to spawned ones.
        try:
            self._pictures, self._painted = shared_zeros((images, size, size, 3)), shared_zeros((images,))
        except MemoryError as error:
            warnings.warn(
                f"shapes: {error}; every worker process will paint its pictures anew. In a container, raise the "
                "limit, as with docker run --shm-size",
                stacklevel=2,
            )
            self._pictures = torch.zeros((images, size, size, 3), dtype=torch.uint8)
            self._painted = torch.zeros((images,), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._painted)

    def name(self, index: int) -> str:
        """A picture's name for people, as "shapes/train/00012"."""
        self._check(index)
        return f"shapes/{self.split}/{index:05d}"

    def image(self, index: int) -> Bytes:
        """The picture, (size, size, 3) uint8 RGB; the caller's own copy."""
        self._check(index)
        kept = self._pictures[index].numpy()
        # No lock: two processes that paint the same picture at once write the same bytes, and a picture
        # counts as painted only after its last byte is written.
        if not self._painted[index]:
            kept[:] = paint(self._layout(index), self.split, self._rng(index, _PAINT))
            self._painted[index] = 1
        return kept.copy()

    def mask(self, index: int) -> Bytes:
        """The labels, (size, size) uint8: 0 background, else the class id. Does not paint."""
        self._check(index)
        return self._layout(index).mask

    def _layout(self, index: int) -> Layout:
        return lay_out(1 + index % len(CLASSES), self.size, self._rng(index, _LAYOUT))

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, SPLITS.index(self.split), index, stream])

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
