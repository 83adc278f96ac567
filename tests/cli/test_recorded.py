"""What a received run folder can make an evaluation do: nothing but what its weights are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import warm

from fss.cli.recorded import recorded_overrides
from fss.evaluation.results import RECORD

HARMFUL = [
    "dataset.eval_transform._target_=torch.load",
    "+dataset.eval_transform.weights_only=false",
    "dataset.eval_transform={_target_:os.system,command:id}",
    "+dataset.eval_transform={_target_:os.system}",
    "method.head._target_=os.system",
    "+x={a:{_target_:os.system}}",
    "method.head=${oc.env:HOME}",
    "dataset.train_reader=${method.head}",
    "export=/any/file",
    "ckpt=/any/file.ckpt",
    "tags=['${oc.env:WANDB_API_KEY}']",
    "outputs=${oc.env:HOME}",
    "run_dir=${hydra:runtime.cwd}",
    "method.name=${oc.decode:x}",
    "method.name=${oc.env:HOME}",
    "method.name='a${oc.create:{_target_:os.system}}'",
    "protocol.name=../../../outside",
    "method.name=/absolute",
    "backbone.name=hf-hub:somebody/something",
    "backbone.weights=https://somewhere/weights.pth",
    "hydra.run.dir=/any",
    "hydra/launcher=basic",
    "+hydra.callbacks.x._target_=os.system",
    "dataset@evil=shapes",
    "dataset=/any/file",
    "experiment=../../evil",
    "seed=1,2",
    "seed=range(3)",
    "setting=generalized",
    "unknown=1",
    "+unknown=1",
    "tuning.head_lr=${unknown}",
    "tuning.head_lr=${tuning.apply}",
    "tuning.head_lr=nan",
    "no override",
    "method.name='\x1b[31m'",
    "~dataset",
]
HARMLESS = [
    "dataset=folder",
    "dataset.root='/home/somebody else/a=b (1)'",
    "dataset.fold_scheme=[[1,2],[3]]",
    "method=bam",
    "method.head.width=64",
    "backbone=timm",
    "backbone.name=convnext_atto.d2_in1k",
    "backbone.high=[low,mid]",
    "tuning.head_lr=${tuning.backbone_lr}",
    "optimizer.weight_decay=0.0",
    "protocol=bam",
    "seeds=[1,2]",
    "fold=1",
    "precision=bf16-mixed",
    "method.foreground_weight=2.5",
]
LEFT_OUT = [
    "outputs=/somewhere/else",
    "run_dir=/somewhere/else",
    "logger=[csv,wandb]",
    "logger.wandb.project=cats",
    "trainer=ddp",
    "trainer.devices=1000",
    "+trainer.max_time=1",
    "+optimizer.nesterov=true",
    "dataset.num_workers=100000",
    "tags=[cats,a/b]",
    "resume=true",
]


def record(folder: Path, *entries: str) -> Path:
    file = folder / RECORD
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(list(entries)))
    return file


@pytest.mark.parametrize("entry", HARMFUL)
def test_what_no_run_needs_is_refused_by_name(entry: str, tmp_path: Path) -> None:
    file = record(tmp_path, "fold=1", entry)
    with pytest.raises(ValueError, match=r"overrides\.yaml") as refusal:
        recorded_overrides(tmp_path)
    message = str(refusal.value)
    assert str(file) in message
    assert message.isprintable()
    assert repr(entry) in message or "groups" in message


def test_a_run_of_ones_own_is_followed(tmp_path: Path) -> None:
    record(tmp_path, *HARMLESS, *LEFT_OUT)
    assert recorded_overrides(tmp_path) == HARMLESS
    assert recorded_overrides(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    "content",
    [
        "fold=1",
        "{fold: 1}",
        "[1, 2]",
        "!!python/object/apply:os.system ['id']",
        "[" * 5000,
        "a: &a [x]\nb: *a",
        "\0",
        "- " + "x" * 5000,
    ],
)
def test_what_is_no_record_is_named(content: str, tmp_path: Path) -> None:
    record(tmp_path).write_text(content)
    with pytest.raises(ValueError, match=r"overrides\.yaml") as refusal:
        recorded_overrides(tmp_path)
    assert len(str(refusal.value)) < 3000


@pytest.mark.slow
def test_a_strangers_run_folder_runs_and_writes_nothing(tmp_path: Path) -> None:
    """A payload that torch would unpickle, a file that would be overwritten, a variable that would be told."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    kept = tmp_path / "kept"
    kept.write_text("mine")
    payload = tmp_path / "payload.pt"
    payload.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    load = ("dataset.eval_transform._target_=torch.load", f"+dataset.eval_transform.f={payload}")
    for entries in (
        (*load, "+dataset.eval_transform.weights_only=false", "~dataset.eval_transform.size"),
        (f"export={kept}",),
        ("tags=['${oc.env:SECRET}']",),
    ):
        record(run, *entries)
        before = sorted(tmp_path.rglob("*"))
        done = warm.run(
            *("evaluate.py", f"run_dir={run}", "backbone.weights=null"),
            cwd=tmp_path,
            environment={"SECRET": "hush-hush", "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 2
        assert "overrides.yaml" in done.stderr
        assert "hush-hush" not in done.stdout + done.stderr
        assert sorted(tmp_path.rglob("*")) == before
        assert kept.read_text() == "mine"
