"""Pictures of episodes: supports, query, ground truth and prediction.

Shapes: K shots, S image side, h w feature height and width.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from fss.files.whole import whole

TRUTH_COLOR = (64, 220, 90)
PREDICTION_COLOR = (255, 64, 160)
_MARGIN = 6  # pixels between tiles
_HEADER = 26  # pixels above the first row
_CAPTION = 18  # pixels below each row


class EpisodePicture(NamedTuple):
    """One episode to be drawn. Images are RGB in 0..255; masks contain 0, 1, or 255 for ignored pixels.

    Attributes:
        title: The episode's caption, for example the name of its class.
        query: (3, S, S).
        query_mask: (S, S).
        support: (K, 3, S, S).
        support_mask: (K, S, S).
        prediction: (S, S), 0 or 1; None if there is no prediction.
        prior: (h, w) prior mask in 0..1; None if there is none.
        base: (S, S) prediction of a base learner: 0 background, base classes from 1; None without one.
        iou: Foreground IoU of this episode, in 0..1; None if there is no prediction.
    """

    title: str
    query: Tensor
    query_mask: Tensor
    support: Tensor
    support_mask: Tensor
    prediction: Tensor | None = None
    prior: Tensor | None = None
    base: Tensor | None = None
    iou: float | None = None

    @property
    def caption(self) -> str:
        return self.title if self.iou is None else f"{self.title}   IoU {self.iou:.2f}"


def outline(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Tints the object (mask == 1), draws its contour, and darkens ignored pixels (255).

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


def heat_map(prior: Tensor, side: int) -> np.ndarray:
    """Renders a prior mask (h, w) in 0..1 as an RGB picture (side, side, 3), from dark to bright."""
    heat = cv2.resize((prior.float().cpu().numpy() * 255).astype(np.uint8), (side, side))
    return cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def class_color(label: int) -> tuple[int, int, int]:
    """RGB colour of a class by its label; black for 0, the background."""
    if label == 0:
        return 0, 0, 0
    # hues that differ by the golden ratio are easy to tell apart for consecutive numbers
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.8, 1.0))
    return red, green, blue


def base_map(image: np.ndarray, base: Tensor) -> np.ndarray:
    """Tints the objects that a base learner recognises, with a different colour for each class.

    Args:
        image: (h, w, 3) uint8 RGB.
        base: (h, w): 0 background, base classes from 1.
    """
    shown = image.copy()
    labels = base.cpu().numpy()
    for label in np.unique(labels[labels > 0]):
        color = np.array(class_color(int(label)))
        shown[labels == label] = (0.5 * shown[labels == label] + 0.5 * color).astype(np.uint8)
    return shown


def contact_sheet(episodes: Sequence[EpisodePicture], tile: int = 192) -> Image.Image:
    """Draws one row per episode: supports with masks, query, truth, prediction, prior mask, base map if any.

    Args:
        episodes: One or more, all with the same number of supports and the same optional parts.
        tile: Side of a tile in pixels.
    """
    shots = len(episodes[0].support)
    headings = [f"support {k + 1}" if shots > 1 else "support" for k in range(shots)]
    headings += ["query", "truth"]
    headings += [
        heading
        for heading, part in (
            ("prediction", episodes[0].prediction),
            ("prior mask", episodes[0].prior),
            ("base map", episodes[0].base),
        )
        if part is not None
    ]
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
        draw.text((_MARGIN, top + tile + 2), episode.caption, "black", font)
    return sheet


def picture_sheet(pictures: Sequence[np.ndarray], captions: Sequence[str], tile: int = 224) -> Image.Image:
    """Draws pictures of any sizes in rows of six, each with a caption.

    Args:
        pictures: (h, w, 3) uint8 RGB each; one or more.
        captions: One for each; cut to the width of a tile.
        tile: Longest side of a picture on the sheet, pixels.
    """
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    step, row = tile + _MARGIN, tile + _MARGIN + _CAPTION
    sheet = Image.new("RGB", (columns * step + _MARGIN, rows * row + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = _MARGIN + number % columns * step, _MARGIN + number // columns * row
        sheet.paste(ImageOps.contain(Image.fromarray(picture), (tile, tile)), (left, top))
        while caption and draw.textlength(caption, font) > tile:
            caption = caption[:-1]
        draw.text((left, top + tile + 2), caption, "black", font)
    return sheet


def save_sheet(episodes: Sequence[EpisodePicture], path: Path) -> None:
    """Writes a contact sheet as PNG, atomically."""
    sheet = contact_sheet(episodes)
    with whole(path) as unfinished:
        sheet.save(unfinished, format="PNG")


def _tiles(episode: EpisodePicture) -> list[np.ndarray]:
    query = as_picture(episode.query)
    tiles = [
        *(
            outline(as_picture(image), mask.cpu().numpy(), TRUTH_COLOR)
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
        tiles.append(heat_map(episode.prior, len(query)))
    if episode.base is not None:
        tiles.append(base_map(query, episode.base))
    return tiles


def as_picture(image: Tensor) -> np.ndarray:
    """Converts an image (3, S, S) in 0..255 of any dtype to (S, S, 3) uint8."""
    return np.ascontiguousarray(image.permute(1, 2, 0).round().byte().cpu().numpy())
