"""Background, textures, light and noise: paints a layout of `shapes`.

A canvas is a (size, size, 3) float32 RGB picture in 0..1 that is painted in place.
"""

from __future__ import annotations

import colorsys
import functools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage

from fss.data.readers.shapes.classes import CLASSES, TEXTURES, Field, Tint
from fss.data.readers.shapes.layout import Bytes, Layout, Placed

# Photographs included in scikit-image's wheel (the rest of its data would have to be downloaded). Validation uses
# different ones, so that memorising the training backgrounds does not help a network.
PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "coffee.png",
        "coins.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "motorcycle_left.png",
    ),
    "val": (
        "chelsea.png",
        "grass.png",
        "ihc.png",
        "moon.png",
        "retina.jpg",
        "rocket.jpg",
        "text.png",
    ),
}

HUE_JITTER = 20.0  # degrees
_PHOTOGRAPH_SIDE = 420  # pixels; photographs are kept with their shorter side at this length


def _rgb(hue: float, saturation: float, value: float) -> npt.NDArray[np.float32]:
    """RGB colour of a hue in degrees; saturation and value are clipped to at most 1."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, min(saturation, 1), min(value, 1)), np.float32)


def _any_colour(rng: np.random.Generator, saturation: tuple[float, float]) -> npt.NDArray[np.float32]:
    return _rgb(rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(0.2, 1))


def _vary(tint: Tint, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    hue = tint.hue + rng.uniform(-HUE_JITTER, HUE_JITTER)
    return _rgb(hue, tint.saturation * rng.uniform(0.75, 1.2), tint.value * rng.uniform(0.75, 1.15))


def photograph_path(name: str) -> Path:
    """Path of a photograph in scikit-image; raises FileNotFoundError if it is missing."""
    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, a photograph from scikit-image's wheel that `shapes` uses as a background; "
            "reinstall it: pip install --force-reinstall --no-deps scikit-image"
        )
    return path


@functools.cache
def _photograph(name: str) -> Bytes:
    """Photograph (height, width, 3) RGB, scaled to the size that backgrounds need."""
    path = photograph_path(name)
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError(f"{path} cannot be decoded; reinstall scikit-image")
    height, width = picture.shape[:2]
    scale = _PHOTOGRAPH_SIDE / min(height, width)
    shape = (round(width * scale), round(height * scale))
    kept = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.ascontiguousarray(kept[:, :, ::-1], dtype=np.uint8)


def _photograph_crop(split: str, size: int, rng: np.random.Generator) -> Field:
    """Square crop of one of the split's photographs, with a colour cast."""
    names = PHOTOGRAPHS[split]
    picture = _photograph(names[int(rng.integers(len(names)))])
    height, width = picture.shape[:2]
    side = int(rng.uniform(0.35, 0.95) * min(height, width))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop: Bytes = picture[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = np.ascontiguousarray(crop[:, ::-1])
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    scaled = cv2.resize(crop, (size, size), interpolation=method)
    return scaled.astype(np.float32) * (rng.uniform(0.7, 1.15, 3) / 255).astype(np.float32)


def _ramp(size: int, rng: np.random.Generator) -> Field:
    """Plane that rises in a random direction: (size, size), within -1..1 and 0 in the centre."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    # The corners are sqrt(2) away from the centre.
    x, y = np.float32(np.cos(angle) / np.sqrt(2)), np.float32(np.sin(angle) / np.sqrt(2))
    return x * axis + y * axis[:, None]


def _gradient(size: int, rng: np.random.Generator) -> Field:
    share = (0.5 + 0.5 * _ramp(size, rng))[..., None]
    begin, end = _any_colour(rng, (0, 0.7)), _any_colour(rng, (0, 0.7))
    return begin + share * (end - begin)


def _colour_noise(size: int, rng: np.random.Generator) -> Field:
    """Coloured noise, from a few large clouds to a grain of a few pixels."""
    knots = int(rng.integers(4, 40))
    cells = rng.random((knots, knots, 3), dtype=np.float32)
    noise = cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise * rng.uniform(0.4, 1) + rng.uniform(0, 0.3), dtype=np.float32)


def _add_clutter(picture: Bytes, rng: np.random.Generator) -> None:
    """Draws up to five strokes and blobs that belong to no class."""
    size = len(picture)
    for _ in range(int(rng.integers(0, 6))):
        x0, y0, x1, y1 = rng.integers(0, size, 4).tolist()
        colour = (255 * _any_colour(rng, (0.2, 0.9))).tolist()
        if rng.random() < 0.6:
            thickness = int(rng.integers(1, 2 + size // 32))
            cv2.line(picture, (x0, y0), (x1, y1), colour, thickness, cv2.LINE_AA)
        else:
            axes = rng.integers(1 + size // 40, 2 + size // 12, 2).tolist()
            cv2.ellipse(picture, (x0, y0), axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)


def _background(split: str, size: int, rng: np.random.Generator) -> Field:
    kind = rng.random()
    if kind < 0.6:
        canvas = _photograph_crop(split, size, rng)
    elif kind < 0.8:
        canvas = _gradient(size, rng)
    else:
        canvas = _colour_noise(size, rng)
    picture = _to_bytes(canvas)  # OpenCV draws smooth lines only on bytes
    _add_clutter(picture, rng)
    return picture.astype(np.float32) / 255


def _cast_shadow(canvas: Field, item: Placed, rng: np.random.Generator) -> None:
    """Draws a soft shadow below and to the right of an object."""
    size = len(canvas)
    blur, shift = 0.02 * size, round(0.02 * size)
    margin = shift + int(np.ceil(3 * blur))
    top, left = max(item.rows.start - margin, 0), max(item.columns.start - margin, 0)
    area = canvas[top : item.rows.stop + margin, left : item.columns.stop + margin]
    shadow = np.zeros(area.shape[:2], np.float32)
    begin_y, begin_x = item.rows.start - top + shift, item.columns.start - left + shift
    under = shadow[begin_y : begin_y + item.alpha.shape[0], begin_x : begin_x + item.alpha.shape[1]]
    under[:] = item.alpha[: under.shape[0], : under.shape[1]]  # cut off at the picture's border
    strength = rng.uniform(0.3, 0.55) / 255
    area *= 1 - np.float32(strength) * cv2.GaussianBlur(shadow, (0, 0), blur)[..., None]


def _paint_object(canvas: Field, item: Placed, rng: np.random.Generator) -> None:
    """Paints a textured, shaded object on the canvas."""
    kind = CLASSES[item.class_id - 1]
    # Coordinates of the window's pixels in the object frame.
    across = np.arange(item.columns.start, item.columns.stop) - item.centre[0]
    down = np.arange(item.rows.start, item.rows.stop)[:, None] - item.centre[1]
    (xx, xy), (yx, yy) = np.linalg.inv(item.linear)
    x, y = (xx * across + xy * down).astype(np.float32), (yx * across + yy * down).astype(np.float32)

    share = TEXTURES[kind.texture](x, y, rng, item.radius)
    first, second = _vary(kind.first, rng), _vary(kind.second, rng)
    light, angle = rng.uniform(0, 0.3), rng.uniform(0, 2 * np.pi)
    shading = 1 + np.float32(light * np.cos(angle)) * x + np.float32(light * np.sin(angle)) * y
    colour = (second + share[..., None] * (first - second)) * shading[..., None]

    window = canvas[item.rows, item.columns]
    window += (colour - window) * (item.alpha.astype(np.float32) / 255)[..., None]


def _expose(canvas: Field, rng: np.random.Generator) -> Field:
    """Simulates a camera: uneven light, sometimes blur, and noise."""
    size = len(canvas)
    light = np.float32(rng.uniform(0.8, 1.15)) * (1 + np.float32(rng.uniform(0, 0.2)) * _ramp(size, rng))
    canvas = canvas * light[..., None]
    if rng.random() < 0.4:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.1)), np.float32)
    canvas += np.float32(rng.uniform(0, 0.04)) * rng.standard_normal(canvas.shape, dtype=np.float32)
    return canvas


def _to_bytes(canvas: Field) -> Bytes:
    levels: Field = np.clip(canvas * 255 + 0.5, 0, 255)
    return levels.astype(np.uint8)


def paint(layout: Layout, split: str, rng: np.random.Generator) -> Bytes:
    """Paints a layout on one of the split's backgrounds: (size, size, 3) uint8 RGB."""
    canvas = _background(split, len(layout.mask), rng)
    for item in layout.objects:
        if rng.random() < 0.5:
            _cast_shadow(canvas, item, rng)
        _paint_object(canvas, item, rng)
    return _to_bytes(_expose(canvas, rng))
