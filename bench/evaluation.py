"""Measures evaluation speed (episodes per second) of a plain loop and of this program, on the same episodes.

    python -m bench.evaluation                     # PFENet on ResNet-50, 1 and 5 shots: for a GPU
    python -m bench.evaluation --episodes 100 --images 40 --plain 5    # for a CPU, with the same reuse

Like the published programs, the plain loop runs the backbone on every picture of every episode. Its SVF layers
compose their weights, though, and are not applied as factors: it is not the published program itself. It takes the
same time for every episode, so it suffices to time some of them. Both use the same number of loader processes. The
fold is synthetic: pictures of 500 x 375 with one object of five classes; weights are random.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import lightning
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fss.data.episodes import EpisodeDataset, collate
from fss.data.index import build_index, build_pool
from fss.data.loading import build_loader
from fss.data.preprocessing import EvaluationTransform
from fss.data.sampler import EpisodeSampler
from fss.evaluation.engine import Reuse, answer_episodes
from fss.evaluation.results import EpisodeResult, summarize
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


@torch.inference_mode()
def plain(
    segmenter: FewShotSegmenter, episodes: EpisodeDataset, count: int, workers: int
) -> tuple[float, list[EpisodeResult]]:
    """Runs the plain loop; returns episodes per second and the results."""
    device, normalize = segmenter.backbone.mean.device, segmenter.backbone.normalize
    results: list[EpisodeResult] = []
    began = time.perf_counter()
    for batch in build_loader(episodes, EpisodeSampler(count), 1, workers, collate):
        query, support, masks = (part.to(device) for part in (batch.query, batch.support, batch.support_mask))
        prediction = segmenter(normalize(query), normalize(support), masks)
        integers = episode_integers(prediction.logits[0], batch.label[0])
        class_id = int(batch.class_id)
        results.append(EpisodeResult(SEED, int(batch.id), class_id, str(class_id), "", (), *integers))
    return count / (time.perf_counter() - began), results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=100, help="episodes of the plain loop; default: %(default)s")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--size", type=int, default=473)
    parser.add_argument("--depth", type=int, default=50, help="depth of the ResNet; default: %(default)s")
    parser.add_argument("--limit-gb", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    title = f"Episodes per second, ResNet-{given.depth}, {given.size} pixels, {given.images} pictures, {device}"
    table = Table("shots", "plain", "ours", "times", "mIoU plain", "mIoU ours", title=title)
    reader = Blobs(given.images)
    index = build_index(reader)
    torch.manual_seed(0)
    backbone = ResNetBackbone(depth=given.depth, stem="torchvision")
    segmenter = FewShotSegmenter(backbone, PFENet(backbone.channels))
    segmenter.tune(partial(svf, svd=factors))
    segmenter = segmenter.eval().to(device)
    for shots in given.shots:
        pool = build_pool(index, range(1, 6), shots, min_pixels=2048)
        transform = EvaluationTransform(given.size)
        episodes = EpisodeDataset(reader, pool, shots, SEED, transform, with_label=True)
        for count in (1, min(given.plain, given.episodes)):  # the first is for warming up
            speed, results = plain(segmenter, episodes, count, given.workers)
        trainer = lightning.Trainer(devices=1, logger=False, enable_model_summary=False)
        reuse = Reuse(given.limit_gb, given.batch)
        with tempfile.TemporaryDirectory() as folder:
            done = answer_episodes(
                trainer, segmenter, episodes, [SEED], given.episodes, Path(folder), reuse, given.workers
            )
        segmenter = segmenter.to(device)
        ours = given.episodes / done.seconds
        same = [episode for episode in done.episodes if episode.id < len(results)]
        mious = (summarize(some)["miou"] for some in (results, same))
        table.add_row(
            str(shots), f"{speed:.2f}", f"{ours:.2f}", f"{ours / speed:.1f}", *(f"{miou:.5f}" for miou in mious)
        )
    Console().print(table)


if __name__ == "__main__":
    main()
