"""Collections of results and the page that is made from one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from support import ROOT, made_up

from fss.evaluation.results import read_metrics
from fss.report.__main__ import main
from fss.report.collection import Collection, Curve, add, collect, read_collection, write_collection
from fss.report.compare import compare, find_pairs
from fss.report.drawing import color_of
from fss.report.found import Found
from fss.report.paired import paired, read_pairs
from fss.report.results_drawings import MOST_RANGES, draw_curves
from fss.report.results_page import BEGIN, END, made, rows, write_page
from fss.report.tables import comparisons


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tunings on two folds with two seeds, five shots of one, a control, and a training-free method."""
    outputs = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for fold in (0, 1):
        for seed in (0, 1):
            for tuning, iou in (("frozen", 0.4), ("svf", 0.5)):
                told: dict[str, Any] = {"tuning": tuning, "fold": fold, "seed": seed}
                made_up.run(outputs / "usual", **told)
                episodes = made_up.episodes(iou, ("star", "ring"), rng=rng)
                made_up.evaluation(outputs / "usual", made=episodes, **told)
        made_up.evaluation(outputs / "usual", 0.3, fold=fold, method="prior", changes={"trained_parameters": 0})
        made_up.evaluation(outputs / "no_supports", 0.2, fold=fold)
    made_up.evaluation(outputs / "usual", 0.6, shot=5, train_shot=1)
    return outputs


