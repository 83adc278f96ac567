"""Models for prediction: from run folders, and the training-free one, without Hydra and Lightning.

A run folder may come from anybody: of its configuration only registered names are followed, with plain values for
them, and weights are read as tensors alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fss.configuration import conf_folder
from fss.display.shown import shown
from fss.files.plain import read_yaml
from fss.geometry import Geometry
from fss.models import backbones, heads
from fss.models.backbones.weights import read_state_dict
from fss.models.checkpoints import load_checkpoint
from fss.models.segmenter import FewShotSegmenter

TRAINING_FREE = "prior"
CHECKPOINT = Path("checkpoints", "last.ckpt")
SETTINGS = "config.yaml"
_KNOWN: dict[str, type[nn.Module]] = {
    f"{room.__name__}.{name}": getattr(room, name)
    for room, names in (
        (backbones, ("ResNetBackbone", "TimmBackbone", "VGGBackbone")),
        (heads, ("BAM", "Baseline", "PFENet", "PriorMask")),
    )
    for name in names
}
_BASE_CLASSIFIER = ".head.learner_base.1.4.weight"


class Loaded(NamedTuple):
    """A model and how it sees pictures.

    Attributes:
        segmenter: The model on the CPU.
        size: Side of the square in pixels.
        geometry: How pictures lie in it.
        threshold: Probability that a pixel must exceed to be foreground, in 0..1.
    """

    segmenter: FewShotSegmenter
    size: int
    geometry: Geometry
    threshold: float = 0.5


def load_model(model: str | Path) -> Loaded:
    """Loads a run folder, or "prior": the training-free prior mask on an EfficientNet-Lite0.

    Raises:
        FileNotFoundError: There is no such folder, or no weights in it.
        ValueError: It cannot be used; the message says why.
    """
    if model == TRAINING_FREE:
        return _training_free()
    path = Path(model).expanduser()
    if path.is_dir():
        return _run(path)
    raise FileNotFoundError(
        f"no model {path}: give the folder of a run (it holds checkpoints/), a model file, or prior"
    )


def _training_free() -> Loaded:
    conf = Path(conf_folder())
    backbone = read_yaml(conf / "backbone/efficientnet_lite0.yaml")
    method = read_yaml(conf / "method/prior.yaml")
    data = read_yaml(conf / "dataset/common/hundreds.yaml")
    network = _made(backbone["network"], weights=backbone["weights"])
    head = _made(method["head"], channels=list(network.channels))
    return Loaded(FewShotSegmenter(network, head), data["size"], data["geometry"])


def _run(folder: Path) -> Loaded:
    settings, checkpoint = folder / SETTINGS, folder / CHECKPOINT
    for needed in (settings, checkpoint):
        if not needed.is_file():
            raise FileNotFoundError(f"no {needed}: give the folder of a run that has been trained")
    told = read_yaml(settings)
    try:
        data, method, backbone = told["dataset"], told["method"], told["backbone"]
        size, geometry = data["size"], data.get("geometry", "published")
        network = _made(backbone["network"], weights=None)
        known = {"base_classes": _base_classes(checkpoint)} if method["base_learner"] else {}
        head = _made(method["head"], channels=list(network.channels), **known)
        segmenter = FewShotSegmenter(network, head, backbone.get("norms", "eval"))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{settings} is no record of a few-shot run ({shown(repr(error))})") from error
    load_checkpoint(segmenter, checkpoint)
    return Loaded(segmenter, size, geometry)


def _made(part: Mapping[str, Any], **given: Any) -> Any:
    """A backbone or head of the program, from its name and plain values."""
    name = part["_target_"]
    if name not in _KNOWN:
        raise ValueError(f"{shown(repr(name))} is none of {', '.join(_KNOWN)}")
    return _KNOWN[name](**{key: value for key, value in part.items() if key != "_target_"} | given)


def _base_classes(checkpoint: Path) -> int:
    """Number of base classes that a BAM's base learner tells apart."""
    state = read_state_dict(checkpoint)
    return next(len(value) - 1 for name, value in state.items() if f".{name}".endswith(_BASE_CLASSIFIER))
