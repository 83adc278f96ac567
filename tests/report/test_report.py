"""Tables of runs, and the report's pages."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from support import ROOT, made_up

from fss.report.__main__ import main
from fss.report.curves import learning_curves, read_logs
from fss.report.found import Found
from fss.report.tables import comparisons, matrices, print_comparison


def printed(outputs: Path, width: int = 120) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    for comparison in comparisons(Found(outputs).evaluations):
        print_comparison(console, comparison)
    return console.export_text().splitlines()


def row(lines: list[str], label: str) -> list[str]:
    (line,) = [line for line in lines if re.match(f"│ {re.escape(label)} ", line)]
    return [cell.strip() for cell in line.split("│")[2:-1]]


def prior(outputs: Path, miou: float, **identity: Any) -> None:
    untrained = {"trained_parameters": 0, "train_seconds": None}
    made_up.evaluation(outputs, miou, method="prior", tuning="frozen", changes=untrained, **identity)


def test_runs_on_the_same_episodes_share_a_table(tmp_path: Path) -> None:
    made_up.evaluation(tmp_path)
    prior(tmp_path, 0.25)
    lines = printed(tmp_path)
    assert row(lines, "mIoU") == ["0.250", "0.500"]
    assert row(lines, "star") == ["0.250", "0.500"]
    assert row(lines, "training (s)") == ["-", "12"]
    assert row(lines, "parameters trained") == ["0", "385,742"]
    assert any("training-free" in line for line in lines)


@pytest.mark.parametrize("change", [{"fold": 1}, {"shot": 5}, {"protocol": "bam"}, {"changes": {"episodes": 9}}])
def test_other_episodes_make_another_table(change: dict[str, Any], tmp_path: Path) -> None:
    made_up.evaluation(tmp_path)
    made_up.evaluation(tmp_path, tuning="frozen", **change)
    assert len(comparisons(Found(tmp_path).evaluations)) == 2


def test_class_that_only_one_run_evaluated(tmp_path: Path) -> None:
    made_up.evaluation(tmp_path, 0.75)
    made_up.evaluation(tmp_path, tuning="frozen", made=made_up.episodes(0.5, ["star"]))
    assert row(printed(tmp_path), "ring") == ["-", "0.750"]


def test_what_differs_stands_over_its_column_what_is_shared_in_the_title(tmp_path: Path) -> None:
    made_up.evaluation(tmp_path)
    made_up.evaluation(tmp_path, 0.25, method="bam", seed=1)
    lines = printed(tmp_path)
    assert any("seed 1" in line and "seed 0" in line for line in lines)
    assert sum("resnet50" in line for line in lines) == 1
    made_up.evaluation(tmp_path, 0.6, backbone="vgg16")
    lines = printed(tmp_path)
    assert any("vgg16" in line and "resnet50" in line for line in lines)


def test_seeds_of_a_column_become_mean_and_standard_deviation(tmp_path: Path) -> None:
    for seed, miou in enumerate((0.5, 0.6, 0.7)):
        made_up.evaluation(tmp_path, miou, seed=seed)
    made_up.evaluation(tmp_path, 0.1, tuning="frozen")
    lines = printed(tmp_path)
    assert row(lines, "mIoU") == ["0.100", "0.600 ± 0.100"]
    assert any("3 seeds" in line and "seed 0" in line for line in lines)


def test_best_weights_and_own_settings_have_columns_of_their_own(tmp_path: Path) -> None:
    made_up.run(tmp_path)
    made_up.evaluation(tmp_path)
    made_up.evaluation(tmp_path, 0.6, checkpoint="best")
    made_up.run(tmp_path / "long", ["dataset.epochs=9", "dataset.root=/data", "trainer.devices=2"])
    made_up.evaluation(tmp_path / "long", 0.7)
    (comparison,) = comparisons(Found(tmp_path).evaluations)
    assert [column.heading[2:] for column in comparison.columns] == [
        ("last weights",),
        ("best on novel classes",),
        ("last weights", "dataset.epochs=9"),
    ]


def test_what_trains_nothing_stands_beside_all_that_share_their_settings(tmp_path: Path) -> None:
    for tuning, miou in (("svf", 0.6), ("frozen", 0.5)):
        made_up.run(tmp_path, ["experiment=demo"], tuning=tuning)
        made_up.evaluation(tmp_path, miou, tuning=tuning)
    prior(tmp_path, 0.4)
    evaluations = Found(tmp_path).evaluations
    (comparison,) = comparisons(evaluations)
    assert "experiment=demo" in comparison.title
    assert [column.heading for column in comparison.columns] == [
        ("prior", "training-free"),
        ("pfenet", "frozen"),
        ("pfenet", "svf"),
    ]
    (matrix,) = matrices(evaluations)
    assert matrix.tunings == ["frozen", "svf", "training-free"]
    assert list(matrix.methods) == ["pfenet", "prior"]


def test_wide_table_is_printed_in_parts_that_fit(tmp_path: Path) -> None:
    for i, tuning in enumerate(("svf", "frozen", "full", "bias", "norm")):
        for seed in range(2):
            made_up.evaluation(tmp_path, 0.1 * (i + 1) + 0.02 * seed, tuning=tuning, seed=seed)
    lines = printed(tmp_path, width=60)
    assert all(len(line) <= 60 for line in lines)
    told = [cell.strip() for line in lines if line.startswith("│ mIoU") for cell in line.split("│")[2:-1]]
    assert told == [f"0.{i}10 ± 0.014" for i in range(1, 6)]


def test_matrix_of_methods_and_tunings(tmp_path: Path) -> None:
    for seed in range(2):
        for fold in range(2):
            made_up.evaluation(tmp_path, 0.4 + 0.1 * fold + 0.2 * seed, fold=fold, seed=seed)
    made_up.evaluation(tmp_path, 0.3, tuning="frozen", fold=1)
    prior(tmp_path, 0.2, fold=1)
    (matrix,) = matrices(Found(tmp_path).evaluations)
    assert matrix.tunings == ["frozen", "svf", "training-free"]
    frozen, svf, none = matrix.methods["pfenet"]
    assert svf is not None
    assert frozen is not None
    assert none is None
    assert svf[0].mean == pytest.approx(0.55)  # seeds 0.45 and 0.65
    assert svf[0].std == pytest.approx(0.2 / 2**0.5)
    assert (svf[1], frozen[1]) == ("folds 0, 1", "fold 1")
    (_, _, training_free) = matrix.methods["prior"]
    assert training_free is not None
    assert training_free[0].mean == pytest.approx(0.2)


def test_logs_of_a_resumed_run_are_one(tmp_path: Path) -> None:
    logs = {
        2: "9,1.5,\n19,1.0,\n19,,0.25\n29,0.9,\n39,0.8,\n39,,0.35\n",
        10: "29,0.7,\n39,,0.45\n",  # went on from step 19
    }
    for version, lines in logs.items():
        (tmp_path / f"version_{version}").mkdir()
        (tmp_path / f"version_{version}/metrics.csv").write_text(f"step,train/loss,val/miou\n{lines}")
    read = read_logs(tmp_path)
    np.testing.assert_array_equal(read["train/loss"], [[9, 19, 29], [1.5, 1, 0.7]])
    np.testing.assert_array_equal(read["val/miou"], [[19, 39], [0.25, 0.45]])
    (tmp_path / "version_2/metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"metrics\.csv is not a.* log"):
        read_logs(tmp_path)


def test_learning_curves_of_runs_that_share_their_data(tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = [
        {"tuning": "svf"},
        {"tuning": "frozen"},
        {"fold": 1},
        {"tuning": "svf", "seed": 1},
        {"method": "base"},
    ]
    for identity in runs:
        made_up.run(tmp_path, **identity)
    drawings = learning_curves(list(Found(tmp_path).runs.values()))
    assert [drawing.title for drawing in drawings] == ["shapes, fold 0, 1-shot", "shapes, fold 1, 1-shot"]
    assert drawings[0].svg.count("stroke: #") > drawings[1].svg.count("stroke: #")
    assert "pfenet-frozen-resnet50" in drawings[0].svg
    assert "pfenet-frozen-resnet50" not in drawings[1].svg
    assert "currentColor" in drawings[0].svg  # readable on light and dark paper


class Page(HTMLParser):
    """What a page refers to, and whether its elements close."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tuning, miou in (("svf", 0.625), ("frozen", 0.5)):
        made_up.run(tmp_path, tuning=tuning)
        folder = made_up.evaluation(tmp_path, miou, tuning=tuning)
        Image.new("RGB", (300, 100), "red").save(folder / "episodes.png")
    assert main([str(tmp_path), "--out", str(tmp_path / "pages")]) == 0
    told = capsys.readouterr().out
    assert "0.625" in told
    assert "episodes.png" in told
    html = (tmp_path / "pages/report.html").read_text()
    page = Page(html)
    assert page.open == []
    assert page.tags.count("svg") == 1
    assert len(page.loaded) == 2  # the pictures are in the page
    assert all(loaded.startswith("data:image/webp;base64,") for loaded in page.loaded)
    assert "script" not in page.tags
    assert "@import" not in html
    markdown = (tmp_path / "pages/report.md").read_text()
    for text in (html, markdown):
        assert "2 evaluations, made with revision abc123" in text
        assert "62.5" in text
        assert "star" in text


def test_names_of_classes_do_not_break_pages(tmp_path: Path) -> None:
    made_up.evaluation(tmp_path, made=made_up.episodes(0.5, ["a|b<i>", "other"]))
    main([str(tmp_path)])
    html, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "a|b&lt;i&gt;" in html
    assert "| a\\|b&lt;i&gt; | 50.0 |" in markdown


def test_command_without_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fss.report"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python train.py" in done.stdout
    assert "54 not run" in (tmp_path / "report.md").read_text()
    assert main([str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": 2, "miou": 1})])
def test_foreign_file_is_named(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert main([str(tmp_path)]) == 2
    assert "metrics.json is not a metrics file" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
