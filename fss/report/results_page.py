"""A page of results from a collection: one table, paired comparisons, learning curves and classes.

The page is a Markdown file. What is made stands between two marks; what people write around them stays.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from fss.evaluation.results import Spread, spread
from fss.evaluation.tables import supports_told, tuning_told
from fss.files.text import read_text
from fss.files.whole import check_target, whole
from fss.report.collection import Collection, Curve, Result, read_collection
from fss.report.escape import in_markdown
from fss.report.paired import Paired, is_control, read_pairs
from fss.report.results_drawings import draw_classes, draw_curves

BEGIN, END = "<!-- made by python -m fss.report page: do not edit -->", "<!-- end of what is made -->"
CURVES, CLASSES = "curves.svg", "classes.svg"  # in a folder beside the page, named like it


class Row(NamedTuple):
    """Results that differ only in fold and training seed.

    Attributes:
        name: What distinguishes it from the other rows.
        shot: Supports per episode.
        results: Of all folds and seeds.
    """

    name: str
    shot: int
    results: list[Result]

    @property
    def folds(self) -> list[int]:
        return sorted({r.told["fold"] for r in self.results})

    @property
    def seeds(self) -> list[int]:
        return sorted({r.told["seed"] for r in self.results})

    def of_fold(self, fold: int, key: str = "miou") -> float | None:
        """Mean over seeds; None without a result."""
        values = [r.scores[key] for r in self.results if r.told["fold"] == fold]
        return fmean(values) if values else None

    def mean(self, key: str = "miou") -> Spread:
        """Mean over folds, with its spread over the seeds that have all folds; or else the mean of their means."""
        complete = []
        for seed in self.seeds:
            values = [r.scores[key] for r in self.results if r.told["seed"] == seed]
            complete += [fmean(values)] if len(values) == len(self.folds) else []
        return spread(complete or [fmean(self.of_fold(fold, key) or 0.0 for fold in self.folds)])

    def classes(self) -> dict[str, float]:
        """IoU of each class by name in order of ids, mean over seeds."""
        values: dict[tuple[int, str], list[float]] = defaultdict(list)
        for result in self.results:
            for name, c in result.scores["classes"].items():
                values[c["id"], name].append(c["iou"])
        return {name: fmean(of) for (_, name), of in sorted(values.items())}


def write_page(file: Path, page: Path) -> list[Path]:
    """Makes a page and its drawings from a collection, all or none.

    Args:
        file: The collection.
        page: The Markdown file. What it has outside of the marks is kept; a new one gets a title.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: There is no collection.
        OSError: A file cannot be written.
        ValueError: It is none, or the page has lost a mark, or its name has no suffix.
    """
    if not page.suffix:
        raise ValueError(f"{page}: give the page a suffix, as in results.md; its drawings go into results/")
    folder = page.with_suffix("")
    for path in (page, folder / CLASSES, folder / CURVES):
        check_target(path)
    collection, pairs = read_collection(file), read_pairs(file)
    main = [row for row in rows(collection) if row.shot == 1][:6]
    if not main:
        raise ValueError(f"{file} has no 1-shot evaluation of novel classes to show")
    files = {page: _page(page, made(collection, pairs, file.name, folder.name))}
    files[folder / CLASSES] = draw_classes([(row.name, row.classes()) for row in main])
    if curves := _usual_curves(collection):
        files[folder / CURVES] = draw_curves(curves)
    with ExitStack() as stack:
        for path, text in files.items():
            stack.enter_context(whole(path)).write_text(text, encoding="utf-8")
    return list(files)


def rows(collection: Collection, classes: str = "novel") -> list[Row]:
    """The rows of the table: 1-shot first, then the best first; controls last.

    Args:
        collection: The results.
        classes: Which classes were evaluated, "novel" or "base".
    """
    groups: dict[tuple[str, int, bool], list[Result]] = defaultdict(list)
    for name, r in zip(_names(collection), collection.results, strict=True):
        if r.told["eval_classes"] == classes and r.told["selection"] == "none":
            groups[name, r.told["shot"], is_control(r)].append(r)
    made = [(is_control, Row(name, shot, results)) for (name, shot, is_control), results in groups.items()]
    return [row for _, row in sorted(made, key=lambda p: (p[1].shot, p[0], -p[1].mean().mean, p[1].name))]


def made(collection: Collection, pairs: Sequence[Paired], source: str, folder: str) -> str:
    """The made part of the page.

    Args:
        collection: What it is made from.
        pairs: Its differences.
        source: Name of the collection's file.
        folder: Name of the folder with the drawings.
    """
    first = collection.results[0].told
    seeds = ", ".join(map(str, first["eval_seeds"]))
    backbone = _usual_backbone(collection) + " where no other is named" * (len(_backbones(collection)) > 1)
    parts = [
        f"{first['dataset']}, {backbone}; {first['episodes']} episodes of each fold (seed {seeds}, "
        f"protocol {first['protocol']}), last checkpoint. mIoU in percent; ± is the standard deviation over "
        "training seeds.",
        _table(rows(collection)),
        "## Differences on the same episodes",
        "B - A in points of mIoU, with its 95 % interval over episodes (stratified paired bootstrap) and the "
        "difference of each training seed. B is SVF with the same method and backbone, or else the best row of "
        "SVF; of what an evaluation changed, the same without.",
        _differences(collection, pairs),
        *_base_classes(collection),
        "## Classes",
        f"![IoU of every class]({folder}/{CLASSES})",
    ]
    if _usual_curves(collection):
        parts += [
            "## Learning curves",
            "Means over the folds and seeds that there are; a band, drawn where lines are few, reaches from the "
            "lowest of them to the highest.",
            f"![Training loss and validation mIoU]({folder}/{CURVES})",
        ]
    return "\n\n".join([*parts, "## Made by", _made_by(collection, source)])


def _page(page: Path, text: str) -> str:
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    if not page.is_file():
        return f"# Results\n\n{block}\n"
    before = read_text(page)
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise ValueError(f"{page} needs each of these lines once, in this order: {BEGIN} and {END}")
    return before[: before.index(BEGIN)] + block + before[before.index(END) + len(END) :]


def _usual_curves(collection: Collection) -> list[Curve]:
    """Those of few-shot trainings that are no controls."""
    return [curve for curve in collection.curves if curve.place in ("", "usual") and curve.tuning]


def _backbones(collection: Collection) -> Counter[str]:
    return Counter(result.told["backbone"] for result in collection.results)


def _usual_backbone(collection: Collection) -> str:
    """That of most results."""
    counts = _backbones(collection)
    return max(sorted(counts), key=lambda name: counts[name])


def _names(collection: Collection) -> list[str]:
    """What each result is of, but for fold, seed and shots; with its backbone if most have another."""
    usual = _usual_backbone(collection)
    names = []
    for place, told, *_ in collection.results:
        name = f"{told['method']}, {tuning_told(told)}" + (
            f", {told['backbone']}" if told["backbone"] != usual else ""
        )
        more = [place.replace("_", " ")] if place not in ("", "usual") else []
        if "support" not in place:
            more += [supports_told(told).removeprefix(", ").removeprefix("control: ")]
        names.append(": ".join([name, *filter(None, more)]))
    return names


def _table(found: Sequence[Row]) -> str:
    folds = sorted({fold for row in found for fold in row.folds})
    head = ["", "shots", *(f"fold {fold}" for fold in folds), "mIoU", "FB-IoU", "seeds"]
    head += ["trained", "training (s)", "evaluation (s)"]
    body = []
    for row in found:
        complete = len(row.folds) == len(folds)
        body.append(
            [
                in_markdown(row.name),
                str(row.shot),
                *(_percent(row.of_fold(fold)) for fold in folds),
                f"**{_show(row.mean())}**" if complete else f"({_show(row.mean())})",
                _show(row.mean("fb_iou")),
                str(len(row.seeds)),
                _number(r.told["trained_parameters"] for r in row.results),
                _number(r.told["train_seconds"] for r in row.results),
                _number(r.told["test_seconds"] for r in row.results),
            ]
        )
    table = _markdown(head, body)
    if any(len(row.folds) < len(folds) for row in found):
        table += "\n\n(In brackets: means over fewer folds, not to be compared with the others.)"
    return table


def _base_classes(collection: Collection) -> list[str]:
    """What models make of other pictures of the classes that they were trained on; nothing where nobody asked."""
    novel = {(row.name, row.shot): row for row in rows(collection)}
    body = []
    for row in rows(collection, "base"):
        runs = {(r.told["fold"], r.told["seed"]) for r in row.results}
        same = novel.get((row.name, row.shot), Row(row.name, row.shot, []))
        same = same._replace(results=[r for r in same.results if (r.told["fold"], r.told["seed"]) in runs])
        if len(same.results) == len(row.results):
            base, other = row.mean().mean, same.mean().mean
            told = [_percent(base), _percent(other), f"**{100 * (base - other):.1f}**", _listed(row.folds)]
            body.append([in_markdown(row.name), str(row.shot), *told])
    if not body:
        return []
    return [
        "## Base and novel classes",
        "mIoU in percent on evaluation pictures of the classes that were trained on, and of the others, by the "
        "same runs. Classes and pictures differ, so that only differences between rows say something.",
        _markdown(["", "shots", "base", "novel", "base - novel", "folds"], body),
    ]


def _differences(collection: Collection, pairs: Sequence[Paired]) -> str:
    if not pairs:
        return "(no pair of rows yet)"
    names, results = _names(collection), collection.results
    body = []
    for p in sorted(pairs, key=lambda p: (results[p.a].told["shot"], is_control(results[p.a]), p.values[2])):
        by_seed = ", ".join(f"{100 * value:+.1f}" for value in p.of_seed.values())
        body.append(
            [
                f"{in_markdown(names[p.a])} ({_percent(p.values[0])})",
                f"{in_markdown(names[p.b])} ({_percent(p.values[1])})",
                str(results[p.a].told["shot"]),
                f"**{100 * p.values[2]:+.1f}**",
                f"{100 * p.interval[0]:+.1f} to {100 * p.interval[1]:+.1f}",
                by_seed,
                _listed(p.folds),
            ]
        )
    return _markdown(["A", "B", "shots", "B - A", "95 % interval", "by seed", "folds"], body, texts=2)


def _made_by(collection: Collection, source: str) -> str:
    machines = []
    for number, machine in enumerate(collection.machines):
        told = dict(machine)
        what = [told.pop(name, "?") for name in ("processor", "cores", "memory", "system")]
        what[1] += " cores"
        packages = ", ".join(f"{name} {version}" for name, version in told.items())
        own = [result.made_by[1][:12] for result in collection.results if result.made_by[0] == number]
        revisions = ", ".join(dict.fromkeys(own))
        machines.append(f"{len(own)} evaluations on {', '.join(what)} ({packages}), revision {revisions}")
    return in_markdown(
        f"{'; '.join(machines)}. The integers of every episode are in {source}. Times are medians, on machines "
        "that were shared with other programs."
    )


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns hold words, and the others numbers."""
    rule = [*["---"] * texts, *["---:"] * (len(head) - texts)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def _show(value: Spread) -> str:
    mean = f"{100 * value.mean:.1f}"
    return mean if value.std is None else f"{mean} ± {100 * value.std:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(values: Iterable[float | None]) -> str:
    """Median over folds and seeds: one run that was held up on a busy machine says nothing."""
    known = [value for value in values if value is not None]
    return f"{median(known):,.0f}".replace(",", " ") if known else "-"


def _listed(folds: Sequence[int]) -> str:
    return ", ".join(map(str, folds))
