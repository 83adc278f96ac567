"""Times a training step of SVF convolutions in factored and composed form, and shows which the layer chooses.

    python -m bench.svf_forms [--repeats 7]

Layers are those of layers 2 to 4 of a dilated ResNet-50 at 473 pixels, with one picture; forward and backward, the
least of some repeats, of processor time on a CPU. Below is the sum over the network, as chosen and if each layer
took the form that is faster here.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from bench.evaluation import factors
from bench.paired import machine
from fss.svf import SVFConv2d

# inputs, outputs, kernel, how many there are
LAYERS = [
    (256, 512, 1, 1),
    (512, 128, 1, 3),
    (128, 128, 3, 4),
    (128, 512, 1, 4),
    (512, 256, 1, 1),
    (512, 1024, 1, 1),
    (1024, 256, 1, 5),
    (256, 256, 3, 6),
    (256, 1024, 1, 6),
    (1024, 512, 1, 1),
    (1024, 2048, 1, 1),
    (2048, 512, 1, 2),
    (512, 512, 3, 3),
    (512, 2048, 1, 3),
]


def milliseconds(layer: SVFConv2d, x: torch.Tensor, factored: bool, repeats: int) -> float:
    layer._run_factored = lambda: factored  # type: ignore[method-assign]
    clock = time.perf_counter if x.is_cuda else time.process_time
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        layer(x).sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        taken.append(clock() - start)
    return 1000 * min(taken[1:])  # the first is for warming up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats: int = parser.parse_args().repeats
    device = "cuda" if torch.cuda.is_available() else "cpu"
    columns = ("layer", "times", "factored, ms", "composed, ms", "chosen")
    table = Table(*columns, title=f"SVF convolutions, one step, {device}", caption=machine())
    by_rule = by_measure = 0.0
    for inputs, outputs, kernel, count in LAYERS:
        plain = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        layer = SVFConv2d(plain, factors).to(device).to(memory_format=torch.channels_last)
        x = torch.randn(1, inputs, 60, 60, device=device).contiguous(memory_format=torch.channels_last)
        is_factored = layer._run_factored()
        times = {form: milliseconds(layer, x.requires_grad_(), form, repeats) for form in (True, False)}
        by_rule += count * times[is_factored]
        by_measure += count * min(times.values())
        cells = (f"{times[True]:.1f}", f"{times[False]:.1f}", "factored" if is_factored else "composed")
        table.add_row(f"{kernel}x{kernel} {inputs} -> {outputs}", str(count), *cells)
    Console().print(table)
    print(f"in all {by_rule:.0f} ms as chosen, {by_measure:.0f} ms with the faster form of each")


if __name__ == "__main__":
    main()