@pytest.fixture(scope="module")
def file(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("kept") / "results.json"
    keep(file, collect(outputs))
    return file


def keep(file: Path, collection: Collection) -> None:
    write_collection(file, collection, paired(collection))


def test_curves_are_of_trainings_that_have_ended(tmp_path: Path) -> None:
    for seed, has_trained in ((0, True), (1, False)):
        made_up.run(tmp_path, seed=seed, has_trained=has_trained)
    made_up.evaluation(tmp_path)
    assert [curve.seed for curve in collect(tmp_path).curves] == [0]


def test_it_holds_what_was_measured(file: Path, outputs: Path) -> None:
    collection = read_collection(file)
    metrics = list(read_metrics(outputs).values())
    assert len(collection.results) == len(metrics) == 13
    for result in collection.results:
        same = next(
            m
            for m in metrics
            if all(m[key] == value for key, value in result.told.items())
            and m["miou"] == pytest.approx(result.scores["miou"], abs=1e-12)
        )
        assert result.scores["classes"].keys() == same["classes"].keys()
    assert {result.place for result in collection.results} == {"usual", "no_supports"}
    assert {result.made_by for result in collection.results} == {(0, "abc123")}
    assert int(collection.machines[0]["cores"]) > 0
    assert collection == collect(outputs)._replace(results=collection.results)


def test_a_line_for_each_result(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert sum('"support_annotation"' in line for line in lines) == 13
    assert max(map(len, lines)) < 3000


def test_pairs_are_those_of_compare(file: Path, outputs: Path) -> None:
    results, pairs = read_collection(file).results, read_pairs(file)
    pair = next(pair for pair in pairs if results[pair.a].told["tuning"] == "frozen")
    root = outputs / "usual/shapes"
    groups, _ = find_pairs(root / "pfenet-frozen-resnet50/1shot", root / "pfenet-svf-resnet50/1shot")
    expected = compare(groups[0])
    assert (results[pair.b].told["tuning"], pair.folds, pair.seeds) == ("svf", [0, 1], [0, 1])
    assert pair.values == [expected.miou.a, expected.miou.b, expected.miou.difference]
    assert tuple(pair.interval) == expected.miou.interval
    assert pair.of_seed == {str(seed): value for seed, value in expected.of_seed.items()}


def test_everything_is_compared_with_svf(file: Path) -> None:
    results, pairs = read_collection(file).results, read_pairs(file)
    told = {(r.told["method"], r.told["tuning"], r.place): p for p in pairs for r in [results[p.a]]}
    prior, control = told["prior", "svf", "usual"], told["pfenet", "svf", "no_supports"]
    assert len(pairs) == len(told) == 3
    assert {results[pair.b].place for pair in pairs} == {"usual"}
    assert {results[pair.b].told["tuning"] for pair in pairs} == {"svf"}
    # a prior has no training seed of its own
    assert (prior.folds, prior.seeds, list(prior.of_seed)) == ([0, 1], [0, 1], ["0", "1"])
    assert (control.folds, control.seeds) == ([0, 1], [0])
    assert prior.values[0] == pytest.approx(0.3)
    assert control.values[0] == pytest.approx(0.2)


def test_other_questions_are_not_compared(tmp_path: Path) -> None:
    made_up.evaluation(tmp_path, tuning="svf")
    made_up.evaluation(tmp_path, tuning="frozen", eval_seeds=[322])
    made_up.evaluation(tmp_path, tuning="full", made=made_up.episodes(0.4, ("star", "ring"), each=5))
    assert paired(collect(tmp_path)) == []


def test_adding(outputs: Path, file: Path, tmp_path: Path) -> None:
    """What is collected in parts, and some of it again, is what is collected at once."""
    other, kept = tmp_path / "outputs", tmp_path / "results.json"
    told: dict[str, Any] = {"tuning": "full", "fold": 1, "seed": 3}
    made_up.run(other / "usual", **told)
    made_up.evaluation(other / "usual", 0.7, **told)
    made_up.evaluation(other / "usual", 0.1, fold=0, method="prior", changes={"trained_parameters": 0})
    new = collect(other)
    elsewhere = new._replace(machines=[{**new.machines[0], "processor": "another"}])
    keep(kept, add(read_collection(file), elsewhere))
    both = read_collection(kept)
    assert len(both.results) == 13 + 1
    assert len(both.curves) == len(read_collection(file).curves) + 1
    assert {m["processor"] for m in both.machines} == {new.machines[0]["processor"], "another"}
    replaced = [r for r in both.results if (r.told["method"], r.told["fold"]) == ("prior", 0)]
    assert [(r.scores["miou"], r.made_by[0]) for r in replaced] == [(pytest.approx(0.1), 1)]
    keep(kept, add(both, collect(outputs)))  # what was replaced is as before, and its questions are still there
    again = read_collection(kept)
    assert [r.scores["miou"] for r in again.results if r.told["tuning"] != "full"] == [
        r.scores["miou"] for r in sorted(read_collection(file).results, key=lambda r: r.identity)
    ]
    assert [r.made_by[0] for r in again.results].count(1) == 1


def test_a_machine_of_which_nothing_is_left(outputs: Path) -> None:
    here = collect(outputs)
    old = here._replace(machines=[{**here.machines[0], "processor": "another"}])
    assert add(old, here).machines == here.machines


def test_scores_are_those_of_the_evaluation(outputs: Path, file: Path) -> None:
    """The background too, which the file does not hold."""
    keys = ("method", "tuning", "fold", "seed", "shot")
    metrics = {tuple(m[key] for key in keys): m for m in read_metrics(outputs / "usual").values()}
    usual = [result for result in read_collection(file).results if result.place == "usual"]
    assert len(usual) == len(metrics) == 11
    for result in usual:
        same = metrics[tuple(result.told[key] for key in keys)]
        assert result.scores == {key: same[key] for key in result.scores}


def test_episodes_that_do_not_add_up(tmp_path: Path) -> None:
    [first, *others] = made_up.episodes(0.5, ("star", "ring"))
    made_up.evaluation(tmp_path, made=[first._replace(background_union=first.background_union + 1), *others])
    with pytest.raises(ValueError, match="episode 0 of seed 321 does not add up"):
        collect(tmp_path)


def test_what_was_changed_stands_apart(tmp_path: Path) -> None:
    for changed, iou in (([], 0.5), (["refine-2"], 0.6), (["size-321"], 0.7)):
        made_up.evaluation(tmp_path, iou, tuning="svf", changes={"changed": changed})
    made_up.run(tmp_path, tuning="svf")
    keep(tmp_path / "kept.json", collect(tmp_path))
    found = {row.name: round(row.mean().mean, 6) for row in rows(read_collection(tmp_path / "kept.json"))}
    assert found == {"pfenet, svf": 0.5, "pfenet, svf, refine-2": 0.6, "pfenet, svf, size-321": 0.7}


def test_what_was_changed_is_compared_with_what_was_not(tmp_path: Path) -> None:
    """And the best row of SVF, whatever it changed, with methods that have none; never with its own method."""
    made_up.evaluation(tmp_path, 0.5)
    made_up.evaluation(tmp_path, 0.6, changes={"changed": ["refine-2"]})
    made_up.evaluation(tmp_path, 0.4, tuning="frozen")
    made_up.evaluation(tmp_path, 0.45, tuning="frozen", changes={"changed": ["refine-2"]})
    made_up.evaluation(tmp_path, 0.7, tuning="full", changes={"changed": ["refine-2"]})
    made_up.evaluation(tmp_path, 0.3, tuning="frozen", method="match", changes={"trained_parameters": 0})
    keep(tmp_path / "kept.json", collect(tmp_path))
    found = {(round(a, 3), round(b, 3)) for a, b, _ in (p.values for p in read_pairs(tmp_path / "kept.json"))}
    assert found == {(0.6, 0.5), (0.4, 0.5), (0.45, 0.4), (0.7, 0.5), (0.3, 0.6)}


def test_what_was_tuned_on_supports_stands_apart(tmp_path: Path) -> None:
    for tuning, iou in (("frozen", 0.4), ("svf", 0.5)):
        made_up.run(tmp_path, tuning=tuning)
        made_up.evaluation(tmp_path, iou, tuning=tuning)
        made_up.evaluation(tmp_path, iou - 0.1, tuning=tuning, changes={"adapt": True})
    keep(tmp_path / "kept.json", collect(tmp_path))
    collection = read_collection(tmp_path / "kept.json")
    found = {row.name: round(row.mean().mean, 6) for row in rows(collection)}
    names = ("pfenet, svf", "pfenet, svf + adapt", "pfenet, frozen", "pfenet, frozen + adapt")
    assert found == dict(zip(names, (0.5, 0.4, 0.4, 0.3), strict=True))
    values = [pair.values for pair in read_pairs(tmp_path / "kept.json")]
    assert sorted(values) == [pytest.approx(of) for of in ([0.3, 0.5, 0.2], [0.4, 0.5, 0.1], [0.4, 0.5, 0.1])]
    [table] = comparisons(Found(tmp_path).evaluations)
    assert {column.heading[1] for column in table.columns} == {"svf", "svf + adapt", "frozen", "frozen + adapt"}


def test_rows(file: Path, outputs: Path) -> None:
    found = {(row.name, row.shot): row for row in rows(read_collection(file))}
    assert list(found) == [
        ("pfenet, svf", 1),
        ("pfenet, frozen", 1),
        ("prior, training-free", 1),
        ("pfenet, svf: no supports", 1),
        ("pfenet, svf", 5),
    ]
    row = found["pfenet, svf", 1]
    usual = [m for m in read_metrics(outputs / "usual").values() if (m["tuning"], m["shot"]) == ("svf", 1)]
    of = {(m["fold"], m["seed"]): m["miou"] for m in usual if m["method"] == "pfenet"}
    seeds = [fmean(of[fold, seed] for fold in (0, 1)) for seed in (0, 1)]
    assert row.mean()[:2] == pytest.approx((fmean(seeds), stdev(seeds)))
    assert row.of_fold(0) == pytest.approx(fmean(of[0, seed] for seed in (0, 1)))
    assert list(row.classes()) == ["star", "ring"]


def test_the_page(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    written = write_page(file, page)
    assert written == [page, tmp_path / "results/classes.svg", tmp_path / "results/curves.svg"]
    text = page.read_text()
    assert "| prior, training-free | 1 | 30.0 | 30.0 | **30.0** |" in text
    assert "| pfenet, svf | 5 | 60.0 | - | (60.0) |" in text
    assert "In brackets: means over fewer folds" in text
    page.write_text("# Ours\n\nWhat we saw.\n\n" + text[text.index(BEGIN) :] + "\nAnd more.\n")
    before = page.read_text()
    write_page(file, page)
    assert page.read_text() == before
    for path, told in zip(
        written[1:], (("pfenet, svf",), ("pfenet: training loss", ">svf<", ">frozen<")), strict=True
    ):
        svg = path.read_text()
        assert svg.startswith("<?xml")
        assert all(text in svg for text in told)
        write_page(file, page)
        assert path.read_text() == svg


def test_base_classes_beside_novel_ones(tmp_path: Path) -> None:
    for fold, seed, novel in ((0, 0, 0.3), (1, 0, 0.4), (0, 1, 0.9), (1, 1, 0.9)):
        made_up.evaluation(tmp_path, novel, fold=fold, seed=seed)
    made_up.evaluation(tmp_path, 0.7, tuning="frozen", changes={"eval_classes": "base"})  # nothing beside it
    for fold, base in ((0, 0.6), (1, 0.7)):
        made_up.evaluation(tmp_path, base, fold=fold, changes={"eval_classes": "base"})
    collection = collect(tmp_path)
    assert [row.name for row in rows(collection)] == ["pfenet, svf"]
    assert [row.name for row in rows(collection, "base")] == ["pfenet, frozen", "pfenet, svf"]
    text = made(collection, paired(collection), "results.json", "results")
    section = text[text.index("## Base and novel classes") : text.index("## Classes")]
    assert [line for line in section.splitlines() if line.startswith("| pfenet")] == [
        "| pfenet, svf | 1 | 65.0 | 35.0 | **30.0** | 0, 1 |"
    ]
    made_up.evaluation(tmp_path / "other")
    assert "Base and novel" not in made(collect(tmp_path / "other"), (), "results.json", "results")


@pytest.mark.parametrize("text", ["# Ours\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_a_page_that_lost_its_marks_is_left_alone(text: str, file: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="needs each of these lines once"):
        write_page(file, page)
    assert [path.name for path in tmp_path.iterdir()] == ["results.md"]
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": 2', '"format": 1', "no collection of this version"),
        ('"place": "usual", ', "", "is damaged"),
        ('"shot": 1, ', "", r"does not tell its shot"),
        ('"shot": 1, ', '"shot": 1, "changed": "x", ', r"changed"),
        ('"shot": 1, ', '"shot": 1, "adapt": 1, ', r"adapt"),
        ('"of_seed"', '"seeds_of"', "is damaged"),
        ('"b": ', '"b": 9', "no result"),
        ('"made_by": [0', '"made_by": [1', "no machine 1"),
        ('"counts": [[', '"counts": [[1, 1], [', "is damaged"),
        ('"counts": [[', '"counts": [[99', "is damaged"),
        ('"questions": "', '"questions": "0', "is damaged"),
        ('"curves": [', '"curves": 3, "more": [', "is damaged"),
        ("{", "", "no JSON"),
    ],
)
def test_files_that_are_no_collection(old: str, new: str, message: str, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.json"
    text = file.read_text()
    assert old in text
    other.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        write_page(other, tmp_path / "results.md")
    assert not (tmp_path / "results.md").exists()


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (("results", 0, "fold"), "x"),
        (("results", 0, "backbone"), None),
        (("results", 0, "eval_seeds"), 3),
        (("results", 0, "train_seconds"), "x"),
        (("results", 0, "train_seconds"), math.nan),
        (("results", 0, "trained_parameters"), 1.5),
        (("results", 0, "place"), ["usual"]),
        (("results", 0, "made_by"), ["0", "abc"]),
        (("results", 0, "counts", 0), [1.5, 2]),
        (("results",), []),
        (("curves", 0, "loss"), [1]),
        (("curves", 0, "loss"), [[1, 10**400]]),
        (("curves", 0, "fold"), "x"),
        (("curves", 0, "method"), 3),
        (("machines", 0), {"cores": 3}),
        (("machines", 0), "x"),
        (("questions", 0, "classes"), {"1": 3}),
        (("pairs", 0, "values"), "abc"),
        (("pairs", 0, "of_seed"), 3),
        (("pairs", 0, "folds"), ["0"]),
    ],
)
def test_values_of_another_kind(entry: tuple[str | int, ...], value: Any, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.json"
    content = holder = json.loads(file.read_text())
    for key in entry[:-1]:
        holder = holder[key]
    holder[entry[-1]] = value
    other.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"is damaged .*: collect anew|no result|no 1-shot evaluation"):
        write_page(other, tmp_path / "results.md")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder.md", "it is a folder; name a file"),
        ("name-without-suffix", "give the page a suffix, as in results.md"),
        ("file/results.md", "file is no folder; choose another place"),
        ("file.md", "file is no folder; choose another place"),  # its drawings go into file/
    ],
)
def test_a_page_that_cannot_be_written_leaves_no_drawings(
    out: str, message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "file").touch()
    assert main(["page", str(file), "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.md"]


def test_commands(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.json"
    assert main(["collect", str(outputs), "--json", str(file)]) == 0
    assert "13 evaluations" in capsys.readouterr().out
    assert main(["collect", str(outputs), "--json", str(file), "--add"]) == 0
    assert "13 evaluations" in capsys.readouterr().out
    assert main(["collect", str(outputs), "--json", str(tmp_path / "none.json"), "--add"]) == 2
    assert "none.json to add to: leave out --add" in capsys.readouterr().err
    assert main(["page", str(tmp_path / "none.json")]) == 2
    assert "none.json: make it (python -m fss.report collect" in capsys.readouterr().err
    assert main(["collect", "nowhere", "--json", str(tmp_path)]) == 2
    assert "it is a folder; name a file" in capsys.readouterr().err
    assert main(["page", str(file)]) == 0
    assert (tmp_path / "r.md").is_file()
    (tmp_path / "empty").mkdir()
    assert main(["collect", str(tmp_path / "empty"), "--json", str(file)]) == 2
    assert "no evaluation of a run below" in capsys.readouterr().err


def test_the_documented_page_is_made_from_the_committed_results() -> None:
    file, page = ROOT / "docs/results.json", ROOT / "docs/results.md"
    text = page.read_text()
    expected = made(read_collection(file), read_pairs(file), file.name, page.stem)
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == expected
    assert json.loads(file.read_text())["results"]


def test_only_a_backbone_that_most_do_not_have_is_named(tmp_path: Path) -> None:
    for fold in (0, 1):
        made_up.evaluation(tmp_path, 0.4, fold=fold)
    made_up.evaluation(tmp_path, 0.5, backbone="vgg16")
    collection = collect(tmp_path)
    assert {row.name for row in rows(collection)} == {"pfenet, svf", "pfenet, svf, vgg16"}
    assert "shapes, resnet50 where no other is named; " in made(collection, [], "results.json", "results")
    alone = collection._replace(results=[r for r in collection.results if r.told["backbone"] == "vgg16"])
    assert {row.name for row in rows(alone)} == {"pfenet, svf"}
    assert "shapes, vgg16; " in made(alone, [], "results.json", "results")


def test_a_tuning_has_one_colour_in_all_rows() -> None:
    def curve(method: str, tuning: str) -> Curve:
        return Curve("usual", method, tuning, "resnet50", 0, 0, [[1.0, 0.5], [2.0, 0.4]], [[1.0, 0.5], [2.0, 0.4]])

    tunings = ("adapter", "frozen", "svf")
    pairs = [*(("pfenet", tuning) for tuning in tunings), ("bam", "svf"), ("bam", "frozen")]
    drawn = draw_curves([curve(*pair) for pair in pairs])
    lines = {color: drawn.count(f"stroke: {color}; stroke-width: 1.4") for color in map(color_of, range(4))}
    of_tuning = [lines[color_of(number)] for number in range(4)]  # two panels and the legend in each row
    assert of_tuning == [6, 6, 3, 0]  # frozen, svf, adapter


def test_ranges_are_drawn_where_lines_are_few() -> None:
    curves = [
        Curve("usual", "pfenet", f"tuning{number}", "resnet50", 0, seed, [[1.0, seed], [2.0, 0.5]], [[1.0, 0.5]])
        for number in range(MOST_RANGES + 1)
        for seed in (0, 1)
    ]
    assert "opacity: 0.12" in draw_curves(curves[: 2 * MOST_RANGES])
    assert "opacity: 0.12" not in draw_curves(curves)


def test_curves_have_a_row_for_each_method_and_backbone(tmp_path: Path) -> None:
    trainings: list[tuple[str, dict[str, Any]]]
    trainings = [("usual", {}), ("usual", {"backbone": "vgg16"}), ("no_supports", {"method": "bam"})]
    for place, told in trainings:
        made_up.run(tmp_path / place, **told)
        made_up.evaluation(tmp_path / place, **told)
    page = tmp_path / "page.md"
    keep(tmp_path / "page.json", collect(tmp_path))
    write_page(tmp_path / "page.json", page)
    drawn = (tmp_path / "page/curves.svg").read_text()
    for name in ("pfenet, resnet50", "pfenet, vgg16"):
        assert f">{name}: training loss<" in drawn
        assert f">{name}: validation mIoU (%)<" in drawn
    assert "bam" not in drawn  # controls are not drawn
    collection = collect(tmp_path)
    controls = collection._replace(curves=[curve for curve in collection.curves if curve.place == "no_supports"])
    assert len(controls.curves) == 1
    assert "Learning curves" not in made(controls, [], "page.json", "page")
