"""The sixteen classes of the data set `shapes`: outlines, textures and the table that pairs them.

Everything here uses the *object frame*: x to the right, y down, the origin in the object's centre and 1 = one
object radius. `fss.data.readers.shapes.layout` and `painting` place, scale and colour the objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""A closed loop of corners (x, y), shape (n, 2), in radii."""

Field = npt.NDArray[np.floating]
"""Values per pixel, float32: (height, width), or (height, width, 3) for colours."""

Texture = Callable[[Field, Field, np.random.Generator, float], Field]
"""(x, y, rng, radius in pixels) -> field in 0..1; the radius tells how wide a one-pixel edge is."""

TURN = 2 * math.pi


# Outlines. An object is the even-odd fill of its loops, so a second loop inside the first is a hole.


def _polar(radius: npt.NDArray[np.float64], start: float = 0.0) -> Points:
    """The loop with these radii at equally spaced angles."""
    angle = start + np.arange(len(radius)) * TURN / len(radius)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _circle(radius: float = 1.0, corners: int = 64) -> Points:
    return _polar(np.full(corners, radius))


def _arc(centre_x: float, radius: float, begin: float, end: float, corners: int = 40) -> Points:
    """Corners on a circle around (centre_x, 0) from one angle to another, both in radians."""
    angle = np.linspace(begin, end, corners)
    return np.stack([centre_x + radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


def _star(tips: int = 5, waist: float = 0.42) -> Points:
    return _polar(np.tile([1.0, waist], tips), start=-TURN / 4)


def _heart() -> Points:
    t = np.arange(80) * TURN / 80
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, 2 - y], axis=1) / 17


def _flower(petals: int = 6, depth: float = 0.22) -> Points:
    return _polar(1 - depth + depth * np.cos(petals * np.arange(120) * TURN / 120))


def _crescent(bite_x: float = 0.36, bite: float = 0.78) -> Points:
    """A unit disc without the disc of radius `bite` around (bite_x, 0)."""
    x = (1 - bite**2 + bite_x**2) / (2 * bite_x)  # where the two circles meet
    y = np.sqrt(1 - x**2)
    outer, inner = np.arctan2(y, x), np.arctan2(y, x - bite_x)
    return np.concatenate([_arc(0, 1, outer, TURN - outer), _arc(bite_x, bite, TURN - inner, inner)[1:-1]])


def _fish() -> Points:
    body = _arc(-0.2, 0.8, 0.12 * np.pi, 1.88 * np.pi) * [1, 0.68]
    tail = _polygon((1.02, -0.55), (0.88, 0.0), (1.02, 0.55))
    return np.concatenate([body, tail])


def _leaf() -> Points:
    x = np.linspace(-1.1, 1.1, 30)
    y = 0.55 * (1 - (x / 1.1) ** 2)
    return np.concatenate([np.stack([x, y], axis=1), np.stack([x, -y], axis=1)[-2:0:-1]])


def _gear(teeth: int = 9, root: float = 0.74) -> Points:
    phase = np.sin(teeth * np.arange(240) * TURN / 240)
    return _polar(np.clip(0.5 * (1 + root) + 0.4 * phase, root, 1.0))  # clipped sine: slightly sloped flanks


def _mushroom() -> Points:
    cap = _arc(0, 1, np.pi, TURN, 30) * [1, 0.8] + [0, 0.05]
    stem = _polygon((0.3, 0.12), (0.38, 0.9), (-0.38, 0.9), (-0.3, 0.12))
    return np.concatenate([cap, stem])


