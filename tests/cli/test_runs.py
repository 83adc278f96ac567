"""The scripts from the command line to `metrics.json`, on small pictures and a small network."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from support.scripts import SMALL, fresh, integers, metrics, run, run_folder, start, succeed

from fss.cli.bundles import FURTHEST, NoRecordError, open_evaluation, picture_digests, run_again
from fss.models.backbones import ResNetBackbone
from fss.models.checkpoints import save_published
from fss.models.heads import BAM
from fss.models.segmenter import FewShotSegmenter
from fss.report.__main__ import main as report


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small run was trained."""
    folder = tmp_path_factory.mktemp("trained")
    succeed("train.py", *SMALL, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def bundled(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the small run."""
    GlobalHydra.instance().clear()
    out = tmp_path_factory.mktemp("bundled") / "bundle"
    assert report(["bundle", str(trained / "outputs"), "--out", str(out)]) == 0
    return out


@pytest.mark.nightly
@pytest.mark.slow
def test_a_bundle_s_episodes_are_run_again(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["verify", str(bundled), "--episodes", "6"]) == 0
    assert "6 of 6 episodes gave the same integers" in capsys.readouterr().out


@pytest.mark.nightly
def test_other_episodes_pictures_and_weights_are_found(bundled: Path) -> None:
    [results] = (path.parent for path in bundled.rglob("metrics.json"))
    opened = open_evaluation(results, metrics(bundled), None)
    noted = json.loads((bundled / "data.json").read_text())
    assert noted == {results.relative_to(bundled).as_posix(): picture_digests(opened)}
    assert len(next(iter(noted.values()))) > 6
    moved = opened.episodes[0]
    apart = [moved._replace(intersection=0, union=moved.union + 9), *opened.episodes[1:]]
    again = run_again(opened._replace(episodes=apart), 6)
    assert (again.episodes, again.equal) == (6, 5)
    assert again.furthest > FURTHEST
    with pytest.raises(ValueError, match="episode 0 of seed 321 has other pictures here"):
        run_again(opened._replace(episodes=[moved._replace(query="another.png")]), 1)
    with pytest.raises(NoRecordError, match="its weights are not in the bundle"):
        run_again(opened._replace(run=bundled), 1)
    with pytest.raises(NoRecordError, match="tuned on the supports"):
        run_again(opened._replace(metrics={**opened.metrics, "adapt": True}), 1)
    with pytest.raises(NoRecordError, match="evaluated otherwise than its run: refine-2"):
        run_again(opened._replace(metrics={**opened.metrics, "changed": ["refine-2"]}), 1)


BAM_RUN = Path("outputs/shapes/bam-svf-efficientnet_lite0/1shot/fold0/seed0")


@pytest.mark.slow
def test_a_run_leaves_what_others_look_for(trained: Path) -> None:
    folder = run_folder(trained)
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "best.safetensors", "model.safetensors"),
    }
    content = metrics(trained)
    assert sum(episodes for *_, episodes in integers(content).values()) == content["episodes"] == 6
    results = folder / "results/last-custom-6x321"
    sheets = {"episodes.png", "worst.png", "best.png"}
    assert {p.name for p in results.iterdir()} == {"metrics.json", "metrics.csv", "episodes.csv", *sheets}
    assert content["classes"].keys() <= {"star-stripes", "ring-dots", "heart-scales", "arrow-checker"}
    assert content["classes_left_out"] == []
    assert content["train_seconds"] > 0
    sheet = cv2.imread(str(results / "episodes.png"))
    assert sheet is not None
    assert min(sheet.shape[:2]) > 300
    assert not list(trained.rglob("*.part"))
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    moved = [(value - state[f"{name}0"]).abs().max() for name, value in state.items() if name.endswith(".S")]
    assert moved
    assert max(moved) > 0
    assert not any(name.startswith("_evaluated") for name in state)


@pytest.mark.slow
@pytest.mark.slow
def test_a_start_that_is_refused_changes_nothing(trained: Path) -> None:
    folder = run_folder(trained)
    kept = [folder / name for name in ("config.yaml", ".hydra/overrides.yaml", "training.json")]
    before = [path.read_bytes() for path in kept]
    assert b"geometry" not in before[1]
    done = run("train.py", *SMALL, "dataset.geometry=exact", "trainer.devices=0", cwd=trained)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: settings of trainer: ")
    assert [path.read_bytes() for path in kept] == before


def test_evaluation_repeats_the_integers_of_training(trained: Path) -> None:
    before = metrics(trained)
    files = sorted(trained.rglob("*"))
    # the width of the head and all else are recalled from the run folder
    for evaluate in (fresh, run):  # once with another order of sets
        done = evaluate("evaluate.py", cwd=trained)
        assert done.returncode == 0, done.stdout + done.stderr
        assert integers(metrics(trained)) == integers(before)
        assert f"{before['miou']:.3f}" in done.stdout
    assert sorted(trained.rglob("*")) == files
    after = metrics(trained)
    assert (after["trained_parameters"], after["train_seconds"]) == (
        before["trained_parameters"],
        before["train_seconds"],
    )


@pytest.mark.slow
def test_evaluation_settings_go_over_those_of_the_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = run_folder(trained) / "checkpoints/best.ckpt"
    copy = tmp_path / "elsewhere.ckpt"
    copy.write_bytes(checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path)
    start("evaluate", f"ckpt={copy}", *SMALL, "episodes=1", "shot=5", "pictures=0")
    content = metrics(tmp_path / "elsewhere-evaluation")
    assert (content["episodes"], content["shot"], content["checkpoint"]) == (1, 5, str(copy))
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.slow
def test_both_checkpoints_and_another_shot(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics(trained)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    start("evaluate", "checkpoint=both", "episodes=3")
    assert "selected on the test classes" in capsys.readouterr().out
    start("evaluate", "shot=2", "train_shot=1")
    found = {p.parent.name: json.loads(p.read_text()) for p in run_folder(tmp_path).rglob("metrics.json")}
    assert found.keys() == {f"{n}-custom-3x321" for n in ("last", "best")} | {
        "last-custom-6x321",
        "last-custom-6x321-2shot",
    }
    assert [found[f"{n}-custom-3x321"]["selection"] for n in ("last", "best")] == ["none", "novel classes"]
    two = found["last-custom-6x321-2shot"]
    assert (two["shot"], two["train_shot"]) == (2, 1)
    assert two["trained_parameters"] == before["trained_parameters"] > 0
    with pytest.raises(FileNotFoundError, match="train_shot=K"):
        start("evaluate", "shot=2")


@pytest.mark.slow
@pytest.mark.nightly
def test_the_same_seed_gives_the_same_run(trained: Path, tmp_path: Path) -> None:
    succeed("train.py", *SMALL, "logger=wandb", "dataset.num_workers=2", cwd=tmp_path)
    assert integers(metrics(tmp_path)) == integers(metrics(trained))
    states = [
        torch.load(run_folder(f) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for f in (trained, tmp_path)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert list(tmp_path.rglob("*.wandb"))


@pytest.mark.slow
def test_prior_needs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    start("evaluate", *SMALL[:-2], "method=prior", "tuning=frozen")
    content = metrics(tmp_path)
    assert content["trained_parameters"] == 0
    assert 0 < content["miou"] < 1
    assert "training-free" in capsys.readouterr().out


@pytest.mark.slow
def test_bam_in_its_two_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [s for s in SMALL if not s.startswith(("batch_size", "dataset.epochs"))] + ["dataset.base.width=16"]
    start("train", *(s for s in small if "head.width" not in s), "method=base", "dataset.base.epochs=1")
    checkpoint = Path("outputs/shapes/base-efficientnet_lite0/fold0/seed0/checkpoints/best.ckpt")
    assert checkpoint.is_file()
    assert "mIoU of the base classes" in capsys.readouterr().out
    small += ["method=bam", "dataset.epochs=1"]
    start("train", *small, "batch_size=4")
    assert "base learner" in capsys.readouterr().out
    before = metrics(tmp_path)
    start("evaluate", *small)
    assert integers(metrics(tmp_path)) == integers(before)
    # the base learner is what stage 1 left
    ours = torch.load(BAM_RUN / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    theirs = torch.load(checkpoint, weights_only=True)["state_dict"]
    gain = theirs.pop("segmenter.gain")  # of features of unit length, which BAM has in its weights
    assert gain == pytest.approx((152 / 2) ** 0.5)
    averages = [name for name in theirs if re.fullmatch(r"segmenter\.head\.0\.features\.\d\.1\.weight", name)]
    for name in averages:
        theirs[name] *= gain
    theirs["segmenter.head.1.0.weight"][:, :152] *= gain
    for name, value in theirs.items():
        kept = name.replace("segmenter.head.", "segmenter.head.learner_base.")
        kept = kept.replace("segmenter.backbone.", "segmenter.base_backbone.")
        assert torch.equal(ours[kept], value), name

    start("evaluate", *small, "setting=generalized", "threshold=0.5")
    content = json.loads(
        (BAM_RUN / "results/last-custom-6x321-threshold-0.5/metrics-generalized.json").read_text()
    )
    for rule in ("final", "base"):
        classes = content["rules"][rule]["classes"]
        assert len(classes) >= 12
        assert sum(c["novel"] for c in classes.values()) <= 4
        assert 0 <= content["rules"][rule]["all"] <= 1
    assert content["threshold"] == 0.5
    assert metrics(tmp_path)["miou"] == before["miou"]  # the standard result stays
    with pytest.raises(ValueError, match="a BAM trained with shot=1 got 2 supports"):
        start("evaluate", *small, "shot=2", "train_shot=1")


@pytest.mark.slow
def test_published_checkpoint_is_evaluated_and_written_back(tmp_path: Path) -> None:
    backbone = ResNetBackbone()
    segmenter = FewShotSegmenter(
        backbone, BAM(backbone.channels, base_classes=12, shot=1, width=16, base_width=16)
    )
    theirs, again = tmp_path / "theirs.pth", tmp_path / "again.pth"
    save_published(segmenter, theirs)
    command = ("evaluate", f"ckpt={theirs}", f"published={again}", "method=bam", "backbone=resnet50_deep")
    start(*command, *SMALL, "dataset.base.width=16")
    assert metrics(tmp_path / "theirs-evaluation")["episodes"] == 6
    states = [torch.load(file, weights_only=True)["state_dict"] for file in (theirs, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_boxes_in_place_of_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = []
    for kind in ("mask", "box"):
        prior = ("method=prior", "tuning=frozen", f"dataset.support_annotation={kind}", f"outputs={kind}")
        start("evaluate", *SMALL[:-2], *prior)
        results.append(metrics(tmp_path / kind))
    assert integers(results[1]) != integers(results[0])
    assert [r["support_annotation"] for r in results] == ["mask", "box"]


@pytest.mark.slow
def test_an_error_ends_the_program(tmp_path: Path) -> None:
    done = run("train.py", *SMALL, "shot=200", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no class has the 201 pictures")


@pytest.mark.parametrize(
    ("script", "overrides", "error", "message"),
    [
        ("train", ["fold=4"], ValueError, "fold=4: there are 4 folds, 0 to 3"),
        ("train", ["shot=0"], ValueError, "shot=0: must be at least 1"),
        ("train", ["batch_size=0"], ValueError, "batch_size=0: must be at least 1"),
        ("train", ["shot=200"], ValueError, "no class has the 201 pictures.*Reduce shot"),
        ("train", ["method=prior"], ValueError, "python evaluate.py method=prior"),
        ("train", ["dataset=folder"], ValueError, r"settings without a default: dataset\.root"),
        (
            "train",
            ["dataset=coco20i", "dataset.root=nowhere"],
            FileNotFoundError,
            r"no folder nowhere \(dataset\.root\): put train2014/",
        ),
        ("train", ["backbone=timm", "backbone.name=resnet9000"], ValueError, "timm has no network 'resnet9000'"),
        ("train", ["backbone=resnet50", "backbone.weights=no.pth"], FileNotFoundError, "backbone.weights=no.pth"),
        ("train", ["tuning.schedule=stepwise"], ValueError, "must be 'constant', 'cosine' or 'poly'"),
        ("train", ["tuning.stages=[7]"], ValueError, "give one or more stages from 0 to 4"),
        ("evaluate", [], FileNotFoundError, r"train it first \(python train.py"),
        ("evaluate", ["ckpt=nowhere.pth"], FileNotFoundError, "ckpt=nowhere.pth: no such file"),
        (
            "evaluate",
            ["ckpt=nowhere.pth", "method=bam", "backbone=resnet50_deep"],
            FileNotFoundError,
            "ckpt=nowhere.pth: no such file",
        ),
        ("train", ["backbone=resnet50_deep"], ValueError, r"settings without a default: backbone\.weights"),
        ("evaluate", ["checkpoint=newest"], ValueError, "must be last, best or both"),
        ("evaluate", ["published=theirs.pth", "method=prior"], ValueError, "a TimmBackbone cannot be written"),
        ("evaluate", ["setting=general"], ValueError, "must be standard, generalized, several or absent"),
        ("evaluate", ["dataset.support_annotation=dots"], ValueError, "must be one of mask, box"),
        (
            "train",
            ["method=bam", "method.train_base=false", "fold=1", "shot=5"],
            FileNotFoundError,
            r"no base learner outputs/shapes/base-efficientnet_lite0/fold1/seed0/checkpoints/best\.ckpt: train "
            r"it first \(python train.py method=base fold=1 seed=0\) or name a file with method\.base_checkpoint",
        ),
        ("train", ["method=base", "batch_size=1"], ValueError, "batch_size=1: must be at least 2"),
        ("evaluate", ["method=base"], ValueError, "evaluate what stands on it: method=bam"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_errors_say_the_mend(
    script: str,
    overrides: list[str],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = not any(override.startswith(("dataset=", "method=")) for override in overrides)
    with pytest.raises(Exception, match=f"(?s){message}") as raised:  # Hydra wraps what a constructor raises
        start(script, *(SMALL if ours else []), *overrides)
    assert isinstance(raised.value, error) or isinstance(raised.value.__cause__, error)
    assert not list(tmp_path.rglob("*.ckpt"))
