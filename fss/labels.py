"""Numbers in label maps that are no class ids: what every part of the project agrees on.

Class ids start at 1; 0 is background. Label maps are uint8, or uint16 for data sets of more classes.
"""

from __future__ import annotations

import numpy as np

IGNORE = 255  # label of pixels that count neither in losses nor in metrics, in uint8 maps
MAX_CLASSES = 254  # of label maps of uint8
# What lists of classes call 0, which is no class; lower case.
BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__", "bg", "_bg_"})


def ignored(labels: np.ndarray) -> np.ndarray:
    """(h, w) bool: the pixels of a label map that are to be ignored, the greatest number of its type."""
    return labels == np.iinfo(labels.dtype).max
