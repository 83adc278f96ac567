"""Results of many runs as one JSON file, which can be committed and added to: what docs/results.md is made from.

The file has, for every evaluation, what it is of and the integers of every episode, from which scores are computed
again whenever they are shown, and learning curves. Differences between tunings (`fss.report.paired`) are made from
the same integers; they are kept because their intervals take a while.

Evaluations that ask the same questions, the same classes in the same queries, share a list of these. An episode's
foreground and background are parts of the same counted pixels, so that the integers of the background follow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fss.display.shown import shown
from fss.evaluation.metrics_file import check_changes, check_entries, is_amount, is_count, is_text
from fss.evaluation.results import EpisodeResult, read_episodes, summarize
from fss.evaluation.tables import changes
from fss.files.digests import digest, stem
from fss.files.plain import read_json
from fss.files.whole import check_target, whole
from fss.report.curves import LARGEST, LOGS, read_logs
from fss.report.found import Evaluation, Found, Run
from fss.report.machine import machine

FORMAT = 2
_IDENTITY = (
    *("dataset", "method", "tuning", "backbone", "fold", "seed", "shot", "train_shot", "support_annotation"),
    *("eval_classes", "checkpoint", "selection", "protocol", "episodes", "eval_seeds"),
)
_TOLD = (*_IDENTITY, "train_seconds", "test_seconds", "trained_parameters")
_COLUMNS = {"loss": "train/loss", "miou": "val/miou"}  # of learning curves
_POINTS = 20  # of a loss curve, each the mean of successive values


class Questions(NamedTuple):
    """What the episodes of an evaluation ask, whatever the supports and the answers.

    Attributes:
        classes: Names of all classes that count, by id; those that no episode asks for count as 0.
        asked: For each seed the class id and the counted pixels of every episode, in order of their ids.
    """

    classes: dict[int, str]
    asked: dict[int, list[tuple[int, int]]]


class Result(NamedTuple):
    """One evaluation of a collection.

    Attributes:
        place: Folder of its runs below the collected one; "" if it is that.
        told: What it is of: `dataset`, `method`, ..., `trained_parameters`, as in metrics.json.
        made_by: Number of its machine among the collection's, and `git_revision`.
        questions: Digest of what its episodes ask.
        episodes: Its episodes, without the names of pictures.
        scores: What `summarize` makes of them.
    """

    place: str
    told: Mapping[str, Any]
    made_by: tuple[int, str]
    questions: str
    episodes: list[EpisodeResult]
    scores: Mapping[str, Any]

    @property
    def row(self) -> tuple[Any, ...]:
        """What all results that differ only in fold and training seed have in common."""
        shared = [key for key in _IDENTITY if key not in ("fold", "seed")]
        return self.place, *(str(self.told[key]) for key in shared), changes(self.told)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells it from all other results."""
        return *self.row, self.told["fold"], self.told["seed"]


class Curve(NamedTuple):
    """How one training went: steps and values of the training loss and of the validation's mIoU (fractions)."""

    place: str
    method: str
    tuning: str
    backbone: str
    fold: int
    seed: int
    loss: list[list[float]]
    miou: list[list[float]]


class Collection(NamedTuple):
    """Results of one or several machines.

    Attributes:
        machines: Processor, cores, memory, system and packages of each, by name.
        questions: What episodes ask, by digest.
        results: One for each evaluation.
        curves: One for each training that has ended.
    """

    machines: list[dict[str, str]]
    questions: dict[str, Questions]
    results: list[Result]
    curves: list[Curve]


def collect(folder: Path) -> Collection:
    """Collects all evaluations of the standard setting below a folder.

    Raises:
        FileNotFoundError: There is no such folder, or no evaluation in it.
        ValueError: A file in it is not what this program writes.
    """
    found = Found(folder)
    evaluations = [e for e in found.evaluations if e.weights != "file"]  # of which nobody knows the training
    if not evaluations:
        raise FileNotFoundError(f"no evaluation of a run below {folder}: train or evaluate first")
    questions: dict[str, Questions] = {}
    results = [_result(evaluation, folder, questions) for evaluation in evaluations]
    curves = [_curve(run, folder) for run in found.runs.values() if _has_curve(run)]
    return Collection([machine()], questions, results, curves)


