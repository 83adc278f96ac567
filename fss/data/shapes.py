"""The embedded data set `shapes`: procedural pictures with masks, for runs that need no download.

A picture is made in two steps with a random stream each. The *layout* says which objects lie where and gives
the mask; it is cheap, so that all masks of a split can be scanned at once. The *painting* adds background,
textures, light and noise, and is done once a picture, then kept in memory.
"""

from __future__ import annotations

import colorsys
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage
import torch

from fss.data.shapes_classes import CLASSES, OUTLINES, TEXTURES, Field, Tint

Bytes = npt.NDArray[np.uint8]

# Photographs of scikit-image's wheel (the rest of its data would be downloaded). Those of validation are
# others, so that a network that has learnt the training backgrounds by heart gains nothing.
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
SPLITS = tuple(PHOTOGRAPHS)

DISTRACTORS = (0.15, 0.45, 0.40)  # probability of 0, 1, 2 further objects
PLACEMENT_TRIES = 40  # for each distractor, before it is given up
MIN_VISIBLE = 0.6  # of an object's pixels that lie in the picture
MIN_AREA = 0.012  # of the picture
RADIUS = (0.15, 0.29)  # of the picture's side
MAX_ROTATION = 50.0  # degrees
HUE_JITTER = 20.0  # degrees

_LAYOUT, _PAINT = 0, 1  # numbers of the random streams
_SUBPIXEL_BITS = 4  # OpenCV takes corners as integers, here in 1/16 pixel
_PHOTOGRAPH_SIDE = 420  # pixels of the shorter side that a photograph is kept at


# Layout


@dataclass(frozen=True)
class Placed:
    """An object with its place in the picture.

    Attributes:
        class_id: 1..16.
        centre: the object frame's origin, (x, y) in pixels; a pixel's middle has integer coordinates.
        linear: (2, 2), takes (x, y) in radii to pixels relative to the centre.
        rows, columns: the window of the picture that holds the object.
        alpha: (window height, window width) uint8, how far the object covers each pixel, 0..255.
        solid: the same as bool, True where the mask has the object unless another one hides it.
    """

    class_id: int
    centre: npt.NDArray[np.float64]
    linear: npt.NDArray[np.float64]
    rows: slice
    columns: slice
    alpha: Bytes
    solid: npt.NDArray[np.bool_]

    @property
    def radius(self) -> float:
        """The mean radius in pixels."""
        return float(np.sqrt(np.abs(np.linalg.det(self.linear))))


@dataclass(frozen=True)
class Layout:
    """What lies where: the objects from back to front, and the (size, size) uint8 mask that they make."""

    objects: tuple[Placed, ...]
    mask: Bytes


