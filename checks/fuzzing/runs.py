"""What is read of runs: results, settings, records, journals, checkpoints, claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from checks.fuzzing.mutations import damaged_bytes, damaged_json, damaged_lines
from checks.fuzzing.target import FileTarget, Target
from fss.cli.recorded import RECORD, recorded_overrides
from fss.evaluation.journal import Entry, Journal
from fss.evaluation.results import (
    EPISODES,
    METRICS,
    SETTINGS,
    TRAINING,
    EpisodeResult,
    read_episodes,
    read_metrics_file,
    read_training,
    summarize,
    write_results,
)
from fss.models.backbones.weights import read_state_dict
from fss.report.claims import FILE as CLAIMS
from fss.report.claims import load_claims
from fss.report.curves import read_logs
from fss.report.document import write_report
from fss.report.found import Found, read_run
from fss.training.run_folder import newest_checkpoint

KEY = "0123456789abcdef" * 4
CONFIG = {
    "dataset": {"name": "shapes", "exclude_novel": True},
    **{group: {"name": name} for group, name in (("method", "pfenet"), ("tuning", "svf"), ("backbone", "vgg16"))},
    **{"fold": 0, "shot": 1, "seed": 0},
}


def damaged_yaml(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage to the values of a YAML file, or to its lines."""
    if rng.random() < 0.3:
        return damaged_lines(content, rng)
    values = damaged_json(json.dumps(yaml.safe_load(content)).encode(), rng)
    try:
        return yaml.safe_dump(json.loads(values), sort_keys=False).encode()
    except ValueError:  # damaged as bytes
        return values


def _episodes() -> list[EpisodeResult]:
    chance = np.random.default_rng(0)
    made = []
    for number in range(8):
        union, background = (int(n) for n in chance.integers(100, 200, 2))
        counts = (int(chance.integers(union)), union, int(chance.integers(background)), background)
        class_id = 1 + number % 2
        name = ("cat", "dog, or so")[class_id - 1]
        made.append(EpisodeResult(321, number, class_id, name, f"{number}.jpg", ("a.jpg", "b.jpg"), *counts))
    return made


def _write_results(folder: Path) -> Sequence[Path]:
    identity = {
        **{"dataset": "shapes", "train_dataset": "shapes", "method": "pfenet", "tuning": "svf"},
        **{"backbone": "vgg16", "fold": 0, "shot": 1, "train_shot": 1, "seed": 0, "checkpoint": "last"},
        **{"selection": "none", "eval_classes": "novel", "support_annotation": "mask", "protocol": "svf"},
        **{"episodes": 8, "eval_seeds": [321]},
    }
    more = {
        **{"classes_left_out": ["bird"], "train_seconds": 1.5, "test_seconds": 2.5, "trained_parameters": 7},
        **{"git_revision": "abc", "versions": {"torch": "2"}, "config": CONFIG},
    }
    write_results(folder, {**identity, **summarize(_episodes()), **more}, _episodes())
    return [folder / METRICS]


def _report_of(folder: Path) -> object:
    metrics = read_metrics_file(folder / METRICS)
    write_report(Found(folder), folder / "report")  # uses all that was read
    return metrics["miou"]


def _write_episodes(folder: Path) -> Sequence[Path]:
    _write_results(folder)
    return [folder / EPISODES]


def _write_run(folder: Path) -> Sequence[Path]:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").touch()
    (folder / SETTINGS).write_text(yaml.safe_dump(CONFIG))
    (folder / RECORD).parent.mkdir()
    (folder / RECORD).write_text(yaml.safe_dump(["fold=0", "method.head.width=64"]))
    return [folder / SETTINGS]


def _read_run(folder: Path) -> object:
    run = read_run(folder)
    write_report(Found(folder), folder / "report")
    return run.config


def _write_record(folder: Path) -> Sequence[Path]:
    (folder / RECORD).parent.mkdir()
    entries = ["dataset=folder", "dataset.root=/data/cats", "method.head.width=64", "tuning.head_lr=0.1"]
    (folder / RECORD).write_text(yaml.safe_dump([*entries, "seeds=[1,2]", "tags=[a,b]", "fold=1"]))
    return [folder / RECORD]


def _write_training(folder: Path) -> Sequence[Path]:
    (folder / TRAINING).write_text(json.dumps({"seconds": 12.5, "parameters": 1234}))
    return [folder / TRAINING]


ENTRIES = [Entry(321, i, i, 200, 300 + i, 900, 1 + i) for i in range(30)]


def _write_journal(folder: Path) -> Sequence[Path]:
    journal = Journal(folder, KEY).open(0)
    for entry in ENTRIES:
        journal.add(entry)
    journal.close()
    return [folder / ".unfinished-0"]


def _read_journal(folder: Path) -> object:
    """Never refused: what is damaged is left out, what is read was written, and the journal goes on."""
    found = Journal(folder, KEY).read()
    journal = Journal(folder, KEY).open(0)
    more = Entry(321, 99, 1, 2, 3, 4, 5)
    journal.add(more)
    journal.close()
    assert set(found) <= set(ENTRIES)
    assert set(Journal(folder, KEY).read()) == {*found, more}
    return found


def _write_checkpoint(folder: Path) -> Sequence[Path]:
    chance = torch.Generator().manual_seed(0)
    weights = {f"layer{i}.weight": torch.randn(5, 4, generator=chance) for i in range(4)}
    torch.save({"state_dict": weights, "global_step": 7}, folder / "last.ckpt")
    return [folder / "last.ckpt"]


def _read_checkpoint(folder: Path) -> object:
    state = read_state_dict(folder / "last.ckpt")
    return {name: value.tolist() for name, value in state.items()}


def _choose_checkpoint(folder: Path) -> object:
    """Never refused: what is damaged is passed over."""
    chosen = newest_checkpoint(folder)
    assert chosen in (None, folder / "last.ckpt")
    return chosen


def _write_claims(folder: Path) -> Sequence[Path]:
    content = yaml.safe_load(CLAIMS.read_text())
    content["claims"] = {dataset: rows[:2] for dataset, rows in content["claims"].items()}
    (folder / "claims.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return [folder / "claims.yaml"]


def _write_log(folder: Path) -> Sequence[Path]:
    file = folder / "version_0/metrics.csv"
    file.parent.mkdir()
    rows = [f"{step},{1 / (1 + step):.4f},\n{step},,0.5" for step in range(9, 100, 10)]
    file.write_text("\n".join(["step,train/loss,val/miou", *rows]) + "\n")
    return [file]


def _read_log(folder: Path) -> object:
    return {name: values.shape for name, (_, values) in read_logs(folder).items()}


TARGETS: list[Target] = [
    FileTarget("metrics.json", _write_results, _report_of, damaged_json),
    FileTarget("episodes.csv", _write_episodes, read_episodes, damaged_lines),
    FileTarget("config.yaml", _write_run, _read_run, damaged_yaml),
    FileTarget("overrides.yaml", _write_record, recorded_overrides, damaged_yaml),
    FileTarget("training.json", _write_training, lambda f: read_training(f / TRAINING), damaged_json),
    FileTarget("journal", _write_journal, _read_journal, damaged_lines),
    FileTarget("checkpoint", _write_checkpoint, _read_checkpoint, damaged_bytes, exact=True),
    FileTarget("checkpoint to resume", _write_checkpoint, _choose_checkpoint),
    FileTarget("claims.yaml", _write_claims, lambda f: load_claims(f / "claims.yaml"), damaged_yaml),
    FileTarget("training log", _write_log, _read_log, damaged_lines),
]
