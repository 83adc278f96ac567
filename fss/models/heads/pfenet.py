"""PFENet: prior-guided feature enrichment.

Tian et al., "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020. Parameter names are
those of the published program dvlab-research/PFENet.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width, D reduced channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.models.heads.head import Prediction
from fss.models.heads.ops import prior_masks
from fss.models.heads.parts import convolve_parts
from fss.models.heads.prototype import PrototypeHead, Query, Support, classifier, conv_relu, residual
from fss.models.losses import cross_entropy
from fss.resize import resize


class PFENet(PrototypeHead):
    """Enriches query features with the prototype and the prior mask over a pyramid of scales.

    Args:
        channels: Number of channels of the backbone's low, mid and high features.
        width: Number of reduced channels D (256 as published).
        pyramid: Scales from fine to coarse: above 1, the side in feature locations; otherwise a fraction of the
            query's feature map. dvlab's program uses 60, 30, 15, 8 on PASCAL-5i and 1, .5, .25, .125 on COCO-20i;
            the SVF program uses the former on both.
        dropout: Probability that a reduced channel is dropped in training (0.5 as published).
        refine: See `Head.radius`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        pyramid: Sequence[float] = (60, 30, 15, 8),
        dropout: float = 0.5,
        refine: int = 0,
    ) -> None:
        super().__init__(channels, width, dropout, refine)
        if not pyramid or not all(0 < scale < math.inf for scale in pyramid):
            raise ValueError(f"method.pyramid is {list(pyramid)}: give positive scales, fine to coarse")
        self.pyramid = tuple(pyramid)
        n = len(self.pyramid)
        # query + prototype + prior
        self.init_merge = nn.ModuleList(nn.Sequential(*conv_relu(2 * width + 1, width, 1)) for _ in range(n))
        self.alpha_conv = nn.ModuleList(nn.Sequential(*conv_relu(2 * width, width, 1)) for _ in range(n - 1))
        self.beta_conv = nn.ModuleList(residual(width) for _ in range(n))
        self.inner_cls = nn.ModuleList(classifier(width) for _ in range(n))
        self.res1 = nn.Sequential(*conv_relu(n * width, width, 1))
        self.res2 = residual(width)
        self.cls = classifier(width)

    def decode(
        self, query: Query, support: Support, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        features = query.features
        grid = features.shape[-2:]  # (h, w)
        # all supports have equal weight, so K may differ from training
        prior = prior_masks(query.high, support.high).mean(1, keepdim=True)
        prior = resize(prior, grid).to(features.dtype)
        prototype = support.prototypes.mean(1)  # (B, D, 1, 1)
        enriched: list[Tensor] = []  # one per scale
        inner: list[Tensor] = []
        for i, scale in enumerate(self.pyramid):
            side = self._side(scale, grid)
            pooled = F.adaptive_avg_pool2d(features, side)
            merged = convolve_parts(self.init_merge[i], [pooled, prototype, resize(prior, side)], side)
            if i > 0:  # top-down path: add the result of the finer scale
                finer = resize(resize(enriched[-1], grid), side)  # by way of the query's grid, as published
                merged = merged + convolve_parts(self.alpha_conv[i - 1], [merged, finer], side)
            merged = merged + self.beta_conv[i](merged)
            if torch.is_grad_enabled():  # losses alone look at them, and they are a quarter of the arithmetic
                inner.append(resize(self.inner_cls[i](merged), size))
            enriched.append(merged)
        x = convolve_parts(self.res1, enriched, grid)
        x = x + self.res2(x)
        return Prediction(self.upsampled(self.cls(x), query.picture, size), prior, tuple(inner))

    def losses(
        self,
        prediction: Prediction,
        mask: Tensor,
        class_weights: Tensor | None,
        base_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of the answer, and of the logits of every scale, their mean.

        Raises:
            ValueError: The prediction was made without gradients, and lacks the latter.
        """
        if not prediction.inner:
            raise ValueError("PFENet's losses need the logits of every scale: predict with gradients enabled")
        inner = [cross_entropy(logits, mask, class_weights) for logits in prediction.inner]
        return {**super().losses(prediction, mask, class_weights), "inner": torch.stack(inner).mean()}

    @staticmethod
    def _side(scale: float, grid: torch.Size) -> tuple[int, int]:
        if scale > 1:
            return int(scale), int(scale)
        return max(1, int(grid[0] * scale)), max(1, int(grid[1] * scale))
