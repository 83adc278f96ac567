"""Pictures that somebody has marked, as supports of a network.

Shapes: h w height and width of a picture, S side of the square that the network sees.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fss.data.preprocessing import EvaluationTransform
from fss.files.text import is_name
from fss.geometry import fitted
from fss.labels import IGNORE
from fss.predictor.inputs import Picture, as_mask, as_picture, is_picture
from fss.predictor.marks import Box, Points, grow
from fss.predictor.network import Network
from fss.predictor.refusals import named
from fss.predictor.supports import Support

Annotation = Picture | Box | Points
Shots = Iterable[tuple[Picture, Annotation]]
_PAIRS = "give {name: [(picture, mask), ...]}"


class MarkedPictures:
    """Reads supports.

    Args:
        network: Gives the features on which points are grown.
        transform: Evaluation's preprocessing.
        max_pixels: Larger pictures are refused.
    """

    def __init__(self, network: Network, transform: EvaluationTransform, max_pixels: int) -> None:
        self._network, self._transform, self._max_pixels = network, transform, max_pixels

    def square(self, picture: np.ndarray) -> Tensor:
        """A picture (h, w, 3) as (3, S, S) float32."""
        pixels, _ = self._transform(picture, np.zeros(picture.shape[:2], np.uint8))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def negative(self, picture: np.ndarray) -> Support:
        """A picture (h, w, 3) that shows nothing of a class."""
        size, mask = self._transform.size, np.full((self._transform.size,) * 2, IGNORE, np.uint8)
        height, width = picture.shape[:2]
        rows, columns = fitted(height, width, size, self._transform.geometry)
        mask[:rows, :columns] = 0
        return Support(self.square(picture), torch.from_numpy(mask))

    def read(self, shots: Shots, name: str) -> list[Support]:
        """The supports of a class.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: There is none, or a picture, annotation or the name cannot be used.
        """
        if not isinstance(name, str) or not is_name(name):
            raise ValueError(f"a class cannot be named {name!r:.100}: give printable text")
        found = []
        if is_picture(shots) or not isinstance(shots, Iterable):
            raise ValueError(f"the supports of {name!r} are no list: {_PAIRS}")
        for number, shot in enumerate(shots, start=1):
            if not isinstance(shot, list | tuple) or len(shot) != 2:
                raise ValueError(f"support {number} of {name!r} is no pair of picture and mask: {_PAIRS}")
            picture, annotation = shot
            with named(f"support {number} of {name!r}"):
                found.append(self._support(as_picture(picture, self._max_pixels), annotation))
        if not found:
            raise ValueError(f"no supports for {name!r}: give at least one picture with a mask")
        return found

    def _support(self, image: np.ndarray, annotation: Annotation) -> Support:
        height, width = image.shape[:2]
        marks = np.zeros((height, width), np.uint8)
        if isinstance(annotation, Points):
            annotation.check(height, width)
        elif isinstance(annotation, Box):
            marks = annotation.mask(height, width)
        else:
            marks = as_mask(annotation, (height, width), self._max_pixels)
        pixels, small = self._transform(image, marks)
        square = torch.from_numpy(pixels).permute(2, 0, 1)
        if isinstance(annotation, Points):
            covered = fitted(height, width, self._transform.size, self._transform.geometry)
            [query] = self._network.encode_queries([square])
            grown = grow(query.features, annotation, (height, width), covered, self._transform.size)
            small[: covered[0], : covered[1]] = grown[: covered[0], : covered[1]]
        if not (small == 1).any():
            marked = np.count_nonzero(marks == 1)
            size = self._transform.size
            raise ValueError(
                f"its object of {marked} pixels vanishes at the {size} pixels that the model sees: crop the "
                "picture around it"
            )
        return Support(square, torch.from_numpy(small))
