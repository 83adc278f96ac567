"""Times a training step of SVF convolutions in factored and composed form, and shows which the layer chooses.

    python -m bench.svf_forms [--repeats 7]

Layers are those of a dilated ResNet-50 at 473 pixels, with one picture; forward and backward, median over repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from fss.svf import SVFConv2d

# inputs, outputs, kernel
LAYERS = [
    (128, 128, 3),
    (128, 512, 1),
    (512, 1024, 1),
    (256, 256, 3),
    (256, 1024, 1),
    (512, 512, 3),
    (512, 2048, 1),
]


def milliseconds(layer: SVFConv2d, x: torch.Tensor, factored: bool, repeats: int) -> float:
    layer._run_factored = lambda: factored  # type: ignore[method-assign]
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        layer(x).sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken[1:])  # the first is for warming up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats: int = parser.parse_args().repeats
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = Table("layer", "factored, ms", "composed, ms", "chosen", title=f"SVF convolutions, one step, {device}")
    for inputs, outputs, kernel in LAYERS:
        layer = SVFConv2d(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)).to(device)
        x = torch.randn(1, inputs, 60, 60, device=device, requires_grad=True)
        chosen = "factored" if layer._run_factored() else "composed"
        times = [milliseconds(layer, x, factored, repeats) for factored in (True, False)]
        table.add_row(f"{kernel}x{kernel} {inputs} -> {outputs}", *(f"{t:.1f}" for t in times), chosen)
    Console().print(table)


if __name__ == "__main__":
    main()
