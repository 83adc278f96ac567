"""Model files of runs: what they say of a training, and what an evaluation takes from them."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from fss.cli import build, overrides
from fss.data.cross_domain import KNOWN, base_class_names
from fss.data.folds import fold_classes
from fss.display.shown import shown
from fss.evaluation.absence import learn_verifier
from fss.evaluation.results import CHECKPOINTS, RESULTS, read_metrics
from fss.evaluation.tables import changes
from fss.export.files import read_graphs_card
from fss.models.card import ModelCard, Part, part_of
from fss.models.checkpoints import load_checkpoint
from fss.models.factored import load_factored_checkpoint
from fss.models.model_file import read_card, read_model, save_model
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import Verifier
from fss.revision import git_revision
from fss.svf import plain_state_dict
from fss.svf.digest import weights_digest

logger = logging.getLogger(__name__)

Taught = dict[str, Verifier | None]  # by digest of weights

FILES = {"last": "model.safetensors", "best": "best.safetensors"}  # by checkpoint, beside it
# What a model file decides: with another value, an evaluation would be of something else than the file.
ITS_OWN = (
    *("fold", "seed", "train_shot", "trained_on", "method", "backbone", "tuning", "recipe", "start"),
    *("ckpt", "checkpoint", "run_dir", "run_group", "run_path"),
)
# What is told of an evaluation in a model file.
_RESULT = (
    *("dataset", "eval_classes", "support_annotation", "protocol", "episodes", "eval_seeds", "shot"),
    *("miou", "miou_std", "fb_iou"),
)
_WORD = re.compile(r"[\w.+-]{1,200}")


def write_model_files(cfg: DictConfig, classes: Sequence[str]) -> None:
    """Writes the model files of a run that has just been trained and evaluated.

    A method or backbone of somebody's own cannot be read by others, so no file is written for it.

    Args:
        cfg: The run's configuration.
        classes: Names of its base classes.
    """
    folder = Path(cfg.run_dir) / CHECKPOINTS
    taught: Taught = {}  # the last weights are often the best ones
    for checkpoint, name in FILES.items():
        if (folder / f"{checkpoint}.ckpt").is_file():
            try:
                write_model_file(cfg, classes, checkpoint, folder / name, taught=taught)
            except ValueError as error:
                logger.warning("no %s: %s", folder / name, shown(error))


def forget_model_files(run: Path) -> None:
    """Removes the model files of a run that goes on: they would soon be behind its checkpoints."""
    for name in FILES.values():
        (run / CHECKPOINTS / name).unlink(missing_ok=True)


def write_model_file(
    cfg: DictConfig,
    classes: Sequence[str],
    checkpoint: str,
    file: Path,
    factored: bool = False,
    taught: Taught | None = None,
) -> ModelCard:
    """Writes the model file of a run's checkpoint.

    Args:
        cfg: The run's configuration.
        classes: Names of its base classes.
        checkpoint: "last" or "best".
        file: Where to write.
        factored: See `save_model`.
        taught: What base classes have taught earlier, by weights; this file's is added.

    Raises:
        FileNotFoundError: The run has no such checkpoint.
        OSError: The file cannot be written.
        ValueError: The checkpoint cannot be used, or only somebody's own code could read the file.
    """
    card = _card(cfg, classes, checkpoint)
    segmenter = build.build_segmenter(cfg, len(classes), pretrained=False)
    load = load_factored_checkpoint if factored else load_checkpoint
    load(segmenter, Path(cfg.run_dir) / CHECKPOINTS / f"{checkpoint}.ckpt")
    taught = {} if taught is None else taught
    digest = weights_digest(plain_state_dict(segmenter.state_dict()))
    if digest not in taught:
        taught[digest] = _verifier(cfg, segmenter)
    segmenter.verifier = taught[digest]
    return save_model(file, segmenter, card, factored)


def base_names(cfg: DictConfig) -> list[str]:
    """Names of the base classes of a run's fold, from its data set where the program does not know them."""
    scheme = _fold_scheme(cfg)
    if cfg.dataset.name in KNOWN:
        return base_class_names(cfg.dataset.name, cfg.fold, scheme)
    names = instantiate(cfg.dataset.eval_reader)().classes
    return [names[class_id - 1] for class_id in fold_classes(len(names), cfg.fold, scheme).base]


