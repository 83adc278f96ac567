"""Prints the classes and pictures of every fold, compares them with published numbers, and draws sample episodes.

python -m fss.data.check dataset=pascal5i dataset.root=DIR
python -m fss.data.check dataset=folder dataset.root=DIR fold=2 shot=5     # the sheet shows episodes of this fold
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from fss.cli import kinds
from fss.cli.decided import check_decided
from fss.cli.errors import run_script
from fss.configuration import conf_folder
from fss.data.check.census import FoldCensus, count_classes, count_folds
from fss.data.check.published import Comparison, Fact, compare, compare_official
from fss.data.folds import fold_classes
from fss.data.index import Index, build_index
from fss.data.lists import in_order
from fss.data.readers.reader import Reader, checked_reader
from fss.display.console import PlainConsole


@hydra.main(version_base="1.3", config_path=conf_folder(), config_name="check")
def main(cfg: DictConfig) -> None:
    from fss.cli.declared import check_declared  # brings torch, which --help need not wait for

    kinds.check(cfg, {**kinds.OF_RUNS, "fold": kinds.whole(0), "sheet": kinds.path})
    check_declared(cfg)
    check_decided(cfg)
    data = cfg.dataset
    readers: list[Reader] = [checked_reader(instantiate(data[part])()) for part in ("train_reader", "eval_reader")]
    train, evaluation = (
        build_index(reader, f"Reading {name} masks")
        for reader, name in zip(readers, ("training", "evaluation"), strict=True)
    )
    if data.eval_list is not None:
        readers[1], evaluation = in_order(readers[1], evaluation, data.eval_list)
    names, scheme = readers[0].classes, data.fold_scheme
    if not isinstance(scheme, str):
        scheme = OmegaConf.to_container(scheme)
    census = count_folds(train, evaluation, len(names), scheme, data.min_pixels)
    console = PlainConsole()
    console.print(f"{data.name}: {len(readers[0])} training and {len(readers[1])} evaluation pictures")
    console.print(_folds(census))
    console.print(_classes(census, [train, evaluation], names, data.min_pixels))
    own = getattr(readers[1], "own_classes", names)
    if tuple(own) != tuple(names):
        console.print(_matched(names, own))
    compared = compare(
        data.name, scheme, data.min_pixels, readers, [train, evaluation], data.get("year"), data.get("crowd")
    )
    compared += compare_official(readers[1])
    if compared:
        console.print(_published(compared))
    if official := getattr(readers[1], "official", None):
        console.print(f"Number of pictures: {official.source}", soft_wrap=True, highlight=False)
    if cfg.pictures:
        _write_sheet(cfg, training=bool(fold_classes(len(names), cfg.fold, scheme).base))
        console.print(f"Episodes of fold {cfg.fold}: {cfg.sheet}", soft_wrap=True)
    if differing := [comparison for comparison in compared if not comparison.equal]:
        console.print(
            f"{len(differing)} of {len(compared)} published lists differ from those of this copy, so results will "
            "not be comparable: prepare the data again from the official archives (python -m fss.data.prepare)",
            style="bold red",
        )
        sys.exit(1)
    if compared:
        console.print(f"All {len(compared)} published lists agree with this copy.")


def _matched(names: Sequence[str], own: Sequence[str]) -> Table:
    """Ids of each class in the training and in the evaluation files, which are matched by name."""
    table = Table("class", title="Classes of both sets of pictures", title_justify="left")
    for column in ("id in training", "id in evaluation"):
        table.add_column(column, justify="right")
    for class_id, name in enumerate(names, start=1):
        table.add_row(name, str(class_id), str(own.index(name) + 1) if name in own else "none")
    return table


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


def _published(compared: Sequence[Comparison]) -> Table:
    """A row for each list; the figures that differ are red and stand before the published ones."""
    parts = list(dict.fromkeys(comparison.part for comparison in compared))
    exact = any(comparison.published.sha256 for comparison in compared)
    title = "Published lists: entries" + (", compared one by one and in their order" if exact else "")
    table = Table("list", title=title, title_justify="left")
    for part in parts:
        table.add_column(part.replace("_", " "), justify="right")
    for name, row in groupby(compared, key=lambda comparison: comparison.of):
        cells = {comparison.part: _cell(comparison.published, comparison.found) for comparison in row}
        table.add_row(name, *(cells.get(part, "") for part in parts))
    return table


def _cell(published: Fact, found: Fact) -> Text:
    if found == published:
        return Text(str(found.entries))
    differs = "others" if found.entries == published.entries else f"not {published.entries}"
    return Text(f"{found.entries}, {differs}", style="bold red")


def _write_sheet(cfg: DictConfig, training: bool) -> None:
    """Draws the first evaluation episodes of a run with these settings, below those of training (augmented).

    Args:
        cfg: All settings.
        training: Whether the fold has classes to train on.
    """
    from fss.data.datamodule import FewShotDataModule  # these bring torch, which --help need not wait for
    from fss.visualize import EpisodePicture, save_sheet

    datamodule: FewShotDataModule = instantiate(cfg.datamodule, _convert_="all")
    datamodule.setup("fit" if training else "test")
    parts = {"training": datamodule.training} if training else {}
    parts["evaluation"] = datamodule.evaluation
    pictures = []
    for part, episodes in parts.items():
        for i in range(cfg.pictures):
            episode = episodes[i]
            pictures.append(
                EpisodePicture(
                    title=f"{part}: {episodes.reader.classes[int(episode.class_id) - 1]}",
                    query=episode.query,
                    query_mask=episode.query_mask,
                    support=episode.support,
                    support_mask=episode.support_mask,
                )
            )
    save_sheet(pictures, Path(cfg.sheet))


if __name__ == "__main__":
    run_script(main)
