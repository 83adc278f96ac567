"""The answers as one file to keep: masks, overlays, and the objects in COCO's format."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from fss.files.whole import whole
from fss.predictor import Segmentation


def write_zip(found: Iterable[Segmentation], path: Path) -> None:
    """Writes `masks/NAME.png` (palette: 0 background, classes from 1), `overlays/NAME.jpg` and `predictions.json`.

    Args:
        found: Answers with different names, of which only one at a time is held.
        path: The zip file.

    Raises:
        OSError: The file could not be written.
    """
    coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    with whole(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for number, answer in enumerate(found, start=1):
            one = answer.to_coco(number, f"{answer.name}.png", len(coco["annotations"]) + 1)
            coco["images"] += one["images"]
            coco["annotations"] += one["annotations"]
            coco["categories"] = one["categories"]
            # PNG and JPEG are compressed already
            archive.writestr(f"masks/{answer.name}.png", _encoded(answer.palette(), "PNG"))
            archive.writestr(f"overlays/{answer.name}.jpg", _encoded(answer.overlay(), "JPEG"))
        archive.writestr("predictions.json", json.dumps(coco, indent=1), zipfile.ZIP_DEFLATED)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()
