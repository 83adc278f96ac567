"""From a command line to the evaluations that it asks for, and from each of them to its results."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from fss.cli import runs
from fss.data.cross_domain import base_class_names
from fss.data.datamodule import FewShotDataModule
from fss.data.folds import FOLDS
from fss.evaluation.engine import Reuse, evaluate, finish, pictures_of
from fss.evaluation.generalized import GeneralizedEvaluation
from fss.evaluation.results import (
    METRICS,
    PICTURES,
    remarkable,
    results_folder,
    summarize,
    write_json,
    write_results,
)
from fss.evaluation.tables import evaluation_table
from fss.models.segmenter import FewShotSegmenter
from fss.visualize import save_sheet

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "lightning", "timm", "albumentations")


class Asked(NamedTuple):
    """One evaluation.

    Attributes:
        cfg: Its configuration, with what the run was trained with underneath.
        seen_classes: Of a model of another data set, the names of its base classes.
    """

    cfg: DictConfig
    seen_classes: list[str] | None


def asked(cfg: DictConfig) -> list[Asked]:
    """The evaluations of a command line: each fold of `fold=all`, each checkpoint of `checkpoint=both`.

    Raises:
        ValueError: There is no such evaluation.
    """
    if cfg.method.name == "base":
        raise ValueError("a base learner is evaluated while it trains; evaluate what stands on it: method=bam")
    folds, checkpoints = [""], [""]
    if cfg.fold == "all":
        scheme = cfg.dataset.fold_scheme
        folds = [f"fold={f}" for f in range(len(scheme) if isinstance(scheme, ListConfig) else FOLDS)]
    if cfg.checkpoint == "both":
        checkpoints = ["checkpoint=last", "checkpoint=best"]
    typed = HydraConfig.get().overrides.task
    return [_recalled([*typed, *filter(None, (c, f))]) for c in checkpoints for f in folds]


def _recalled(typed: Sequence[str]) -> Asked:
    """The configuration of an evaluation.

    A run's own overrides (`method.head.width=64`) need not be typed again: they are taken from the run folder,
    and what is typed now goes over them. A model of another data set keeps what that set's recipe made of it.
    """
    cfg = compose("evaluate", _merged(typed))
    file = Path(cfg.run_dir) / ".hydra" / "overrides.yaml"
    saved: list[str] = list(OmegaConf.load(file)) if cfg.ckpt is None and file.is_file() else []
    if any(o.startswith("protocol=") for o in typed):
        saved = [o for o in saved if not o.startswith(("episodes=", "seeds=", "protocol."))]
    if cfg.trained_on == cfg.dataset.name:
        return Asked(compose("evaluate", _merged(saved, typed)) if saved else cfg, None)
    own, data = ([o for o in typed if o.startswith("dataset") is of_data] for of_data in (False, True))
    model = compose("evaluate", _merged(saved, own, [f"dataset={cfg.trained_on}"]))
    seen = base_class_names(cfg.trained_on, cfg.fold, model.dataset.fold_scheme)
    cfg = compose("evaluate", _merged([o for o in saved if not o.startswith("dataset")], own, data))
    cfg.method = OmegaConf.to_container(model.method, resolve=True)
    return Asked(cfg, seen)


def _merged(*overrides: Sequence[str]) -> list[str]:
    """Overrides, of which later ones go over earlier ones of the same setting."""
    return list({o.partition("=")[0].lstrip("+~"): o for some in overrides for o in some}.values())


def find_checkpoint(cfg: DictConfig) -> Path | None:
    """The checkpoint to evaluate; None for a method that trains nothing.

    Raises:
        FileNotFoundError: There is none; the message says the command that makes it.
        ValueError: `checkpoint` is neither last nor best.
    """
    if cfg.ckpt is not None:
        if not Path(cfg.ckpt).is_file():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no such file; give a checkpoint, ours or a published one")
        return Path(cfg.ckpt)
    if not cfg.method.trained:
        return None
    if cfg.checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={cfg.checkpoint}: must be last, best or both")
    path = Path(cfg.run_dir) / runs.CHECKPOINTS / f"{cfg.checkpoint}.ckpt"
    if not path.is_file():
        own = ("checkpoint=", "protocol=", "episodes=", "seeds=", "reuse.", "train_shot=", "trained_on=")
        typed = " ".join(o for o in HydraConfig.get().overrides.task if not o.startswith(own))
        raise FileNotFoundError(
            f"no checkpoint {path}: train it first (python train.py {typed}), name a file with ckpt=FILE or, of a "
            "run of another shot, this shot with train_shot=K"
        )
    return path


def test(cfg: DictConfig, segmenter: FewShotSegmenter, datamodule: FewShotDataModule) -> dict[str, Any]:
    """Evaluates a segmenter by a protocol, writes results and pictures, prints the table.

    Args:
        cfg: Of train.py, whose last weights these are, or of evaluate.py.
        segmenter: What to evaluate.
        datamodule: Set up.

    Returns:
        What metrics.json holds.
    """
    episodes, seeds = datamodule.evaluation, list(cfg.seeds)
    folder = _folder(cfg)
    trainer = runs.build_trainer(cfg, (), with_logger=False)
    reuse = Reuse(cfg.reuse.limit_gb, cfg.reuse.batch)
    done = evaluate(trainer, segmenter, episodes, seeds, cfg.episodes, folder, reuse, datamodule.num_workers)
    file = Path(cfg.run_dir) / runs.TRAINING
    training = json.loads(file.read_text()) if cfg.get("ckpt") is None and file.is_file() else {}
    metrics = {
        **_identity(cfg),
        "protocol": _protocol(cfg),
        "episodes": cfg.episodes,
        "eval_seeds": seeds,
        **summarize(done.episodes, datamodule.always_counted),
        "classes_left_out": datamodule.left_out,
        "drawing": _drawing(cfg, datamodule),
        "train_seconds": training.get("seconds"),
        "test_seconds": round(done.seconds, 1),
        "trained_parameters": training.get("parameters") if cfg.method.trained else 0,
        **_provenance(cfg),
    }
    if trainer.is_global_zero:
        if missed := {episodes.reader.classes[c - 1] for c in episodes.pool.images_of} - set(metrics["classes"]):
            logger.warning("no episode for: %s; more episodes would evaluate them", ", ".join(sorted(missed)))
        if cfg.pictures:
            of_first_seed = [episode for episode in done.episodes if episode.eval_seed == seeds[0]]
            for sheet, ids in remarkable(of_first_seed, cfg.pictures).items():
                save_sheet(pictures_of(trainer, done.segmenter, episodes, seeds[0], ids), folder / sheet)
        write_results(folder, metrics, done.episodes)
        finish(folder)
        console = Console()
        console.print(evaluation_table(metrics))
        console.print(f"Results: {folder / METRICS}", soft_wrap=True)
        if cfg.pictures:
            console.print(f"Pictures: {folder / PICTURES}, and of the worst and the best episodes", soft_wrap=True)
    return metrics


def test_generalized(cfg: DictConfig, segmenter: FewShotSegmenter, datamodule: FewShotDataModule) -> None:
    """Evaluates in the generalised setting, writes `metrics-generalized.json`, prints the table."""
    if len(cfg.seeds) > 1:
        raise ValueError(f"setting=generalized takes one seed of episodes, not seeds={list(cfg.seeds)}")
    learner = GeneralizedEvaluation(segmenter, cfg.threshold)
    trainer = runs.build_trainer(cfg, (), with_logger=False)
    trainer.test(learner, datamodule=datamodule, verbose=False)
    if not trainer.is_global_zero:
        return
    rules = learner.results(datamodule.class_names, datamodule.base_classes)
    path = _folder(cfg) / "metrics-generalized.json"
    told = {"protocol": _protocol(cfg), "episodes": cfg.episodes, "eval_seeds": list(cfg.seeds)}
    told["drawing"] = _drawing(cfg, datamodule)
    write_json(path, {**_identity(cfg), **told, "threshold": cfg.threshold, "rules": rules, **_provenance(cfg)})
    table = Table("", title=f"Generalised, {cfg.episodes} episodes: mIoU", title_justify="left")
    for part in ("novel", "base", "all"):
        table.add_column(part, justify="right")
    for rule, result in rules.items():
        table.add_row(f"{rule} first", *(f"{result[part]:.3f}" for part in ("novel", "base", "all")))
    console = Console()
    console.print(table)
    console.print(f"Results: {path}", soft_wrap=True)


def _protocol(cfg: DictConfig) -> str:
    """The protocol's name if it is followed in all it says, else "custom"."""
    # as its file says, whatever was typed
    named = OmegaConf.merge(cfg, compose(f"protocol/{cfg.protocol.name}")).protocol
    same = all(cfg.protocol[key] == named[key] for key in ("draw", "workers", "absent"))
    followed = same and (cfg.episodes, list(cfg.seeds)) == (named.episodes, list(named.seeds))
    return named.name if followed else "custom"


