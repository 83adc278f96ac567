"""What is read of models: model files, S-adapters, and supports kept for prediction."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from checks.fuzzing.mutations import damaged_bytes, damaged_json
from checks.fuzzing.target import FileTarget, Target
from fss.models.backbones import TimmBackbone
from fss.models.card import ModelCard, Part
from fss.models.heads import PFENet
from fss.models.model_file import read_model, save_model
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import Verifier
from fss.predictor.supports import Support, load_supports, save_supports
from fss.svf.adapter_file import AdapterFile, _checksum, read_adapter, write_adapter

MODEL, ADAPTER, SUPPORTS = "model.safetensors", "adapter.safetensors", "supports.safetensors"
SIZE = 32
NETWORK = {"name": "test_efficientnet", "low": 1, "mid": 2}  # timm's smallest
HEAD = {"width": 4, "pyramid": [1.0], "dropout": 0.0}


@cache
def _model() -> FewShotSegmenter:
    torch.manual_seed(0)
    backbone = TimmBackbone(**NETWORK)  # type: ignore[arg-type]
    made = FewShotSegmenter(backbone, PFENet(list(backbone.channels), **HEAD)).eval()  # type: ignore[arg-type]
    channels = sum(backbone.channels[:2])
    directions, classes = torch.linalg.qr(torch.randn(channels, 3)).Q.T, torch.rand(2, channels)
    weights = (3.0, -2.0, 1.0, 0.5)
    made.verifier = Verifier(torch.rand(channels), directions, torch.rand(3), classes, weights, 0.4)
    return made


def _write_model(folder: Path) -> Sequence[Path]:
    training = {"dataset": "shapes", "fold": 0, "seed": 0, "method": "pfenet", "backbone": "lite", "tuning": "svf"}
    parts = Part("timm", NETWORK), Part("pfenet", HEAD)
    save_model(
        folder / MODEL, _model(), ModelCard(*parts, 64, "exact", 1, classes=("ant", "bee"), training=training)
    )
    return [folder / MODEL]


def _read_model(folder: Path) -> object:
    model, card = read_model(folder / MODEL)
    assert model.verifier is None or len(model.verifier.weights) == 4
    return card.digest, card.to_json()


def _write_adapter(folder: Path) -> Sequence[Path]:
    chance = torch.Generator().manual_seed(0)
    S = torch.rand(12, generator=chance)
    head = {"head.weight": torch.rand(3, 4, generator=chance)}
    write_adapter(folder / ADAPTER, AdapterFile("0" * 64, {"layer1": 8, "layer2": 4}, S, head))
    return [folder / ADAPTER]


def _read_adapter(folder: Path) -> object:
    found = read_adapter(folder / ADAPTER)
    assert sum(found.layers.values()) == len(found.S)
    return found.weights, found.layers, found.S.tolist(), {name: v.tolist() for name, v in found.head.items()}


def _write_supports(folder: Path) -> Sequence[Path]:
    chance = torch.Generator().manual_seed(0)
    image, mask = 255 * torch.rand(3, SIZE, SIZE, generator=chance), torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    marked = mask.clone()
    marked[4:20, 6:18] = 1
    shown = {"ant": [Support(image, marked)] * 2, "bee": [Support(255 - image, marked)]}
    save_supports(folder / SUPPORTS, shown, {"ant": [Support(image, mask)]}, SIZE, "exact")
    return [folder / SUPPORTS]


def _read_supports(folder: Path) -> object:
    supports, negatives = load_supports(folder / SUPPORTS, SIZE, "exact")
    assert all(support.image.shape == (3, SIZE, SIZE) for shots in supports.values() for support in shots)
    return list(supports), list(negatives)


def damaged_header(content: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file with damaged metadata whose checksum fits them; one in four is `damaged_bytes`."""
    if rng.random() < 0.25:
        return damaged_bytes(content, rng)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    told = header["__metadata__"]
    keys = sorted(told.keys() - {"sha256"})
    key = keys[int(rng.integers(len(keys)))]
    damage = damaged_json if told[key][:1] in ("{", "[") else damaged_bytes
    told[key] = damage(told[key].encode(), rng).decode("utf-8", "replace")
    if "card" in told:
        told["sha256"] = hashlib.sha256(told["card"].encode()).hexdigest()
    elif "sha256" in told:
        told["sha256"] = _checksum(told, load(content))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


TARGETS: list[Target] = [
    FileTarget("model file", _write_model, _read_model, exact=True),
    FileTarget("model card", _write_model, _read_model, damaged_header),
    FileTarget("adapter", _write_adapter, _read_adapter, exact=True),
    FileTarget("adapter header", _write_adapter, _read_adapter, damaged_header),
    FileTarget("supports", _write_supports, _read_supports, damaged_header),
]
