"""PASCAL-5i with the official masks and blank pictures: what the published lists and episodes come from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

from fss.data.readers.pascal import IMAGES, MASKS
from support import ROOT

ARCHIVE = ROOT.parent / "shared" / "voc2012_masks.tar"


def unpack(folder: Path) -> Path:
    """Unpacks the masks and puts a blank picture of its size beside each; returns the folder VOC2012.

    Pictures of one size have one content, encoded once.
    """
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    root = folder / "VOC2012"
    (root / IMAGES).mkdir()
    blank: dict[tuple[int, int], bytes] = {}
    for mask in sorted((root / MASKS).iterdir()):
        picture = root / IMAGES / f"{mask.stem}.jpg"
        with Image.open(mask) as opened:
            size = opened.size
        if size not in blank:
            encoded = io.BytesIO()
            Image.new("RGB", size).save(encoded, "JPEG")
            blank[size] = encoded.getvalue()
        picture.write_bytes(blank[size])
    return root
