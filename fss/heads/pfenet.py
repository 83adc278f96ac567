"""PFENet: prior-guided feature enrichment.

Tian et al., "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020, and the
published program dvlab-research/PFENet, whose parameter names are kept.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width, D reduced channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.head import Features, Head, Prediction, cross_entropy
from fss.heads.ops import masked_average_pool, mean_prior
from fss.resize import resize


class Support(NamedTuple):
    """prototype (B, D, 1, 1), mean over the shots; high (B, K, C, h, w), zero outside the object."""

    prototype: Tensor
    high: Tensor


class Query(NamedTuple):
    """features (B, D, h, w); high (B, C, h', w')."""

    features: Tensor
    high: Tensor


def _conv_relu(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.ReLU(inplace=True)]


def _classifier(width: int) -> nn.Sequential:
    return nn.Sequential(*_conv_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, 2, 1))


class PFENet(Head):
    """Enriches query features with the prototype and the prior mask over a pyramid of scales.

    Args:
        channels: The backbone's channels of low, mid and high features.
        width: Reduced channels D (256 as published).
        pyramid: Scales from fine to coarse: sides in locations where above 1 (60, 30, 15, 8 for PASCAL-5i),
            else fractions of the query's feature map (1, .5, .25, .125 for COCO-20i).
        dropout: Probability with which a reduced channel is dropped in training (0.5 as published).
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        pyramid: Sequence[float] = (60, 30, 15, 8),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not pyramid or any(scale <= 0 for scale in pyramid):
            raise ValueError(f"method.pyramid is {list(pyramid)}: give positive scales, fine to coarse")
        self.pyramid = tuple(pyramid)
        low, mid, _ = channels  # the prior mask asks nothing of high's
        inputs = low + mid
        n = len(self.pyramid)
        self.down_query = nn.Sequential(*_conv_relu(inputs, width, 1), nn.Dropout2d(dropout))
        self.down_supp = nn.Sequential(*_conv_relu(inputs, width, 1), nn.Dropout2d(dropout))
        # query + prototype + prior
        self.init_merge = nn.ModuleList(nn.Sequential(*_conv_relu(2 * width + 1, width, 1)) for _ in range(n))
        self.alpha_conv = nn.ModuleList(nn.Sequential(*_conv_relu(2 * width, width, 1)) for _ in range(n - 1))
        self.beta_conv = nn.ModuleList(
            nn.Sequential(*_conv_relu(width, width, 3), *_conv_relu(width, width, 3)) for _ in range(n)
        )
        self.inner_cls = nn.ModuleList(_classifier(width) for _ in range(n))
        self.res1 = nn.Sequential(*_conv_relu(n * width, width, 1))
        self.res2 = nn.Sequential(*_conv_relu(width, width, 3), *_conv_relu(width, width, 3))
        self.cls = _classifier(width)

    def encode_support(self, features: Features, masks: Tensor) -> Support:
        b, k = masks.shape[:2]
        low, mid, high = (maps.flatten(0, 1) for maps in features)  # (B * K, C, h, w)
        mask = masks.flatten(0, 1)[:, None].to(mid.dtype)  # (B * K, 1, S, S)
        reduced = self.down_supp(torch.cat([mid, low], 1))
        prototype = masked_average_pool(reduced, resize(mask, mid.shape[-2:]))  # (B * K, D, 1, 1)
        high = high * resize(mask, high.shape[-2:])
        return Support(prototype.unflatten(0, (b, k)).mean(1), high.unflatten(0, (b, k)))

    def encode_query(self, features: Features) -> Query:
        return Query(self.down_query(torch.cat([features.mid, features.low], 1)), features.high)

    def decode(self, query: Query, support: Support, size: tuple[int, int]) -> Prediction:
        features = query.features
        grid = features.shape[-2:]  # (h, w)
        prior = resize(mean_prior(query.high, support.high), grid).to(features.dtype)
        enriched: list[Tensor] = []  # one a scale, each at (h, w)
        inner: list[Tensor] = []
        for i, scale in enumerate(self.pyramid):
            side = self._side(scale, grid)
            pooled = F.adaptive_avg_pool2d(features, side)
            prototype = support.prototype.expand(-1, -1, *side)
            merged = self.init_merge[i](torch.cat([pooled, prototype, resize(prior, side)], 1))
            if i > 0:  # top-down: what the finer scale found
                merged = merged + self.alpha_conv[i - 1](torch.cat([merged, resize(enriched[-1], side)], 1))
            merged = merged + self.beta_conv[i](merged)
            inner.append(resize(self.inner_cls[i](merged), size))
            enriched.append(resize(merged, grid))
        x = self.res1(torch.cat(enriched, 1))
        x = x + self.res2(x)
        return Prediction(resize(self.cls(x), size), prior, tuple(inner))

    def losses(self, prediction: Prediction, mask: Tensor, class_weights: Tensor | None) -> dict[str, Tensor]:
        inner = [cross_entropy(logits, mask, class_weights) for logits in prediction.inner]
        return {**super().losses(prediction, mask, class_weights), "inner": torch.stack(inner).mean()}

    @staticmethod
    def _side(scale: float, grid: torch.Size) -> tuple[int, int]:
        if scale > 1:
            return int(scale), int(scale)
        return max(1, int(grid[0] * scale)), max(1, int(grid[1] * scale))
