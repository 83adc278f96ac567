"""Conventions for label maps that the whole project follows.

Class ids start at 1; 0 is background. Label maps are uint8, or uint16 for data sets with more classes.
"""

from __future__ import annotations

import numpy as np

IGNORE = 255  # label in uint8 maps for pixels that are left out of losses and metrics
MAX_CLASSES = 254  # in a uint8 label map
# What lists of classes call 0, which is not a class; lower case.
BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__", "bg", "_bg_"})


def ignored(labels: np.ndarray) -> np.ndarray:
    """(h, w) bool: the ignored pixels of a label map, which hold the largest value of its dtype."""
    return labels == np.iinfo(labels.dtype).max
