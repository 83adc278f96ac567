"""Predictors on tiny networks, and pictures to try them on."""

from __future__ import annotations

import numpy as np
import torch

from fss.geometry import Geometry
from fss.models.heads import BAM, Baseline, Head, PFENet, PriorMask
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import Verifier
from fss.predictor import FewShotPredictor
from support.tiny import CHANNELS, TinyBackbone

SIZE = 48


def head(name: str = "pfenet", shot: int = 1) -> Head:
    made = {
        "pfenet": lambda: PFENet(CHANNELS, width=8, pyramid=[1.0, 0.5], dropout=0.0),
        "baseline": lambda: Baseline(CHANNELS, width=8, dropout=0.0),
        "prior": lambda: PriorMask(CHANNELS, threshold=0.5),
        "bam": lambda: BAM(CHANNELS, base_classes=3, shot=shot, width=8, dropout=0.0, base_width=8),
    }
    return made[name]()


def segmenter(name: str = "pfenet", shot: int = 1, seed: int = 0) -> FewShotSegmenter:
    torch.manual_seed(seed)
    return FewShotSegmenter(TinyBackbone(), head(name, shot)).eval()


def verifier(channels: int, threshold: float = 0.5, seed: int = 0) -> Verifier:
    """One of features of so many channels, which has learnt nothing real."""
    chance = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(channels, 4, generator=chance)).Q.T.contiguous()
    mean, classes = (torch.rand(*shape, channels, generator=chance) for shape in ((), (3,)))
    kept = torch.rand(4, generator=chance)
    return Verifier(mean, directions, kept, classes, (3.0, -2.0, 1.0, -0.5), threshold)


def predictor(
    name: str = "pfenet", shot: int = 1, geometry: Geometry = "exact", seed: int = 0
) -> FewShotPredictor:
    made = segmenter(name, shot, seed)
    return FewShotPredictor(made, SIZE, geometry, device="cpu")


def shot(seed: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a bright rectangle of a colour of its own, and the rectangle's mask."""
    chance = np.random.default_rng(seed)
    picture = chance.integers(0, 120, (height, width, 3), dtype=np.uint8)
    top, left = chance.integers(2, (height // 2, width // 2)).tolist()
    mask = np.zeros((height, width), bool)
    mask[top : top + height // 3, left : left + width // 3] = True
    picture[mask, seed % 3] += 120
    return picture, mask
