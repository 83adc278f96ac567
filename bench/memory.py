"""Measures the memory of a loader over many episodes of the embedded data; it should not grow.

    python -m bench.memory [--episodes 100000] [--workers 2]

Prints the proportional memory (shared pages counted once) of this process and its workers, in MiB. The first pass
over the pictures paints them into shared memory; after that, memory should stay constant.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import torch

from fss.data.episodes import EpisodeDataset, collate
from fss.data.index import build_index, build_pool
from fss.data.loading import build_loader
from fss.data.readers.shapes import Shapes
from fss.data.sampler import EpisodeSampler
from fss.data.transforms import TrainingTransform

BATCH = 8


def mebibytes(process: int | str) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    reader = Shapes("train")
    pool = build_pool(build_index(reader), range(1, 13), shot=1, min_pixels=1)
    episodes = EpisodeDataset(reader, pool, 1, 0, TrainingTransform(128, (0.9, 1.1)))
    loader = build_loader(episodes, EpisodeSampler(given.episodes), BATCH, given.workers, collate)
    start = time.perf_counter()
    for number, _ in enumerate(loader, start=1):
        if number % max(1, len(loader) // 20) == 0:
            workers = [mebibytes(child.pid or 0) for child in multiprocessing.active_children()]
            told = "".join(f"{memory:8.0f}" for memory in (mebibytes("self"), *workers))
            seconds = time.perf_counter() - start
            print(f"{number * BATCH:8d} episodes {seconds:6.0f} s   main, workers: {told}", flush=True)


if __name__ == "__main__":
    main()
