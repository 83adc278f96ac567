"""Folders of runs that never were: for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fss.evaluation.results import EpisodeResult, results_folder, summarize, write_results
from fss.files.plain import write_json

CLASSES = {"shapes": ("star", "ring"), "pascal5i": ("cat", "dog"), "coco20i": ("kite", "oven")}


def episodes(
    iou: float, names: Sequence[str], eval_seed: int = 321, each: int = 4, rng: np.random.Generator | None = None
) -> list[EpisodeResult]:
    """Some of each class, in turn: each of the given IoU, to four digits; with chance around it given an `rng`."""
    made = []
    for number in range(each * len(names)):
        union = 10_000 if rng is None else int(rng.integers(2_000, 20_000))
        one = iou if rng is None else float(np.clip(rng.normal(iou, 0.2), 0, 1))
        class_id = 1 + number % len(names)
        made.append(
            EpisodeResult(
                *(eval_seed, number, class_id, names[class_id - 1], f"q{number}", (f"s{number}",)),
                *(found := round(one * union), union, 100_000 - union, 100_000 - found),
            )
        )
    return made


def run(
    outputs: Path,
    overrides: Sequence[str] = (),
    has_trained: bool = True,
    recipe: str | None = "svf",
    settings: dict[str, Any] | None = None,
    **identity: Any,
) -> Path:
    """A training run's folder: checkpoints, configuration, log.

    Args:
        outputs: Where runs are.
        overrides: As they were typed.
        has_trained: Whether training has ended.
        recipe: Its recipe, from which nothing differs; None makes a run from before recipes.
        settings: Others of its configuration.
        identity: dataset, method, tuning, backbone, fold, shot, seed, exclude_novel.
    """
    told = _identity(**identity)
    folder = _folder(outputs, told)
    recorded = {} if recipe is None else {"recipe": {"name": recipe}, "differs_from_recipe": {}}
    for name in ("last", "best"):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    (folder / ".hydra").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**_config(told), **recorded, **(settings or {})}))
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([f"fold={told['fold']}", *overrides]))
    log = folder / "csv/version_0/metrics.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{step},{1 / (1 + step / 50):.4f},\n{step},,{0.6 - 0.4 / (1 + step / 50):.4f}"
        for step in range(9, 500, 10)
    ]
    log.write_text("\n".join(["step,train/loss,val/miou", *rows]) + "\n")
    if has_trained:
        write_json(folder / "training.json", {"seconds": 12.5, "parameters": 385_742})
    return folder


def evaluation(
    outputs: Path,
    miou: float = 0.5,
    *,
    checkpoint: str = "last",
    protocol: str = "svf",
    eval_seeds: Sequence[int] = (321,),
    train_shot: int | None = None,
    made: Sequence[EpisodeResult] | None = None,
    recipe: str | None = "svf",
    changes: dict[str, Any] | None = None,
    **identity: Any,
) -> Path:
    """A results folder in its run's folder; metrics as they would be written.

    Args:
        outputs: Where runs are.
        miou: Of every class, as a fraction.
        checkpoint: "last" or "best".
        protocol: Its name.
        eval_seeds: Of the episodes.
        train_shot: Where it differs from shot; the run's folder is then that of train_shot.
        made: The episodes, where chance is wanted.
        recipe: The run's recipe, from which nothing differs; None for a run from before recipes.
        changes: To metrics.json.
        identity: dataset, method, tuning, backbone, fold, shot, seed, exclude_novel.
    """
    told = _identity(**identity)
    names = CLASSES[told["dataset"]]
    made = made or [e for seed in eval_seeds for e in episodes(miou, names, seed)]
    changed = changes or {}
    parts = [f"{told['shot']}shot"] * bool(train_shot) + ["adapt"] * bool(changed.get("adapt"))
    parts += ["base"] * (changed.get("eval_classes") == "base")
    suffix = "-".join([*parts, *changed.get("changed", ())])
    folder = results_folder(
        _folder(outputs, {**told, "shot": train_shot or told["shot"]}), checkpoint, protocol, suffix
    )
    metrics = {
        **{key: value for key, value in told.items() if key != "exclude_novel"},
        "train_dataset": told["dataset"],
        "train_shot": train_shot or told["shot"],
        "checkpoint": checkpoint,
        "selection": "novel classes" if checkpoint == "best" else "none",
        "protocol": protocol,
        "eval_classes": "novel",
        "support_annotation": "mask",
        "episodes": 1000,
        "eval_seeds": list(eval_seeds),
        **summarize(made),
        "classes_left_out": [],
        "train_seconds": 12.5,
        "test_seconds": 3.0,
        "trained_parameters": 385_742,
        "git_revision": "abc123",
        "versions": {},
        "recipe": recipe,
        "differs_from_recipe": None if recipe is None else {},
        "config": _config(told),
        **(changes or {}),
    }
    write_results(folder, metrics, made)
    return folder


def _identity(**changes: Any) -> dict[str, Any]:
    told = {
        **{"dataset": "shapes", "method": "pfenet", "tuning": "svf", "backbone": "resnet50"},
        **{"fold": 0, "shot": 1, "seed": 0, "exclude_novel": True},
    }
    assert changes.keys() <= told.keys()
    return {**told, **changes}


def _config(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": {"name": told["dataset"], "exclude_novel": told["exclude_novel"]},
        **{group: {"name": told[group]} for group in ("method", "tuning", "backbone")},
        **{key: told[key] for key in ("fold", "shot", "seed")},
    }


def _folder(outputs: Path, told: dict[str, Any]) -> Path:
    if told["method"] == "base":  # belongs to no tuning and shot
        name = f"base-{told['backbone']}"
    else:
        name = f"{told['method']}-{told['tuning']}-{told['backbone']}/{told['shot']}shot"
    return outputs / told["dataset"] / name / f"fold{told['fold']}" / f"seed{told['seed']}"