def _drawing(cfg: DictConfig, datamodule: FewShotDataModule) -> dict[str, Any]:
    """How episodes were drawn, and from which lists."""
    lists = {name: of._asdict() for name, of in datamodule.list_facts().items()}
    return {**{key: cfg.protocol[key] for key in ("draw", "workers", "absent")}, "lists": lists}


def _folder(cfg: DictConfig) -> Path:
    """Where an evaluation's results go: what differs from the run, and from the protocol, is in the name."""
    name = _identity(cfg)
    parts = []
    if _protocol(cfg) == "custom":
        parts.append(f"{cfg.episodes}x{'+'.join(map(str, cfg.seeds))}")
        own = {"draw": "drawn", "absent": "leave_out"}
        parts += [cfg.protocol[key] for key, usual in own.items() if cfg.protocol[key] != usual]
        parts += [f"{cfg.protocol.workers}workers"] * (cfg.protocol.workers not in (None, 8))
    parts += [name["eval_classes"]] * (name["eval_classes"] != "novel")
    parts += [name["support_annotation"]] * (name["support_annotation"] != "mask")
    parts += [f"{name['shot']}shot"] * (name["shot"] != name["train_shot"])
    parts += [f"on-{name['dataset']}"] * (name["dataset"] != name["train_dataset"])
    if cfg.get("ckpt") is None:
        return results_folder(Path(cfg.run_dir), name["checkpoint"], _protocol(cfg), "-".join(parts))
    # results of a file of one's own go beside it, not among the runs
    file = Path(cfg.ckpt)
    return file.with_name(f"{file.stem}-evaluation") / "-".join([_protocol(cfg), *parts])


def _identity(cfg: DictConfig) -> dict[str, Any]:
    """Which weights on which classes; of train.py's configuration the last weights."""
    file = cfg.get("ckpt")
    checkpoint = cfg.get("checkpoint", "last") if cfg.method.trained else "last"
    return {
        "dataset": cfg.dataset.name,
        "train_dataset": cfg.get("trained_on", cfg.dataset.name),
        "method": cfg.method.name,
        "tuning": cfg.tuning.name,
        "backbone": cfg.backbone.name,
        "fold": cfg.fold,
        "shot": cfg.shot,
        "train_shot": cfg.get("train_shot", cfg.shot),
        "seed": cfg.seed,
        "checkpoint": file or checkpoint,
        "selection": "novel classes" if file is None and checkpoint == "best" else "none",
        "eval_classes": cfg.dataset.eval_classes,
        "support_annotation": cfg.dataset.support_annotation,
    }


def _provenance(cfg: DictConfig) -> dict[str, Any]:
    """What made a result."""
    return {
        "git_revision": runs.git_revision(),
        "versions": {package: version(package) for package in PACKAGES},
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
