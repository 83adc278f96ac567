"""What a training gives to loggers and to the terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.demos.boring_classes import BoringModel
from PIL import Image
from rich.console import Console
from support.scripts import SMALL, metrics, start
from support.tiny import TinyBackbone
from support.wandb_file import read_offline_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fss.models.tuning import frozen, svf
from fss.training.callbacks import EpisodePanels, class_scores, progress
from fss.training.callbacks.class_scores import class_tables
from fss.training.callbacks.progress import LogLines, TerminalBar, progress_display
from fss.training.callbacks.singular_values import stage_ratios
from fss.visualize import base_map

RUN = [
    *(s for s in SMALL if "epochs" not in s and "batch_size" not in s),
    "dataset.val_episodes=8",
    "dataset.base.width=16",
    "trainer.log_every_n_steps=1",
]
BAM = [*RUN, "method=bam", "batch_size=4", "dataset.epochs=2", "panels.every_n_epochs=2", "panels.episodes=3"]
FOLDER = Path("outputs/shapes/bam-svf-efficientnet_lite0/1shot/fold0/seed0")


class Logged:
    """A base learner, two identical trainings of a BAM on it and one that fails, all in this process."""

    def __init__(self, root: Path, printed: str) -> None:
        self.root, self.printed = root, printed
        *self.bams, self.failed, self.base = (read_offline_run(path) for path in self.files)

    @property
    def files(self) -> list[Path]:
        return sorted(self.root.rglob("*.wandb"), key=lambda path: (path.parent.parent, path.parent.name))

    def media(self, path: str) -> Path:
        return self.files[0].parent / "files" / path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    root = tmp_path_factory.mktemp("logged")
    wandb.teardown()  # a test before may have set it up, online
    with pytest.MonkeyPatch.context() as patch, open(root / "printed", "w") as printed:
        patch.chdir(root)
        patch.setattr("sys.stdout", printed)
        small = (setting for setting in RUN if "head.width" not in setting)
        start("train", *small, "method=base", "dataset.base.epochs=1", "logger=wandb")
        for _ in range(2):
            start("train", *BAM, "logger=[wandb,csv,tensorboard]")
        with pytest.raises(ValueError, match="must be 'constant'"):  # seen when training starts
            start("train", *BAM, "seed=1", "method.base_seed=0", "logger=wandb", "tuning.schedule=stepwise")
        wandb.teardown()  # waits for the process that writes the files
    return Logged(root, (root / "printed").read_text())


@pytest.mark.slow
def test_the_same_run_twice_in_a_process_makes_two_runs(logged: Logged) -> None:
    assert len(logged.files) == 4
    assert wandb.run is None
    first, second = logged.bams
    assert first[:4] == second[:4]
    assert len(first.history["val/miou"]) == len(second.history["val/miou"]) == 2
    assert first.history["val/miou"] == second.history["val/miou"]


@pytest.mark.slow
def test_a_failed_run_is_marked(logged: Logged) -> None:
    assert logged.failed.name.endswith("seed1")
    assert [run.exit_code for run in (logged.base, *logged.bams, logged.failed)] == [0, 0, 0, 1]


@pytest.mark.slow
def test_a_run_is_named_after_what_it_is(logged: Logged) -> None:
    run = logged.bams[0]
    assert run.name == str(FOLDER.relative_to("outputs"))
    assert run.group == str(FOLDER.parent.parent.relative_to("outputs"))
    assert run.tags == ["shapes", "bam", "svf", "efficientnet_lite0", "1shot", "fold0"]
    assert run.config["seeds"] == [321]
    assert run.config["tuning"]["backbone_lr"] == 0.0015
    assert run.config["git_revision"]
    assert logged.base.tags == ["shapes", "base", "efficientnet_lite0", "fold0"]


@pytest.mark.slow
def test_wandb_holds_the_numbers(logged: Logged) -> None:
    history = logged.bams[0].history
    steps = {"train/loss", "train/main", "train/meta", "train/base", "lr-SGD/head", "lr-SGD/backbone"}
    assert all(len(history[key]) == 4 for key in steps)
    assert len(history["train/episodes_per_second"]) == 2  # the first step of an epoch has nothing before it
    assert min(history["train/episodes_per_second"]) > 0
    assert len(history["val/fb_iou"]) == 2
    tested = metrics(logged.root)
    assert history["test/miou"] == [tested["miou"]]
    assert history["test/fb_iou"] == [tested["fb_iou"]]


@pytest.mark.slow
def test_wandb_holds_classes_as_table_and_bars(logged: Logged) -> None:
    history = logged.bams[0].history
    table = json.loads(logged.media(history["val/classes/path"][-1]).read_text())
    assert table["columns"] == ["class", "IoU"]
    ious = dict(table["data"])
    assert ious == {name: history[f"val/iou/{name}"][-1] for name in ious}
    assert len(ious) >= 2
    assert np.mean(list(ious.values())) == pytest.approx(history["val/miou"][-1], abs=1e-6)
    assert "bar" in json.dumps(logged.bams[0].config["_wandb/visualize/val/class_iou"])
    # a base learner has classes as well, the base classes
    assert sum(key.startswith("val/iou/") for key in logged.base.history) == 12


@pytest.mark.slow
def test_wandb_panels_hold_masks(logged: Logged) -> None:
    history = logged.bams[0].history
    for i in range(3):
        assert history[f"episodes/{i}/captions"][0][::2] == ["support 1", "prior mask"]
        masks = history[f"episodes/{i}/all_masks"]
        assert len(masks) == 1  # every second epoch
        support, query, prior, base = masks[0]
        assert prior is base is None
        assert query.keys() == {"truth", "prediction", "base classes"}
        for mask in (support["support"], query["truth"], query["prediction"]):
            values = np.unique(np.asarray(Image.open(logged.media(mask["path"]))))
            assert set(values) <= {0, 1, 255}
        assert 1 in np.asarray(Image.open(logged.media(support["support"]["path"])))
        assert np.asarray(Image.open(logged.media(query["base classes"]["path"]))).max() <= 12
    assert "episodes/3/captions" not in history


@pytest.mark.slow
def test_wandb_shows_how_far_s_has_moved(logged: Logged) -> None:
    history = logged.bams[0].history
    stages = [stage for stage in range(5) if f"svf/stage{stage}/ratio/values" in history]
    assert stages == [2, 3]  # of an EfficientNet-Lite0 up to the mid features
    for stage in stages:
        bins = history[f"svf/stage{stage}/ratio/bins"][-1]
        assert bins[0] < 1 < bins[-1] or bins[-1] < 1
        assert history[f"svf/stage{stage}/mean_change"][-1] > 0


@pytest.mark.slow
def test_csv_and_tensorboard_hold_the_same_numbers(logged: Logged) -> None:
    history = logged.bams[1].history
    with (logged.root / FOLDER / "csv/version_1/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    board = EventAccumulator(str(logged.root / FOLDER / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    for key in ("train/loss", "val/miou", "test/miou", "val/iou/heart-scales", "svf/stage3/mean_change"):
        expected = pytest.approx(history[key], rel=1e-5)
        assert [float(row[key]) for row in rows if row[key]] == expected
        assert [event.value for event in board.Scalars(key)][-len(history[key]) :] == expected
    assert "episodes" in board.Tags()["images"]
    assert "svf/stage2/ratio" in board.Tags()["histograms"]


@pytest.mark.slow
def test_a_log_file_stays_readable(logged: Logged) -> None:
    printed = logged.printed
    assert "\r" not in printed
    assert "\x1b" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 1 + 2 + 2  # a line a validation
    assert all(part in lines[-1] for part in ("step 4/4", "loss ", "mIoU ", "FB-IoU ", "episodes/s ", "ETA "))
    assert "  heart-scales 0." in printed
    assert f"Checkpoint:     {FOLDER}/checkpoints/last.ckpt" in printed
    assert f"Evaluate again: python evaluate.py run_dir={FOLDER}" in printed
    assert "python train.py method=bam trainer=cpu" in printed  # after the base learner


def test_a_terminal_gets_a_bar_and_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, force_interactive=True, width=100, record=True, file=io.StringIO())
    monkeypatch.setattr(progress, "get_console", lambda: terminal)
    assert isinstance(progress_display(), TerminalBar)
    monkeypatch.setattr(progress, "get_console", lambda: Console(force_terminal=False))
    assert isinstance(progress_display(), LogLines)
    scores = {f"[b]class {i}": i / 100 for i in range(25)}
    terminal.print(class_tables(scores))
    shown = terminal.export_text()
    assert all(f"[b]class {i}" in shown and f"{i / 100:.3f}" in shown for i in range(25))
    assert len(shown.splitlines()) < 20  # side by side


def test_names_in_a_log_file_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Console(file=io.StringIO(), width=100)
    monkeypatch.setattr(class_scores, "get_console", lambda: log)
    monkeypatch.setattr(class_scores, "log_class_iou", lambda *_: None)
    data = SimpleNamespace(class_names=["[b]cat", ":dog:"])
    trainer: Any = SimpleNamespace(sanity_checking=False, is_global_zero=True, datamodule=data)
    learner: Any = SimpleNamespace(class_iou={1: 0.5, 2: 0.25})
    class_scores.ClassScores().on_validation_end(trainer, learner)
    assert log.file.getvalue() == "  [b]cat 0.500  :dog: 0.250\n"  # type: ignore[attr-defined]


def test_lines_while_validation_and_test_take_long(capfd: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=2, limit_val_batches=2, limit_test_batches=3,
        callbacks=[LogLines(seconds=0)], **settings,
    )  # fmt: skip
    trainer.fit(BoringModel())
    trainer.test(BoringModel(), verbose=False)
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("validation")] == ["validation 1/2", "validation 2/2"]
    told = [line.partition("  ETA")[0] for line in lines if line.startswith("test ")]
    assert told == ["test 1/3", "test 2/3", "test 3/3"]


def test_live_logging_without_an_account_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"logger\.wandb\.offline=false needs a W&B account"):
        start("train", *SMALL, "logger=wandb", "logger.wandb.offline=false")


@pytest.mark.parametrize(("name", "value", "least"), [("episodes", -1, 0), ("every_n_epochs", 0, 1)])
def test_panel_settings_are_checked(
    name: str, value: int, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"^panels\.{name}={value}: must be at least {least}"):
        start("train", *SMALL, f"panels.{name}={value}")
    with pytest.raises(ValueError, match=r"must be at least 0, panels\.every_n_epochs=. at least 1"):
        EpisodePanels(**{"episodes": 1, "every_n_epochs": 1, name: value})


def test_ratio_of_singular_values() -> None:
    backbone = TinyBackbone()
    svf(backbone, stages=(2, 4))
    with torch.no_grad():
        backbone.get_submodule("layer4.0").S.mul_(1.5)  # type: ignore[operator]
        backbone.get_buffer("layer2.0.S0")[-1] = 0.0  # nothing but rounding
    ratios = stage_ratios(backbone)
    assert list(ratios) == [2, 4]
    assert torch.equal(ratios[2], torch.ones(3))
    assert torch.allclose(ratios[4], torch.full((5,), 1.5))
    plain = TinyBackbone()
    frozen(plain)
    assert stage_ratios(plain) == {}


def test_base_map_tints_each_class_in_its_own_colour() -> None:
    grey = np.full((4, 6, 3), 100, np.uint8)
    base = torch.zeros(4, 6, dtype=torch.int64)
    base[:, :2], base[:, 2:4] = 1, 2
    shown = base_map(grey, base)
    assert np.array_equal(shown[:, 4:], grey[:, 4:])
    first, second = shown[0, 0], shown[0, 2]
    assert (shown[:, :2] == first).all()
    assert (shown[:, 2:4] == second).all()
    assert np.abs(first.astype(int) - second.astype(int)).max() > 50
