"""The answers as one file to keep: masks, overlays, and the objects in COCO's format."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fss.files.whole import whole
from fss.predictor import Segmentation


def coco(found: Sequence[Segmentation]) -> dict[str, Any]:
    """The answers for several pictures in COCO's format; image ids count from 1, as do annotation ids."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    for number, answer in enumerate(found, start=1):
        one = answer.to_coco(number, f"{answer.name}.png", len(annotations) + 1)
        images += one["images"]
        annotations += one["annotations"]
        categories = one["categories"]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_zip(found: Sequence[Segmentation], path: Path) -> None:
    """Writes `masks/NAME.png` (palette: 0 background, classes from 1), `overlays/NAME.jpg` and `predictions.json`.

    Raises:
        OSError: The file could not be written.
    """
    with whole(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for answer in found:
            # PNG and JPEG are compressed already
            archive.writestr(f"masks/{answer.name}.png", _encoded(answer.palette(), "PNG"))
            archive.writestr(f"overlays/{answer.name}.jpg", _encoded(answer.overlay(), "JPEG"))
        archive.writestr("predictions.json", json.dumps(coco(found), indent=1), zipfile.ZIP_DEFLATED)


def _encoded(picture: Any, format_: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_)
    return file.getvalue()