def add(old: Collection, new: Collection) -> Collection:
    """All that either holds; where both hold an evaluation or a training, the new one."""
    machines = [*old.machines, *(one for one in new.machines if one not in old.machines)]
    results = {result.identity: result for result in old.results}
    for result in new.results:
        number, revision = result.made_by
        here = machines.index(new.machines[number])
        results[result.identity] = result._replace(made_by=(here, revision))
    kept = [results[key] for key in sorted(results)]
    used = sorted({result.made_by[0] for result in kept})
    kept = [one._replace(made_by=(used.index(one.made_by[0]), one.made_by[1])) for one in kept]
    asked = {result.questions for result in kept}
    questions = {key: value for key, value in (old.questions | new.questions).items() if key in asked}
    curves = {curve[:6]: curve for curve in (*old.curves, *new.curves)}
    return Collection([machines[i] for i in used], questions, kept, [curves[key] for key in sorted(curves)])


def check_file(file: Path, adds: bool) -> None:
    """Makes sure that a collection can be written, and is there if something is to be added to it.

    Raises:
        OSError: It cannot, or is not.
    """
    check_target(file)
    if adds and not file.exists():
        raise FileNotFoundError(f"no {file} to add to: leave out --add, and it is made")


def write_collection(file: Path, collection: Collection, pairs: Sequence[Any] = ()) -> None:
    """Writes a collection, one result in each line, so that versions of the file can be compared.

    Args:
        file: The file.
        collection: Its content.
        pairs: The collection's `fss.report.paired.Paired`.
    """
    content = {
        "machines": collection.machines,
        "questions": [_plain_questions(key, value) for key, value in collection.questions.items()],
        "results": [_plain_result(result) for result in collection.results],
        "pairs": [pair._asdict() for pair in pairs],
        "curves": [curve._asdict() for curve in collection.curves],
    }
    parts = [f'"format": {FORMAT}']
    for name, values in content.items():
        lines = ",\n".join(f"  {json.dumps(one)}" for one in values)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    with whole(file) as unfinished:
        unfinished.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def read_collection(file: Path) -> Collection:
    """Reads a collection; scores are computed from its integers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no collection of this version.
    """
    content = read_content(file)
    try:
        questions = dict(_read_questions(**told) for told in content["questions"])
        results = [_read_result(questions, **told) for told in content["results"]]
        machines = [_read_machine(one) for one in content["machines"]]
        if odd := {result.made_by[0] for result in results} - set(range(len(machines))):
            raise ValueError(f"no machine {min(odd)}")
        return Collection(machines, questions, results, [_read_curve(**told) for told in content["curves"]])
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {shown(error)}): collect anew") from error


def read_content(file: Path) -> dict[str, Any]:
    """The plain content of a collection's file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no collection of this version.
    """
    if not file.exists():
        raise FileNotFoundError(f"no {file}: make it (python -m fss.report collect RUNS --json {file})")
    content = read_json(file)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file} is no collection of this version (format {shown(found)}): collect anew")
    return dict(content)


def check(sound: bool, what: str) -> None:
    """Raises a ValueError that says what in a file is none of what this program writes."""
    if not sound:
        raise ValueError(f"{what}: not what this program writes")


def is_numbers(value: Any, count: int) -> bool:
    """Whether a value is a list of so many numbers of a size that can be drawn."""
    drawn = isinstance(value, list) and all(is_amount(one, -LARGEST) and one <= LARGEST for one in value)
    return drawn and len(value) == count


def _result(evaluation: Evaluation, folder: Path, questions: dict[str, Questions]) -> Result:
    """The result of an evaluation, whose questions are added to those known."""
    m, path = evaluation.metrics, evaluation.path.parent
    episodes = read_episodes(path)
    for e in episodes:
        if e.background_union + e.intersection != e.background_intersection + e.union:
            raise ValueError(f"{path}: episode {e.id} of seed {e.eval_seed} does not add up: evaluate again")
    classes = {c["id"]: name for seed in m["seeds"] for name, c in seed["classes"].items()}
    asked = {
        seed: [(e.class_id, e.background_union + e.intersection) for e in of]
        for seed, of in groupby(episodes, key=lambda e: e.eval_seed)
    }
    lines = [f"{e.eval_seed} {e.class_id} {stem(e.query)} {e.background_union + e.intersection}" for e in episodes]
    key = digest([*lines, *(f"{number} {name}" for number, name in sorted(classes.items()))])
    questions[key] = Questions(classes, asked)
    told = {name: m[name] for name in _TOLD} | {name: m[name] for name in ("adapt", "changed") if m.get(name)}
    place, made_by = _place(evaluation.path.parents[2], folder), (0, str(m["git_revision"]))
    return _of(place, told, made_by, key, questions[key], [(e.intersection, e.union) for e in episodes])