def evaluated_with(card: ModelCard, file: Path, typed: Sequence[str]) -> list[str]:
    """The overrides that evaluate a model file as its run was evaluated, under what is typed.

    Raises:
        ValueError: What is typed is the file's own, or the file does not say what it was trained on.
    """
    if own := overrides.only(typed, *ITS_OWN):
        raise ValueError(f"{' '.join(own)}: model={file} decides this itself; leave it out, or evaluate the run")
    told = card.training
    words = [told.get(key) for key in ("dataset", "method", "backbone", "tuning")]
    numbers = [told.get(key) for key in ("fold", "seed")]
    scheme = told.get("fold_scheme")
    listed = isinstance(scheme, list) and all(
        isinstance(fold, list) and fold and all(_is_id(one) for one in fold) for fold in scheme
    )
    if not (
        all(isinstance(word, str) and _WORD.fullmatch(word) for word in words)
        and all(_is_id(number) for number in numbers)
        and (listed or (isinstance(scheme, str) and _WORD.fullmatch(scheme)))
    ):
        raise ValueError(f"{file} does not say what it was trained on, as a run's model file does: {shown(told)}")
    return [
        f"dataset={told['dataset']}",
        f"trained_on={told['dataset']}",
        f"method={card.head.name}",
        *(f"{key}={told[key]}" for key in ("fold", "seed")),
        f"shot={card.shot}",
        f"train_shot={card.shot}",
        f"dataset.size={card.size}",
        f"++dataset.geometry={card.geometry}",
        f"dataset.fold_scheme={str(scheme).replace(' ', '')}",
        "backbone.weights=null",
    ]


def card_of_file(file: Path) -> ModelCard:
    """What a model file or an exported model says of itself."""
    return read_graphs_card(file) if is_graph(file) else read_card(file)


def segmenter_of_file(file: Path) -> FewShotSegmenter:
    """The model of a model file or of an exported one."""
    if not is_graph(file):
        return read_model(file)[0]
    try:
        from fss.export.export import read_onnx
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install onnx onnxruntime onnxscript") from error
    return read_onnx(file)[0]


def is_graph(file: Path) -> bool:
    """Whether a file is an exported model rather than a model file."""
    return file.suffix == ".onnx"


def _card(cfg: DictConfig, classes: Sequence[str], checkpoint: str) -> ModelCard:
    known = {"base_classes": len(classes)} if cfg.method.base_learner else {}
    evaluations = read_metrics(Path(cfg.run_dir) / RESULTS).values()
    return ModelCard(
        backbone=_part("backbone", cfg.backbone.network),
        head=_part("head", cfg.method.head, **known),
        size=cfg.dataset.size,
        geometry=cfg.dataset.geometry,
        shot=cfg.train_shot,
        classes=tuple(classes),
        training={
            "dataset": cfg.dataset.name,
            "fold": cfg.fold,
            "fold_scheme": _fold_scheme(cfg),
            "seed": cfg.seed,
            "method": cfg.method.name,
            "backbone": cfg.backbone.name,
            "tuning": cfg.tuning.name,
            "checkpoint": checkpoint,
        },
        # others are of another model or other pictures
        results=tuple(
            {key: m[key] for key in _RESULT}
            for m in evaluations
            if m["checkpoint"] == checkpoint and not changes(m)
        ),
        git_revision=git_revision(),
    )


def _verifier(cfg: DictConfig, segmenter: FewShotSegmenter) -> Verifier | None:
    """What the base classes' evaluation pictures teach of absence; None where they are not there or too few."""
    if cfg.presence_episodes < 1:
        return None
    base = copy.deepcopy(cfg)
    base.dataset.eval_classes = "base"
    datamodule = build.build_datamodule(base)
    try:
        datamodule.setup("test")
        episodes = datamodule.several_episodes(1, absent=True)
        device = build.own_device(cfg)
        workers, limit = datamodule.num_workers, cfg.reuse.limit_gb
        return learn_verifier(segmenter, episodes, cfg.presence_episodes, device, workers, limit)
    except (OSError, ValueError) as error:
        logger.warning("the model file has no threshold of its own for absent classes: %s", shown(error))
        return None


def _part(kind: str, settings: DictConfig, **known: Any) -> Part:
    plain: Any = OmegaConf.to_container(settings, resolve=True)
    return part_of(kind, get_class(plain.pop("_target_")), {**plain, **known})


def _fold_scheme(cfg: DictConfig) -> Any:
    scheme = cfg.dataset.fold_scheme
    return OmegaConf.to_container(scheme) if OmegaConf.is_config(scheme) else scheme


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
