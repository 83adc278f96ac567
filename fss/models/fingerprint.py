"""A digest of all that a model's answers depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import nn

from fss.models.segmenter import FewShotSegmenter
from fss.svf.digest import weights_digest


def fingerprint(segmenter: FewShotSegmenter) -> str:
    """SHA-256 of a segmenter's weights, its layers, and settings that neither shows, such as a threshold."""
    tensors = {**dict(segmenter.named_parameters()), **dict(segmenter.named_buffers())}
    told: list[Any] = [
        weights_digest(tensors),
        str(segmenter),
        *map(_settings, (segmenter.backbone, segmenter.head)),
    ]
    if segmenter.verifier is not None:
        told.append(segmenter.verifier.weights)
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


def _settings(part: nn.Module) -> dict[str, Any]:
    plain = int, float, str, tuple, list
    return {name: value for name, value in vars(part).items() if isinstance(value, plain)}
