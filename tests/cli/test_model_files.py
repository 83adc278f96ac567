"""Model files of runs: written by training, evaluated with nothing else, made of old runs, exported."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from omegaconf import OmegaConf
from support import made_up
from support.scripts import SMALL, export, integers, metrics, run_folder, start

from fss.cli import model_files
from fss.cli.model_files import write_model_files
from fss.evaluation.results import RECORD, SETTINGS
from fss.models.backbones import TimmBackbone
from fss.models.heads import PFENet
from fss.models.model_file import read_card, read_model
from fss.svf import merge
from fss.svf.adapter import Adapters, read_adapter

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = ("trainer=cpu", "dataset.eval_reader.images=64", "episodes=6", "dataset.num_workers=0", "pictures=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    typed = [*SMALL, "dataset.epochs=1", "fold=1", "logger=none", "presence_episodes=24"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        start("train", *typed)
    made = run_folder(folder).parents[1] / "fold1/seed0"
    assert yaml.safe_load((made / RECORD).read_text()) == typed
    return made


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    states = ours.state_dict(), theirs.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_equal_weights_learn_of_absence_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    shutil.copy(copied / "checkpoints/last.ckpt", copied / "checkpoints/best.ckpt")
    cfg = OmegaConf.create({**yaml.safe_load((copied / SETTINGS).read_text()), "run_dir": str(copied)})
    learnt = []
    monkeypatch.setattr(model_files, "_verifier", lambda *given: learnt.append(given))
    write_model_files(cfg, read_card(run / "checkpoints/model.safetensors").classes)
    assert len(learnt) == 1
    assert {"model.safetensors", "best.safetensors"} <= {path.name for path in (copied / "checkpoints").iterdir()}


@pytest.mark.slow
def test_training_writes_what_is_evaluated_with_nothing_else(run: Path, tmp_path: Path) -> None:
    expected = metrics(run / "results")
    card = read_card(run / "checkpoints/model.safetensors")
    assert (card.head.name, card.size, card.geometry, card.shot) == ("pfenet", 64, "published", 1)
    assert len(card.classes) == 12
    told = [card.training[key] for key in ("dataset", "fold", "method", "tuning")]
    assert told == ["shapes", 1, "pfenet", "svf"]
    assert [result["miou"] for result in card.results] == [expected["miou"]]
    segmenter, _ = read_model(run / "checkpoints/model.safetensors")
    assert segmenter.verifier is not None
    assert len(segmenter.verifier.classes) > 8  # of those in 24 episodes
    assert card.presence["threshold"] == segmenter.verifier.threshold
    best = read_card(run / "checkpoints/best.safetensors")
    assert (best.training["checkpoint"], best.results) == ("best", ())

    file = shutil.copy(run / "checkpoints/model.safetensors", tmp_path)
    start("evaluate", f"model={file}", *DATA)
    found = metrics(tmp_path / "model-evaluation")
    assert integers(found) == integers(expected)
    assert found["seeds"] == expected["seeds"]
    for key in ("dataset", "method", "backbone", "tuning", "fold", "seed", "train_shot", "train_dataset"):
        assert found[key] == expected[key]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["fold=0"], "fold=0: model=.* decides this itself"),
        (["method=bam"], "method=bam: model=.* decides this itself"),
        (["ckpt=last.ckpt"], "ckpt=last.ckpt: model=.* decides this itself"),
        (["dataset.fold_scheme=interleaved"], "fold 1 of the data in dataset.root has other base classes than"),
    ],
)
def test_what_a_model_file_decides_cannot_be_typed(typed: list[str], message: str, run: Path) -> None:
    with pytest.raises(ValueError, match=message):
        start("evaluate", f"model={run}/checkpoints/model.safetensors", *DATA, *typed)


@pytest.mark.slow
def test_old_runs_are_converted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    written = {}
    for name in ("model", "best"):
        file = old / f"checkpoints/{name}.safetensors"
        written[name] = read_card(file)
        file.unlink()
    export(model=old, format="safetensors")
    export(model=old, format="safetensors", checkpoint="best")
    for name, card in written.items():
        assert read_card(old / f"checkpoints/{name}.safetensors") == card
    export(model=old, format="safetensors", factored="true", out=tmp_path / "f.safetensors")
    factored = read_model(tmp_path / "f.safetensors")[0]
    assert same(merge(factored), read_model(old / "checkpoints/model.safetensors")[0])
    assert "Model file: " in capsys.readouterr().out


@pytest.mark.slow
def test_an_adapter_of_a_run_gives_its_model(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    export(model=run, format="adapter", out=file)
    model, card = read_model(run / "checkpoints/model.safetensors")
    backbone = TimmBackbone(**card.backbone.settings, weights="package:efficientnet_lite0").eval()
    adapters = Adapters(
        backbone, read_adapter(file).layers, head=PFENet(list(backbone.channels), **card.head.settings)
    )
    adapters.load_adapter(file, "run")
    adapters.set_adapter("run")
    assert adapters.head is not None
    assert same(adapters.head, model.head)
    merged = adapters.merge().state_dict()
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-4 * max(1, float(value.abs().max())))
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "random.pth")
    with pytest.raises(ValueError, match="is not what its run started from"):
        export(model=run, format="adapter", out=file, weights=tmp_path / "random.pth")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": "nowhere"}, FileNotFoundError, "model=nowhere: no such run folder or model file"),
        ({"model": ".", "format": "tflite"}, ValueError, "format=tflite: must be one of onnx, torch"),
        ({"model": ".", "factored": "true"}, ValueError, "leave it out of format=onnx"),
        ({"model": ".", "format": "torch", "int8": "true"}, ValueError, "only format=onnx has it"),
        ({"model": ".", "checkpoint": "newest"}, ValueError, "must be one of last, best"),
        ({"model": "."}, FileNotFoundError, "give the folder of a run"),
        ({}, ValueError, "settings without a default: model"),
        ({"model": "7"}, ValueError, "model=7: must be a path; put ./ before"),
        ({"model": "[a,b]"}, ValueError, "model=['a', 'b']: must be one path"),
        ({"model": ".", "out": "7"}, ValueError, "out=7: must be a path; put ./ before"),
        ({"model": ".", "int8": "no"}, ValueError, "int8=no: must be true or false"),
        ({"model": ".", "factored": "off"}, ValueError, "factored=off: must be true or false"),
        ({"model": ".", "format": "adapter", "head": "no"}, ValueError, "head=no: must be true or false"),
        (
            {"model": ".", "format": "adapter", "out": "a.txt"},
            ValueError,
            "of format=adapter ends with .safetensors",
        ),
        ({"model": ".", "format": "safetensors"}, FileNotFoundError, "give the folder of a run"),
    ],
)
def test_what_cannot_be_exported(
    settings: dict[str, str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=re.escape(message)):
        export(**settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["onnx", "torch", "safetensors", "adapter"])
def test_a_run_without_a_checkpoint_has_nothing_to_export(form: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("[]")
    with pytest.raises(FileNotFoundError, match=r"no .*last\.ckpt: model=.* has not been trained so far"):
        export(model=tmp_path, format=form)


@pytest.mark.parametrize("form", ["onnx", "torch", "safetensors", "adapter"])
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("method.head.width=1.5", "method.head.width=1.5: must be a whole number"),
        ("method.head.dropout=abc", "method.head.dropout=abc: must be a number"),
        ("dataset.size=big", "dataset.size=big: must be a whole number"),
    ],
)
def test_a_record_of_settings_of_a_wrong_type_is_told(form: str, entry: str, message: str, tmp_path: Path) -> None:
    run = made_up.run(tmp_path, [entry])
    with pytest.raises(ValueError, match=rf"^{re.escape(f'{run / RECORD}: {message}')}"):
        export(model=run, format=form)


@pytest.mark.parametrize(
    ("form", "out"), [("onnx", "file/a.onnx"), ("torch", "folder.pt2"), ("adapter", "folder.safetensors")]
)
def test_what_cannot_be_written_is_told_before_work_starts(
    form: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for place in ("run/.hydra", "run/checkpoints", "folder.pt2", "folder.safetensors"):
        (tmp_path / place).mkdir(parents=True)
    (run / ".hydra/overrides.yaml").write_text("[]")
    for file in ("run/checkpoints/last.ckpt", "file"):
        (tmp_path / file).touch()
    monkeypatch.setattr(model_files, "write_model_file", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(OSError, match=r"could not be written \(.*\): .* folder; "):
        export(model=run, format=form, out=tmp_path / out)


@pytest.mark.parametrize(
    ("typed", "error", "message"),
    [
        (["model=123"], ValueError, "model=123: must be a path; put ./ before"),
        (["model=m.safetensors", "episodes=abc"], ValueError, "episodes=abc: must be a whole number"),
        (["adapt=no"], ValueError, "adapt=no: must be true or false"),
        (["resume=no"], ValueError, "resume=no: must be true or false"),
        (["seeds=3"], ValueError, "seeds=3: must be a list, such as [1,2]"),
        (["seeds=[a]"], ValueError, "seeds=['a']: must be a list of which each is a whole number"),
        (["fold=first"], ValueError, "fold=first: must be a whole number, or all"),
        (["dataset=folder", "dataset.root=7"], ValueError, "dataset.root=7: must be a path; put ./ before"),
        (["save_minutes=soon"], ValueError, "save_minutes=soon: must be a number, or null"),
        (["published=."], OSError, "it is a folder; name a file"),
        (["export=theirs.pth"], ValueError, "export=theirs.pth: this setting is now published=FILE"),
        (["model=nowhere.safetensors"], FileNotFoundError, "no model file nowhere.safetensors"),
        (["model=nowhere.onnx"], FileNotFoundError, "no nowhere.onnx.json"),
    ],
)
def test_evaluations_that_cannot_be(
    typed: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=re.escape(message)):
        start("evaluate", *typed)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("resume=no", "resume=no: must be true or false"),
        ("compile=off", "compile=off: must be true or false, or cuda_graphs"),
        ("optimizer.fused=off", "optimizer.fused=off: must be true or false, or null"),
        ("batch_size=many", "batch_size=many: must be a whole number"),
        ("fold=all", "fold=all: must be a whole number"),
        ("outputs=null", "outputs=null: must be one path"),
        ("dataset.val_episodes=abc", "dataset.val_episodes=abc: must be a whole number"),
        ("dataset.exclude_novel=no", "dataset.exclude_novel=no: must be true or false"),
        ("method.train_base=no", "method.train_base=no: must be true or false"),
        ("precision=16", "precision=16: must be one of 32-true"),
    ],
)
def test_trainings_that_cannot_be(typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start("train", typed)


def test_training_does_not_take_a_model_file() -> None:
    with pytest.raises(ValueError, match=r"model=m\.safetensors: a setting of evaluate\.py"):
        start("train", "model=m.safetensors")
