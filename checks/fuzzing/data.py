"""What is read as data: pictures, masks, annotations, lists, archives, and the index kept beside them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from checks.fuzzing.mutations import damaged_json, damaged_lines
from checks.fuzzing.target import FileTarget, Target
from fss.data import index_cache
from fss.data.index import Index, build_index
from fss.data.lists import in_order
from fss.data.prepare.archives import unpack
from fss.data.prepare.coco import prepare_coco
from fss.data.prepare.pascal import read_sbd
from fss.data.readers.coco import Coco
from fss.data.readers.folder import open_folder
from fss.data.readers.pascal import read_list
from fss.data.readers.pictures import image_size, read_image, read_mask, read_region

H, W = 20, 30
SMALL = 10**6  # pixels at most, so that no trial takes long


def label_map(number: int = 0) -> np.ndarray:
    """(H, W) uint8: two objects."""
    mask = np.zeros((H, W), np.uint8)
    mask[4:12, 5 + number : 20] = 1
    mask[10:18, 12:28] = 2
    return mask


def _picture(path: Path, number: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (H, W, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def _mask(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


# Single pictures and masks


def _write_mask(folder: Path) -> Sequence[Path]:
    return [_mask(folder / "mask.png", label_map())]


def _write_palette(folder: Path) -> Sequence[Path]:
    image = Image.fromarray(label_map())
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(folder / "mask.png", bits=4)
    return [folder / "mask.png"]


def _picture_of(suffix: str) -> Callable[[Path], Sequence[Path]]:
    return lambda folder: [_picture(folder / f"picture{suffix}")]


def _read_picture(folder: Path) -> bytes:
    [path] = folder.iterdir()
    image = read_image(path, SMALL)
    assert image_size(path, SMALL) == image.shape[:2]
    return image.tobytes()


# Data sets as folders


def annotation_file() -> dict[str, Any]:
    """COCO's format with all its kinds of segmentation."""
    runs = {"size": [H, W], "counts": [85, 5, 15, 5, 15, 5, 470]}
    compressed = {"size": [H, W], "counts": "c26>00000000000000000000000Q8"}
    polygon = [[5, 4, 20, 4, 20, 12, 5, 12], [1.5, 1.5, 3, 1.5, 3, 3]]
    shapes = [polygon, runs, compressed, [[12, 10, 28, 10, 28, 18, 12, 18]]]
    return {
        "info": {"description": "made up"},
        "images": [{"id": i, "file_name": f"p{i}.png", "height": H, "width": W} for i in (1, 2)],
        "categories": [{"id": c, "name": name, "supercategory": "thing"} for c, name in ((3, "ant"), (7, "bee"))],
        "annotations": [
            {
                **{"id": k, "image_id": 1 + k % 2, "category_id": (3, 7)[k // 2], "iscrowd": 0},
                **{"segmentation": shape, "area": 1.0, "bbox": [0, 0, 1, 1]},
            }
            for k, shape in enumerate(shapes)
        ],
    }


def _write_annotated(folder: Path) -> Sequence[Path]:
    for i in (1, 2):
        _picture(folder / f"images/p{i}.png", i)
    (folder / "annotations.json").write_text(json.dumps(annotation_file()))
    return [folder / "annotations.json"]


def _read_folder(folder: Path) -> object:
    reader = open_folder(str(folder), max_pixels=SMALL)
    build_index(reader)
    for i in range(len(reader)):
        assert reader.image(i).shape[:2] == reader.mask(i).shape
    return None


def _write_folder(folder: Path) -> Sequence[Path]:
    files = [_picture(folder / f"images/p{i}.png", i) for i in (1, 2)]
    files += [_mask(folder / f"masks/p{i}.png", label_map(i)) for i in (1, 2)]
    (folder / "classes.txt").write_text("ant\nbee\ncat\n")
    return files


def _write_class_names(folder: Path) -> Sequence[Path]:
    _write_folder(folder)
    return [folder / "classes.txt"]


def _write_class_folders(folder: Path) -> Sequence[Path]:
    for i in (1, 2):
        _picture(folder / f"images/p{i}.png", i)
    return [
        _mask(folder / f"masks/{name}/p{i}.png", (label_map(i) == c).astype(np.uint8) * 255)
        for i in (1, 2)
        for c, name in ((1, "ant"), (2, "bee"))
    ]


def _write_prepared(folder: Path) -> Sequence[Path]:
    content = annotation_file()
    for entry in content["images"]:
        _picture(folder / "train2014" / entry["file_name"], entry["id"])
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_train2014.json").write_text(json.dumps(content))
    prepare_coco(folder, folder, "train", 2014, "include", workers=1)
    return [folder / "masks/train2014-include/contents.json"]


def _read_coco(folder: Path) -> object:
    reader = Coco(str(folder), "train", max_pixels=SMALL)
    index = build_index(reader)
    return reader.classes, [reader.name(i) for i in range(len(reader))], [column.tolist() for column in index]


# Lists, archives, the index


def _write_list(folder: Path) -> Sequence[Path]:
    (folder / "train.txt").write_text("".join(f"2007_{i:06d}\n" for i in range(20)))
    return [folder / "train.txt"]


def _read_list(folder: Path) -> object:
    """What the names lead to stays in the folder."""
    for stem in read_list(folder / "train.txt"):
        path = folder / "masks" / f"{stem}.png"
        assert path.resolve().parent == (folder / "masks").resolve()
        path.is_file()
    return None


def _write_order(folder: Path) -> Sequence[Path]:
    _write_folder(folder)
    (folder / "order.txt").write_text("images/p2.png masks/p2.png\np1\n")
    return [folder / "order.txt"]


def _read_order(folder: Path) -> object:
    reader = open_folder(str(folder), max_pixels=SMALL)
    listed, index = in_order(reader, build_index(reader), folder / "order.txt")
    assert len(index.image) <= 2 * len(listed) <= 4
    return None


def _write_mat(folder: Path) -> Sequence[Path]:
    savemat(folder / "a.mat", {"GTcls": {"Segmentation": label_map()}}, do_compression=True)
    return [folder / "a.mat"]


NAMES = [f"VOCdevkit/VOC2012/JPEGImages/{i}.jpg" for i in range(4)]


def _write_tar(mode: str) -> Callable[[Path], Sequence[Path]]:
    def write(folder: Path) -> Sequence[Path]:
        with tarfile.open(folder / "a.tar", f"w:{mode}") as archive:  # type: ignore[call-overload]
            for name in NAMES:
                info = tarfile.TarInfo(name)
                info.size = 300
                archive.addfile(info, io.BytesIO(name.encode().ljust(300, b"x")))
        return [folder / "a.tar"]

    return write


def _write_zip(folder: Path) -> Sequence[Path]:
    with zipfile.ZipFile(folder / "a.tar", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            archive.writestr(name, name.ljust(300, "x"))
    return [folder / "a.tar"]


def _unpack(folder: Path) -> object:
    target = folder / "unpacked"
    unpack(folder / "a.tar", r"(?:.*/)?VOC2012/(JPEGImages/.+\.jpg)", target, limit=10**6)
    return None


def _index() -> dict[str, np.ndarray]:
    rows = np.arange(300)
    return {**Index(rows, rows % 7 + 1, rows * 3 + 1)._asdict(), "remarks": np.array(["a", "bé"])}


def _write_index(folder: Path) -> Sequence[Path]:
    index_cache.save(folder / "folder.npz", "key", _index())
    return [folder / "folder.npz"]


def _read_index(folder: Path) -> object:
    """What is kept, or, where it is damaged, what a new scan would find."""
    kept = index_cache.load(folder / "folder.npz", "key", tuple(_index())) or _index()
    return {name: column.tolist() for name, column in kept.items()}


TARGETS: list[Target] = [
    FileTarget(
        "mask png", _write_mask, lambda folder: read_mask(folder / "mask.png", SMALL).tobytes(), exact=True
    ),
    FileTarget("mask palette", _write_palette, lambda f: read_mask(f / "mask.png", SMALL).tobytes(), exact=True),
    FileTarget("mask region", _write_mask, lambda f: read_region(f / "mask.png", SMALL).tobytes(), exact=True),
    FileTarget("picture jpeg", _picture_of(".jpg"), _read_picture),
    FileTarget("picture png", _picture_of(".png"), _read_picture, exact=True),
    FileTarget("picture tiff", _picture_of(".tif"), _read_picture),
    FileTarget("picture webp", _picture_of(".webp"), _read_picture),
    FileTarget("picture bmp", _picture_of(".bmp"), _read_picture),
    FileTarget("coco json", _write_annotated, _read_folder, damaged_json),
    FileTarget("folder of masks", _write_folder, _read_folder),
    FileTarget("folder of classes", _write_class_folders, _read_folder),
    FileTarget("classes.txt", _write_class_names, _read_folder, damaged_lines),
    FileTarget("contents.json", _write_prepared, _read_coco, damaged_json, exact=True),
    FileTarget("list of pictures", _write_list, _read_list, damaged_lines),
    FileTarget("order of evaluation", _write_order, _read_order, damaged_lines),
    FileTarget("sbd mat", _write_mat, lambda folder: read_sbd(folder / "a.mat").shape),
    FileTarget("archive tar", _write_tar(""), _unpack),
    FileTarget("archive tgz", _write_tar("gz"), _unpack),
    FileTarget("archive xz", _write_tar("xz"), _unpack),
    FileTarget("archive zip", _write_zip, _unpack),
    FileTarget("index cache", _write_index, _read_index, exact=True),
]
