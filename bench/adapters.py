"""How long it takes to switch S-adapters of a ResNet-50, beside what its forward pass takes.

    python -m bench.adapters [--size 473] [--times 200]

Random weights: times do not depend on them. Switches alternate between two adapters; forward passes run with the
adapter, disabled, and merged, one after another, so that other programs disturb all of them alike.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from fss.models.backbones import ResNetBackbone
from fss.svf.adapter import Adapters


def milliseconds(call: Callable[[], object]) -> float:
    since = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - since)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=473, help="side of the picture, pixels")
    parser.add_argument("--times", type=int, default=200, help="switches")
    parser.add_argument("--passes", type=int, default=5, help="forward passes of each kind")
    options = parser.parse_args()
    with torch.inference_mode(False):
        network = ResNetBackbone(stem="torchvision").eval()
        plain = copy.deepcopy(network)
        factoring = time.perf_counter()
        adapters = Adapters(network, ["layer2", "layer3", "layer4"])
        factoring = time.perf_counter() - factoring
        for name in ("a", "b"):
            adapters.mix({})
            with torch.no_grad():
                for parameter in (p for n, p in network.named_parameters() if n.endswith(".S")):
                    parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
            adapters.add_adapter(name)
        merged = copy.deepcopy(adapters)
        merged.merge()
    picture = torch.rand(1, 3, options.size, options.size)

    def forward(module: torch.nn.Module) -> Callable[[], object]:
        return lambda: module.upper(module.lower(picture))  # type: ignore[operator]

    with torch.no_grad():
        switches = [milliseconds(partial(adapters.set_adapter, n)) for n in ("a", "b") * (options.times // 2)]
        mixes = [milliseconds(lambda: adapters.mix({"a": 0.7, "b": 0.3})) for _ in range(options.times // 2)]
        passes: dict[str, list[float]] = {"plain": [], "adapter": [], "merged": []}
        for _ in range(options.passes):
            adapters.set_adapter("a")
            passes["plain"].append(milliseconds(forward(plain)))
            passes["adapter"].append(milliseconds(forward(network)))
            passes["merged"].append(milliseconds(forward(merged.network)))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ResNet-50, {options.size} pixels")
    print(f"factored once: {factoring:.1f} s")
    for label, found in (("set_adapter", switches), ("mix", mixes), *passes.items()):
        median, late = np.percentile(found, [50, 95])
        print(f"{label:<12} {median:9.2f} ms (p95 {late:.2f}, {len(found)} times)")


if __name__ == "__main__":
    main()
