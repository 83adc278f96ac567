"""The baseline of the SVF paper: BAM's meta learner alone.

Sun et al., "Singular Value Fine-tuning", NeurIPS 2022. Layers and parameter names are those of the published
program chunbolang/BAM.

Shapes: B batch, K shots, S image side, h w feature height and width, D reduced channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fss.models.heads.head import Prediction
from fss.models.heads.ops import prior_masks
from fss.models.heads.parts import convolve_parts
from fss.models.heads.prototype import PrototypeHead, Query, Support, classifier, conv_relu, residual
from fss.resize import resize


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: mean, 1x1 and three dilations; (B, D, h, w) -> (B, 5 D, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def branch(kernel: int, dilation: int) -> nn.Sequential:
            padding = dilation if kernel > 1 else 0
            return nn.Sequential(nn.Conv2d(width, width, kernel, padding=padding, dilation=dilation), nn.ReLU())

        self.layer6_0, self.layer6_1 = branch(1, 1), branch(1, 1)
        self.layer6_2, self.layer6_3, self.layer6_4 = branch(3, 6), branch(3, 12), branch(3, 18)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # as published

    def forward(self, x: Tensor) -> list[Tensor]:
        branches = (self.layer6_1, self.layer6_2, self.layer6_3, self.layer6_4)
        return [self.layer6_0(x.mean(dim=(2, 3), keepdim=True)), *(branch(x) for branch in branches)]


class Baseline(PrototypeHead):
    """Compares query, prototype and prior mask in an ASPP; all supports have equal weight.

    Args:
        channels: Number of channels of the backbone's low, mid and high features.
        width: Number of reduced channels D (256 as published).
        dropout: Probability that a reduced channel is dropped in training (0.5 as published).
        shots: How the K prototypes and prior masks are combined: "mean", or "sum" as in the SVF program.
        train_query_reduction: Train the layer that reduces the query's features. The SVF program passes it to no
            optimiser, so there it keeps its random initialisation.
        refine: See `Head.radius`.

    Raises:
        ValueError: If `shots` is neither "mean" nor "sum", or `refine` is below 0.
    """

    # BAM's weighting of supports, in published checkpoints of the baseline with several shots
    unused_parts: tuple[str, ...] = ("kshot_rw",)

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        dropout: float = 0.5,
        shots: Literal["mean", "sum"] = "mean",
        train_query_reduction: bool = True,
        refine: int = 0,
    ) -> None:
        if shots not in ("mean", "sum"):
            raise ValueError(f"method.shots is {shots!r}, must be 'mean' or 'sum'")
        super().__init__(channels, width, dropout, refine)
        self.shots = shots
        self.down_query.requires_grad_(train_query_reduction)
        self.init_merge = nn.Sequential(*conv_relu(2 * width + 1, width, 1))  # query + prototype + prior
        self.ASPP_meta = ASPP(width)
        self.res1_meta = nn.Sequential(*conv_relu(5 * width, width, 1))
        self.res2_meta = residual(width)
        self.cls_meta = classifier(width)

    def decode(
        self, query: Query, support: Support, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        b, k = support.prototypes.shape[:2]
        weight = 1 / k if self.shots == "mean" else 1
        logits, prior = self.compare(query, support, query.features.new_full((b, k), weight))
        return Prediction(self.upsampled(logits, query.picture, size), prior)

    def compare(self, query: Query, support: Support, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (B, 2, h, w) and prior mask (B, 1, h, w); `weights` (B, K) are those of the supports."""
        features = query.features
        b, k = weights.shape
        prior = resize(prior_masks(query.high, support.high), features.shape[-2:]).to(features.dtype)
        prior = (weights.reshape(b, k, 1, 1) * prior).sum(1, keepdim=True)
        prototype = (weights.reshape(b, k, 1, 1, 1) * support.prototypes).sum(1)
        grid = features.shape[-2:]
        merged = convolve_parts(self.init_merge, [features, prototype, prior], grid)
        x = convolve_parts(self.res1_meta, self.ASPP_meta(merged), grid)
        x = x + self.res2_meta(x)
        return self.cls_meta(x), prior
