"""The published numbers, and what stands behind them. They are in claims.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

FILE = Path(__file__).with_name("claims.yaml")
FOLDS = 4
DATASETS = {"pascal5i": "PASCAL-5i", "coco20i": "COCO-20i"}
BACKBONES = {"vgg16": "VGG-16", "resnet50": "ResNet-50"}
METHODS = {"baseline": "baseline", "pfenet": "PFENet", "bam": "BAM"}


class Source(NamedTuple):
    """Where numbers were published.

    Attributes:
        paper: Authors and title.
        venue: Where it appeared.
        year: When.
        arxiv: Its number there.
        table: Which table of it.
        protocols: What a measurement has to follow (`protocol=`): the paper's own, then stricter ones.
        train_shot: Supports of a training episode: "same" as in evaluation, or a number.
        selection: How the checkpoint was chosen.
    """

    paper: str
    venue: str
    year: int
    arxiv: str
    table: str
    protocols: list[str]
    train_shot: int | str
    selection: str


class Claim(NamedTuple):
    """One published row at one number of shots; mIoU in percent.

    Attributes:
        dataset, backbone, method, tuning, shot: As in the configuration.
        exclude_novel: Whether training pictures with novel pixels are left out.
        source: Where it was published.
        first: Whether it is one to verify first.
        folds: Of folds 0 to 3.
        mean: As printed; the printed folds' mean may round otherwise.
    """

    dataset: str
    backbone: str
    method: str
    tuning: str
    exclude_novel: bool
    shot: int
    source: Source
    first: bool
    folds: tuple[float, ...]
    mean: float

    @property
    def name(self) -> str:
        """As the paper's tables have it."""
        name = METHODS[self.method] + (" + SVF" if self.tuning == "svf" else "")
        return name if self.exclude_novel else f"{name} (original data)"

    @property
    def train_shot(self) -> int:
        """Supports of a training episode."""
        return self.shot if self.source.train_shot == "same" else int(self.source.train_shot)


def load_claims(file: Path = FILE) -> list[Claim]:
    """All claims, by data set and shot, in the order of the paper."""
    content = yaml.safe_load(file.read_text())
    sources = {name: Source(**source) for name, source in content["sources"].items()}
    claims = []
    for dataset, rows in content["claims"].items():
        for shot in (1, 5):
            for row in rows:
                backbone, method, tuning, exclude_novel, source, first = row["row"]
                *folds, mean = row[shot]
                told = (dataset, backbone, method, tuning, exclude_novel, shot)
                claims.append(Claim(*told, sources[source], first, tuple(folds), mean))
    return claims
