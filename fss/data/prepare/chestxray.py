"""Prepares the chest X-rays: unpacks both hospitals' and joins the lungs that Montgomery's archive keeps apart."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from fss.data.index import build_index
from fss.data.parallel import for_each
from fss.data.prepare.archives import Archive, find_archive, unpack
from fss.data.prepare.masks import write_mask
from fss.data.readers.chestxray import MASKED, MASKS, PICTURES, SETS, open_chestxray
from fss.data.readers.pictures import absent, image_size, read_region
from fss.data.readers.regions import with_suffix
from fss.files.whole import forget_unfinished

# Kaggle's "Chest Xray Masks and Labels", to which PATNet's program points: both hospitals, lungs already joined.
# Some copies hold everything twice. Its checksum is not known, so it is not downloaded here.
KAGGLE = Archive("https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels/archive.zip")
# The National Library of Medicine's, of Montgomery alone. SHA-256 as torch-em records it.
MONTGOMERY = Archive(
    "https://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip",
    sha256="54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424",
)
LUNGS = ("ManualMask/leftMask", "ManualMask/rightMask")


def prepare_chestxray(root: Path, archives: Path, workers: int, download: bool = False) -> list[str]:
    """Unpacks pictures and masks below root, and joins Montgomery's two lungs where only its own archive is there.

    Args:
        root: Folder of the data set, created if missing.
        archives: Folder of the archives; root is searched too. Either of them is enough.
        workers: Number of processes that join lungs.
        download: Download Montgomery's archive if neither is there.

    Returns:
        Lines that say what is there.

    Raises:
        FileNotFoundError: If neither archive is there and must not be downloaded.
        ValueError: If one cannot be downloaded, is damaged or wrong, lacks a lung, or holds a mask that is none.
    """
    places = tuple(dict.fromkeys((archives, root)))
    here = {archive for archive in (KAGGLE, MONTGOMERY) if any((at / archive.name).is_file() for at in places)}
    if not here and not download:
        raise FileNotFoundError(
            f"neither {KAGGLE.name} nor {MONTGOMERY.name} in {' or '.join(map(str, places))}: download the former "
            f"from {KAGGLE.url} (both hospitals) or the latter from {MONTGOMERY.url} (Montgomery alone) and give "
            "its folder with --archives, or have the latter downloaded with --download"
        )
    if KAGGLE in here:
        unpack(
            find_archive(KAGGLE, places),
            rf"(?:.*/)?Lung Segmentation/((?:{PICTURES}|{MASKS})/[^/]+\.png)",
            root,
        )
    if MONTGOMERY in here or KAGGLE not in here:
        _join_lungs(find_archive(MONTGOMERY, places, download), root, workers)
    return [_summary(root, name) for name in SETS if _of(name, root / MASKS)]


def _join_lungs(archive: Path, root: Path, workers: int) -> None:
    """Unpacks Montgomery's archive and writes a mask of both lungs for every picture that has none yet."""
    folders = "|".join((PICTURES, *LUNGS))
    unpack(archive, rf"(?:.*/)?MontgomerySet/((?:{folders})/[^/]+\.png)", root)
    pictures = _of("montgomery", root / PICTURES)
    halves = [root / lung / picture.name for picture in pictures for lung in LUNGS]
    if missing := absent(halves):
        raise ValueError(
            f"{archive} lacks {len(missing)} masks of its pictures, the first is "
            f"{missing[0].relative_to(root)}: it is truncated or another release, download it again"
        )
    forget_unfinished(root / MASKS)
    joined = absent(root / MASKS / picture.name for picture in pictures)
    for_each(partial(_join, root), [path.name for path in joined], workers, "Joining lungs")


def _join(root: Path, name: str) -> None:
    size = image_size(root / PICTURES / name)
    both = np.zeros(size, bool)
    for path in (root / lung / name for lung in LUNGS):
        lung = read_region(path)
        if lung.shape != size:
            (height, width), (own_height, own_width) = size, lung.shape
            raise ValueError(
                f"{path} has {own_width} x {own_height} pixels, its picture {width} x {height}: delete it and run "
                "this command again, or download the archive again"
            )
        both |= lung
    write_mask(root / MASKS / name, both * np.uint8(255))


def _of(hospital: str, folder: Path) -> list[Path]:
    return [path for path in with_suffix(folder, ".png") if path.name.startswith(SETS[hospital])]


def _summary(root: Path, hospital: str) -> str:
    """Reads every mask, so that what cannot be used is told now, with its name."""
    reader = open_chestxray(str(root), (hospital,))
    build_index(reader, f"Checking masks of {hospital}")
    return (
        f"chestxray {hospital}: {len(_of(hospital, root / PICTURES))} pictures, {len(reader)} masks "
        f"(the official archives have {MASKED[hospital]} masks)"
    )
