"""Compares loss curves and step times in float32 with those in bfloat16 with a compiled network.

    python -m bench.precision [--steps 200] [--out DIR] [SETTING=VALUE ...]
    python -m bench.precision dataset=pascal5i dataset.root=DIR backbone=resnet50

PFENet and BAM at 473 pixels (BAM with a base learner trained for one epoch), on the same episodes in both
precisions. Meant for a GPU; on a CPU use few steps, `dataset.size=64` and `compile=false`. Writes a figure and a
table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from checks.forks import start, wait
from fss.training.meta_learner import MetaLearner

VARIANTS = {
    "float32": ["precision=32-true", "tf32=false"],
    "bfloat16": ["precision=bf16-mixed", "compile=true"],
}
COLOURS = {"float32": "#1f77b4", "bfloat16": "#d62728"}
COMMON = ["logger=none", "pictures=0", "dataset.val_episodes=1", "episodes=1"]


def record(file: Path) -> None:
    """Records the loss and time of each step of the following training, and the GPU memory it uses."""
    steps: list[tuple[float, float]] = []
    step = MetaLearner.training_step

    def recorded(self: MetaLearner, *args: Any) -> torch.Tensor:
        loss = step(self, *args)
        steps.append((loss.item(), time.perf_counter()))  # item waits for the GPU
        return loss

    def ended(self: MetaLearner) -> None:
        memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        file.write_text(json.dumps({"steps": steps, "memory": memory}))

    MetaLearner.training_step = recorded  # type: ignore[method-assign,assignment]
    MetaLearner.on_train_end = ended  # type: ignore[method-assign,assignment]


def smooth(values: list[float], over: int) -> list[float]:
    """Running mean over the last `over` values."""
    return [fmean(values[max(0, i + 1 - over) : i + 1]) for i in range(len(values))]


def figure(curves: dict[str, dict[str, list[float]]], over: int) -> str:
    """SVG with one panel per method and one line per precision."""
    width, height, gap = 420, 260, 50
    parts = []
    for column, (method, lines) in enumerate(curves.items()):
        smoothed = {name: smooth(values, over) for name, values in lines.items()}
        top = max(max(values) for values in smoothed.values())
        left = gap + column * (width + gap)
        parts.append(
            f'<rect x="{left}" y="{gap}" width="{width}" height="{height}" fill="none" stroke="#999"/>'
            f'<text x="{left}" y="{gap - 10}">{method}: training loss, mean of {over} steps</text>'
            f'<text x="{left - 6}" y="{gap + 12}" text-anchor="end">{top:.2f}</text>'
            f'<text x="{left - 6}" y="{gap + height}" text-anchor="end">0</text>'
        )
        for row, (name, values) in enumerate(smoothed.items()):
            points = " ".join(
                f"{left + width * i / max(len(values) - 1, 1):.1f},{gap + height * (1 - v / top):.1f}"
                for i, v in enumerate(values)
            )
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>'
                f'<text x="{left + 10}" y="{gap + height - 30 + 16 * row}" fill="{COLOURS[name]}">{name}</text>'
            )
    size = f'width="{gap + len(curves) * (width + gap)}" height="{height + 2 * gap}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(parts)}</svg>\n'


def main() -> int:
    """Trains PFENet and BAM in both precisions and compares them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path(), help="folder for the figure and the table; default: here"
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    given = parser.parse_args()
    if given.steps < 4:
        parser.error("--steps: at least 4; times are those between steps of the second half")
    size = [] if any(s.startswith("dataset.size=") for s in given.settings) else ["dataset.size=473"]
    batch_size = next((int(s.partition("=")[2]) for s in given.settings if s.startswith("batch_size=")), 8)
    episodes = [f"dataset.train_episodes={given.steps * batch_size}", "dataset.epochs=1"]
    curves: dict[str, dict[str, list[float]]] = {}
    over = max(1, given.steps // 10)
    rows = [
        "| method | precision | loss, first steps | loss, last steps | largest gap | ms per step | GPU (GiB) |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        settings = [*COMMON, *size, *given.settings]
        no_compile = [s for s in settings if not s.startswith(("batch_size=", "compile=", "precision="))]
        for method in ("pfenet", "bam"):
            if method == "bam" and wait(
                start(folder, *no_compile, "method=base", "dataset.base.epochs=1", small=False)
            ):
                print((folder / "log.txt").read_text(), file=sys.stderr)
                return 1
            curves[method] = {}
            for name, variant in VARIANTS.items():
                file = folder / "steps.json"
                # settings on the command line override the variant's own
                own = [
                    s for s in variant if not any(g.startswith(s.partition("=")[0] + "=") for g in given.settings)
                ]
                overrides = [
                    *settings,
                    *episodes,
                    *own,
                    f"method={method}",
                    f"run_dir={method}-{name}",
                ]
                if wait(start(folder, *overrides, before=partial(record, file), small=False)):
                    print((folder / "log.txt").read_text(), file=sys.stderr)
                    return 1
                recorded = json.loads(file.read_text())
                losses, times = map(list, zip(*recorded["steps"], strict=True))
                curves[method][name] = losses
                # the second half of the steps, when compilation and warm-up are over
                taken = median(
                    b - a for a, b in zip(times[len(times) // 2 :], times[len(times) // 2 + 1 :], strict=False)
                )
                memory = f"{recorded['memory']:.1f}" if recorded["memory"] else "-"
                ends = f"{fmean(losses[:over]):.4f} | {fmean(losses[-over:]):.4f}"
                # relative difference between the drawn curves of this and the first variant
                pairs = zip(
                    *(smooth(curve, over) for curve in (losses, next(iter(curves[method].values())))), strict=True
                )
                apart = max(abs(a / b - 1) for a, b in pairs)
                rows.append(f"| {method} | {name} | {ends} | {apart:.2%} | {1000 * taken:.0f} | {memory} |")
                print(rows[-1], flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "precision.svg").write_text(figure(curves, over))
    (given.out / "precision.md").write_text("\n".join(rows) + "\n")
    print(f"{given.out / 'precision.svg'}, {given.out / 'precision.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
