"""Reads the published numbers and their sources from claims.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fss.plain_files import read_yaml
from fss.shown import shown

FILE = Path(__file__).with_name("claims.yaml")
FOLDS = 4
DATASETS = {"pascal5i": "PASCAL-5i", "coco20i": "COCO-20i"}
BACKBONES = {"vgg16": "VGG-16", "resnet50": "ResNet-50"}
METHODS = {"baseline": "baseline", "pfenet": "PFENet", "bam": "BAM"}


class Source(NamedTuple):
    """Source of published numbers.

    Attributes:
        paper: Authors and title.
        venue: Conference or journal.
        year: Year of publication.
        arxiv: arXiv identifier.
        table: The table in the paper.
        protocols: Protocols that a measurement may follow (`protocol=`): the paper's own, then stricter ones.
        train_shot: Supports per training episode: "same" as in evaluation, or a number.
        selection: How the checkpoint was selected.
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
    """One published row for one number of shots; mIoU in percent.

    Attributes:
        dataset, backbone, method, tuning, shot: As in the configuration.
        exclude_novel: True if training pictures with novel pixels are left out.
        source: Where it was published.
        first: True if it is one of the claims to verify first.
        folds: mIoU of folds 0 to 3.
        mean: Mean as printed, which may be rounded differently from the mean of the printed folds.
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
        """The method's name in the paper's tables."""
        name = METHODS[self.method] + (" + SVF" if self.tuning == "svf" else "")
        return name if self.exclude_novel else f"{name} (original data)"

    @property
    def train_shot(self) -> int:
        """Supports per training episode."""
        return self.shot if self.source.train_shot == "same" else int(self.source.train_shot)


def load_claims(file: Path = FILE) -> list[Claim]:
    """Loads all claims, sorted by data set and shot, then in the order of the paper.

    Raises:
        ValueError: If the file does not contain claims.
    """
    try:
        claims = _claims(read_yaml(file))
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} does not contain claims ({type(error).__name__}: {shown(error)})") from error
    if odd := [claim for claim in claims if not _is_sound(claim)]:
        raise ValueError(f"{file} contains a claim that is none: {shown(odd[0])}")
    return claims


def _claims(content: Any) -> list[Claim]:
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


def _is_sound(claim: Claim) -> bool:
    """Whether a claim's parts are of their kinds."""
    source = claim.source
    texts = [*claim[:4], *source[:2], source.arxiv, source.table, source.selection]
    numbers = [*claim.folds, claim.mean]
    return (
        all(isinstance(text, str) for text in texts)
        and claim.dataset in DATASETS
        and claim.backbone in BACKBONES
        and claim.method in METHODS
        and isinstance(claim.exclude_novel, bool)
        and isinstance(claim.first, bool)
        and isinstance(source.year, int)
        and isinstance(source.protocols, list)
        and bool(source.protocols)
        and all(isinstance(protocol, str) for protocol in source.protocols)
        and (source.train_shot == "same" or isinstance(source.train_shot, int))
        and len(claim.folds) == FOLDS
        and all(isinstance(number, int | float) and 0 <= number <= 100 for number in numbers)
    )
