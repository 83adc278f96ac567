"""Names the supports whose object is too small to be seen at the size that the network gets."""

from __future__ import annotations

import logging

from torch import Tensor

from fss.data.plan import Picture
from fss.data.readers.reader import Reader
from fss.display.shown import shown
from fss.files.text import some

logger = logging.getLogger(__name__)


class EmptySupports:
    """Counts supports, and those whose mask lost its object when it was resized.

    Attributes:
        seen: Supports so far, each picture and class once.
        empty: Those among them that show nothing, as "class in file".
    """

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.empty: dict[tuple[str, str], None] = {}  # in order

    def look(self, file: str, name: str, mask: Tensor) -> None:
        """Adds a support.

        Args:
            file: Of the picture.
            name: Of the class.
            mask: (S, S) as the network gets it; 1 is the object.
        """
        self.seen.add((file, name))
        if not bool((mask == 1).any()):
            self.empty[file, name] = None

    def look_at(self, picture: Picture, reader: Reader) -> None:
        """Adds a picture as a support of each class of which it is one.

        Args:
            picture: As the network gets it.
            reader: Names the file and the classes.
        """
        for class_id, mask in picture.masks.items():
            self.look(reader.name(picture.number), reader.classes[class_id - 1], mask)

    def tell(self) -> None:
        """Logs a warning if there are empty supports, and forgets them."""
        if self.empty:
            listed = some((f"{name} in {file}" for file, name in self.empty), 5)
            logger.warning(
                "%d of %d supports show nothing of their object at this size: %s; raise dataset.size or "
                "dataset.min_pixels",
                *(len(self.empty), len(self.seen), shown(listed)),
            )
        self.seen.clear()
        self.empty.clear()
