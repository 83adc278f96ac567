"""Sweeps: every job a process of its own, and what becomes of those that fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from support import ROOT
from support.scripts import SMALL, run

from fss.cli import base_stage

# A script with the launcher that train.py has, but without the seconds that importing torch takes.
APP = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
import hydra
from omegaconf import OmegaConf

@hydra.main(version_base="1.3", config_path="conf", config_name="app")
def main(cfg):
    with open("jobs", "a") as file:
        print(json.dumps([cfg.do, cfg.words, OmegaConf.to_container(cfg.numbers), os.getpgid(0)]), file=file)
    if cfg.do == "raise":
        raise ValueError("a reason")
    if cfg.do == "refuse":
        raise ValueError("no [/data/x]")
    if cfg.do == "die":  # like a rank that was killed, while another one hangs
        hanging = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path("hanging").write_text(str(hanging.pid))
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.do == "wait":
        def save(*_):
            Path("saved").touch()
            sys.exit(42)
        signal.signal(signal.SIGTERM, save)
        Path("waiting").touch()
        time.sleep(600)
    if cfg.do == "pause":
        Path("waiting").touch()
        while not Path("go").exists():
            time.sleep(0.05)
    return 0.25

main()
"""
CONF = """
defaults:
  - _self_
  - override hydra/launcher: process
do: nothing
words: ""
numbers: []
hydra:
  searchpath: ["file://{root}/conf"]
  run:
    dir: runs/${{do}}
  sweep:
    dir: runs
    subdir: ${{do}}
"""


