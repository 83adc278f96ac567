"""A model as one safetensors file: weights, and a card that says all that is needed to use them.

The file's metadata holds the card as JSON and its SHA-256; the card holds that of the weights, so that a flipped
bit anywhere is found. A card names nothing but registered backbones and heads (`fss.models.card`), and safetensors
holds nothing but numbers: such a file can be read from anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fss.display.shown import shown
from fss.files.text import some
from fss.files.whole import whole
from fss.models.card import BACKBONES, HEADS, ModelCard
from fss.models.factored import BACKBONE, BASE, factored_layers, load_factors, parts_of, shapes_of
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import MOST_DIRECTIONS, Verifier
from fss.svf import bottlenecks_of, plain_state_dict, put_bottlenecks, with_values
from fss.svf.digest import weights_digest

_LARGEST_HEADER = 16 * 2**20  # bytes; safetensors itself reads up to 100 MB
_DTYPES = {"F32": torch.float32, "I64": torch.int64}
_PRESENCE = "presence."  # tensors of a verifier, by the names of its attributes
_OF_VERIFIER = ("mean", "directions", "kept", "classes")
Shapes = dict[str, tuple[int, ...]]


def save_model(
    path: str | Path, segmenter: FewShotSegmenter, card: ModelCard, factored: bool = False
) -> ModelCard:
    """Writes a model file, whole or not at all.

    Args:
        path: The file, `.safetensors`.
        segmenter: The model, with its verifier if it has one; left as it is.
        card: What the file is to say of it; its digest and presence are set here.
        factored: Keep SVF layers as U, S, V and S0, to go on tuning S. Otherwise they are merged, which takes half
            of the space and is as fast as a plain network.

    Returns:
        The card as written.

    Raises:
        OSError: The file could not be written.
        ValueError: The card does not describe the segmenter, or weights are not finite.
    """
    state = (with_values if factored else plain_state_dict)(segmenter.state_dict())
    state = {
        name: value.detach().cpu().contiguous().clone()  # safetensors refuses what shares memory
        for name, value in state.items()
        if not _is_repeated(name, value, state)
    }
    if (verifier := segmenter.verifier) is not None:
        state |= {_PRESENCE + name: getattr(verifier, name).cpu().float().contiguous() for name in _OF_VERIFIER}
        told = {"weights": list(verifier.weights), "threshold": verifier.threshold}
        card = replace(card, presence=told)
    _check_finite(state)
    _check_shapes(card, shapes_of(state))
    card = replace(card, digest=weights_digest(state))
    text = card.to_json()
    content = save(state, {"card": text, "sha256": _sha256(text)})
    with whole(Path(path)) as unfinished:
        unfinished.write_bytes(content)
    return card


def read_model(path: str | Path) -> tuple[FewShotSegmenter, ModelCard]:
    """Reads a model file.

    Nothing is allocated for the weights before their names and sizes are what the card's network has.

    Returns:
        The segmenter on the CPU, in eval mode, with SVF layers where the file holds factors; and the card.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or no model file, names what this version does not have, or holds other tensors
            than its network, or numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no model file {path}: give a model.safetensors, as training writes beside last.ckpt"
        )
    try:
        return _read(path)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{shown(path)} cannot be used as a model file: {shown(error)}. Take another copy of it, or write it "
            "anew from its run (python -m fss.export model=RUN format=safetensors)"
        ) from error


def read_card(path: str | Path) -> ModelCard:
    """Reads only what a model file says of its weights, see `read_model`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no model file {path}: give a model.safetensors, as training writes beside last.ckpt"
        )
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            return _card(file)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{shown(path)} is no model file: {shown(error)}") from error


def _read(path: Path) -> tuple[FewShotSegmenter, ModelCard]:
    _check_header(path)
    with safe_open(path, "pt") as file:
        card = _card(file)
        shapes: Shapes = {}
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            tensor = file.get_slice(name)
            if tensor.get_dtype() not in _DTYPES:
                raise ValueError(
                    f"{name!r:.200} is of type {tensor.get_dtype()}, weights are {' or '.join(_DTYPES)}"
                )
            shapes[name] = tuple(tensor.get_shape())
        _check_shapes(card, shapes)
        state = {name: file.get_tensor(name) for name in shapes}
    _check_finite(state)
    if weights_digest(state) != card.digest:
        raise ValueError("its weights are not those that its card was written for (another digest)")
    segmenter = _built(card)
    if card.presence:
        parts = {name: state.pop(_PRESENCE + name) for name in _OF_VERIFIER}
        segmenter.verifier = Verifier(
            **parts, weights=tuple(card.presence["weights"]), threshold=card.presence["threshold"]
        )
    adapted = segmenter.head.has_base_learner and bottlenecks_of(shapes_of(state), BACKBONE)
    if adapted or any(name.startswith(BASE) for name in state):  # what is not there is as in the tuned backbone
        own = [name for name in segmenter.state_dict() if name.startswith(BACKBONE) and name in state]
        state = {**{f"base_{name}": state[name] for name in own}, **state}
    load_factors(segmenter, state)
    return segmenter.eval(), card


def _check_header(path: Path) -> None:
    """Raises ValueError where a file cannot be a safetensors file, before its header is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 0 < length <= min(size - 8, _LARGEST_HEADER):
        raise ValueError("it is cut short, or no safetensors file")


