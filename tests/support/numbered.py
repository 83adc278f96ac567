"""A small data set whose pictures carry their numbers, and episodes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fss.data.datamodule import FewShotDataModule

S = 16


class Numbered:
    """24 pictures of 4 classes; red is a picture's number. Every third shows a second class.

    Sizes differ; all objects lie in the top-left 16 x 16 pixels, column 0 is to be ignored.
    """

    classes = ("ant", "bee", "cat", "dog")

    def __len__(self) -> int:
        return 24

    def name(self, index: int) -> str:
        return f"numbered/{index}.png"

    def image(self, index: int) -> np.ndarray:
        noise = np.random.default_rng(index).integers(0, 256, (20 + index % 4, 24 + index % 3, 3), dtype=np.uint8)
        noise[..., 0] = index
        return noise

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((20 + index % 4, 24 + index % 3), np.uint8)
        mask[2:8, 3 : 6 + index % 5] = 1 + index % 4
        if index % 3 == 0:
            mask[9:14, 2:15] = 1 + (index + 1) % 4
        mask[:, 0] = 255
        return mask


class Corner:
    """A transform that cuts the top-left S x S pixels, and keeps the seeds that it was given."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int, base_mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        self.seeds.append(seed)
        return tuple(a[:S, :S].copy() for a in (image, mask, base_mask) if a is not None)


def data(**settings: Any) -> FewShotDataModule:
    """Training and evaluation episodes of `Numbered`, 1-shot, fold 0."""
    given: dict[str, Any] = {
        "fold": 0,
        "fold_scheme": "contiguous",
        "shot": 1,
        "seed": 0,
        "min_pixels": 1,
        "num_workers": 0,
    }
    return FewShotDataModule(Numbered, Numbered, Corner(), Corner(), **given | settings)
