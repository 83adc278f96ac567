"""Time, memory and arithmetic of a training step for several numbers of supports and sizes of pictures.

    python -m bench.scaling [--way ours] [--method pfenet] [--shots 1 5 10] [--sizes 225 321 473 641]
        [--json FILE] [--figure FILE.svg]
    python -m bench.scaling --shots --json FILE --figure FILE.svg      only draws what FILE holds

ResNet-50 with random weights, SVF, float32, one episode a step, as in `bench.training`: our way, ours with
checkpointing, or the published one. Each case runs in a process of its own, so that its memory is its own; time is
the median of some steps. Arithmetic is that of convolutions and matrix products, forward and backward, counted by
torch. Where the rate stays the same while steps grow, arithmetic bounds the step; where it falls, memory does.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from bench.paired import machine
from bench.training import Case, our_training, published_training
from fss.report.drawing import SVG_SETTINGS, as_svg, color_of

EXTENT = 0.5  # radius of the object in `bench.training`
WAYS = {"ours": "-", "checkpointing": ":", "published": "--"}  # and how their lines are drawn


class Cost(NamedTuple):
    """What a step takes: seconds, resident memory in GiB (with the program's own), arithmetic in GFLOP."""

    seconds: float
    memory: float
    arithmetic: float


class Measured(NamedTuple):
    """The cost of one case, and on what machine it was measured."""

    way: str
    method: str
    shot: int
    size: int
    seconds: float
    memory: float
    arithmetic: float
    machine: str

    @property
    def case(self) -> tuple[Any, ...]:
        """What was measured."""
        return self[:4]

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.arithmetic / self.seconds


def cost(case: Case, way: str, steps: int) -> Cost:
    """Measures one case in this process."""
    step = published_training(case) if way == "published" else our_training(case, way == "checkpointing")
    with FlopCounterMode(display=False) as counter:
        step()  # which warms up, too
    taken = []
    for _ in range(steps):
        start = perf_counter()
        step()
        taken.append(perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Cost(statistics.median(taken), memory, counter.get_total_flops() / 1e9)


def measure(given: argparse.Namespace) -> Iterator[Measured]:
    """Every case, each in a new process."""
    for shot, size in product(given.shots, given.sizes):
        case = Case(given.method, shot, size, EXTENT)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found = process.submit(cost, case, given.way, given.steps).result()
        rounded = (round(found.seconds, 3), round(found.memory, 3), round(found.arithmetic))
        yield Measured(given.way, given.method, shot, size, *rounded, machine())


def draw(results: Sequence[Measured]) -> str:
    """Seconds, memory and rate by size, a line for each method, way and number of supports: an SVG file's text."""
    lines: dict[tuple[str, int, str], list[Measured]] = defaultdict(list)
    for one in sorted(results, key=lambda one: (one.method, one.shot, one.way, one.size)):
        lines[one.method, one.shot, one.way].append(one)
    colors = {case: color_of(i) for i, case in enumerate(dict.fromkeys(case[:2] for case in lines))}
    panels = (("seconds", "seconds a step"), ("memory", "resident memory (GiB)"), ("rate", "GFLOP/s"))
    with mpl.rc_context(SVG_SETTINGS):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, (part, title) in zip(figure.subplots(1, 3), panels, strict=True):
            for (method, shot, way), members in lines.items():
                style = {"color": colors[method, shot], "ls": WAYS[way], "marker": ".", "lw": 1.4}
                label = f"{method}, {shot} shot{'s' * (shot > 1)}, {way}"
                axes.plot([m.size for m in members], [getattr(m, part) for m in members], label=label, **style)
            axes.set(xlabel="pixels a side", title=title, ylim=(0, None))
            axes.grid(alpha=0.15)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        return as_svg(figure)


def main() -> None:
    """Prints a table as it grows, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, default="ours", help="default: %(default)s")
    parser.add_argument("--method", choices=("pfenet", "bam"), default="pfenet", help="default: %(default)s")
    parser.add_argument("--shots", nargs="*", type=int, default=[1, 5, 10])
    parser.add_argument("--sizes", nargs="+", type=int, default=[225, 321, 473, 641], help="pixels")
    parser.add_argument("--steps", type=int, default=2, help="timed steps; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to add to, cases measured anew in place of old")
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draws all that FILE holds, or this run")
    given = parser.parse_args()
    results: dict[tuple[Any, ...], Measured] = {}
    if given.json and given.json.is_file():
        held = [Measured(**one) for one in json.loads(given.json.read_text())]
        results = {one.case: one for one in held}
    for one in measure(given):
        print(f"{one.shot} shots, {one.size} pixels: {one.seconds:.2f} s, {one.memory:.2f} GiB", flush=True)
        results[one.case] = one
        if given.json:  # after each: all take long
            written = ",\n".join(json.dumps(one._asdict()) for _, one in sorted(results.items()))
            given.json.write_text(f"[\n{written}\n]\n")
    columns = ("way", "method", "shots", "pixels", "s", "GiB", "GFLOP", "GFLOP/s")
    table = Table(*columns, caption=machine(), caption_justify="left")
    for _, one in sorted(results.items()):
        numbers = (f"{one.seconds:.2f}", f"{one.memory:.2f}", f"{one.arithmetic:.0f}", f"{one.rate:.0f}")
        table.add_row(*map(str, one.case), *numbers)
    Console().print(table)
    if given.figure:
        given.figure.write_text(draw(list(results.values())))


if __name__ == "__main__":
    main()