def _card(file: Any) -> ModelCard:
    metadata = file.metadata() or {}
    if metadata.keys() != {"card", "sha256"}:
        raise ValueError("it holds no card of a model, as other safetensors files do not")
    if _sha256(metadata["card"]) != metadata["sha256"]:
        raise ValueError("its card is damaged (another checksum)")
    return ModelCard.from_json(metadata["card"])


def _built(card: ModelCard) -> FewShotSegmenter:
    """The card's network with weights of its own."""
    try:
        backbone = BACKBONES[card.backbone.name](**card.backbone.settings)
        head = HEADS[card.head.name](channels=list(backbone.channels), **card.head.settings)
        return FewShotSegmenter(backbone, head)
    except Exception as error:  # torch and timm raise many types for numbers that make no network
        raise ValueError(f"its {card.backbone.name} and {card.head.name} cannot be made: {error}") from error


def _check_shapes(card: ModelCard, shapes: Shapes) -> None:
    """Raises ValueError where tensors are not those of the card's network, which is made without memory."""
    with torch.device("meta"):
        network = _built(card)
    plain = shapes_of(network.state_dict())
    of_backbone = {name: shape for name, shape in plain.items() if name.startswith(BACKBONE)}
    base = {f"base_{name}": shape for name, shape in of_backbone.items()} if network.head.has_base_learner else {}
    with torch.device("meta"):
        put_bottlenecks(network.backbone, bottlenecks_of(shapes, BACKBONE))
    expected = shapes_of(plain_state_dict(network.state_dict()))
    for stem in factored_layers(shapes):
        if stem + "weight" not in expected:
            raise ValueError(f"its network has no layer {stem!r:.200} that could be factored")
        rows, *others = weight = expected.pop(stem + "weight")
        (rank,) = shapes[stem + "S0"] if len(shapes[stem + "S0"]) == 1 else (0,)
        parts_of(rank, weight)
        expected |= {stem + "U": (rows, rank), stem + "V": (rank, *others)}
        expected |= {stem + "S": (rank,), stem + "S0": (rank,)}
    if card.presence:
        expected |= _shapes_of_verifier(shapes, network)
    known = {**base, **expected}
    odd = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in known],
        "of another size": [name for name in shapes if name in known and shapes[name] != known[name]],
    }
    if told := [f"{what}: {some(names, 4):.500}" for what, names in odd.items() if names]:
        raise ValueError(
            f"its tensors are not those of its {card.backbone.name} and {card.head.name}; {'; '.join(told)}"
        )


def _shapes_of_verifier(shapes: Shapes, network: FewShotSegmenter) -> Shapes:
    """What a verifier of this network has; its numbers of directions and of known classes are the file's own."""
    low, mid, _ = network.backbone.channels
    names = [_PRESENCE + name for name in _OF_VERIFIER]
    directions, classes = ((shapes.get(name) or (1,))[0] for name in names[2:])
    directions = min(directions, MOST_DIRECTIONS)
    channels = low + mid
    wanted: list[tuple[int, ...]] = [(channels,), (directions, channels), (directions,), (classes, channels)]
    return dict(zip(names, wanted, strict=True))


def _check_finite(state: Mapping[str, Tensor]) -> None:
    if odd := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"{some(odd, 4)} hold NaN or infinity")


def _is_repeated(name: str, value: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of the base learner's backbone is also the tuned one's."""
    twin = state.get(name.removeprefix("base_")) if name.startswith(BASE) else None
    return twin is not None and torch.equal(twin, value)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
