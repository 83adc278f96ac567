"""Prepares SUIM: unpacks both parts of it and looks at every mask."""

from __future__ import annotations

from pathlib import Path

from fss.data.check.census import count_classes
from fss.data.index import build_index
from fss.data.prepare.archives import Archive, find_archive, unpack
from fss.data.readers.regions import beside
from fss.data.readers.suim import PARTS, Suim

# Their page, and behind the mark the names of the files. Checksums are not known, so they are not downloaded here.
PAGE = "https://irvlab.cs.umn.edu/resources/suim-dataset"
ARCHIVES = tuple(Archive(f"{PAGE}#/{part}.zip") for part in PARTS)


def prepare_suim(root: Path, archives: Path, download: bool = False) -> list[str]:
    """Unpacks pictures and masks below root, as they are, and reads every mask.

    Args:
        root: Folder of the data set, created if missing.
        archives: Folder of the archives; root is searched too.
        download: Refused, as long as no checksum of the archives is known.

    Returns:
        Lines that say what is there.

    Raises:
        FileNotFoundError: If an archive is missing.
        ValueError: If one is damaged or wrong, or if masks are missing or are none; the message names them.
    """
    for part, archive in zip(PARTS, ARCHIVES, strict=True):
        path = find_archive(archive, (archives, root), download)
        unpack(path, rf"(?:.*/)?({part}/(?:images/[^/]+\.jpg|masks/[^/]+\.bmp))", root)
        pictures, masks = (beside(root / part / folder) for folder in ("images", "masks"))
        if alone := sorted(pictures.keys() ^ masks.keys()):
            lacking = "mask" if alone[0] in pictures else "picture"
            raise ValueError(
                f"{path}: {len(alone)} pictures and masks are alone, the first is {part}'s {alone[0]} without a "
                f"{lacking}: it is truncated or another release, download it again"
            )
    reader = Suim(root)
    index = build_index(reader, "Checking masks")
    counts = count_classes(index, len(reader.classes), 1)
    listed = ", ".join(f"{name} {count}" for name, count in zip(reader.classes, counts, strict=True))
    return [
        f"suim: {len(reader)} pictures (the official archives have {reader.official.pictures})",
        f"suim: pictures that show each class: {listed}",
    ]