_ARROW = _polygon((-1, -0.28), (0.1, -0.28), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.28), (-1, 0.28))
_CROSS = _polygon(
    (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
    (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
)  # fmt: skip
_TRIANGLE = _polygon((0, -1), (0.92, 0.75), (-0.92, 0.75))
_BAR = _polygon((-1.1, -0.4), (1.1, -0.4), (1.1, 0.4), (-1.1, 0.4))
_ELL = _polygon((-0.8, -0.95), (-0.15, -0.95), (-0.15, 0.25), (0.9, 0.25), (0.9, 0.9), (-0.8, 0.9))

OUTLINES: dict[str, tuple[Points, ...]] = {
    "star": (_star(),),
    "ring": (_circle(), _circle(0.48)),
    "heart": (_heart(),),
    "arrow": (_ARROW,),
    "cross": (_CROSS,),
    "flower": (_flower(),),
    "crescent": (_crescent(),),
    "triangle": (_TRIANGLE,),
    "hexagon": (_circle(corners=6),),
    "fish": (_fish(),),
    "leaf": (_leaf(),),
    "gear": (_gear(), _circle(0.3)),
    "mushroom": (_mushroom(),),
    "bar": (_BAR,),
    "ball": (_circle(0.95),),
    "ell": (_ELL,),
}


# Textures. A value of 1 gives the class's first tint, 0 its second. Phase and frequency are drawn for each
# object; edges are about one pixel wide, whatever the object's size, to avoid aliasing.


def _frequency(rng: np.random.Generator, usual: float) -> float:
    """Periods per radius, with some random variation."""
    return usual * rng.uniform(0.85, 1.2)


def _step(distance: Field, softness: float | Field) -> Field:
    """0 below, 1 above distance 0, with a ramp `softness` wide."""
    ramp: Field = np.clip(distance / softness + 0.5, 0, 1)
    return ramp


def _band(phase: Field, duty: float, softness: float | Field) -> Field:
    """1 in the middle `duty` of each period of a phase counted in periods, else 0."""
    return _step(duty / 2 - np.abs(phase % 1 - 0.5), softness)


def _noise(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Smooth noise, about N(0, 0.7), with one independent knot per unit of x and y."""
    knots = rng.standard_normal((32, 32), dtype=np.float32)
    return cv2.remap(knots, x + 16, y + 16, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP).astype(np.float32)


def _stripes(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.4)
    return _band(f * x + rng.random(), 0.5, f / radius)


def _dots(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.6)
    across, down = (f * x + rng.random()) % 1 - 0.5, (f * y + rng.random()) % 1 - 0.5
    return _step(0.3 - np.hypot(across, down), f / radius)


def _scales(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    """Overlapping scales, each light in the middle and dark at the rim."""
    f = _frequency(rng, 2.2)
    down = 1.8 * f * y + rng.random()
    row = np.floor(down)
    across = np.abs((f * x + 0.5 * (row % 2)) % 1 - 0.5)
    below = 0.5 * (down - row)
    own = np.hypot(across, below)
    covered = np.hypot(0.5 - across, 0.5 - below)  # the next row is visible where this row's scale ends
    rim: Field = np.where(own < 0.5, own, covered)
    return 1 - (2 * rim) ** 3


def _checker(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 1.5)
    a = _band(f * x + rng.random(), 0.5, f / radius)
    b = _band(f * y + rng.random(), 0.5, f / radius)
    return a + b - 2 * a * b


def _bricks(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f, g = _frequency(rng, 1.4), _frequency(rng, 2.6)
    course = g * y + rng.random()
    along = f * x + rng.random() + 0.5 * (np.floor(course + 0.5) % 2)  # a joint's middle is at phase 1/2
    return 1 - np.maximum(_band(course, 0.18, g / radius), _band(along, 0.1, f / radius))


def _spokes(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    count = int(rng.integers(8, 12))
    around = count / TURN  # periods per radian, that is, per arc length of one radius
    softness = around / (radius * np.maximum(np.hypot(x, y), 0.1))
    return _band(around * np.arctan2(y, x) + rng.random(), 0.5, softness)


def _speckle(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 7.0)
    return _step(_noise(f * x, f * y, rng), 1.2)


def _zigzag(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.2)
    fold = np.abs((2 * x + 2 * rng.random()) % 2 - 1)
    return _band(f * (y + 0.26 * fold) + rng.random(), 0.5, f / radius)


def _rings(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.6)
    return _band(f * np.hypot(x, y) + rng.random(), 0.5, f / radius)


def _waves(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.0)
    bent = x + 0.13 * np.sin(TURN * (1.2 * y + rng.random()))
    return _band(f * bent + rng.random(), 0.5, f / radius)


def _hatch(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.2)
    rising = _band(f * (x + y) + rng.random(), 0.22, 1.4 * f / radius)
    falling = _band(f * (x - y) + rng.random(), 0.22, 1.4 * f / radius)
    return np.maximum(rising, falling)


def _grid(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.4)
    upright = _band(f * x + rng.random(), 0.22, f / radius)
    level = _band(f * y + rng.random(), 0.22, f / radius)
    return 1 - np.maximum(upright, level)


def _blotch(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.6)
    return _step(_noise(f * x, f * y, rng) + 0.15, 2 * f / radius)


def _wood(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    f = _frequency(rng, 2.4)
    bent = y + 0.3 * _noise(0.9 * x + rng.random(), 1.4 * y + rng.random(), rng)
    grain: Field = np.sin(TURN * (f * bent + rng.random()))
    return 0.5 + 0.5 * grain


def _glossy(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    shine_x, shine_y = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)
    lit: Field = np.clip(1.05 - _frequency(rng, 0.9) * np.hypot(x - shine_x, y - shine_y), 0, 1)
    return 1 - lit**2


def _split(x: Field, y: Field, rng: np.random.Generator, radius: float) -> Field:
    """Two plain halves that meet roughly where the arms of the L meet."""
    tilt, shift = rng.uniform(0.12, 0.16) * TURN, rng.uniform(-0.15, 0.15)
    return _step((x + 0.15) * math.cos(tilt) + (y - 0.25) * math.sin(tilt) + shift, 1 / radius)


TEXTURES: dict[str, Texture] = {
    "stripes": _stripes,
    "dots": _dots,
    "scales": _scales,
    "checker": _checker,
    "bricks": _bricks,
    "spokes": _spokes,
    "speckle": _speckle,
    "zigzag": _zigzag,
    "rings": _rings,
    "waves": _waves,
    "hatch": _hatch,
    "grid": _grid,
    "blotch": _blotch,
    "wood": _wood,
    "glossy": _glossy,
    "split": _split,
}


class Tint(NamedTuple):
    """A colour before its variation: hue in degrees, saturation and value in 0..1."""

    hue: float
    saturation: float
    value: float


class ShapeClass(NamedTuple):
    """One class: keys of `OUTLINES` and `TEXTURES`, and the tints of texture 1 and texture 0."""

    shape: str
    texture: str
    first: Tint
    second: Tint

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.texture}"


# The order defines the folds (four consecutive classes each): do not sort.
CLASSES: tuple[ShapeClass, ...] = (
    ShapeClass("star", "stripes", Tint(55, 0.75, 0.95), Tint(0, 0.80, 0.75)),
    ShapeClass("ring", "dots", Tint(210, 0.75, 0.75), Tint(50, 0.60, 0.95)),
    ShapeClass("heart", "scales", Tint(345, 0.65, 0.95), Tint(340, 0.85, 0.55)),
    ShapeClass("arrow", "checker", Tint(120, 0.20, 0.95), Tint(60, 0.20, 0.20)),
    ShapeClass("cross", "bricks", Tint(15, 0.20, 0.85), Tint(30, 0.80, 0.70)),
    ShapeClass("flower", "spokes", Tint(300, 0.60, 0.85), Tint(50, 0.75, 0.95)),
    ShapeClass("crescent", "speckle", Tint(50, 0.15, 0.95), Tint(40, 0.60, 0.55)),
    ShapeClass("triangle", "zigzag", Tint(175, 0.75, 0.70), Tint(20, 0.75, 0.95)),
    ShapeClass("hexagon", "rings", Tint(270, 0.60, 0.70), Tint(90, 0.60, 0.90)),
    ShapeClass("fish", "waves", Tint(25, 0.85, 0.95), Tint(200, 0.50, 0.90)),
    ShapeClass("leaf", "hatch", Tint(110, 0.75, 0.45), Tint(75, 0.55, 0.90)),
    ShapeClass("gear", "grid", Tint(210, 0.15, 0.35), Tint(220, 0.30, 0.85)),
    ShapeClass("mushroom", "blotch", Tint(0, 0.85, 0.80), Tint(30, 0.10, 0.98)),
    ShapeClass("bar", "wood", Tint(28, 0.60, 0.75), Tint(22, 0.75, 0.40)),
    ShapeClass("ball", "glossy", Tint(230, 0.85, 0.60), Tint(200, 0.20, 1.00)),
    ShapeClass("ell", "split", Tint(330, 0.60, 0.75), Tint(150, 0.60, 0.60)),
)
