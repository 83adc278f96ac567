"""Prepares COCO-20i from the official archives: unpacks pictures and annotations, and draws every label map."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from fss.data.parallel import for_each
from fss.data.prepare.archives import LARGEST, Archive, find_archive, unpack
from fss.data.prepare.masks import write_mask
from fss.data.readers.coco import Crowd, Drawing, MaskTask, annotations_path, draw, picture_folders
from fss.data.readers.coco_masks import Contents, digest, folder_of, mask_path, read_contents, write_contents
from fss.data.readers.pictures import absent
from fss.files.whole import forget_unfinished

# By way of the bucket's own address: the official one, http://images.cocodataset.org, has no certificate.
URL = "https://s3.amazonaws.com/images.cocodataset.org"
# Size and SHA-256 of the files, as TensorFlow Datasets records them.
KNOWN = {
    "train2014.zip": (13_510_573_713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
    "val2014.zip": (6_645_013_297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
    "train2017.zip": (19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
    "val2017.zip": (815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
    "annotations_trainval2014.zip": (
        252_872_794,
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
    "annotations_trainval2017.zip": (
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
}


class _Task(NamedTuple):
    mask: MaskTask
    target: Path


def prepare_coco(
    root: Path, archives: Path, image_set: str, year: int, crowd: Crowd, workers: int, download: bool = False
) -> list[str]:
    """Unpacks the missing files of an image set and draws its masks into `masks/` below root.

    Masks are drawn into a temporary folder named after the digest of the annotation file; it is renamed when all
    of them are complete.

    Args:
        root: Folder of COCO, created if missing.
        archives: Folder of the archives; root is searched too.
        image_set: "train" or "val".
        year: Release year, 2014 or 2017.
        crowd: "include" crowd regions in their class or "ignore" them.
        workers: Number of processes.
        download: Download missing archives to `archives`.

    Returns:
        Lines that say what was done and what the image set now contains.

    Raises:
        FileNotFoundError: If a required archive is missing.
        ValueError: If an archive cannot be downloaded, or if an archive or the annotations are damaged or wrong.
    """
    split, places, done = f"{image_set}{year}", (archives, root), []
    annotations = annotations_path(root, split)
    if not annotations.is_file():
        official = official_archive(f"annotations/annotations_trainval{year}.zip")
        archive = find_archive(official, places, download)
        unpack(archive, rf"(?:.*/)?(annotations/instances_[^/]+{year}\.json)", root, official.unpacked)
        if not annotations.is_file():
            raise ValueError(f"{archive} contains no {annotations.name}: download it again")
        done.append(f"{split}: annotations unpacked from {archive.name}.")

    folder = folder_of(root, split, crowd)
    contents, drawing = read_contents(folder, annotations), None
    if contents is None:
        drawing = Drawing(annotations, crowd)
        contents = Contents(digest(annotations), drawing.classes, drawing.pictures)

    candidates = picture_folders(root, split)
    pictures = next((f for f in candidates if f.is_dir() and any(f.iterdir())), candidates[0])
    needed = [pictures / picture for picture in contents.pictures]
    if absent(needed):
        official = official_archive(f"zips/{split}.zip")
        archive = find_archive(official, places, download)
        n = unpack(archive, rf"(?:.*/)?{re.escape(split)}/([^/]+\.jpg)", pictures, official.unpacked)
        if missing := absent(needed):
            raise ValueError(
                f"{archive} lacks {len(missing)} pictures of {annotations}, the first is {missing[0].name}: "
                "download it again"
            )
        done.append(f"{split}: {n} pictures unpacked from {archive.name}.")

    unfinished = folder.with_name(f"{folder.name}.{contents.annotations[:12]}.part")
    if drawing is None and absent(mask_path(folder, picture) for picture in contents.pictures):
        drawing = Drawing(annotations, crowd)
        if not unfinished.exists():
            folder.rename(unfinished)  # some masks are missing; keep the others
    if drawing:
        drawn = _draw_all(drawing, contents, unfinished, workers)
        shutil.rmtree(folder, ignore_errors=True)  # drawn from other annotations
        unfinished.rename(folder)
        done.append(f"{split}: {drawn} masks drawn, {len(contents.pictures) - drawn} already existed.")
    n = len(contents.pictures)
    return [
        *(done or [f"{split}: nothing to do, everything is in place."]),
        f"coco20i {split}: {n} pictures, {n} masks, {len(contents.classes)} classes",
    ]


def official_archive(path: str) -> Archive:
    """An archive of COCO, by its path on the server; one that is not known here has neither size nor checksum."""
    size, sha256 = KNOWN.get(path.rpartition("/")[2], (None, None))
    # pictures are stored as they are, JSON shrinks to a tenth
    unpacked = LARGEST if size is None else max(size * 11 // 10, 4 * 10**9)
    return Archive(f"{URL}/{path}", sha256=sha256, size=size, unpacked=unpacked)


def _draw_all(drawing: Drawing, contents: Contents, folder: Path, workers: int) -> int:
    """Draws the masks missing from the folder and returns their number."""
    paths = [mask_path(folder, picture) for picture in contents.pictures]
    number = {path: i for i, path in enumerate(paths)}
    forget_unfinished(folder)
    tasks = [_Task(drawing.task(number[path]), path) for path in absent(paths)]
    for_each(_draw, tasks, workers, f"Drawing masks of {folder.parent.name}/{folder.name}")
    write_contents(folder, contents)
    return len(tasks)


def _draw(task: _Task) -> None:
    write_mask(task.target, draw(task.mask))