def _of(
    place: str,
    told: Mapping[str, Any],
    made_by: tuple[int, str],
    key: str,
    questions: Questions,
    counts: Iterable[tuple[int, int]],
) -> Result:
    """A result from what its episodes ask and the intersection and union of each."""
    asked = [(seed, number, *one) for seed, of in questions.asked.items() for number, one in enumerate(of)]
    episodes = [
        EpisodeResult(
            *(seed, number, class_id, questions.classes[class_id], "", ()),
            *(intersection, union, pixels - union, pixels - intersection),
        )
        for (seed, number, class_id, pixels), (intersection, union) in zip(asked, counts, strict=True)
    ]
    if any(not 0 <= e.intersection <= e.union <= e.background_union + e.intersection for e in episodes):
        raise ValueError("an intersection is larger than its union, or a union than the picture")
    unasked = questions.classes.keys() - {e.class_id for e in episodes}
    always = {number: questions.classes[number] for number in sorted(unasked)}
    return Result(place, told, made_by, key, episodes, summarize(episodes, always))


def _plain_questions(key: str, questions: Questions) -> dict[str, Any]:
    return {"digest": key, **questions._asdict()}


def _read_questions(digest: str, classes: Mapping[str, str], asked: Mapping[str, Any]) -> tuple[str, Questions]:
    numbered = {int(number): name for number, name in classes.items()}
    of_seed = {int(seed): [(class_id, pixels) for class_id, pixels in of] for seed, of in asked.items()}
    check(all(map(is_text, (digest, *numbered.values()))), "names of classes")
    check(all(is_count(one) for of in of_seed.values() for pair in of for one in pair), "what episodes ask")
    return digest, Questions(numbered, of_seed)


def _plain_result(result: Result) -> dict[str, Any]:
    counts = [[e.intersection, e.union] for e in result.episodes]
    kept = {key: getattr(result, key) for key in ("place", "made_by", "questions")}
    return {**result.told, **kept, "counts": counts}


def _read_result(
    known: Mapping[str, Questions], place: str, made_by: Any, questions: str, counts: Any, **told: Any
) -> Result:
    if lacking := set(_TOLD) - told.keys():
        raise ValueError(f"a result does not tell its {', '.join(sorted(lacking))}")
    check_entries(told, _TOLD)
    check_changes(told)
    number, revision = made_by
    check(is_text(place) and is_count(number) and is_text(revision), "where a result was made")
    check(all(is_count(one) for pair in counts for one in pair), "the integers of episodes")
    return _of(place, told, (number, revision), questions, known[questions], counts)


def _read_machine(told: Any) -> dict[str, str]:
    check(isinstance(told, dict) and all(map(is_text, told.values())), "a machine")
    return dict(told)


def _read_curve(**told: Any) -> Curve:
    curve = Curve(**told)
    check(all(map(is_text, curve[:4])) and all(map(is_count, curve[4:6])), "what a curve is of")
    for points in (curve.loss, curve.miou):
        check(all(is_numbers(point, 2) for point in points), "the points of a curve")
    return curve


def _has_curve(run: Run) -> bool:
    """Whether a run has a log of all of its training: the beginning of one would bend the mean of the others."""
    return run.has_trained and (run.folder / LOGS).is_dir()


def _place(run: Path, folder: Path) -> str:
    """The folder of outputs that a run is in, relative to the collected one."""
    outputs = Path(*run.resolve().parts[:-5])
    home = folder.resolve()
    return outputs.relative_to(home).as_posix().removeprefix(".") if outputs.is_relative_to(home) else ""


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
    told = c["method"]["name"], c.get("tuning", {}).get("name", ""), c["backbone"]["name"], c["fold"], c["seed"]
    return Curve(_place(run.folder, folder), *told, points["loss"], points["miou"])
