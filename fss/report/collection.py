"""Results of many runs as one small JSON file, which can be committed: what docs/results.md is made from.

The file has, for every evaluation, what it is of and the integers of every class, from which scores are computed
again whenever they are shown; learning curves; and paired comparisons of tunings, which need every episode and are
therefore made when the runs are at hand.
"""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from fss.display.shown import shown
from fss.evaluation.results import INTEGERS, EpisodeResult, summarize
from fss.evaluation.tables import is_adapted
from fss.files.plain import read_json
from fss.files.whole import whole
from fss.report.compare import compare, find_pairs
from fss.report.curves import LOGS, read_logs
from fss.report.found import Evaluation, Found, Run

FORMAT = 1
OURS = "svf"  # the tuning that the others are compared with
_TOLD = (
    *("dataset", "method", "tuning", "backbone", "fold", "seed", "shot", "train_shot", "support_annotation"),
    *("eval_classes", "checkpoint", "selection", "protocol", "episodes", "eval_seeds"),
    *("train_seconds", "test_seconds", "trained_parameters"),
)
_COLUMNS = {"loss": "train/loss", "miou": "val/miou"}  # of learning curves
_POINTS = 20  # of a loss curve, each the mean of successive values
_PACKAGES = ("torch", "torchvision", "lightning", "numpy")


class Result(NamedTuple):
    """One evaluation of a collection.

    Attributes:
        place: Folder of its runs below the collected one; "" if it is that.
        told: What it is of: `dataset`, `method`, ..., `trained_parameters`, as in metrics.json.
        scores: What `summarize` makes of its integers.
    """

    place: str
    told: Mapping[str, Any]
    scores: Mapping[str, Any]


class Paired(NamedTuple):
    """B minus A on the same episodes, mIoU as fractions; see `fss.report.compare`.

    Attributes:
        place, method, backbone, shot: What both have in common.
        a, b: The tunings.
        folds, seeds: Folds and training seeds that both have.
        episodes: Number of different episodes.
        values: mIoU of A, of B, and B - A.
        interval: 95 % interval of the difference over episodes.
        of_seed: Difference for each training seed.
        classes: Difference in IoU of each class, with its interval.
    """

    place: str
    method: str
    backbone: str
    shot: int
    a: str
    b: str
    folds: list[int]
    seeds: list[int]
    episodes: int
    values: list[float]
    interval: list[float]
    of_seed: dict[str, float]
    classes: dict[str, list[float]]


class Curve(NamedTuple):
    """How one training went: steps and values of the training loss and of the validation's mIoU (fractions)."""

    place: str
    method: str
    tuning: str
    fold: int
    seed: int
    loss: list[list[float]]
    miou: list[list[float]]


class Collection(NamedTuple):
    """The content of a collection's file.

    Attributes:
        machine: Processor, cores, memory, system and packages, by name.
        revisions: Revisions of the program that made the results.
        results, pairs, curves: The results.
    """

    machine: dict[str, str]
    revisions: list[str]
    results: list[Result]
    pairs: list[Paired]
    curves: list[Curve]


def collect(folder: Path) -> dict[str, Any]:
    """Collects all evaluations of the standard setting below a folder, as the content of a JSON file.

    Raises:
        FileNotFoundError: There is no such folder, or no evaluation in it.
        ValueError: A file in it is not what this program writes.
    """
    found = Found(folder)
    evaluations = [e for e in found.evaluations if e.weights != "file"]  # of which nobody knows the training
    if not evaluations:
        raise FileNotFoundError(f"no evaluation of a run below {folder}: train or evaluate first")
    return {
        "format": FORMAT,
        "machine": machine(),
        "revisions": sorted({str(e.metrics["git_revision"]) for e in evaluations}),
        "results": [_result(evaluation, folder) for evaluation in evaluations],
        "pairs": [pair._asdict() for pair in _pairs(found)],
        "curves": [_curve(run, folder)._asdict() for run in found.runs.values() if _has_curve(run)],
    }


def write_collection(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a collection, one result in each line, so that versions of the file can be compared."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join(f"  {json.dumps(one)}" for one in value)
            parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
    with whole(file) as unfinished:
        unfinished.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def read_collection(file: Path) -> Collection:
    """Reads a collection; scores are computed from its integers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no collection of this version.
    """
    content = read_json(file)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file} is no collection of this version (format {shown(found)}): collect anew")
    try:
        results = [_read_result(**told) for told in content["results"]]
        pairs = [Paired(**pair) for pair in content["pairs"]]
        curves = [Curve(**curve) for curve in content["curves"]]
        return Collection(dict(content["machine"]), list(content["revisions"]), results, pairs, curves)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {shown(error)}): collect anew") from error


