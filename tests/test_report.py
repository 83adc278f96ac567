"""Tables of runs and pictures of episodes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fss.report import tables
from fss.results import FORMAT, REQUIRED, write_json
from fss.visualize import TRUTH_COLOR, EpisodePicture, contact_sheet, outline, save_sheet

ROOT = Path(__file__).parent.parent


def made_up(**changes: Any) -> dict[str, Any]:
    run = {
        **dict.fromkeys(REQUIRED),
        "format": FORMAT,
        "dataset": "shapes",
        "method": "pfenet",
        "tuning": "svf",
        "backbone": "efficientnet_lite0",
        "fold": 0,
        "shot": 1,
        "seed": 0,
        "eval_classes": "novel",
        "support_annotation": "mask",
        "episodes": 240,
        "eval_seeds": [321],
        "miou": 0.5,
        "fb_iou": 0.75,
        "classes": {"star": {"iou": 0.25}, "ring": {"iou": 0.75}},
        "train_seconds": 12.5,
        "test_seconds": 3.0,
        "trained_parameters": 385742,
    }
    return {**run, **changes}


def printed(*runs: dict[str, Any]) -> list[str]:
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables({Path(str(i)): run for i, run in enumerate(runs)}):
        console.print(table)
    return console.export_text().splitlines()


def row(lines: list[str], label: str) -> list[str]:
    (line,) = [line for line in lines if label in line]
    return [cell.strip() for cell in line.split("│")[2:-1]]


def test_runs_on_the_same_episodes_share_a_table() -> None:
    lines = printed(
        made_up(),
        made_up(method="prior", tuning="frozen", miou=0.25, train_seconds=None, trained_parameters=0),
    )
    assert row(lines, "mIoU") == ["0.250", "0.500"]
    assert row(lines, "star") == ["0.250", "0.250"]
    assert row(lines, "training (s)") == ["-", "12"]
    assert row(lines, "parameters trained") == ["0", "385,742"]
    assert any("training-free" in line for line in lines)


@pytest.mark.parametrize("change", [{"fold": 1}, {"episodes": 1000}, {"eval_classes": "base"}, {"shot": 5}])
def test_other_episodes_make_another_table(change: dict[str, Any]) -> None:
    assert len(tables({Path("a"): made_up(), Path("b"): made_up(**change)})) == 2


def test_class_that_only_one_run_evaluated() -> None:
    lines = printed(made_up(miou=0.1), made_up(tuning="frozen", classes={"star": {"iou": 0.5}}))
    assert row(lines, "ring") == ["0.750", "-"]


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fss.report", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_command_prints_tables_and_pictures(tmp_path: Path) -> None:
    write_json(tmp_path / "run/metrics.json", made_up())
    (tmp_path / "run/episodes.png").write_bytes(b"")
    done = report(tmp_path)
    assert done.returncode == 0
    assert "0.500" in done.stdout
    assert str(tmp_path / "run/episodes.png") in done.stdout


def test_command_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    done = report(tmp_path)
    assert done.returncode == 1
    assert "python train.py" in done.stderr


def picture(shots: int, side: int = 64) -> EpisodePicture:
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[16:48, 16:48] = 1
    mask[:, 60:] = 255
    grey = torch.full((3, side, side), 100.0)
    return EpisodePicture(
        title="star",
        iou=0.5,
        query=grey,
        query_mask=mask,
        support=grey.expand(shots, -1, -1, -1),
        support_mask=mask.expand(shots, -1, -1),
        prediction=(mask == 1).long(),
        prior=torch.linspace(0, 1, 64).reshape(8, 8),
    )


def test_outline_marks_the_object_and_darkens_what_is_ignored() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    mask = picture(1).query_mask.numpy()
    shown = outline(image, mask, TRUTH_COLOR)
    assert (image == 100).all(), "the picture given is left as it is"
    assert (shown[:10, :10] == 100).all()
    assert (shown[:, 62:] < 50).all()
    assert shown[32, 32, 1] > 110
    # smooth lines mix a little of the picture in
    assert np.abs(shown[16, 32].astype(int) - TRUTH_COLOR).max() < 30
    assert np.abs(shown[32, 32].astype(int) - TRUTH_COLOR).max() > 30


@pytest.mark.parametrize("shots", [1, 5])
def test_sheet_has_a_tile_for_everything(shots: int, tmp_path: Path) -> None:
    sheet = np.array(contact_sheet([picture(shots)] * 3, tile=64))
    columns = shots + 4
    assert sheet.shape[1] == columns * 70 + 6
    tiles = [sheet[26:90, 6 + 70 * i : 70 + 70 * i] for i in range(columns)]
    assert (tiles[shots] == 100).mean() > 0.99  # the query as it is
    for i in (*range(shots), shots + 1, shots + 2):
        assert (tiles[i] != 100).mean() > 0.1
    prior = tiles[-1].astype(int)
    assert prior[-1, -1].sum() > prior[0, 0].sum()  # brighter where the prior is high

    save_sheet([picture(shots)], tmp_path / "new/sheet.png")
    assert Image.open(tmp_path / "new/sheet.png").size[0] == columns * 198 + 6


def test_what_differs_stands_over_its_column_what_is_shared_in_the_title() -> None:
    lines = printed(made_up(), made_up(method="bam", seed=1, miou=0.25))
    assert any("seed 1" in line and "seed 0" in line for line in lines)
    assert sum("efficientnet_lite0" in line for line in lines) == 1
    lines = printed(made_up(), made_up(backbone="vgg16", miou=0.25))
    assert any("vgg16" in line and "efficientnet_lite0" in line for line in lines)
    assert sum("seed 0" in line for line in lines) == 1


def test_seeds_of_a_column_become_mean_and_standard_deviation() -> None:
    runs = [made_up(seed=seed, miou=miou) for seed, miou in enumerate((0.5, 0.6, 0.7))]
    lines = printed(*runs, made_up(tuning="frozen", miou=0.1))
    assert row(lines, "mIoU") == ["0.100", "0.600 ± 0.100"]
    assert row(lines, "FB-IoU") == ["0.750", "0.750"]
    assert any("3 seeds" in line and "seed 0" in line for line in lines)
