"""How far singular value fine-tuning has moved the singular values of every layer.

    python -m bench.singular_values RUN [RUN ...] [--by layer]

RUN is the folder of a run. Changes are |S / S0 - 1| of all singular values above 1e-6 of their layer's largest:
their mean, the largest, and the share (of the sum of squares) that is one factor for the whole layer.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from fss.display.console import PlainConsole
from fss.evaluation.results import CHECKPOINTS
from fss.files.checked_zip import check_zip

_STAGE = re.compile(r"blocks\.(\d+)|layer(\d)")


def ratios(run: Path) -> dict[str, Tensor]:
    """S / S0 (n,) of every factored layer of a run's last checkpoint, by the layer's name.

    Raises:
        FileNotFoundError: The run has no checkpoint.
        ValueError: It has no factored layer, or its checkpoint is damaged.
    """
    file = run / CHECKPOINTS / "last.ckpt"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: give the folder of a run with tuning=svf")
    check_zip(file)
    state: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    found = {}
    for name, S in state.items():
        if name.endswith(".S"):
            S0 = state[f"{name}0"]
            kept = 1e-6 * S0.max() < S0
            found[name.removesuffix(".S")] = (S[kept] / S0[kept]).double()
    if not found:
        raise ValueError(f"{file} has no factored layer: give a run with tuning=svf")
    return found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--by", choices=("stage", "layer"), default="stage", help="default: %(default)s")
    given = parser.parse_args()
    try:
        of_runs = [ratios(run) for run in given.runs]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    parts: dict[str, list[Tensor]] = {}
    for found in of_runs:
        for name, ratio in found.items():
            stage = _STAGE.search(name)
            part = name if stage is None else name[stage.start() :] if given.by == "layer" else stage[0]
            parts.setdefault(part, []).append(ratio)
    table = Table(given.by, title=f"|S / S0 - 1| of {len(of_runs)} runs", title_justify="left")
    for heading in ("values", "mean", "largest", "common to the layer"):
        table.add_column(heading, justify="right")
    for part, members in parts.items():
        change = torch.cat(members) - 1
        common = torch.cat([(ratio - 1).mean().expand_as(ratio) for ratio in members])
        share = float(common.square().sum() / change.square().sum().clamp(min=1e-30))
        numbers = (f"{len(change) // len(of_runs)}", f"{change.abs().mean():.2%}", f"{change.abs().max():.1%}")
        table.add_row(part, *numbers, f"{share:.0%}")
    PlainConsole().print(table)


if __name__ == "__main__":
    main()
