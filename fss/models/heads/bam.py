"""BAM: a meta learner and a base learner that tells it what not to segment.

Lang et al., "Learning What Not to Segment: A New Perspective on Few-Shot Segmentation", CVPR 2022. Parameter
names are those of the published program chunbolang/BAM.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width, N base classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fss.models.heads import prototype
from fss.models.heads.baseline import Baseline
from fss.models.heads.head import Features, Prediction
from fss.models.heads.ops import gram_matrix
from fss.models.heads.pspnet import PSPHead
from fss.models.losses import cross_entropy
from fss.resize import resize


class Query(NamedTuple):
    """An encoded query.

    Attributes:
        meta: The meta learner's part.
        gram: (B, C, C) Gram matrix of the low features.
        base: (B, N + 1, h, w) logits of the base learner.
    """

    meta: prototype.Query
    gram: Tensor
    base: Tensor


class Support(NamedTuple):
    """Encoded supports.

    Attributes:
        meta: The meta learner's part.
        gram: (B, K, C, C) Gram matrices of the low features.
    """

    meta: prototype.Support
    gram: Tensor


class BAM(Baseline):
    """The baseline's prediction, with everything that the base learner recognises moved to the background.

    The distance between the scenes of support and query (Gram matrices of the low features) weights the supports
    and adjusts the prediction. The base learner is trained beforehand and stays frozen, including its norms.

    Args:
        channels: Number of channels of the backbone's low, mid and high features.
        base_classes: Number of base classes N.
        shot: Number of supports K; for K > 1 the weighting of the supports has parameters that depend on K.
        width: Number of reduced channels (256 as published).
        dropout: Probability that a reduced channel is dropped in training (0.5 as published).
        base_width: Number of channels before the base learner's classifier (512 as published).
        refine: See `Head.radius`.
    """

    base_learner_parts = ("learner_base",)
    unused_parts = ()  # it does use the weighing of its supports

    def __init__(
        self,
        channels: Sequence[int],
        base_classes: int,
        shot: int,
        width: int = 256,
        dropout: float = 0.5,
        base_width: int = 512,
        refine: int = 0,
    ) -> None:
        super().__init__(channels, width, dropout, refine=refine)
        self.shot = shot
        self.learner_base = PSPHead(channels[2], base_classes, base_width).requires_grad_(False)
        self.gram_merge, self.cls_merge = _weighted_sum(), _weighted_sum()
        if shot > 1:
            self.kshot_rw = nn.Sequential(nn.Conv2d(shot, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, shot, 1))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.learner_base.modules():
            if isinstance(module, _NormBase):
                module.eval()
        return self

    def encode_support(self, features: Features, masks: Tensor) -> Support:  # type: ignore[override]
        gram = gram_matrix(features.low.flatten(0, 1)).unflatten(0, masks.shape[:2])
        return Support(super().encode_support(features, masks), gram)

    def encode_query(self, features: Features) -> Query:  # type: ignore[override]
        assert features.base is not None
        return Query(super().encode_query(features), gram_matrix(features.low), self.learner_base(features.base))

    def decode(  # type: ignore[override]
        self, query: Query, support: Support, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        self.check_shot(support.gram.shape[1])
        distances = self._distances(query.gram, support.gram).to(query.meta.features.dtype)  # (B, K)
        weights = self._weights(distances)
        meta, prior = self.compare(query.meta, support.meta, weights)
        distance = (weights * distances).sum(1)[:, None, None, None]
        base = self._base_map(resize(query.base, meta.shape[-2:]), own_class)

        background, foreground = meta.softmax(1).split(1, dim=1)
        far = distance.expand_as(foreground)
        background = self.gram_merge(torch.cat([background, far], 1))
        foreground = self.gram_merge(torch.cat([foreground, far], 1))
        background = self.cls_merge(torch.cat([background, base], 1))
        final = torch.cat([background, foreground], 1)
        answer = self.upsampled(final, query.meta.picture, size)
        return Prediction(answer, prior, (resize(meta, size),), resize(query.base, size))

    def check_shot(self, shot: int) -> None:
        if shot != self.shot:
            raise ValueError(
                f"a BAM trained with shot={self.shot} got {shot} supports: it learns how to weight exactly that "
                "many, so evaluate it with the shot that it was trained with"
            )

    def losses(
        self,
        prediction: Prediction,
        mask: Tensor,
        class_weights: Tensor | None,
        base_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of the final map, the meta learner and the base learner; the last is only for monitoring."""
        assert prediction.base is not None
        assert base_mask is not None
        return {
            **super().losses(prediction, mask, class_weights),
            "meta": cross_entropy(prediction.inner[0], mask, class_weights),
            "base": cross_entropy(prediction.base, base_mask, None),
        }

    @staticmethod
    def _distances(query: Tensor, supports: Tensor) -> Tensor:
        """Frobenius distances (B, K), scaled to 0..1, between Gram matrices (B, C, C) and (B, K, C, C)."""
        return (query[:, None] - supports).norm(dim=(2, 3)) / query.shape[-1]

    def _weights(self, distances: Tensor) -> Tensor:
        """Weights (B, K) of the supports; they sum to 1."""
        if self.shot == 1:
            return torch.ones_like(distances)
        ascending, order = distances.sort(1)
        scores = self.kshot_rw(ascending[..., None, None])[..., 0, 0]  # (B, K), nearest support first
        return F.softmax(scores.gather(1, order.argsort(1)), dim=1)

    @staticmethod
    def _base_map(logits: Tensor, own_class: Tensor | None) -> Tensor:
        """Probability (B, 1, h, w) of any base class except the episode's own."""
        probabilities = logits.softmax(1)
        if own_class is not None:
            classes = torch.arange(1, probabilities.shape[1], device=logits.device)
            others = classes != 1 + own_class[:, None]  # (B, N)
            return (probabilities[:, 1:] * others[..., None, None]).sum(1, keepdim=True)
        return probabilities[:, 1:].sum(1, keepdim=True)


def _weighted_sum() -> nn.Conv2d:
    # of two maps; initialised to return the first one, as published
    conv = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
    return conv