def machine() -> dict[str, str]:
    """What this machine is, in words."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _has_curve(run: Run) -> bool:
    """Whether a run has a log of all of its training: the beginning of one would bend the mean of the others."""
    return run.has_trained and (run.folder / LOGS).is_dir()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def _result(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    m = evaluation.metrics
    classes = [
        [seed["eval_seed"], c["id"], name, *(c[key] for key in INTEGERS)]
        for seed in m["seeds"]
        for name, c in seed["classes"].items()
    ]
    told = {key: m[key] for key in _TOLD} | ({"adapt": True} if is_adapted(m) else {})
    return {"place": _place(evaluation.path.parents[2], folder), **told, "classes": classes}


def _read_result(place: str, classes: Sequence[Any], **told: Any) -> Result:
    if lacking := set(_TOLD) - told.keys():
        raise ValueError(f"a result does not tell its {', '.join(sorted(lacking))}")
    rows = (EpisodeResult(seed, 0, number, name, "", (), *rest) for seed, number, name, *rest in classes)
    return Result(place, told, summarize(rows))


def _place(run: Path, folder: Path) -> str:
    """The folder of outputs that a run is in, relative to the collected one."""
    outputs = Path(*run.resolve().parts[:-5])
    home = folder.resolve()
    return outputs.relative_to(home).as_posix().removeprefix(".") if outputs.is_relative_to(home) else ""


def _pairs(found: Found) -> list[Paired]:
    """Our tuning against every other one of the same method, backbone and shot in training."""
    groups: dict[tuple[Path, str, str, str], dict[str, Path]] = defaultdict(dict)
    for run in found.runs.values():
        c = run.config
        if "tuning" in c:
            root = run.folder.parent.parent  # OUTPUTS/DATASET/METHOD-TUNING-BACKBONE/Kshot
            key = (root.parent.parent, c["method"]["name"], c["backbone"]["name"], root.name)
            groups[key][c["tuning"]["name"]] = root
    made = []
    for (_, method, backbone, _), roots in sorted(groups.items()):
        for other in sorted(roots.keys() - {OURS}) if OURS in roots else ():
            made += _compared(found.folder, method, backbone, other, (roots[other], roots[OURS]))
    return made


def _compared(folder: Path, method: str, backbone: str, other: str, roots: tuple[Path, Path]) -> list[Paired]:
    try:
        groups, _ = find_pairs(*roots)
    except FileNotFoundError:  # no fold and seed that both have
        return []
    made = []
    for pairs in groups:
        first = pairs[0].metrics[0]
        if first["selection"] != "none" or first["eval_classes"] != "novel" or is_adapted(first):
            continue
        result = compare(pairs)
        both = [pair.metrics[0] for pair in pairs]
        made.append(
            Paired(
                place=_place(roots[0] / "fold" / "seed", folder),
                method=method,
                backbone=backbone,
                shot=first["shot"],
                a=other,
                b=OURS,
                folds=sorted({m["fold"] for m in both}),
                seeds=sorted({m["seed"] for m in both}),
                episodes=result.episodes,
                values=[result.miou.a, result.miou.b, result.miou.difference],
                interval=list(result.miou.interval),
                of_seed={str(seed): value for seed, value in sorted(result.of_seed.items())},
                classes={row.label: [row.difference, *row.interval] for row in result.classes},
            )
        )
    return made


def _curve(run: Run, folder: Path) -> Curve:
    logs = read_logs(run.folder / LOGS)
    points = {}
    for name, column in _COLUMNS.items():
        steps, values = logs.get(column, ((), ()))
        size = max(1, -(-len(steps) // _POINTS)) if name == "loss" else 1
        points[name] = [
            [round(float(sum(part) / len(part)), 5) for part in (steps[i : i + size], values[i : i + size])]
            for i in range(0, len(steps), size)
        ]
    c = run.config
    told = c["method"]["name"], c.get("tuning", {}).get("name", ""), c["fold"], c["seed"]
    return Curve(_place(run.folder, folder), *told, points["loss"], points["miou"])