@pytest.fixture
def app(tmp_path: Path) -> list[str]:
    """The command of a small script, to be run in `tmp_path`."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/app.yaml").write_text(CONF.format(root=ROOT))
    (tmp_path / "app.py").write_text(APP)
    return [sys.executable, "app.py"]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def sweep(app: list[str], *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*app, "-m", *overrides]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


def jobs(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "jobs").read_text().splitlines()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_failed_jobs_stop_no_other_and_are_listed(app: list[str], tmp_path: Path) -> None:
    done = sweep(app, "do=raise,die,nothing", "words='a, b'", "numbers=[1,[2,3]]", cwd=tmp_path)
    assert done.returncode == 1
    ran = jobs(tmp_path)
    assert [job[0] for job in ran] == ["raise", "die", "nothing"]
    assert all(job[1:3] == ["a, b", [1, [2, 3]]] for job in ran)  # passed on as typed
    assert len({job[3] for job in ran} - {os.getpgid(0)}) == 3  # a process group each
    assert not is_running(int((tmp_path / "hanging").read_text()))
    summary = done.stdout[done.stdout.index("3 jobs, 2 failed") :]
    for row in (
        r"do=raise\s.*failed: ValueError: a reason",
        r"do=die\s.*failed: ended by SIGKILL",
        r"do=nothing\s.*0.250",
    ):
        assert re.search(row, summary), summary
    assert (tmp_path / "runs/nothing/.hydra/overrides.yaml").is_file()


def test_what_jobs_say_is_no_markup(app: list[str], tmp_path: Path) -> None:
    done = sweep(app, "do=refuse", "+logger=[csv,wandb],csv", cwd=tmp_path)
    assert done.returncode == 1
    summary = done.stdout[done.stdout.index("2 jobs, 2 failed") :]
    for logger in (r"\[csv,wandb\]", "csv"):
        assert re.search(rf"logger={logger}\s.*failed: ValueError: no \[/data/x\]", summary), summary


def test_a_sweep_without_failures_ends_well(app: list[str], tmp_path: Path) -> None:
    done = sweep(app, "do=nothing,something", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 jobs\n" in done.stdout
    assert [job[0] for job in jobs(tmp_path)] == ["nothing", "something"]


def test_a_signal_reaches_the_job_and_ends_the_sweep(app: list[str], tmp_path: Path) -> None:
    command = [*app, "-m", "do=wait,nothing"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 42  # the job's own code, by which a cluster queues it anew
    finally:
        process.kill()
    assert (tmp_path / "saved").exists()
    assert [job[0] for job in jobs(tmp_path)] == ["wait"]


def test_a_sweep_that_ignores_interrupts_goes_on(app: list[str], tmp_path: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", ignoring, *app, "-m", "do=pause,nothing"]  # as with nohup, or & in a script
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        (tmp_path / "go").touch()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert [job[0] for job in jobs(tmp_path)] == ["pause", "nothing"]


@pytest.mark.slow
@pytest.mark.parametrize("tunings", [["frozen"], pytest.param(["frozen", "svf"], marks=pytest.mark.nightly)])
def test_sweep_over_folds_and_tunings(tunings: list[str], tmp_path: Path) -> None:
    small = [s for s in SMALL if "epochs" not in s] + ["dataset.epochs=1", "logger=none", "pictures=0"]
    runs = tmp_path / "outputs/shapes"
    spoilt = runs / "pfenet-frozen-efficientnet_lite0/1shot/fold1/seed0/checkpoints"
    spoilt.parent.mkdir(parents=True)
    spoilt.write_text("a file where a folder belongs")
    done = run("train.py", "-m", *small, "fold=0,1", f"tuning={','.join(tunings)}", cwd=tmp_path)
    assert done.returncode == 2
    summary = done.stdout[done.stdout.index(f"{2 * len(tunings)} jobs, 1 failed") :]
    failed = [line for line in summary.splitlines() if "failed: " in line]
    assert len(failed) == 1
    assert re.search("fold=1.*" + ("tuning=frozen" if len(tunings) > 1 else ""), failed[0])
    results = {path.relative_to(runs): json.loads(path.read_text()) for path in runs.rglob("metrics.json")}
    assert {str(path.parents[2]) for path in results} == {
        f"pfenet-{tuning}-efficientnet_lite0/1shot/fold{fold}/seed0"
        for tuning in tunings
        for fold in (0, 1)
        if (tuning, fold) != ("frozen", 1)
    }
    assert all(f"{content['miou']:.3f}" in summary for content in results.values())


@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [
        ("process", "process_launcher"),
        ("basic", None),
        ("joblib", "hydra_joblib_launcher"),
        ("submitit_local", "hydra_submitit_launcher"),
        ("submitit_slurm", "hydra_submitit_launcher"),
    ],
)
def test_launchers_compose(launcher: str, plugin: str | None) -> None:
    if plugin is not None:
        pytest.importorskip(f"hydra_plugins.{plugin}")
    cfg = composed(f"hydra/launcher={launcher}")
    assert get_class(cfg.hydra.launcher._target_).__name__.endswith("Launcher")
    assert cfg.hydra.sweep.dir == "outputs"
    assert f"{cfg.hydra.sweep.dir}/{cfg.hydra.sweep.subdir}" == cfg.run_dir == cfg.hydra.run.dir


def test_search_is_scored_on_base_classes() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    cfg = composed("+search=s_lr", "tuning.backbone_lr=0.01")
    assert cfg.hydra.sweeper._target_.endswith("OptunaSweeper")
    assert cfg.hydra.sweeper.direction == "maximize"
    assert list(cfg.hydra.sweeper.params) == ["tuning.backbone_lr"]
    assert cfg.dataset.eval_classes == "base"
    assert f"{cfg.hydra.sweep.dir}/{cfg.hydra.sweep.subdir}" == cfg.run_dir
    assert "lr0.01/" in cfg.run_dir  # a folder a trial


@pytest.mark.parametrize("dataset", ["shapes", "pascal5i", "coco20i"])
def test_trials_of_a_search_share_their_base_learner(dataset: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "hydra/sweeper/optuna.yaml"  # for where the sweeper is not installed
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("_target_: some.Sweeper\n")
    typed = ["+search=s_lr", f"dataset={dataset}", "backbone=resnet50", "outputs=runs"]
    trials = [
        composed(*typed, f"tuning.backbone_lr={rate}", f"hydra.searchpath=[file://{tmp_path}]")
        for rate in (0.01, 0.02)
    ]
    base = composed(*base_stage.stage_overrides(trials[0], typed))
    assert {trial.method.base_checkpoint for trial in trials} == {f"{base.run_dir}/checkpoints/best.ckpt"}
    assert len({trial.run_dir for trial in trials}) == 2
    assert all(trial.run_dir.startswith("runs/search/lr0.0") for trial in trials)


def composed(*overrides: str):  # type: ignore[no-untyped-def]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_explains_groups_and_settings(name: str, tmp_path: Path) -> None:
    main = f"import hydra; hydra.main(r'{ROOT / 'conf'}', '{name}', '1.3')(lambda cfg: None)()"
    command = [sys.executable, "-c", main, "--help", "fold=2"]  # the script itself would import torch first
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    groups_told = ("dataset: chestxray, coco20i, deepglobe", "tuning: adapter, bias, frozen")
    for word in (*groups_told, "fold=2 ", "shot=1 ", f"python {name}.py "):
        assert word in done.stdout
    settings = done.stdout[done.stdout.index("Most used settings") :]
    assert len(re.findall(r"^  [a-zA-Z._]+=", settings, re.MULTILINE)) == {"train": 11, "evaluate": 13}[name]
    groups = re.compile("[a-z_/]+: ")  # Hydra lists a group's members in one line, however many there are
    assert max(len(line) for line in done.stdout.splitlines() if not groups.match(line)) <= 110
