"""Time, memory and arithmetic of a training step for several numbers of supports and sizes of pictures.

    python -m bench.scaling [--method pfenet] [--shots 1 5 10] [--sizes 225 321 473 641]
        [--checkpointing | --published]

ResNet-50 with random weights, SVF, float32, one episode a step, as in `bench.training`, our way or the published
one. Each case runs in a process of its own, so that its memory is its own; time is the median of some steps.
Arithmetic is that of convolutions and matrix products, forward and backward, counted by torch. Where the rate
stays the same while steps grow, arithmetic bounds the step; where it falls, memory does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Iterator
from itertools import product
from multiprocessing import get_context
from time import perf_counter
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from bench.paired import machine
from bench.training import Case, our_training, published_training

EXTENT = 0.5  # radius of the object in `bench.training`


class Cost(NamedTuple):
    """What a step takes: seconds, resident memory in GiB (with the program's own), arithmetic in GFLOP."""

    seconds: float
    memory: float
    arithmetic: float


def cost(case: Case, checkpointing: bool, published: bool, steps: int) -> Cost:
    """Measures one case in this process."""
    step = published_training(case) if published else our_training(case, checkpointing)
    with FlopCounterMode(display=False) as counter:
        step()  # which warms up, too
    taken = []
    for _ in range(steps):
        start = perf_counter()
        step()
        taken.append(perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Cost(statistics.median(taken), memory, counter.get_total_flops() / 1e9)


def measure(given: argparse.Namespace) -> Iterator[tuple[Case, Cost]]:
    """Every case, each in a new process."""
    for shot, size in product(given.shots, given.sizes):
        case = Case(given.method, shot, size, EXTENT)
        with get_context("spawn").Pool(1) as pool:
            yield case, pool.apply(cost, (case, given.checkpointing, given.published, given.steps))


def main() -> None:
    """Prints a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("pfenet", "bam"), default="pfenet", help="default: %(default)s")
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5, 10])
    parser.add_argument("--sizes", nargs="+", type=int, default=[225, 321, 473, 641], help="pixels")
    parser.add_argument("--steps", type=int, default=2, help="timed steps; default: %(default)s")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--checkpointing", action="store_true", help="compute features twice")
    way.add_argument("--published", action="store_true", help="the published way")
    given = parser.parse_args()
    table = Table("shots", "pixels", "s", "GiB", "GFLOP", "GFLOP/s", caption=machine(), caption_justify="left")
    for case, found in measure(given):
        rate = found.arithmetic / found.seconds
        row = (f"{found.seconds:.2f}", f"{found.memory:.2f}", f"{found.arithmetic:.0f}", f"{rate:.0f}")
        print(f"{case.shot} shots, {case.size} pixels: {' '.join(row)}", flush=True)
        table.add_row(str(case.shot), str(case.size), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
