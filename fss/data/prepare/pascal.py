"""Prepares PASCAL-5i from the archives of VOC 2012 and SBD."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fss.data.parallel import for_each
from fss.data.prepare.archives import Archive, find_archive, unpack
from fss.data.prepare.masks import write_mask
from fss.data.prepare.matlab import struct_field
from fss.data.readers.pascal import CLASSES, IMAGES, LISTS, MASKS, Pascal, find_voc, read_list
from fss.data.readers.pictures import absent, read_mask
from fss.files.whole import forget_unfinished, whole
from fss.labels import IGNORE

VOC = Archive(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd",
    size=1_999_639_040,
    unpacked=4 * 10**9,
)
SBD = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
    unpacked=8 * 10**9,
)
VOC_FILES = (
    r"(?:.*/)?VOCdevkit/VOC2012/"
    r"(JPEGImages/[^/]+\.jpg|SegmentationClass/[^/]+\.png|ImageSets/(?:Segmentation|Main)/[^/]+\.txt)"
)
SBD_FILES = r"(?:.*/)?benchmark_RELEASE/dataset/((?:train|val)\.txt|cls/[^/]+\.mat)"
PUBLISHED = {"sbd": 11355, "train": 5953}  # pictures in SBD, and in the published training list


class _Task(NamedTuple):
    source: Path
    target: Path


def prepare_pascal(root: Path, archives: Path, workers: int, download: bool = False) -> list[str]:
    """Creates the layout of PASCAL-5i below root: VOC 2012, `SegmentationClassAug/` and the training list.

    The list is the union of VOC's `train` and those of SBD's pictures that are in neither VOC's segmentation `val`
    nor its detection `val` (`ImageSets/Main`), which the `train_noval` list of SBD's authors excludes.

    Args:
        root: The folder VOC2012, or a folder that contains or will contain VOCdevkit/VOC2012.
        archives: Folder of the archives; root is searched too.
        workers: Number of processes.
        download: Download missing archives to `archives`.

    Returns:
        Lines that say what was done.

    Raises:
        FileNotFoundError: If a required archive is missing.
        ValueError: If an archive cannot be downloaded, or if an archive or one of its files is damaged or wrong.
    """
    try:
        voc = find_voc(root)
    except FileNotFoundError:
        voc = root / "VOCdevkit/VOC2012"
    if _is_finished(voc):
        return ["Nothing to do: everything is in place."]
    places = (archives, root)
    done = []

    lists = [voc / f"ImageSets/{name}.txt" for name in ("Segmentation/train", "Segmentation/val", "Main/val")]
    if absent(lists) or absent(_voc_files(voc)):
        archive = find_archive(VOC, places, download)
        done.append(f"{unpack(archive, VOC_FILES, voc, VOC.unpacked)} files unpacked from {VOC.name}.")
        _check_complete(archive, [*lists])
        _check_complete(archive, _voc_files(voc))

    sbd = next((f for p in places if not _sbd_gaps(f := p / "benchmark_RELEASE/dataset")), None)
    if sbd is None:
        archive, sbd = find_archive(SBD, places, download), root / "benchmark_RELEASE/dataset"
        done.append(f"{unpack(archive, SBD_FILES, sbd, SBD.unpacked)} files unpacked from {SBD.name}.")
        _check_complete(archive, [sbd / "train.txt", sbd / "val.txt"])
        _check_complete(archive, _sbd_gaps(sbd))

    train, val, main_val = (set(read_list(path)) for path in lists)
    sbd_all = _sbd_stems(sbd)
    listed = sorted(train | sbd_all - val - main_val)
    pictures = [voc / IMAGES / f"{stem}.jpg" for stem in sorted(train | val | sbd_all)]
    if absent(pictures):
        archive = find_archive(VOC, places, download)
        done.append(f"{unpack(archive, VOC_FILES, voc, VOC.unpacked)} files unpacked from {VOC.name}.")
        _check_complete(archive, pictures)

    sources = {stem: sbd / f"cls/{stem}.mat" for stem in sbd_all}
    sources |= {stem: voc / f"SegmentationClass/{stem}.png" for stem in train | val}  # prefer VOC's own masks
    targets = {voc / MASKS / f"{stem}.png": source for stem, source in sorted(sources.items())}
    tasks = [_Task(targets[target], target) for target in absent(targets)]
    for place in {target.parent for target in targets}:
        forget_unfinished(place)
    for_each(_render, tasks, workers, "Drawing masks")
    done.append(f"{len(tasks)} masks drawn, {len(targets) - len(tasks)} already existed.")
    # written last, as a sign that everything else is complete
    with whole(voc / LISTS["train"]) as unfinished:
        unfinished.write_text("\n".join(listed) + "\n")
    if len(sbd_all) == PUBLISHED["sbd"] and len(listed) != PUBLISHED["train"]:
        done.append(f"The training list has {len(listed)} pictures; the published one has {PUBLISHED['train']}.")
    return done


def summary(root: Path) -> list[str]:
    """Lines with the number of pictures, masks and classes in both image sets."""
    lines = []
    for image_set in ("train", "val"):
        n = len(Pascal(str(root), image_set))
        lines.append(f"pascal5i {image_set}: {n} pictures, {n} masks, {len(CLASSES)} classes")
    return lines


def _is_finished(voc: Path) -> bool:
    lists = [voc / name for name in LISTS.values()]
    if absent(lists):
        return False
    stems = [stem for path in lists for stem in read_list(path)]
    needed = [
        voc / folder / f"{stem}{end}" for folder, end in ((IMAGES, ".jpg"), (MASKS, ".png")) for stem in stems
    ]
    return not absent(needed)


def _voc_files(voc: Path) -> list[Path]:
    """Pictures and masks named in VOC's own lists."""
    stems = [
        stem
        for name in ("train", "val")
        if (path := voc / f"ImageSets/Segmentation/{name}.txt").is_file()
        for stem in read_list(path)
    ]
    folders = ((IMAGES, ".jpg"), ("SegmentationClass", ".png"))
    return [voc / folder / f"{stem}{end}" for folder, end in folders for stem in stems]


def _sbd_stems(sbd: Path) -> set[str]:
    return {stem for name in ("train.txt", "val.txt") for stem in read_list(sbd / name)}


def _sbd_gaps(sbd: Path) -> list[Path]:
    """Files missing from an unpacked SBD."""
    lists = [sbd / "train.txt", sbd / "val.txt"]
    return absent(lists) or absent(sbd / f"cls/{stem}.mat" for stem in sorted(_sbd_stems(sbd)))


def _check_complete(archive: Path, needed: Iterable[Path]) -> None:
    if missing := absent(needed):
        raise ValueError(
            f"{archive} lacks {len(missing)} files that its lists name, the first is {missing[0].name}: it is "
            "truncated or another release, download it again"
        )


def _render(task: _Task) -> None:
    mask = read_mask(task.source) if task.source.suffix == ".png" else read_sbd(task.source)
    unknown = sorted(set(np.unique(mask).tolist()) - {0, IGNORE, *range(1, len(CLASSES) + 1)})
    if unknown:
        raise ValueError(f"{task.source} contains class ids {unknown}, not 1 to {len(CLASSES)}: download it again")
    write_mask(task.target, mask)


def read_sbd(path: Path) -> np.ndarray:
    """Reads the class ids (h, w) uint8 of one of SBD's files.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    try:
        mask = struct_field(path.read_bytes(), "GTcls", "Segmentation")
        if not np.array_equal(mask, mask.astype(np.uint8)):
            raise ValueError("it holds numbers other than 0 to 255")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it and run this command again") from error
    return mask.astype(np.uint8)
