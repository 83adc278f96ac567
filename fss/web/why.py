"""Why a model answers as it does: prior mask, base map, and what a point of the query resembles in the supports.

Shapes: K supports, C channels, S side of the square that the network sees, h w height and width of a picture,
h' w' of feature maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fss.data.preprocessing import EvaluationTransform
from fss.geometry import at_original_size, fitted
from fss.predictor import FewShotPredictor
from fss.resize import resize
from fss.web.examples import Shown

_GAP = 6  # pixels between pictures
_LIT = 0.6  # share of a similarity's colour over the picture


class Resemblance(NamedTuple):
    """What a point of a query resembles.

    Attributes:
        heat: For each support (h, w) float32, cosine similarity of its locations to the point; NaN outside the
            object.
        support: Number of the support that has the most similar location, from 0.
        at: That location (x, y) in the support's picture, in pixels.
        similarity: Its cosine similarity, in -1..1.
    """

    heat: list[np.ndarray]
    support: int
    at: tuple[int, int]
    similarity: float


class Explanation:
    """How one class was looked for in one picture. Everything is computed once, with a pass over the supports.

    Args:
        predictor: Fitted with exactly these supports for the class, in this order.
        supports: Supports of the class.
        image: The query (h, w, 3) uint8 RGB.

    Attributes:
        prior: (h, w) float32 in 0..1: bright where the query resembles the object, before any training.
        base: (h, w) int64 labels of what a base learner recognises, 0 background; None without a base learner.
    """

    def __init__(self, predictor: FewShotPredictor, supports: Sequence[Shown], image: np.ndarray) -> None:
        self._supports, self._image = supports, image
        self._size, self._geometry = predictor.size, predictor.geometry
        self._object, self._query, prior, base = _features(predictor, supports[0].name, image)
        height, width = image.shape[:2]
        prior = resize(prior[None], (self._size, self._size))[0]  # (1, S, S)
        self.prior: np.ndarray = at_original_size(prior, height, width, self._geometry)[0].numpy()
        self.base: Tensor | None = None
        if base is not None:
            self.base = at_original_size(base, height, width, self._geometry).argmax(0)

    def resemblance(self, x: int, y: int) -> Resemblance:
        """Compares a point of the query with every location of the object in every support.

        Args:
            x: Column in pixels.
            y: Row in pixels.

        Raises:
            ValueError: The point lies outside the picture, or all objects lie between the features' locations.
        """
        height, width = self._image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"The point ({x}, {y}) lies outside the picture of {width} x {height} pixels.")
        _, h, w = self._query.shape
        i, j = (round(at) for at in self._scaled((y, x), (height, width), (h, w)))
        inside = self._object.abs().amax(1, keepdim=True) > 0  # (K, 1, h', w')
        if not inside.any():
            raise ValueError("The object is so small in the examples that the network's features miss it.")
        similar = torch.einsum("c,kchw->khw", self._query[:, i, j], self._object)[:, None]
        similar = similar.masked_fill(~inside, -2)  # less than any similarity
        best = int(similar.argmax())
        number, _, row, column = (int(index) for index in np.unravel_index(best, similar.shape))
        rows, columns = self._supports[number].mask.shape
        y, x = (round(at) for at in self._scaled((row, column), (rows, columns), similar.shape[-2:], back=True))
        return Resemblance(
            [self._on_support(*maps) for maps in zip(similar, inside, self._supports, strict=True)],
            number,
            (min(x, columns - 1), min(y, rows - 1)),
            float(similar.flatten()[best]),
        )

    def _scaled(
        self, at: tuple[int, int], picture: tuple[int, int], grid: Sequence[int], back: bool = False
    ) -> list[float]:
        """From row and column in a picture (h, w) to those in a feature map over the square; or back."""
        covered = fitted(*picture, self._size, self._geometry)
        factors = (
            side / length * (cells - 1) / (self._size - 1)
            for side, length, cells in zip(covered, picture, grid, strict=True)
        )
        return [value / factor if back else value * factor for value, factor in zip(at, factors, strict=True)]

    def _on_support(self, similar: Tensor, inside: Tensor, support: Shown) -> np.ndarray:
        height, width = support.image.shape[:2]
        # between locations of which some have no features, those that have some count
        known = torch.cat([torch.where(inside, similar, 0), inside.float()])[None]
        square = resize(known, (self._size, self._size))[0]  # (2, S, S)
        total, weight = at_original_size(square, height, width, self._geometry).numpy()
        has_any = (weight > 1e-3) & support.mask
        return np.where(has_any, total / np.where(has_any, weight, 1), np.nan)


@torch.inference_mode()
def _features(
    predictor: FewShotPredictor, name: str, image: np.ndarray
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """High features of length 1, of objects (K, C, h', w'; or 0) and query (C, h', w'); prior; base logits."""
    segmenter, device = predictor.segmenter, predictor.device
    transform = EvaluationTransform(predictor.size, predictor.geometry)
    square, _ = transform(image, np.zeros(image.shape[:2], np.uint8))
    shots = predictor.supports(name)
    pictures = torch.stack([torch.from_numpy(square).permute(2, 0, 1), *(shot.image for shot in shots)])
    images = segmenter.backbone.normalize(pictures.to(device))
    query, supports = images[:1], images[1:]
    masks = torch.stack([shot.mask for shot in shots]).to(device)
    lower_query, lower_supports = segmenter.lower(query), segmenter.lower(supports)
    prediction = segmenter.decode(
        segmenter.encode_query(query, lower_query),
        segmenter.encode_support(supports[None], masks[None], lower_supports),
        (predictor.size, predictor.size),
        torch.tensor([-1], device=device),
    )
    inside = (masks == 1).float()[:, None]
    high = segmenter.backbone.upper(lower_supports, inside)
    high = high * (resize(inside, high.shape[-2:]) > 0)
    base = None if prediction.base is None else prediction.base[0].float().cpu()
    return (
        F.normalize(high.float(), dim=1).cpu(),
        F.normalize(segmenter.backbone.upper(lower_query)[0].float(), dim=0).cpu(),
        prediction.prior[0].float().cpu(),
        base,
    )


def heat(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Values (h, w) in 0..1 as colours from dark to bright over a picture (h, w, 3) uint8; NaN leaves it dark."""
    known = np.isfinite(values)
    levels = (np.where(known, values, 0).clip(0, 1) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    lit = _LIT * colours + (1 - _LIT) * grey
    return np.where(known[..., None], lit, grey * 0.3).astype(np.uint8)


def draw_resemblance(found: Resemblance, supports: Sequence[Shown], side: int = 320) -> np.ndarray:
    """The supports side by side (side, W, 3) uint8, bright where they resemble the point most.

    A cross marks the most similar location. Very wide supports are lower than `side`.
    """
    known = np.concatenate([each[np.isfinite(each)] for each in found.heat])
    low, high = float(known.min()), float(known.max())
    tiles = []
    for number, (values, support) in enumerate(zip(found.heat, supports, strict=True)):
        tile = heat((values - low) / max(high - low, 1e-6), support.image)
        height, width = tile.shape[:2]
        scale = min(side / height, 3 * side / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        tile = cv2.resize(tile, size, interpolation=cv2.INTER_AREA)
        if number == found.support:
            tile = cross(tile, (round(found.at[0] * scale), round(found.at[1] * scale)))
        tiles.append(np.pad(tile, ((0, side - size[1]), (0, _GAP), (0, 0)), constant_values=255))
    return np.hstack(tiles)[:, :-_GAP]


def cross(image: np.ndarray, at: tuple[int, int]) -> np.ndarray:
    """The picture with a cross at (x, y), black on white, so that it stands out from everything."""
    size = max(12, max(image.shape[:2]) // 24)
    shown = np.ascontiguousarray(image).copy()
    for color, thickness in (((255, 255, 255), 5), ((0, 0, 0), 2)):
        cv2.drawMarker(shown, at, color, cv2.MARKER_CROSS, size, thickness, cv2.LINE_AA)
    return shown
