"""Models for prediction: model files, run folders, and the training-free one, without Hydra and Lightning.

A run folder may come from anybody: of its configuration only registered names are followed, with plain values for
them, and weights are read as tensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fss.configuration import conf_folder
from fss.display.shown import shown
from fss.files.plain import read_yaml
from fss.models.backbones.weights import read_state_dict
from fss.models.card import BACKBONES, HEADS, ModelCard, Part
from fss.models.checkpoints import load_checkpoint
from fss.models.model_file import read_model
from fss.models.segmenter import FewShotSegmenter
from fss.predictor.refusals import as_path

TRAINING_FREE = ("match", "prior")  # methods that need no training
_MODELS = (
    "give the folder of a run (it holds checkpoints/), a model file, or "
    f"{' or '.join(TRAINING_FREE)}, which need no training"
)
MODEL, CHECKPOINT = Path("checkpoints", "model.safetensors"), Path("checkpoints", "last.ckpt")
SETTINGS = "config.yaml"
_BASE_CLASSIFIER = ".head.learner_base.1.4.weight"


class Model(NamedTuple):
    """A segmenter on the CPU, and the card that says how it sees pictures."""

    segmenter: FewShotSegmenter
    card: ModelCard


def load_model(model: str | Path) -> Model:
    """Loads a model.

    Args:
        model: A model file; a run folder, whose model file is taken, or `last.ckpt` where an older program has
            written none; or "match" or "prior", which need no training, on an EfficientNet-Lite0.

    Raises:
        FileNotFoundError: There is no such file or folder, or no weights in it.
        ValueError: It cannot be used; the message says why.
    """
    if not isinstance(model, str | os.PathLike):
        raise ValueError(f"no model {model!r:.100}: {_MODELS}")
    if is_training_free(model):
        return _training_free(str(model))
    path = as_path("model", model)
    if os.path.isdir(path):  # which does not mind names that nothing can have
        return Model(*read_model(path / MODEL)) if (path / MODEL).is_file() else _run(path)
    if os.path.isfile(path):
        return Model(*read_model(path))
    raise FileNotFoundError(f"no model {path}: {_MODELS}")


def is_training_free(model: str | Path) -> bool:
    """Whether a model is the name of a method that needs no training; as a path, only if nothing lies there."""
    return str(model) in TRAINING_FREE and not (isinstance(model, Path) and model.exists())


def _training_free(method: str) -> Model:
    conf = Path(conf_folder())
    backbone = read_yaml(conf / "backbone/efficientnet_lite0.yaml")
    data = read_yaml(conf / "dataset/common/hundreds.yaml")
    head = read_yaml(conf / f"method/{method}.yaml")["head"]
    parts = _part(BACKBONES, backbone["network"]), _part(HEADS, head)
    card = ModelCard(*parts, data["size"], data["geometry"], shot=1)
    return Model(_built(card, weights=backbone["weights"]), card)


def _run(folder: Path) -> Model:
    settings, checkpoint = folder / SETTINGS, folder / CHECKPOINT
    for needed in (settings, checkpoint):
        if not needed.is_file():
            raise FileNotFoundError(f"no {needed}: give the folder of a run that has been trained")
    told = read_yaml(settings)
    try:
        data, method, backbone = told["dataset"], told["method"], told["backbone"]
        head = _part(HEADS, method["head"])
        if method["base_learner"]:
            head = head._replace(settings={**head.settings, "base_classes": _base_classes(checkpoint)})
        card = ModelCard(
            _part(BACKBONES, backbone["network"]),
            head,
            data["size"],
            data.get("geometry", "published"),
            told["shot"],
        )
        segmenter = _built(card)
    except (KeyError, TypeError, AttributeError, RuntimeError, StopIteration) as error:
        raise ValueError(f"{settings} is no record of a few-shot run ({shown(repr(error))})") from error
    except ValueError as error:
        raise ValueError(f"{settings}: {error}") from error
    load_checkpoint(segmenter, checkpoint)
    return Model(segmenter, card)


def _part(known: Mapping[str, type[nn.Module]], told: Mapping[str, Any]) -> Part:
    """A backbone or head out of its configuration, which names a class by its path."""
    room, _, made = str(told["_target_"]).rpartition(".")
    for name, registered in known.items():
        if made == registered.__name__ and registered.__module__.startswith(room):
            return Part(name, {key: value for key, value in told.items() if key not in ("_target_", "weights")})
    raise ValueError(f"{shown(repr(told['_target_']))} is none of this program's {', '.join(known)}")


def _built(card: ModelCard, weights: str | None = None) -> FewShotSegmenter:
    make: Any = BACKBONES[card.backbone.name]
    backbone = make(weights=weights, **card.backbone.settings)
    head: Any = HEADS[card.head.name](channels=list(backbone.channels), **card.head.settings)
    return FewShotSegmenter(backbone, head)


def _base_classes(checkpoint: Path) -> int:
    """Number of base classes that a BAM's base learner tells apart."""
    state = read_state_dict(checkpoint)
    return next(len(value) - 1 for name, value in state.items() if f".{name}".endswith(_BASE_CLASSIFIER))
