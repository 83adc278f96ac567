"""Measures how long the same episodes take in this program and in the published way.

    python -m bench.evaluation                             # PFENet on ResNet-50 at 473 pixels, 1 and 5 shots
    python -m bench.evaluation --size 105 --shots 5        # for a CPU that is shared with others
    python -m bench.evaluation --shots 5 --folder DIR      # stopped, it goes on when the same command is run again

The published way (`bench/reference.py`) passes every picture of every episode through a factored backbone, the
supports one after another. It takes the same time for every episode, so only `--part` of them are timed, half
before and half after ours, and the median of these is compared with the mean of all of ours. Both read pictures in
the main process and find masks at original size; both should find the same mIoU on the episodes that both answer.
The fold is synthetic: pictures of 500 x 375 with one object of five classes; weights are random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import lightning
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.models.resnet import Bottleneck

from bench.paired import machine
from bench.reference import Published
from fss.data.episodes import EpisodeDataset, collate
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.evaluation.engine import answer_episodes
from fss.evaluation.results import EpisodeResult, summarize
from fss.evaluation.reuse import Reuse
from fss.metrics import episode_integers
from fss.models.backbones import ResNetBackbone
from fss.models.heads import PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf

SEED = 321


class Blobs:
    """A reader of noise pictures with one ellipse each."""

    classes = ("one", "two", "three", "four", "five")

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def name(self, index: int) -> str:
        return f"blobs/{index}"

    def image(self, index: int) -> np.ndarray:
        noise = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC)
        return np.where(self.mask(index)[..., None] > 0, image // 2, image)

    def mask(self, index: int) -> np.ndarray:
        chance = np.random.default_rng([index, 1])
        mask = np.zeros((375, 500), np.uint8)
        center, axes = chance.integers(120, 250, 2).tolist(), chance.integers(60, 140, 2).tolist()
        cv2.ellipse(mask, center, axes, 30, 0, 360, 1 + index % len(self.classes), cv2.FILLED)
        return mask


def factors(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A trivial exact U diag(S) V of a weight; the true SVD costs the same to use but takes minutes to compute."""
    matrix = weight.detach().flatten(1)
    rank = min(matrix.shape)
    U, V = (torch.eye(rank), matrix) if len(matrix) == rank else (matrix, torch.eye(rank))
    return U.to(matrix), torch.ones(rank).to(matrix), V.to(matrix).reshape(-1, *weight.shape[1:])


class Timed(NamedTuple):
    """An episode's result, and the seconds it took by the clock and of the processor."""

    result: EpisodeResult
    seconds: float
    processor: float


@torch.inference_mode()
def published_episodes(
    network: Published, segmenter: FewShotSegmenter, episodes: EpisodeDataset, ids: Iterable[int]
) -> list[Timed]:
    """Answers some episodes in the published way; the first is answered twice, to warm up."""
    device, normalize = segmenter.backbone.mean.device, segmenter.backbone.normalize
    timed: list[Timed] = []
    for i in (*islice(ids, 1), *ids):
        began, worked = time.perf_counter(), time.process_time()
        batch = collate([episodes[i]])
        query, support, masks = (part.to(device) for part in (batch.query, batch.support, batch.support_mask))
        prediction = network(normalize(query), normalize(support), masks)
        integers = episode_integers(prediction.logits[0], batch.label[0])  # waits for a GPU
        taken = time.perf_counter() - began, time.process_time() - worked
        class_id = int(batch.class_id)
        timed.append(Timed(EpisodeResult(SEED, i, class_id, str(class_id), "", (), *integers), *taken))
    return timed[1:]


class Told(lightning.Callback):
    """Prints once a minute how far our evaluation is."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_test_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        if time.monotonic() - self._last > 60:
            self._last = time.monotonic()
            print(f"  {getattr(pl_module, 'progress', '')}", flush=True)


def network_of(depth: int) -> FewShotSegmenter:
    """An untuned PFENet whose features have the same scale at all depths."""
    torch.manual_seed(0)
    backbone = ResNetBackbone(depth=depth)
    for block in backbone.modules():
        if isinstance(block, Bottleneck):
            torch.nn.init.constant_(block.bn3.weight, 0.2)
    return FewShotSegmenter(backbone, PFENet(backbone.channels)).eval()


def measure(given: argparse.Namespace, shots: int, reader: Blobs, device: str) -> list[str]:
    """A row of the table."""
    pool = build_pool(build_index(reader), range(1, 6), shots, min_pixels=2048)
    transform = EvaluationTransform(given.size)
    episodes = EpisodeDataset(reader, pool, shots, SEED, transform, with_label=True)
    segmenter = network_of(given.depth).to(device)
    published = Published(segmenter, factors).to(device)
    segmenter.tune(partial(svf, svd=factors))
    part = range(min(given.part, given.episodes))
    half = len(part) // 2
    timed = published_episodes(published, segmenter, episodes, part[:half]) if half else []
    trainer = lightning.Trainer(
        devices=1, logger=False, enable_model_summary=False, enable_progress_bar=False, callbacks=[Told()]
    )
    reuse = Reuse(given.limit_gb, given.batch)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if given.folder is not None:
            folder = given.folder / f"{shots}-{given.size}"
        began = time.process_time()
        done = answer_episodes(trainer, segmenter, episodes, [SEED], given.episodes, folder, reuse)
        worked = time.process_time() - began
    segmenter = segmenter.to(device)
    timed += published_episodes(published, segmenter, episodes, part[half:])
    theirs, ours = median(one.seconds for one in timed), done.seconds / given.episodes
    processor = median(one.processor for one in timed) / (worked / given.episodes)
    same = [episode for episode in done.episodes if episode.id in part]
    mious = (summarize(some)["miou"] for some in ([one.result for one in timed], same))
    spread = f"{min(one.seconds for one in timed):.2f} to {max(one.seconds for one in timed):.2f}"
    return [
        str(shots),
        f"{theirs:.2f} ({spread}, {len(timed)} episodes)",
        f"{ours:.3f} ({given.episodes} episodes)",
        f"{theirs / ours:.1f}",
        f"{processor:.1f}" if given.folder is None else "",
        *(f"{miou:.5f}" for miou in mious),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--part", type=int, default=10, help="episodes in the published way; default: %(default)s")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--size", type=int, default=473)
    parser.add_argument("--depth", type=int, default=50, help="depth of the ResNet; default: %(default)s")
    parser.add_argument("--limit-gb", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps our finished episodes; then by the clock alone")
    given = parser.parse_args()
    if given.part < 1:
        parser.error("--part must be at least 1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = f"PFENet on ResNet-{given.depth}, {device}"
    case = f"Seconds per episode, {network}, {given.size} pixels, {given.images} pictures"
    columns = ("shots", "published way", "ours", "times", "times, processor", "mIoU published", "mIoU ours")
    table = Table(
        *columns,
        title=f"Seconds per episode, {case}",
        caption=machine(),
        title_justify="left",
        caption_justify="left",
    )
    reader = Blobs(given.images)
    for shots in given.shots:
        table.add_row(*measure(given, shots, reader, device))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
