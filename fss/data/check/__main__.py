"""Prints the classes and pictures of every fold, compares them with published numbers, and draws sample episodes.

python -m fss.data.check dataset=pascal5i dataset.root=DIR
python -m fss.data.check dataset=folder dataset.root=DIR fold=2 shot=5     # the sheet shows episodes of this fold
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from fss.cli.errors import run_script
from fss.configuration import conf_folder
from fss.data.check.census import PUBLISHED_PIXELS, FoldCensus, Oracle, count_classes, count_folds, oracles
from fss.data.index import Index, build_index, build_pool
from fss.data.readers.reader import Reader


@hydra.main(version_base="1.3", config_path=conf_folder(), config_name="check")
def main(cfg: DictConfig) -> None:
    data = cfg.dataset
    readers: list[Reader] = [instantiate(data[part])() for part in ("train_reader", "eval_reader")]
    train, evaluation = (
        build_index(reader, f"Reading {name} masks")
        for reader, name in zip(readers, ("training", "evaluation"), strict=True)
    )
    names, scheme = readers[0].classes, data.fold_scheme
    if not isinstance(scheme, str):
        scheme = OmegaConf.to_container(scheme)
    census = count_folds(train, evaluation, len(names), scheme, data.min_pixels)
    console = Console()
    console.print(f"{data.name}: {len(readers[0])} training and {len(readers[1])} evaluation pictures")
    console.print(_folds(census))
    console.print(_classes(census, [train, evaluation], names, data.min_pixels))
    published_way = data.min_pixels == PUBLISHED_PIXELS and scheme in ("contiguous", "interleaved")
    known = oracles(data.name, data.get("year"), (len(readers[0]), len(readers[1])), census)
    if known and published_way:
        console.print(_oracles(known))
    if cfg.pictures:
        _write_sheet(cfg, readers, [train, evaluation], census[cfg.fold])
        console.print(f"Episodes of fold {cfg.fold}: {cfg.sheet}", soft_wrap=True)
    if published_way and (differing := [oracle for oracle in known if oracle.found != oracle.published]):
        console.print(
            f"{len(differing)} numbers differ from the published lists, so results will not be comparable: "
            "prepare the data again from the official archives (python -m fss.data.prepare)",
            style="bold red",
        )
        sys.exit(1)


def _folds(census: Sequence[FoldCensus]) -> Table:
    table = Table("fold", title="Classes and pictures of each fold", title_justify="left")
    for column in (
        "novel\nclasses",
        "base\nclasses",
        "training,\nnovel excluded",
        "training,\nnovel kept",
        "evaluation",
    ):
        table.add_column(column, justify="right")
    for number, fold in enumerate(census):
        classes = (len(fold.classes.novel), len(fold.classes.base))
        pictures = (fold.excluded, fold.not_excluded, fold.evaluation)
        table.add_row(str(number), *map(str, (*classes, *pictures)))
    return table


def _classes(
    census: Sequence[FoldCensus], indices: Sequence[Index], names: Sequence[str], min_pixels: int
) -> Table:
    title = f"Pictures of each class\n(at least {min_pixels} pixels of it)"
    table = Table("id", "class", title=title, title_justify="left")
    for column in ("novel in fold", "training", "evaluation"):
        table.add_column(column, justify="right")
    counts = zip(*(count_classes(index, len(names), min_pixels) for index in indices), strict=True)
    for class_id, (name, row) in enumerate(zip(names, counts, strict=True), start=1):
        folds = ", ".join(str(number) for number, fold in enumerate(census) if class_id in fold.classes.novel)
        table.add_row(str(class_id), name, folds, *map(str, row))
    return table


def _oracles(known: Sequence[Oracle]) -> Table:
    table = Table("", title="Published lists", title_justify="left")
    for column in ("published", "here", ""):
        table.add_column(column, justify="right")
    for oracle in known:
        equal = oracle.published == oracle.found
        verdict = "equal" if equal else f"{oracle.found - oracle.published:+d}"
        table.add_row(
            oracle.what, str(oracle.published), str(oracle.found), verdict, style=None if equal else "bold red"
        )
    return table


def _write_sheet(cfg: DictConfig, readers: Sequence[Reader], indices: Sequence[Index], fold: FoldCensus) -> None:
    """Draws the first training episodes (augmented) and evaluation episodes of a run with these settings."""
    from fss.data.episodes import EpisodeDataset  # these bring torch, which --help need not wait for
    from fss.visualize import EpisodePicture, save_sheet

    data, pictures = cfg.dataset, []
    training = (readers[0], indices[0], fold.classes.base, fold.classes.novel if data.exclude_novel else ())
    evaluation = (readers[1], indices[1], getattr(fold.classes, data.eval_classes), ())
    for part, transform, seed, (reader, index, classes, exclude) in (
        ("training", data.train_transform, cfg.seed, training),
        ("evaluation", data.eval_transform, cfg.seeds[0], evaluation),
    ):
        named = dict(enumerate(reader.classes, start=1))
        pool = build_pool(index, classes, cfg.shot, data.min_pixels, exclude, named)
        episodes = EpisodeDataset(
            reader,
            pool,
            cfg.shot,
            seed,
            instantiate(transform, _convert_="all"),
            support_annotation=data.support_annotation,
        )
        for i in range(cfg.pictures):
            episode = episodes[i]
            pictures.append(
                EpisodePicture(
                    title=f"{part}: {named[int(episode.class_id)]}",
                    query=episode.query,
                    query_mask=episode.query_mask,
                    support=episode.support,
                    support_mask=episode.support_mask,
                )
            )
    save_sheet(pictures, Path(cfg.sheet))


if __name__ == "__main__":
    run_script(main)
