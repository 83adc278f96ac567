"""What a model file says of its weights: plain values, all of them checked when they are read.

Backbones and heads go by registered names, never by a path of code, and their settings are the arguments of their
constructors.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from fss.files.text import is_name
from fss.geometry import Geometry, check_geometry
from fss.models.backbones import Backbone, ResNetBackbone, TimmBackbone, VGGBackbone, ViTBackbone
from fss.models.heads import BAM, Baseline, CrossAttention, Head, Match, PFENet, PriorMask

VERSION = 2
READABLE = (1, VERSION)  # 1 had no `presence`
BACKBONES: dict[str, type[Backbone]] = {
    "resnet": ResNetBackbone,
    "vgg16": VGGBackbone,
    "timm": TimmBackbone,
    "vit": ViTBackbone,
}
HEADS: dict[str, type[Head]] = {
    "pfenet": PFENet,
    "bam": BAM,
    "baseline": Baseline,
    "prior": PriorMask,
    "match": Match,
    "cross_attention": CrossAttention,
}
LARGEST_SIDE = 8192  # pixels of the square
_GIVEN = ("self", "weights", "channels")  # arguments that no file decides
_LONGEST = 4096  # characters of a text
_MOST = 10_000  # values of a list or mapping
_DEEPEST = 4  # lists and mappings inside one another
_LARGEST = 2**16  # numbers that a constructor is given: no network has more of anything


class Part(NamedTuple):
    """A backbone or head: its registered name, and the arguments of its constructor by name."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ModelCard:
    """A model without its weights.

    Attributes:
        backbone: The backbone, one of `BACKBONES`.
        head: The head, one of `HEADS`, without its `channels`.
        size: Side of the square that a network sees, pixels.
        geometry: How pictures lie in it, see `fss.geometry`.
        shot: Number of supports in training.
        threshold: A pixel is foreground if its probability exceeds this; between 0 and 1.
        presence: The `weights` (4) and the `threshold` of the model's `Verifier`; empty without one.
        classes: Names of the classes that the model was trained on, a base learner's in its order.
        training: What it was trained on and how (data set, fold, method, tuning, ...), plain values by name.
        results: Its evaluations, each as plain values by name (protocol, shot, miou, ...).
        git_revision: Of the program that wrote the file.
        digest: SHA-256 of the weights, in hexadecimal; empty before they are saved.
    """

    backbone: Part
    head: Part
    size: int
    geometry: Geometry
    shot: int
    threshold: float = 0.5
    presence: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()
    git_revision: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for anything that is not plain, unknown, or out of range."""
        _check_part("backbone", self.backbone, BACKBONES)
        _check_part("head", self.head, HEADS)
        _check(_is_whole(self.size) and 8 <= self.size <= LARGEST_SIDE, "size", self.size)
        _check(isinstance(self.geometry, str), "geometry", self.geometry)
        check_geometry(self.geometry)
        _check(_is_whole(self.shot) and 1 <= self.shot <= _MOST, "shot", self.shot)
        _check(_is_number(self.threshold) and 0 < self.threshold < 1, "threshold", self.threshold)
        _check_presence(self.presence)
        _check(len(self.classes) <= _MOST, "classes", self.classes)
        for name in self.classes:
            _check(isinstance(name, str) and is_name(name), "classes", name)
        for key, value in (("training", self.training), ("results", list(self.results))):
            _check(_is_plain(value), key, value)
        for key in ("git_revision", "digest"):
            _check(isinstance(getattr(self, key), str) and len(getattr(self, key)) <= 100, key, getattr(self, key))

    def to_json(self) -> str:
        """The card as a JSON text."""
        parts = {key: getattr(self, key)._asdict() for key in ("backbone", "head")}
        return json.dumps({"version": VERSION, **asdict(self), **parts}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It is of another version, or anything in it is missing, unknown or out of range.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its card is no JSON text ({str(error) or 'too deep'})") from error
        _check(isinstance(found, dict), "card", found)
        version = found.pop("version", None)
        if version not in READABLE or isinstance(version, bool | float):
            raise ValueError(
                f"it has format {version!r:.20}, and this version reads up to {VERSION}: convert the run anew"
            )
        if version == 1 and "presence" not in found:
            found["presence"] = {}
        names = set(cls.__dataclass_fields__)
        if found.keys() != names:
            odd = ", ".join(sorted(map(str, found.keys() ^ names)))
            raise ValueError(f"its card has other entries than this version writes: {odd:.200}")
        for key in ("backbone", "head"):
            part = found[key]
            _check(isinstance(part, dict) and part.keys() == {"name", "settings"}, key, part)
            found[key] = Part(**part)
        for key in ("classes", "results"):
            _check(isinstance(found[key], list), key, found[key])
            found[key] = tuple(found[key])
        return cls(**found)


def part_of(kind: str, made: type, settings: Mapping[str, Any]) -> Part:
    """The part of a card for a class of this program.

    Args:
        kind: "backbone" or "head".
        made: The class.
        settings: Arguments of its constructor; those that a file does not decide are left out.

    Raises:
        ValueError: The class is none of this program's, so nobody else could make it.
    """
    known: Mapping[str, type] = BACKBONES if kind == "backbone" else HEADS
    names = [name for name, registered in known.items() if registered is made]
    if not names:
        raise ValueError(f"{made.__module__}.{made.__name__} is no {kind} of this program ({', '.join(known)})")
    return Part(names[0], {key: value for key, value in settings.items() if key not in _GIVEN})


def _check_part(kind: str, part: Part, known: Mapping[str, type]) -> None:
    _check(isinstance(part, Part) and isinstance(part.name, str) and _is_plain(part.settings), kind, part)
    if part.name not in known:
        raise ValueError(f"its {kind} {part.name!r:.100} is unknown; this version has {', '.join(known)}")
    _check(isinstance(part.settings, Mapping), kind, part.settings)
    arguments = inspect.signature(known[part.name]).parameters.keys() - set(_GIVEN)
    if unknown := sorted(part.settings.keys() - arguments):
        raise ValueError(f"its {kind} {part.name} has no setting {', '.join(unknown):.200}")
    for name, value in part.settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        small = len(values) <= 100 and not any(_is_number(one) and abs(one) > _LARGEST for one in values)
        _check(small and not isinstance(value, Mapping), f"{kind} setting {name}", value)


def _check_presence(told: Any) -> None:
    if told == {}:
        return
    _check(isinstance(told, Mapping) and told.keys() == {"weights", "threshold"}, "presence", told)
    weights, threshold = told["weights"], told["threshold"]
    _check(isinstance(weights, list | tuple) and len(weights) == 4, "presence", told)
    _check(all(_is_number(weight) for weight in weights), "presence", told)
    _check(_is_number(threshold) and 0 <= threshold <= 1, "presence", told)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Mapping):
        return (
            depth < _DEEPEST
            and len(value) <= _MOST
            and all(isinstance(key, str) and len(key) <= _LONGEST for key in value)
            and all(_is_plain(one, depth + 1) for one in value.values())
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return depth < _DEEPEST and len(value) <= _MOST and all(_is_plain(one, depth + 1) for one in value)
    if isinstance(value, str):
        return len(value) <= _LONGEST
    return value is None or isinstance(value, bool) or _is_number(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 2**63
        and math.isfinite(value)
    )


def _check(condition: bool, name: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"its {name} is {value!r:.200}, which no model of this program has")
