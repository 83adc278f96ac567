"""Reads the published numbers and their sources from claims.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fss.display.shown import shown
from fss.files.plain import read_yaml

FILE = Path(__file__).with_name("claims.yaml")
FOLDS = 4
FILTERS = ("dataset", "backbone", "method", "tuning", "shot", "exclude_novel", "recipe")
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
        recipe: Recipe of its program (`recipe=`); see `Claim.recipe`.
        protocol: Protocol of its numbers (`protocol=`).
        episodes: Episodes of that protocol for each evaluation seed; None where they depend on the data set.
        seeds: Evaluation seeds of that protocol.
        train_shot: Supports per training episode: "same" as in evaluation, or a number.
        weights: Checkpoint that was evaluated.
    """

    paper: str
    venue: str
    year: int
    arxiv: str
    table: str
    recipe: str
    protocol: str
    episodes: int | None
    seeds: list[int]
    train_shot: int | str
    weights: str


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
    def recipe(self) -> str:
        """The recipe that the row was trained by: rows of BAM without SVF come from BAM's own program."""
        return "bam" if (self.method, self.tuning) == ("bam", "frozen") else self.source.recipe

    @property
    def network(self) -> str:
        """The backbone in the configuration that has the published stem and weights."""
        return f"{self.backbone}_deep" if self.backbone.startswith("resnet") else self.backbone

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
    texts = [*claim[:4], *source[:2], source.arxiv, source.table, source.recipe, source.protocol, source.weights]
    numbers = [*claim.folds, claim.mean]
    return (
        all(isinstance(text, str) for text in texts)
        and claim.dataset in DATASETS
        and claim.backbone in BACKBONES
        and claim.method in METHODS
        and isinstance(claim.exclude_novel, bool)
        and isinstance(claim.first, bool)
        and isinstance(source.year, int)
        and isinstance(source.episodes, int | None)
        and isinstance(source.seeds, list)
        and all(isinstance(seed, int) for seed in source.seeds)
        and (source.train_shot == "same" or isinstance(source.train_shot, int))
        and len(claim.folds) == FOLDS
        and all(isinstance(number, int | float) and 0 <= number <= 100 for number in numbers)
    )


def published(claim: Claim, value: float) -> str:
    """Formats a published number with the number of decimals printed in its row."""
    digits = max(len(str(v).partition(".")[2]) for v in (*claim.folds, claim.mean))
    return f"{value:.{digits}f}"


def training_pictures(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """Numbers of pictures that the published programs train on, by data set; lists are by fold."""
    return read_yaml(file)["pictures"]


def select(claims: Sequence[Claim], filters: Sequence[str]) -> list[Claim]:
    """Selects the claims that agree with all filters.

    Args:
        claims: Claims to choose from.
        filters: Settings as typed for train.py, such as "method=bam" or "shot=1,5"; any of `FILTERS`.

    Raises:
        ValueError: If a filter is unknown, or no claim agrees with all of them.
    """
    chosen = list(claims)
    for text in filters:
        name, equals, values = text.partition("=")
        known = {str(value) for claim in claims for value in _facts(claim, name)} if name in FILTERS else set()
        wanted = set(values.lower().split(","))
        if not equals or not known or not wanted <= known:
            possible = f"{name}= takes {', '.join(sorted(known))}" if known else f"use {', '.join(FILTERS)}"
            raise ValueError(f"{text}: does not select published claims; {possible}")
        chosen = [claim for claim in chosen if wanted & set(_facts(claim, name))]
    if not chosen:
        raise ValueError(f"{' '.join(filters)}: no published claim agrees with all of them")
    return chosen


def _facts(claim: Claim, name: str) -> list[str]:
    """The values of a filter that a claim agrees with; a ResNet's name may be that with or without the stem."""
    return [claim.backbone, claim.network] if name == "backbone" else [str(getattr(claim, name)).lower()]
