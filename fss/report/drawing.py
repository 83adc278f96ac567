"""What all drawings of reports share: colours and matplotlib's settings for SVG."""

from __future__ import annotations

from typing import Any

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
