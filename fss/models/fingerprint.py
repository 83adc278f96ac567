"""A digest of all that a model's answers depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import Tensor, nn

from fss.models.segmenter import FewShotSegmenter
from fss.svf.digest import weights_digest


def fingerprint(segmenter: FewShotSegmenter) -> str:
    """SHA-256 of a segmenter's weights, its layers, and settings that neither shows, such as a threshold."""
    tensors: dict[str, Tensor] = {**dict(segmenter.named_parameters()), **dict(segmenter.named_buffers())}
    if (verifier := segmenter.verifier) is not None:
        of_verifier = {name: value for name, value in vars(verifier).items() if isinstance(value, Tensor)}
        tensors |= {f"verifier.{name}": value for name, value in of_verifier.items()}
    told: list[Any] = [
        weights_digest(tensors),
        str(segmenter),
        *map(_settings, (segmenter.backbone, segmenter.head)),
    ]
    if verifier is not None:
        told.append(verifier.weights)
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


def _settings(part: nn.Module) -> dict[str, Any]:
    plain = int, float, str, tuple, list
    return {name: value for name, value in vars(part).items() if isinstance(value, plain)}
