"""Pictures of episodes: what was shown, what was asked, what was answered.

Shapes: K shots, S image side, h w feature height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TRUTH_COLOR = (64, 220, 90)
PREDICTION_COLOR = (255, 64, 160)
_MARGIN = 6  # pixels between tiles
_HEADER = 26  # pixels above the first row
_CAPTION = 18  # pixels below each row


class EpisodePicture(NamedTuple):
    """What is shown of one episode; images (3, S, S) RGB in 0..255, masks (S, S) with 0, 1, 255 ignored.

    Attributes:
        title: For instance the class's name.
        query: (3, S, S).
        query_mask: (S, S).
        support: (K, 3, S, S).
        support_mask: (K, S, S).
        prediction: (S, S), 0 or 1; None where nothing was predicted.
        prior: (h, w) in 0..1; None where there is none.
        iou: Foreground IoU of this episode, in 0..1.
    """

    title: str
    query: Tensor
    query_mask: Tensor
    support: Tensor
    support_mask: Tensor
    prediction: Tensor | None = None
    prior: Tensor | None = None
    iou: float | None = None


def outline(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Tints the object (mask == 1) and draws its contour; what is ignored (255) is darkened.

    Args:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w).
        color: RGB.
    """
    shown = image.copy()
    inside = mask == 1
    shown[inside] = (0.75 * shown[inside] + 0.25 * np.array(color)).astype(np.uint8)
    shown[mask == 255] //= 3
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(shown, contours, -1, color, thickness=max(1, len(image) // 128), lineType=cv2.LINE_AA)


def contact_sheet(episodes: Sequence[EpisodePicture], tile: int = 192) -> Image.Image:
    """One row an episode: supports with their masks, query, truth, prediction, prior mask.

    Args:
        episodes: At least one; all with the same number of supports and the same parts.
        tile: Side of a tile in pixels.
    """
    shots = len(episodes[0].support)
    headings = [f"support {k + 1}" if shots > 1 else "support" for k in range(shots)]
    headings += ["query", "truth"]
    headings += ["prediction"] if episodes[0].prediction is not None else []
    headings += ["prior mask"] if episodes[0].prior is not None else []
    step = tile + _MARGIN
    row = step + _CAPTION
    sheet = Image.new("RGB", (len(headings) * step + _MARGIN, len(episodes) * row + _HEADER), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for column, heading in enumerate(headings):
        draw.text((_MARGIN + column * step, 6), heading, "black", font)
    for number, episode in enumerate(episodes):
        top = _HEADER + number * row
        for column, tile_image in enumerate(_tiles(episode)):
            resized = cv2.resize(tile_image, (tile, tile), interpolation=cv2.INTER_AREA)
            sheet.paste(Image.fromarray(resized), (_MARGIN + column * step, top))
        caption = episode.title if episode.iou is None else f"{episode.title}   IoU {episode.iou:.2f}"
        draw.text((_MARGIN, top + tile + 2), caption, "black", font)
    return sheet


def save_sheet(episodes: Sequence[EpisodePicture], path: Path) -> None:
    """Writes a contact sheet as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    contact_sheet(episodes).save(unfinished, format="PNG")
    unfinished.replace(path)


def _tiles(episode: EpisodePicture) -> list[np.ndarray]:
    query = _as_picture(episode.query)
    tiles = [
        *(
            outline(_as_picture(image), mask.cpu().numpy(), TRUTH_COLOR)
            for image, mask in zip(episode.support, episode.support_mask, strict=True)
        ),
        query,
        outline(query, episode.query_mask.cpu().numpy(), TRUTH_COLOR),
    ]
    if episode.prediction is not None:
        prediction = episode.prediction.cpu().numpy().astype(np.uint8)
        prediction[episode.query_mask.cpu().numpy() == 255] = 255
        tiles.append(outline(query, prediction, PREDICTION_COLOR))
    if episode.prior is not None:
        side = len(query)
        heat = cv2.resize((episode.prior.float().cpu().numpy() * 255).astype(np.uint8), (side, side))
        tiles.append(cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB))
    return tiles


def _as_picture(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).round().byte().cpu().numpy())
