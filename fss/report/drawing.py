"""What all drawings of reports share: colours and matplotlib's settings for SVG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

_COLORS = ("#3b82c4", "#d9713c", "#3f9e6b", "#b65fb0", "#a08a1f", "#5f6fc9", "#c94f68", "#3a9ba5")
SVG_SETTINGS: Any = {  # matplotlib types every name of a setting
    "svg.fonttype": "none",
    "svg.hashsalt": "fss",
    "text.parse_math": False,  # a name is no formula
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def color_of(number: int) -> str:
    """The colour of line `number`, from 0; they repeat."""
    return _COLORS[number % len(_COLORS)]


def as_svg(figure: Figure) -> str:
    """The text of an SVG file, the same for the same drawing; call it within `SVG_SETTINGS`."""
    figure.patch.set_facecolor("white")  # readable on dark pages too
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
