"""The dashboard's panels, as they would be sent to Weights & Biases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from support import ROOT

from fss.report import dashboard


def test_dashboard_shows_what_training_logs() -> None:
    pytest.importorskip("wandb_workspaces")
    workspace = dashboard.build_dashboard("someone")
    assert (workspace.entity, workspace.project) == ("someone", "few-shot-segmentation")
    shown = repr(workspace.sections)
    for key in (
        "test/miou",
        "val/fb_iou",
        "val/class_iou_table",
        "episodes/0",
        "svf/stage3/mean_change",
        "run_group",
    ):
        assert key in shown
    logger = yaml.safe_load((ROOT / "conf/logger/wandb.yaml").read_text())["wandb"]
    assert logger["project"] == "few-shot-segmentation"  # where runs go is where it looks


def test_without_an_account_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("sys.argv", ["dashboard"])
    assert dashboard.main() == 2
    assert re.fullmatch(r"error: .*`wandb login`.*\n", capsys.readouterr().err)
