"""Measures the cost of loading: training images, compared with the published recipe, and the index of a data set.

    python -m bench.loading [--images 100] [--runs 5] [--pictures 82000]

Training images: milliseconds on one core (processor time, one thread) from files to a batch of 4 episodes, on the
same JPEGs of 500 x 375 pixels and masks, in paired runs; medians. The published recipe is a plain implementation:
OpenCV on float32, in the published order (read, find and select the class, scale, rotate, blur, flip, pad, crop,
convert to tensor, normalise, batch).

Decoders: milliseconds of each library on the same JPEGs, and the difference of its pixels from OpenCV's.

Index: a first scan of masks of the same kind on all cores, and a start with the cached index of a COCO with many
pictures, whose annotation file has the official size.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data
from torch.utils.data import default_collate
from torchvision.io import decode_jpeg, read_file

from fss.data import index_cache
from fss.data.episodes import EpisodeDataset, collate
from fss.data.index import Index, build_index, build_pool, keep_index
from fss.data.parallel import cores
from fss.data.picture_cache import CachedReader, PictureCache
from fss.data.prepare.masks import write_mask
from fss.data.readers.coco import Coco
from fss.data.readers.coco_masks import Contents, digest, folder_of, mask_path, write_contents
from fss.data.readers.folder import Folder
from fss.data.readers.pictures import read_image
from fss.data.readers.reader import Reader
from fss.data.transforms import TrainingTransform
from fss.labels import IGNORE

HEIGHT, WIDTH, SIZE, SCALE = 375, 500, 473, (0.9, 1.1)  # PASCAL-5i
BATCH = 4  # episodes of two images
MEAN = [255 * mean for mean in (0.485, 0.456, 0.406)]
STD = [255 * std for std in (0.229, 0.224, 0.225)]
ANNOTATIONS = 318 << 20  # bytes of instances_train2014.json


def make_pictures(root: Path, n: int) -> None:
    """Writes random crops of photographs, each with an object of class 1 and an ignored border, as in VOC."""
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    chance = random.Random(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        h, w = photograph.shape[:2]
        top, left = chance.randrange(h // 4), chance.randrange(w // 4)
        crop = cv2.resize(photograph[top : top + 3 * h // 4, left : left + 3 * w // 4], (WIDTH, HEIGHT))
        Image.fromarray(crop).save(root / f"images/{i:05d}.jpg", quality=90)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        center = (chance.randrange(100, 400), chance.randrange(100, 275))
        axes = (chance.randrange(40, 140), chance.randrange(40, 140))
        cv2.ellipse(mask, center, axes, 0, 0, 360, 1, cv2.FILLED)
        cv2.ellipse(mask, center, axes, 0, 0, 360, IGNORE, 3)
        write_mask(root / f"masks/{i:05d}.png", mask)


def published(
    image_path: str, mask_path: str, is_query: bool, chance: random.Random, kind: type = np.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prepares one training image as the published programs do; with bytes (`kind`), all but normalisation."""
    read = np.asarray(cv2.imread(image_path, cv2.IMREAD_COLOR))
    image: Any = cv2.cvtColor(read, cv2.COLOR_BGR2RGB).astype(kind)
    mask: Any = np.asarray(cv2.imread(mask_path, cv2.IMREAD_GRAYSCALE))
    if is_query:  # the classes of a support are known
        assert 1 in np.unique(mask)
    chosen, ignored = np.where(mask == 1), np.where(mask == IGNORE)
    mask[:] = 0
    mask[chosen] = 1
    mask[ignored] = IGNORE

    factor = chance.uniform(*SCALE)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    if chance.random() < 0.5:
        h, w = mask.shape
        turn = cv2.getRotationMatrix2D((w / 2, h / 2), chance.uniform(-10, 10), 1)
        constant = cv2.BORDER_CONSTANT
        image = cv2.warpAffine(image, turn, (w, h), flags=cv2.INTER_LINEAR, borderMode=constant, borderValue=MEAN)
        mask = cv2.warpAffine(mask, turn, (w, h), flags=cv2.INTER_NEAREST, borderMode=constant, borderValue=IGNORE)
    if chance.random() < 0.5:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    if chance.random() < 0.5:
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    h, w = mask.shape
    missing_h, missing_w = max(SIZE - h, 0), max(SIZE - w, 0)
    if missing_h or missing_w:
        top, left = missing_h // 2, missing_w // 2
        bottom, right = missing_h - top, missing_w - left
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=MEAN)
        mask = cv2.copyMakeBorder(mask, top, bottom, left, right, cv2.BORDER_CONSTANT, value=IGNORE)
    h, w = mask.shape
    whole_object = np.sum(mask == 1)
    for _ in range(31):
        top, left = chance.randint(0, h - SIZE), chance.randint(0, w - SIZE)
        cropped = mask[top : top + SIZE, left : left + SIZE]
        if np.sum(cropped == 1) >= 0.85 * whole_object:
            break
    image = image[top : top + SIZE, left : left + SIZE]

    if kind is np.uint8:
        return torch.from_numpy(image), torch.from_numpy(cropped)
    tensor = torch.from_numpy(image.transpose((2, 0, 1))).float()
    for channel, mean, std in zip(tensor, MEAN, STD, strict=True):
        channel.sub_(mean).div_(std)
    return tensor, torch.from_numpy(cropped).long()


def per_image(work: Callable[[], int]) -> float:
    """Milliseconds of processor time per image; `work` returns the number of images."""
    start = time.process_time()
    images = work()
    return 1000 * (time.process_time() - start) / images


