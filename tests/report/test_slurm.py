"""The script for a cluster, run by an `sbatch` that does every job of an array at once; and estimated hours."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import made_up

from fss.report.__main__ import main
from fss.report.claims import load_claims, select
from fss.report.estimate import base_hours, measured_speeds, training_hours
from fss.report.script import script
from fss.report.slurm import slurm_script

CLAIMS = load_claims()
PYTHON = """#!/usr/bin/env bash
echo "$*" >> typed
case "$*" in *"$FAILS"*) exit 3;; esac
"""
SBATCH = """#!/usr/bin/env bash
# does the jobs, prints a number; a job whose dependency failed never starts
echo "$*" >> submitted
jobs=0-0
while [ "${1#-}" != "$1" ]; do
    case "$1" in
    --array=*) jobs=${1#--array=} ;;
    --dependency=afterok:*) [ -e "ended-${1#--dependency=afterok:}" ] || { echo 0; exit 0; } ;;
    esac
    shift
done
number=$(wc -l < submitted)
for i in $(seq "${jobs%-*}" "${jobs#*-}"); do SLURM_ARRAY_TASK_ID=$i bash "$@" || failed=1; done
[ -n "${failed:-}" ] || touch "ended-$number"
echo "$number"
"""


def place_of(tmp_path: Path, text: str) -> Path:
    """A checkout, with a python and an sbatch that only note what they are given."""
    for name, content in (("python", PYTHON), ("sbatch", SBATCH)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("train.py", "resnet50_v2.pth"):
        (tmp_path / name).touch()
    (tmp_path / "all.sh").write_text(text)
    return tmp_path


def run(place: Path, *arguments: str, fails: str = "nothing") -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "FAILS": fails}
    (place / "typed").write_text("")
    return subprocess.run(["bash", "all.sh", *arguments], cwd=place, env=path, capture_output=True, text=True)


def of_folds(lines: list[str]) -> list[str]:
    """Command lines with their sweeps written out, sorted."""
    single = []
    for line in lines:
        folds = re.search(r" fold=(all|[\d,]+)", line)
        for fold in folds[1].replace("all", "0,1,2,3").split(",") if folds else ():
            single.append(line.replace(folds[0], f" fold={fold}").replace(".py -m ", ".py "))  # type: ignore[index]
    return sorted(single)


def test_the_cluster_does_what_the_script_does(tmp_path: Path) -> None:
    claims = select(CLAIMS, ["dataset=pascal5i", "method=pfenet,bam", "backbone=resnet50", "shot=1"])
    place = place_of(tmp_path, script(claims))
    assert run(place).returncode == 0
    expected = (place / "typed").read_text().splitlines()
    (place / "all.sh").write_text(slurm_script(claims))
    assert run(place, "submit").returncode == 0
    typed = (place / "typed").read_text().splitlines()
    assert of_folds(typed) == of_folds(expected)
    assert typed[:2] == expected[:2]  # the data first
    assert typed[-1] == expected[-1] == "-m fss.report outputs/published"
    kinds = ["method=base" if "method=base" in line else line.split()[0] for line in typed[2:-1]]
    assert kinds == sorted(kinds, key=["method=base", "train.py", "evaluate.py"].index)
    submitted = (place / "submitted").read_text().splitlines()
    assert [line.split()[-1] for line in submitted] == ["base", "train", "evaluate", "report"]
    assert ["afterok" in line for line in submitted] == [False, True, True, True]


def test_what_waits_for_a_failed_job_does_not_start(tmp_path: Path) -> None:
    claims = select(CLAIMS, ["dataset=pascal5i", "method=pfenet", "tuning=svf", "backbone=vgg16", "shot=1"])
    place = place_of(tmp_path, slurm_script(claims))
    run(place, "submit", fails="method=pfenet")
    typed = (place / "typed").read_text()
    assert typed.count("method=base") == 4
    assert typed.count("train.py") == 8  # each of an array, whatever becomes of the others
    assert "evaluate.py" not in typed
    run(place, "submit")
    assert (place / "typed").read_text().count("evaluate.py") == 4


def test_one_job_alone(tmp_path: Path) -> None:
    place = place_of(tmp_path, slurm_script(CLAIMS[:1]))
    assert run(place, "train", "2").returncode == 0
    [line] = (place / "typed").read_text().splitlines()
    assert " fold=2 " in line
    for wrong in ((), ("everything",), ("train",), ("train", "99")):
        assert run(place, *wrong).returncode != 0
        assert (place / "typed").read_text() == ""


def run_with_speed(outputs: Path, speeds: list[float], **told: Any) -> None:
    folder = made_up.run(outputs, **told)
    rows = [f"{10 * i},{speed}" for i, speed in enumerate(speeds)]
    (folder / "csv/version_0/metrics.csv").write_text("\n".join(["step,train/episodes_per_second", *rows]) + "\n")


def test_hours_follow_from_the_logged_speed(tmp_path: Path) -> None:
    told = {"dataset": "pascal5i", "backbone": "vgg16"}
    run_with_speed(tmp_path, [1.0, 20.0, 20.0, 22.0], method="pfenet", tuning="svf", **told)
    run_with_speed(tmp_path, [50.0], method="base", **told)
    speeds = measured_speeds(tmp_path)
    assert speeds == {("pfenet", "svf", "vgg16", "1"): 20.0, ("base", "vgg16"): 50.0}
    [claim] = select(CLAIMS, ["dataset=pascal5i", "backbone=vgg16", "method=pfenet", "tuning=svf", "shot=1"])
    hours = training_hours(claim, speeds)
    assert hours is not None
    assert hours[0] == pytest.approx(200 * (8 * (4208 // 8) + 1000) / 20 / 3600)
    assert base_hours(claim, speeds) == pytest.approx([100 * 12 * (5953 // 12) / 50 / 3600] * 4)
    assert training_hours(claim._replace(shot=5), speeds) is None
    longest = max(hours)
    assert f"about {sum(hours):.0f} h, {longest:.0f} h for the longest fold" in script([claim], speeds)
    assert f"--time={int(1.3 * longest) + 1}:00:00" in slurm_script([claim], speeds)
    assert "--time" not in slurm_script([claim])
    assert "about" not in script([claim]).partition("# 2/5")[2]


def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_with_speed(tmp_path, [20.0], dataset="pascal5i", backbone="vgg16", method="bam", tuning="svf")
    claim = ["commands", "backbone=vgg16", "dataset=pascal5i", "method=bam", "tuning=svf", "shot=1"]
    assert main([*claim, "--measured", str(tmp_path)]) == 0
    assert "h for the longest fold" in capsys.readouterr().out
    assert main([*claim, "--slurm"]) == 0
    assert "sbatch" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main([*claim, "--measured", str(tmp_path / "empty")]) == 2
    assert "start a training there for some dozen steps" in capsys.readouterr().err
