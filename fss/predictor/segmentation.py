"""The answer for one picture, and the forms in which it can be shown and kept.

Shapes: N classes, h w height and width of the picture, in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image

from fss.files.plain import as_json
from fss.files.whole import whole
from fss.models.answers import merge_classes
from fss.predictor.refusals import as_path, check_count, check_share
from fss.visualize import class_color, outline


class Instance(NamedTuple):
    """One connected part of a class in a picture.

    Attributes:
        name: Name of the class.
        box: Left, top, width and height in pixels.
        area: Number of pixels.
        score: Mean foreground probability of its pixels, in 0..1.
        mask: (h, w) bool.
    """

    name: str
    box: tuple[int, int, int, int]
    area: int
    score: float
    mask: np.ndarray


@dataclass(frozen=True)
class Segmentation:
    """The classes found in one picture, at its own size.

    Attributes:
        image: The picture (h, w, 3) uint8 RGB, turned as its EXIF orientation says.
        classes: Names of the N classes that were looked for; class i has label i + 1.
        margins: (N, h, w) float32, log-odds of each class's foreground.
        presence: For each class, how sure it is that the picture shows it, in 0..1.
        threshold: Probability that a pixel must exceed to be foreground.
        absent: Names of classes that are left out of the labels because their presence is too low.
        name: How files of this answer are named.
    """

    image: np.ndarray
    classes: tuple[str, ...]
    margins: np.ndarray
    presence: Mapping[str, float]
    threshold: float = 0.5
    absent: frozenset[str] = frozenset()
    name: str = "picture"

    @cached_property
    def labels(self) -> np.ndarray:
        """(h, w) uint8: 0 background, class i + 1; of several classes the most probable above the threshold."""
        cuts = [1.0 if name in self.absent else self.threshold for name in self.classes]
        return merge_classes(torch.from_numpy(self.margins), cuts).numpy().astype(np.uint8)

    @property
    def scores(self) -> np.ndarray:
        """(N, h, w) float32, each class's foreground probability in 0..1."""
        return torch.from_numpy(self.margins).sigmoid().numpy()

    @property
    def present(self) -> dict[str, float]:
        """The classes that the labels show, with their presence in 0..1."""
        shown = np.unique(self.labels[self.labels > 0]).tolist()
        return {self.classes[label - 1]: self.presence[self.classes[label - 1]] for label in shown}

    def mask(self, name: str) -> np.ndarray:
        """(h, w) bool: the pixels labelled as a class.

        Raises:
            KeyError: The class was not looked for.
        """
        if name not in self.classes:
            raise KeyError(f"no class {name!r}; there are {', '.join(self.classes)}")
        return self.labels == self.classes.index(name) + 1

    def at(self, threshold: float) -> Segmentation:
        """The same answer with another threshold, in 0..1, without predicting again."""
        check_share("threshold", threshold)
        return replace(self, threshold=threshold)

    def overlay(self) -> Image.Image:
        """The picture with every class tinted and outlined in its colour."""
        shown = self.image
        for label in np.unique(self.labels[self.labels > 0]).tolist():
            shown = outline(shown, self.labels == label, class_color(label))
        return Image.fromarray(shown)

    def palette(self) -> Image.Image:
        """The labels as a palette picture, in the colours of `overlay`."""
        picture = Image.fromarray(self.labels, "P")
        picture.putpalette([value for label in range(256) for value in class_color(label)])
        return picture

    def instances(self, smallest: int = 1) -> list[Instance]:
        """The 8-connected parts of every class, by class and then from left to right.

        Args:
            smallest: Parts of fewer pixels are left out.

        Raises:
            ValueError: It is no whole number.
        """
        check_count("smallest", smallest, least=0)
        found = []
        for index, name in enumerate(self.classes):
            _, parts, stats, _ = cv2.connectedComponentsWithStats(self.mask(name).astype(np.uint8), connectivity=8)
            scores = self.scores[index]
            for part, (left, top, width, height, area) in enumerate(stats[1:].tolist(), start=1):
                if area >= smallest:
                    mask = parts == part
                    found.append(
                        Instance(name, (left, top, width, height), area, float(scores[mask].mean()), mask)
                    )
        return sorted(found, key=lambda one: (self.classes.index(one.name), one.box))

    def to_coco(self, image_id: int = 1, file_name: str | None = None, first_id: int = 1) -> dict[str, Any]:
        """The answer in COCO's format: `images`, `annotations` with a `score`, `categories`.

        Segmentations are compressed run lengths, which pycocotools and annotation tools read.

        Args:
            image_id: Id of the picture.
            file_name: Of the picture; its name if None.
            first_id: Id of the first annotation.
        """
        from pycocotools import mask as run_lengths

        height, width = self.labels.shape
        annotations = []
        for number, one in enumerate(self.instances(), start=first_id):
            encoded = run_lengths.encode(np.asfortranarray(one.mask, dtype=np.uint8))
            annotations.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": self.classes.index(one.name) + 1,
                    "segmentation": {"size": [height, width], "counts": encoded["counts"].decode("ascii")},
                    "bbox": list(one.box),
                    "area": one.area,
                    "iscrowd": 0,
                    "score": round(one.score, 6),
                }
            )
        return {
            "images": [
                {"id": image_id, "file_name": file_name or self.name, "height": height, "width": width},
            ],
            "annotations": annotations,
            "categories": categories(self.classes),
        }

    def save(self, folder: str | Path) -> None:
        """Writes NAME.png (labels, with a palette), NAME-overlay.jpg and NAME.json (COCO's format), all or none.

        Raises:
            OSError: The folder cannot be written.
            ValueError: It is no name of one.
        """
        folder = as_path("folder", folder)
        with ExitStack() as stack:

            def unfinished(ending: str) -> Path:
                return stack.enter_context(whole(folder / f"{self.name}{ending}"))

            self.palette().save(unfinished(".png"), format="PNG")
            self.overlay().save(unfinished("-overlay.jpg"), format="JPEG", quality=90)
            unfinished(".json").write_text(as_json(self.to_coco(), indent=None), encoding="utf-8")


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Classes in COCO's format; ids from 1."""
    return [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