def training_images(root: Path, runs: int, console: Console) -> None:
    reader = Folder(str(root))
    pool = build_pool(build_index(reader), [1], shot=1, min_pixels=2048)
    n = len(reader)

    def ours(source: Reader) -> Callable[[], int]:
        episodes = EpisodeDataset(source, pool, 1, 0, TrainingTransform(SIZE, SCALE))

        def batches() -> int:
            for start in range(0, n, BATCH):
                collate([episodes[i] for i in range(start, start + BATCH)])
            return 2 * n  # one query and one support each

        return batches

    paths = [(str(root / f"images/{i:05d}.jpg"), str(root / f"masks/{i:05d}.png")) for i in range(n)]
    chance = random.Random(0)

    def plainly(kind: type) -> Callable[[], int]:
        def batches() -> int:
            for start in range(0, 2 * n, 2 * BATCH):
                numbers = range(start, start + 2 * BATCH)
                default_collate([published(*paths[i % n], i % 2 == 0, chance, kind) for i in numbers])
            return 2 * n

        return batches

    ways = {
        "published": plainly(np.float32),
        "the same steps on bytes, no library but OpenCV": plainly(np.uint8),
        "ours": ours(reader),
        "ours, pictures kept in memory": ours(CachedReader(reader, PictureCache(n * WIDTH * HEIGHT * 4))),
    }
    for work in ways.values():
        work()  # fills the system's file cache and our picture cache
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, work in ways.items():
            times[name].append(per_image(work))
    table = Table(
        "", title=f"One training image, ms on one core ({runs} paired runs of {2 * n})", title_justify="left"
    )
    for column in ("median", "least", "most", "published / it"):
        table.add_column(column, justify="right")
    for name, taken in times.items():
        ratio = statistics.median(p / t for p, t in zip(times["published"], taken, strict=True))
        numbers = (statistics.median(taken), min(taken), max(taken), ratio)
        table.add_row(name, *(f"{x:.2f}" for x in numbers))
    console.print(table)


def decoders(root: Path, runs: int, console: Console) -> None:
    paths = sorted((root / "images").iterdir())
    ways: dict[str, Callable[[Path], np.ndarray]] = {
        "OpenCV (ours)": read_image,
        "torchvision": lambda path: decode_jpeg(read_file(str(path))).permute(1, 2, 0).numpy(),
        "Pillow": lambda path: np.asarray(Image.open(path).convert("RGB")),
    }
    table = Table("", title="Decoding, ms on one core", title_justify="left")
    for column in ("median", "largest pixel difference"):
        table.add_column(column, justify="right")
    for name, decode in ways.items():

        def work(decode: Callable[[Path], np.ndarray] = decode) -> int:
            return len([decode(path) for path in paths])

        taken = [per_image(work) for _ in range(runs)]
        difference = max(int(np.abs(decode(p).astype(int) - read_image(p)).max()) for p in paths[:10])
        table.add_row(name, f"{statistics.median(taken):.2f}", str(difference))
    console.print(table)


def cold_scan(root: Path, runs: int, console: Console) -> None:
    rates = []
    for _ in range(runs):
        reader = Folder(str(root))
        reader.cache.unlink(missing_ok=True)
        start = time.perf_counter()
        build_index(reader)
        rates.append(len(reader) / (time.perf_counter() - start))
    console.print(
        f"First index: {statistics.median(rates):.0f} pictures/s on {cores()} cores ({len(reader)} pictures)"
    )


def warm_start(root: Path, pictures: int, runs: int, console: Console) -> None:
    """Times reader and index of a COCO whose index is cached, as at every start except the first."""
    names = [f"COCO_train2014_{i:012d}.jpg" for i in range(pictures)]
    annotations = root / "annotations/instances_train2014.json"
    masks = folder_of(root, "train2014", "include")
    for folder in (annotations.parent, root / "train2014", masks):
        folder.mkdir(parents=True)
    annotations.write_text(json.dumps({"info": "x" * ANNOTATIONS}))
    for name in names:
        (root / "train2014" / name).write_bytes(b"picture")
        mask_path(masks, name).write_bytes(b"mask")
    write_contents(masks, Contents(digest(annotations), tuple(f"class {c}" for c in range(1, 81)), tuple(names)))
    rows = 3 * pictures
    index = Index(np.arange(rows) // 3, np.arange(rows) % 80 + 1, np.full(rows, 4000))

    def start_up() -> int:
        reader = Coco(str(root), "train")
        found = build_index(reader)
        return len(build_pool(found, range(1, 61), 1, 2048).queries)

    reader = Coco(str(root), "train")
    keep_index(reader, index_cache.fingerprint(reader.classes, reader.files()), index, remarks=())
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        start_up()
        taken.append(time.perf_counter() - start)
    console.print(
        f"Start with a cached index of {pictures} pictures: {statistics.median(taken[1:]):.2f} s "
        f"({min(taken[1:]):.2f} to {max(taken[1:]):.2f}; the first, unmeasured, fills the system's caches)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="a multiple of 4")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=82_000, help="pictures in the cached index")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    console = Console()
    console.print(f"OpenCV {cv2.__version__}, torch {torch.__version__}, Pillow {PIL.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        make_pictures(few, given.images)
        training_images(few, given.runs, console)
        decoders(few, given.runs, console)
        make_pictures(many, max(300, 10 * given.images))
        cold_scan(many, given.runs, console)
        warm_start(Path(folder, "coco"), given.pictures, given.runs, console)


if __name__ == "__main__":
    main()
