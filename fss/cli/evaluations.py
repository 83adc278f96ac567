"""From the configuration of an evaluation to its results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from fss.cli import build, kinds, recipe, start
from fss.cli.decided import check_decided
from fss.cli.declared import check_declared
from fss.cli.model_files import is_graph, segmenter_of_file
from fss.cli.requests import Request, find_checkpoint, requests
from fss.data.datamodule import FewShotDataModule
from fss.display.console import PlainConsole
from fss.evaluation import standard
from fss.evaluation.generalized import evaluate_generalized
from fss.evaluation.record import DRAWING, Record
from fss.evaluation.results import SETTINGS, TRAINING, read_training
from fss.evaluation.reuse import Reuse
from fss.evaluation.several import evaluate_several
from fss.evaluation.tables import folds_table
from fss.files.plain import read_yaml
from fss.files.whole import check_target
from fss.models.adaptation import Adaptation
from fss.models.checkpoints import load_checkpoint, save_published
from fss.models.segmenter import FewShotSegmenter
from fss.revision import git_revision

_KINDS = {
    **kinds.OF_RUNS,
    "classes": kinds.whole(1),
    "threshold": kinds.fraction,
    "published": kinds.optional(kinds.path),
    "adapt": kinds.flag,
    "adaptation": kinds.group("steps", "every", "rate", "shots"),
    **dict.fromkeys(("adaptation.steps", "adaptation.every"), kinds.whole(1)),
    "adaptation.rate": kinds.fraction,
    "adaptation.shots": kinds.optional(kinds.whole(1)),
}
PACKAGES = ("torch", "torchvision", "lightning", "timm", "albumentations")


def evaluate(cfg: DictConfig) -> None:
    """Does every evaluation that a command line asks for; of several folds it also prints the mean.

    Args:
        cfg: As composed from the command line alone.
    """
    if cfg.export is not None:
        raise ValueError(
            f"export={cfg.export}: this setting is now published=FILE, which writes the weights for the published "
            "programs; ONNX and torch.export are made by python -m fss.export"
        )
    kinds.check(cfg, _KINDS)
    check_decided(cfg)
    if cfg.published is not None:
        check_target(Path(cfg.published))
    typed, done = start.typed(), []
    for request in requests(cfg, typed):
        check_declared(request.cfg)
        adaptation_of(request.cfg)  # complains before data is read
        start.prepare(request.cfg, needs_weights=not request.cfg.method.trained)
        datamodule = build.build_datamodule(request.cfg, request.seen_classes)
        checkpoint = find_checkpoint(request.cfg, typed)
        if metrics := evaluate_weights(request, datamodule, checkpoint):
            done.append(metrics)
    for _, folds in groupby(done, key=lambda metrics: metrics["checkpoint"]):
        if len(together := list(folds)) > 1 and start.is_first():
            PlainConsole().print(folds_table(together))


def evaluate_weights(
    request: Request, datamodule: FewShotDataModule, checkpoint: Path | None
) -> dict[str, Any] | None:
    """Evaluates weights from a file, or a method that needs none.

    Args:
        request: What was asked for.
        datamodule: Its episodes, not yet set up.
        checkpoint: The file; None for a method that trains nothing.

    Returns:
        The content of metrics.json; None in a setting other than the standard one.
    """
    cfg = request.cfg
    datamodule.setup("test")
    segmenter = _segmenter(request, datamodule, checkpoint)
    if request.card is None or not is_graph(Path(cfg.model)):
        build.check_memory(cfg, segmenter, training=False)
    elif cfg.setting != "standard" or cfg.published is not None or cfg.dataset.eval_classes == "base":
        raise ValueError(
            f"model={cfg.model} answers for novel classes alone: evaluate its model file (.safetensors) for "
            "another setting, dataset.eval_classes=base or published=FILE"
        )
    if cfg.published is not None:
        save_published(segmenter, cfg.published)
    if cfg.setting in ("several", "absent"):
        _evaluate_several(cfg, segmenter, datamodule, request.changed)
        return None
    if cfg.setting == "generalized":
        trainer = build.build_trainer(cfg, (), with_logger=False)
        record = record_of(cfg, request.changed)
        evaluate_generalized(trainer, segmenter, datamodule, record, cfg.threshold, _reuse(cfg))
        return None
    return evaluate_standard(cfg, segmenter, datamodule, request.changed, adaptation_of(cfg))


def adaptation_of(cfg: DictConfig) -> Adaptation | None:
    """How S is tuned on the supports of each episode; None if it is not.

    Raises:
        ValueError: It cannot be tuned, or a number is out of range.
    """
    settings = Adaptation(**cfg.adaptation, views=True)
    if not cfg.adapt:
        return None
    if cfg.setting != "standard":
        raise ValueError(f"adapt=true setting={cfg.setting}: tuning on supports is for setting=standard")
    if cfg.model is not None and is_graph(Path(cfg.model)):
        raise ValueError(
            f"adapt=true model={cfg.model}: an exported graph has no singular values, evaluate its model file "
            "(.safetensors) or its run"
        )
    return settings


def _segmenter(request: Request, datamodule: FewShotDataModule, weights: Path | None) -> FewShotSegmenter:
    """The model to evaluate, with its weights."""
    cfg, seen = request.cfg, request.seen_classes
    names = (
        [datamodule.class_names[class_id - 1] for class_id in datamodule.base_classes] if seen is None else seen
    )
    if request.card is not None:
        if tuple(names) != request.card.classes:
            raise ValueError(
                f"fold {cfg.fold} of the data in dataset.root has other base classes than {weights}: name what it "
                "was trained on with dataset.root=DIR, and the pictures to evaluate with dataset.eval_root=DIR"
            )
        return segmenter_of_file(Path(cfg.model))
    segmenter = build.build_segmenter(cfg, len(names), pretrained=weights is None)
    if weights is not None:
        load_checkpoint(segmenter, weights)
    return segmenter


def evaluate_standard(
    cfg: DictConfig,
    segmenter: FewShotSegmenter,
    datamodule: FewShotDataModule,
    changed: Sequence[str] = (),
    adaptation: Adaptation | None = None,
) -> dict[str, Any]:
    """Evaluates a segmenter by the protocol of train.py or evaluate.py. Returns the content of metrics.json."""
    trainer = build.build_trainer(cfg, (), with_logger=False)
    record = record_of(cfg, changed)
    return standard.evaluate_standard(
        trainer, segmenter, datamodule, record, _reuse(cfg), cfg.pictures, adaptation
    )


def _reuse(cfg: DictConfig) -> Reuse:
    return Reuse(cfg.reuse.limit_gb, cfg.reuse.batch)


def _evaluate_several(
    cfg: DictConfig, segmenter: FewShotSegmenter, datamodule: FewShotDataModule, changed: Sequence[str]
) -> None:
    """Evaluates several classes at once, or one that may be absent; base classes decide when to abstain."""
    base = copy.deepcopy(cfg)
    base.dataset.eval_classes = "base"
    choosing = build.build_datamodule(base)
    choosing.setup("test")
    absent = cfg.setting == "absent"
    evaluate_several(
        [build.build_trainer(cfg, (), with_logger=False) for _ in range(2)],
        segmenter,
        choosing.several_episodes(1, absent=True),
        datamodule.several_episodes(1 if absent else cfg.classes, absent),
        datamodule,
        record_of(cfg, changed),
        cfg.setting,
        cfg.reuse.limit_gb,
    )


def record_of(cfg: DictConfig, changed: Sequence[str] = ()) -> Record:
    """What an evaluation is of; train.py's configuration evaluates the last weights of its own run.

    Args:
        cfg: Its configuration.
        changed: See `Request`.
    """
    file = cfg.model or cfg.ckpt  # outside of a run
    weights = file or (cfg.checkpoint if cfg.method.trained else "last")
    selected = file is None and weights == "best"
    notes = Path(cfg.run_dir) / TRAINING
    training = read_training(notes) if file is None else {}
    changed = [*changed, *_changed_adaptation(cfg), *_changed_setting(cfg)]
    return Record(
        run=Path(cfg.run_dir) if file is None else None,
        weights=weights,
        identity={
            "dataset": cfg.dataset.name,
            "train_dataset": cfg.trained_on,
            "method": cfg.method.name,
            "tuning": cfg.tuning.name,
            "backbone": cfg.backbone.name,
            "fold": cfg.fold,
            "shot": cfg.shot,
            "train_shot": cfg.train_shot,
            "seed": cfg.seed,
            "checkpoint": weights,
            "selection": "novel classes" if selected else "none",
            "eval_classes": cfg.dataset.eval_classes,
            "support_annotation": cfg.dataset.support_annotation,
            "adapt": cfg.get("adapt", False),  # train.py has no such setting
            "changed": changed,
        },
        protocol=_protocol(cfg),
        episodes=cfg.episodes,
        eval_seeds=list(cfg.seeds),
        drawing={key: cfg.protocol[key] for key in DRAWING},
        changed=changed,
        training={
            "train_seconds": training.get("seconds"),
            "trained_parameters": training.get("parameters") if cfg.method.trained else 0,
        },
        provenance={
            "git_revision": git_revision(),
            "versions": {package: version(package) for package in PACKAGES},
            **_recipe(cfg),
            "config": OmegaConf.to_container(cfg, resolve=True),
        },
    )


def _protocol(cfg: DictConfig) -> str:
    """The protocol's name if all that its file says is unchanged, else "custom"."""
    named = OmegaConf.merge(cfg, compose(f"protocol/{cfg.protocol.name}")).protocol
    unchanged = all(cfg.protocol[key] == named[key] for key in DRAWING)
    unchanged &= (cfg.episodes, list(cfg.seeds)) == (named.episodes, list(named.seeds))
    return named.name if unchanged else "custom"


