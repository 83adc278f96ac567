"""Rows of later papers: each with its source, told as what they are not, and never among the claims."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from rich.console import Console
from support import ROOT

from fss.report.claims import FILE, load_claims
from fss.report.later import load_later, print_later


def test_rows_have_sources_and_judge_nothing() -> None:
    later = load_later()
    miou = {row[:3]: row.miou for row in later.rows}
    assert miou["pascal5i", "ResNet-50", "HDMNet"] == {1: 69.4, 5: 71.8}
    assert miou["coco20i", "ResNet-50", "HDMNet"] == {1: 50.0, 5: 56.0}
    assert all("arXiv:" in row.source for row in later.rows)
    assert {row.dataset for row in later.rows} == set(later.ours)
    assert not {row.method.lower() for row in later.rows} & {claim.method for claim in load_claims()}
    console = Console(record=True, width=200)
    print_later(console, later)
    told = console.export_text()
    assert "method=cross_attention reproduces none of them" in told
    assert all(line in told for line in later.ours.values())


def test_commands_for_ours_compose() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for dataset, line in load_later().ours.items():
            python, script, *words = line.split()
            cfg = compose(Path(script).stem, [word.replace("0,1,2,3", "0") for word in words if word != "-m"])
            assert (python, cfg.dataset.name) == ("python", dataset)


def test_row_without_source_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(FILE.read_text())
    content["later"]["rows"][0]["source"] = "hearsay"
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="contains no later papers"):
        load_later(tmp_path / "claims.yaml")
