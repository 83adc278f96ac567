"""Training speed alone and beside programs that keep a core busy, with torch's threads as they come and as set.

    python -m bench.busy [--programs 1] [--seconds 8] [--repeats 2]

Each measurement is a process of its own that trains PFENet + SVF on an EfficientNet-Lite0 with random weights, as
large as the demo's, on pictures of noise. Run it on an otherwise quiet machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.table import Table

from fss.processes.cores import share_cores

_BUSY = "while True: pass"
_OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def episodes_per_second(seconds: float) -> float:
    """Trains for some seconds, after two steps to warm up."""
    import torch

    from fss.models.backbones import TimmBackbone
    from fss.models.heads import PFENet
    from fss.models.segmenter import FewShotSegmenter
    from fss.models.tuning import svf

    torch.manual_seed(0)
    batch, size = 8, 97
    backbone = TimmBackbone("tf_efficientnet_lite0", low=1, mid=2)
    segmenter = FewShotSegmenter(backbone, PFENet(backbone.channels, width=64, pyramid=(1.0, 0.5)))
    segmenter.tune(svf)
    segmenter.train()
    query, support = torch.randn(batch, 3, size, size), torch.randn(batch, 1, 3, size, size)
    masks = torch.zeros(batch, 1, size, size, dtype=torch.uint8)
    masks[..., 20:60, 30:70] = 1
    optimizer = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        losses = segmenter.head.losses(segmenter(query, support, masks), masks[:, 0].long(), None)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    for _ in range(2):
        step()
    done, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        step()
        done += batch
    return done / (perf_counter() - start)


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Keeps as many cores busy meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


def measure(shared: bool, seconds: float) -> float:
    """Episodes a second of a process of its own; shared is whether its threads give way soon."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    command = [sys.executable, "-m", "bench.busy", "--here", "shared" if shared else "plain", "--seconds"]
    done = subprocess.run([*command, str(seconds)], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Prints a table of both ways, alone and beside busy programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--here", choices=("shared", "plain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        if given.here == "shared":
            share_cores()
        print(episodes_per_second(given.seconds))
        return
    found: dict[tuple[bool, int], list[float]] = {}
    for _ in range(given.repeats):
        for programs in (0, given.programs):
            for shared in (False, True):
                with busy(programs):
                    found.setdefault((shared, programs), []).append(measure(shared, given.seconds))
    title = f"Training, episodes a second, {os.cpu_count()} cores"
    table = Table("threads", "alone", f"beside {given.programs} busy", "times as long", title=title)
    for shared in (False, True):
        alone, beside = (found[shared, programs] for programs in (0, given.programs))
        shown = [" ".join(f"{value:.1f}" for value in values) for values in (alone, beside)]
        ratio = statistics.median(alone) / statistics.median(beside)
        table.add_row("as here" if shared else "torch's own", *shown, f"{ratio:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
