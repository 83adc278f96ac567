"""The first part of the trained heads: reduced features and one prototype per support.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width, D reduced channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from fss.margins import around, cut
from fss.models.heads.guided import checked_radius
from fss.models.heads.head import Features, Head
from fss.models.heads.ops import masked_average_pool
from fss.models.heads.parts import convolve_parts
from fss.resize import resize


class Support(NamedTuple):
    """Encoded supports: prototypes (B, K, D, 1, 1); high features (B, K, C, h, w), zero outside the object."""

    prototypes: Tensor
    high: Tensor


class Query(NamedTuple):
    """Encoded queries: reduced features (B, D, h, w); high features (B, C, h', w'); `Features.picture`."""

    features: Tensor
    high: Tensor
    picture: Tensor | None = None


def conv_relu(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution without bias that keeps the resolution, and a ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.ReLU(inplace=True)]


def residual(width: int) -> nn.Sequential:
    """The residual branch of the published heads: two 3x3 convolutions."""
    return nn.Sequential(*conv_relu(width, width, 3), *conv_relu(width, width, 3))


def classifier(width: int) -> nn.Sequential:
    """Maps features (B, D, h, w) to logits (B, 2, h, w)."""
    return nn.Sequential(*conv_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, 2, 1))


class PrototypeHead(Head):
    """Reduces low and mid features, and pools those of the supports under their masks.

    Args:
        channels: Number of channels of the backbone's low, mid and high features.
        width: Number of reduced channels D.
        dropout: Probability that a reduced channel is dropped in training.
        refine: See `Head.radius`.
    """

    looks_around = False

    def __init__(self, channels: Sequence[int], width: int, dropout: float, refine: int) -> None:
        super().__init__()
        self.radius = checked_radius(refine)
        low, mid, _ = channels  # the prior mask works with any number of high channels
        self.down_query = nn.Sequential(*conv_relu(low + mid, width, 1), nn.Dropout2d(dropout))
        self.down_supp = nn.Sequential(*conv_relu(low + mid, width, 1), nn.Dropout2d(dropout))

    def encode_support(self, features: Features, masks: Tensor) -> Support:
        shots = masks.shape[:2]
        maps = (features.low, features.mid, features.high)
        low, mid, high = (m.flatten(0, 1) for m in maps)  # (B * K, C, h, w)
        mask = masks.flatten(0, 1)[:, None].to(mid.dtype)  # (B * K, 1, S, S)
        covered = resize(mask, mid.shape[-2:])
        margins = around(covered)
        mid, low, covered = (cut(m, margins) for m in (mid, low, covered))
        reduced = convolve_parts(self.down_supp, [mid, low], mid.shape[-2:])
        prototypes = masked_average_pool(reduced, covered)  # (B * K, D, 1, 1)
        high = high * resize(mask, high.shape[-2:])
        return Support(prototypes.unflatten(0, shots), high.unflatten(0, shots))

    def encode_query(self, features: Features) -> Query:
        mid, low = features.mid, features.low
        reduced = convolve_parts(self.down_query, [mid, low], mid.shape[-2:])
        return Query(reduced, features.high, features.picture)
