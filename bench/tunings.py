"""How many parameters of a backbone each tuning trains.

    python -m bench.tunings [resnet50 efficientnet_lite0 dinov2_s ...]

With the settings of conf/tuning; random weights, which are not even factored: numbers do not depend on them.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich import get_console
from rich.table import Table
from torch import Tensor

from fss.configuration import conf_folder
from fss.models.backbones import Backbone


def shapes(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the right sizes."""
    rank = min(weight.flatten(1).shape)
    return weight.new_empty(len(weight), rank), weight.new_empty(rank), weight.new_empty(rank, *weight.shape[1:])


def trained(network: Backbone, tuning: str) -> int | None:
    """Parameters that a tuning trains in a copy of a backbone; None where there are none for it."""
    apply = compose("train", [f"tuning={tuning}"]).tuning.apply
    tuned = copy.deepcopy(network)
    try:
        instantiate(apply, **({"svd": shapes} if tuning.startswith("svf") else {}))(tuned)
    except ValueError:
        return None
    return sum(p.numel() for p in tuned.parameters() if p.requires_grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=["resnet50", "efficientnet_lite0", "dinov2_s"])
    options = parser.parse_args()
    tunings = sorted(path.stem for path in Path(conf_folder(), "tuning").glob("*.yaml"))
    table = Table("tuning", *options.backbones)
    with initialize_config_dir(conf_folder(), version_base="1.3"):
        networks = [
            instantiate(compose("train", [f"backbone={name}", "backbone.weights=null"]).backbone.network)
            for name in options.backbones
        ]
        for tuning in tunings:
            counts = [trained(network, tuning) for network in networks]
            table.add_row(tuning, *("-" if count is None else f"{count:,}".replace(",", " ") for count in counts))
    get_console().print(table)


if __name__ == "__main__":
    main()