def _changed_adaptation(cfg: DictConfig) -> list[str]:
    """What of how S is tuned on supports is not as usual, as words for a folder's name."""
    if not cfg.get("adapt", False):
        return []
    usual = compose("evaluate").adaptation
    return [f"{name}-{value}" for name, value in cfg.adaptation.items() if value != usual[name]]


def _changed_setting(cfg: DictConfig) -> list[str]:
    """What `setting=` asks for otherwise than usual, as a word for a folder's name."""
    name = {"several": "classes", "generalized": "threshold"}.get(cfg.get("setting"))
    return [f"{name}-{cfg[name]}"] if name and cfg[name] != compose("evaluate")[name] else []


def _recipe(cfg: DictConfig) -> dict[str, Any]:
    """The recipe that weights were trained by, and what differed from it; None in runs from before recipes."""
    if cfg.model is not None:  # it does not say how it was trained
        return {"recipe": None, "differs_from_recipe": None}
    file = Path(cfg.run_dir) / SETTINGS
    if cfg.ckpt is None and file.is_file():
        settings = read_yaml(file)
        if not isinstance(settings, dict) or not isinstance(settings.get("recipe", {}), dict):
            raise ValueError(f"{file} holds no settings of a run: delete it")
        name, differing = settings.get("recipe", {}).get("name"), settings.get("differs_from_recipe")
    else:
        name, differing = cfg.recipe.name, recipe.differences(cfg, start.typed())
    return {"recipe": name, "differs_from_recipe": differing}