def place(class_id: int, size: int, rng: np.random.Generator) -> Placed:
    """Puts an object into a picture of size x size pixels, its middle 3/4 radius or more from the border."""
    radius = size * rng.uniform(*RADIUS)
    centre = rng.uniform(0.75 * radius, size - 0.75 * radius, 2)
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    scale_x, scale_y = rng.uniform(0.82, 1.2, 2)
    shear = rng.uniform(-0.15, 0.15)
    mirror = 1 if rng.random() < 0.5 else -1
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = radius * rotation @ np.array([[mirror * scale_x, shear], [0, scale_y]])

    loops = [loop @ linear.T + centre for loop in OUTLINES[CLASSES[class_id - 1].shape]]
    # The first loop is the outer one. A pixel of margin on each side is for the anti-aliasing.
    low = np.maximum(np.floor(loops[0].min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(loops[0].max(axis=0)) + 2, size).astype(int)
    alpha = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    corners = [np.round((loop - low) * (1 << _SUBPIXEL_BITS)).astype(np.int32) for loop in loops]
    cv2.fillPoly(alpha, corners, (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    return Placed(class_id, centre, linear, rows, columns, alpha, alpha > 127)


def stack(objects: Sequence[Placed], size: int) -> Bytes:
    """The mask of objects that lie on each other from back to front: (size, size), 0 or the class id."""
    mask = np.zeros((size, size), np.uint8)
    for item in objects:
        mask[item.rows, item.columns][item.solid] = item.class_id
    return mask


def well_visible(objects: Sequence[Placed], mask: Bytes) -> bool:
    """Whether the mask shows enough of every object (all of different classes) for it to be told."""
    for item in objects:
        seen = np.count_nonzero(mask[item.rows, item.columns] == item.class_id)
        if seen < MIN_VISIBLE * np.count_nonzero(item.solid) or seen <= MIN_AREA * mask.size:
            return False
    return True


def lay_out(target: int, size: int, rng: np.random.Generator) -> Layout:
    """A layout with the target class and 0 to 2 distractors of other classes, in front of it or behind.

    The layout is well visible after every step, hence at the end; a distractor for which no place is found
    is left out.
    """
    count = rng.choice(len(DISTRACTORS), p=DISTRACTORS)
    others = [c for c in range(1, len(CLASSES) + 1) if c != target]
    distractors = rng.choice(others, count, replace=False)

    objects = [place(target, size, rng)]
    mask = stack(objects, size)
    while not well_visible(objects, mask):  # rare: a small, thin object of which a part sticks out
        objects = [place(target, size, rng)]
        mask = stack(objects, size)

    for distractor in distractors:
        for _ in range(PLACEMENT_TRIES):
            depth = int(rng.integers(len(objects) + 1))
            trial = [*objects[:depth], place(int(distractor), size, rng), *objects[depth:]]
            trial_mask = stack(trial, size)
            if well_visible(trial, trial_mask):
                objects, mask = trial, trial_mask
                break
    return Layout(tuple(objects), mask)


# Painting. A canvas is a (size, size, 3) float32 RGB picture in 0..1, painted on in place.


def _rgb(hue: float, saturation: float, value: float) -> npt.NDArray[np.float32]:
    """The colour of a hue in degrees; saturation and value are clipped to 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, min(saturation, 1), min(value, 1)), np.float32)


def _any_colour(rng: np.random.Generator, saturation: tuple[float, float]) -> npt.NDArray[np.float32]:
    return _rgb(rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(0.2, 1))


def _vary(tint: Tint, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    hue = tint.hue + rng.uniform(-HUE_JITTER, HUE_JITTER)
    return _rgb(hue, tint.saturation * rng.uniform(0.75, 1.2), tint.value * rng.uniform(0.75, 1.15))


def photograph_path(name: str) -> Path:
    """Where scikit-image keeps a photograph; FileNotFoundError if it does not."""
    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, a photograph that scikit-image's wheel ships and `shapes` takes backgrounds "
            "from; reinstall it: pip install --force-reinstall --no-deps scikit-image"
        )
    return path


@functools.cache
def _photograph(name: str) -> Bytes:
    """The photograph as (height, width, 3) RGB, scaled down to what backgrounds need."""
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
    """A square out of one of the split's photographs, with a colour cast."""
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
    """A plane that rises in a random direction, (size, size), within -1..1 and 0 in the middle."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    # A corner is sqrt(2) away from the middle.
    x, y = np.float32(np.cos(angle) / np.sqrt(2)), np.float32(np.sin(angle) / np.sqrt(2))
    return x * axis + y * axis[:, None]


def _gradient(size: int, rng: np.random.Generator) -> Field:
    share = (0.5 + 0.5 * _ramp(size, rng))[..., None]
    begin, end = _any_colour(rng, (0, 0.7)), _any_colour(rng, (0, 0.7))
    return begin + share * (end - begin)


def _colour_noise(size: int, rng: np.random.Generator) -> Field:
    """Coloured clouds, from a few large ones to a grain of some pixels."""
    knots = int(rng.integers(4, 40))
    cells = rng.random((knots, knots, 3), dtype=np.float32)
    noise = cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise * rng.uniform(0.4, 1) + rng.uniform(0, 0.3), dtype=np.float32)


def _add_clutter(picture: Bytes, rng: np.random.Generator) -> None:
    """Up to five strokes and blobs, which belong to no class."""
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
    """Darkens softly what is below and right of an object."""
    size = len(canvas)
    blur, shift = 0.02 * size, round(0.02 * size)
    margin = shift + int(np.ceil(3 * blur))
    top, left = max(item.rows.start - margin, 0), max(item.columns.start - margin, 0)
    area = canvas[top : item.rows.stop + margin, left : item.columns.stop + margin]
    shadow = np.zeros(area.shape[:2], np.float32)
    begin_y, begin_x = item.rows.start - top + shift, item.columns.start - left + shift
    under = shadow[begin_y : begin_y + item.alpha.shape[0], begin_x : begin_x + item.alpha.shape[1]]
    under[:] = item.alpha[: under.shape[0], : under.shape[1]]  # what would fall outside the picture is cut
    strength = rng.uniform(0.3, 0.55) / 255
    area *= 1 - np.float32(strength) * cv2.GaussianBlur(shadow, (0, 0), blur)[..., None]


def _paint_object(canvas: Field, item: Placed, rng: np.random.Generator) -> None:
    """Lays a textured, shaded object on the canvas."""
    kind = CLASSES[item.class_id - 1]
    # Pixels of the window in the object frame.
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
    """The camera's part: uneven light, sometimes blur, noise."""
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
    """Paints a layout on a background of the split: (size, size, 3) uint8 RGB."""
    canvas = _background(split, len(layout.mask), rng)
    for item in layout.objects:
        if rng.random() < 0.5:
            _cast_shadow(canvas, item, rng)
        _paint_object(canvas, item, rng)
    return _to_bytes(_expose(canvas, rng))


# Reader


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
        self._pictures = _shared_zeros((images, size, size, 3))
        self._painted = _shared_zeros((images,))

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


def _shared_zeros(shape: tuple[int, ...]) -> torch.Tensor:
    """Bytes in shared memory or, where there is too little of it (containers), in this process's own."""
    zeros = torch.zeros(shape, dtype=torch.uint8)
    try:
        zeros.share_memory_()
    except RuntimeError as error:
        warnings.warn(
            f"shapes: no {zeros.numel() >> 20} MiB of shared memory ({error}); every worker process will "
            "paint its pictures anew. In a container, raise the limit, as with docker run --shm-size",
            stacklevel=3,
        )
    return zeros
