"""Dense cross-attention between query and supports, at several scales and on two levels of features.

The idea is that of dense affinity heads, in which every location of the query attends to every location of all
supports and their mask is what the attention carries over: Shi et al., "Dense Cross-Query-and-Support Attention
Weighted Mask Aggregation" (DCAMA), ECCV 2022; Peng et al., "Hierarchical Dense Correlation Distillation" (HDMNet),
CVPR 2023. This one is made differently. Attention is by cosine on the backbone's own features, so that it is good
before any training; and what it says of a location is a likelihood ratio, object against surroundings, which is
also added to the logits: the head begins as training-free matching and learns what to change. At finer scales the
query also attends to itself, the coarser answer being its mask, since parts of one object are more alike than
objects are: the idea of Fan et al., "Self-Support Few-Shot Semantic Segmentation" (SSP), ECCV 2022.

Shapes: B batch, K shots, S image side, C channels, D reduced channels, T temperatures, h w feature height and
width, n = h * w locations of the query, m those of all supports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.models.heads.guided import checked_radius
from fss.models.heads.head import Features, Head, Prediction
from fss.models.heads.ops import prior_masks
from fss.models.heads.prototype import classifier, conv_relu, residual
from fss.models.losses import cross_entropy
from fss.resize import resize

MARGIN_SCALE = 20.0  # of margins of cosine similarities as logits, as in PANet
_LEAST = 1e-4  # a location of a support is never quite without object or surroundings
_TINY = 1e-30


class Query(NamedTuple):
    """An encoded query: by level what is compared (B, C, h, w) and carried over (B, D, h, w); high features.

    And the picture (B, 3, S, S), normalised, for refinement.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    high: Tensor
    picture: Tensor | None = None


class Support(NamedTuple):
    """Encoded supports: keys and values as of queries, (B, K, ...); mask (B, K, 1, h, w); high, zero outside."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    high: Tensor


class Level(nn.Module):
    """Attention on one level of features.

    Args:
        channels: Number of channels C.
        width: Number of channels D that are carried over.
        temperatures: Inverse temperatures T at the start: low ones look at the object as a whole, high ones at the
            nearest neighbours.
    """

    def __init__(self, channels: int, width: int, temperatures: Sequence[float]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.value = nn.Sequential(*conv_relu(channels, width, 1))
        self.log_temperature = nn.Parameter(torch.tensor(temperatures).log())

    def encode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, C, h, w) and values (B, D, h, w) of features (B, C, h, w)."""
        return maps * self.gain, self.value(maps)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What a query's locations find in the supports.

        Args:
            query: Keys (B, C, n).
            keys: (B, C, m).
            values: (B, D, m).
            mask: (B, m), how much of each location the object covers, in 0..1.

        Returns:
            Margins (B, T, n) between object and surroundings, as differences of (softened) cosines, and the values
            of the object (B, D, n) that a location attends to.
        """
        with torch.autocast(query.device.type, enabled=False):  # exponentials of similarities
            similar = F.normalize(query.float(), dim=1).mT @ F.normalize(keys.float(), dim=1)  # (B, n, m)
            similar = similar - similar.detach().amax(2, keepdim=True)
            inside = mask.float().clamp(_LEAST, 1 - _LEAST)[..., None]  # (B, m, 1)
            carried = torch.cat([inside, 1 - inside, inside * values.float().mT], 2)  # (B, m, 2 + D)
            area = (inside.sum(1) / (1 - inside).sum(1)).log()  # (B, 1)
            margins, found = [], []
            for temperature in self.log_temperature.exp():
                sums = (temperature * similar).exp() @ carried  # (B, n, 2 + D)
                own, rest = (sums[..., i].clamp(min=_TINY) for i in (0, 1))  # (B, n)
                margins.append((own.log() - rest.log() - area) / temperature)
                found.append(sums[..., 2:] / own[..., None])
        return torch.stack(margins, 1), torch.stack(found).mean(0).mT


class CrossAttention(Head):
    """Cross-attention at several scales, from coarse to fine, and convolutions on what it finds.

    Args:
        channels: Number of channels of the backbone's low, mid and high features.
        width: Number of reduced channels D.
        scales: Sides of the grids as fractions of the features', from coarse to fine. A scale of 1 compares all
            locations: (h w)² K numbers for each query.
        temperatures: See `Level`.
        dropout: Probability that a reduced channel is dropped in training.
        refine: See `Head.radius`.

    Raises:
        ValueError: If a scale, temperature, radius or number of channels is out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 64,
        scales: Sequence[float] = (0.5, 1.0),
        temperatures: Sequence[float] = (10.0, 40.0),
        dropout: float = 0.1,
        refine: int = 0,
    ) -> None:
        super().__init__()
        if not scales or not all(0 < scale <= 1 for scale in scales) or sorted(scales) != list(scales):
            raise ValueError(f"method.head.scales is {list(scales)}: give fractions in 0..1, coarse to fine")
        if not temperatures or not all(temperature > 0 for temperature in temperatures):
            raise ValueError(f"method.head.temperatures is {list(temperatures)}: give numbers above 0")
        self.scales, self.radius = tuple(scales), checked_radius(refine)
        self.levels = nn.ModuleList(Level(c, width, temperatures) for c in channels[:2])
        # of each level what the query attends to, the prototype and the margins; at finer scales twice
        found = 2 * (2 * width + len(temperatures))
        self.merge = nn.ModuleList(  # with the query at each level, and the prior mask
            nn.Sequential(*conv_relu(2 * width + 1 + times * found, width, 1), nn.Dropout2d(dropout))
            for times in (1, *(2 for _ in scales[1:]))
        )
        self.down = nn.ModuleList(nn.Sequential(*conv_relu(2 * width, width, 1)) for _ in scales[1:])
        self.refine = nn.ModuleList(residual(width) for _ in scales)
        self.classify = nn.ModuleList(classifier(width) for _ in scales)
        # how much each margin is believed; at the start those of the mid features, which tell objects apart better
        trust = torch.tensor([0.0, 1.0])[:, None].expand(2, len(temperatures)).flatten() / len(temperatures)
        self.trust = nn.Parameter(trust.repeat(len(self.scales), 1))
        self.own_trust = nn.ParameterList(nn.Parameter(torch.zeros(len(trust))) for _ in scales[1:])

    def encode_support(self, features: Features, masks: Tensor) -> Support:
        shots = masks.shape[:2]
        mask = masks.flatten(0, 1)[:, None].to(features.mid.dtype)  # (B * K, 1, S, S)
        high = features.high.flatten(0, 1)
        high = high * resize(mask, high.shape[-2:])
        keys, values = self._encoded(features.low.flatten(0, 1), features.mid.flatten(0, 1))
        covered = resize(mask, keys[0].shape[-2:])
        one = lambda maps: maps.unflatten(0, shots)  # noqa: E731
        return Support(tuple(map(one, keys)), tuple(map(one, values)), one(covered), one(high))

    def encode_query(self, features: Features) -> Query:
        return Query(*self._encoded(features.low, features.mid), features.high, features.picture)

    def decode(
        self, query: Query, support: Support, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        prior = prior_masks(query.high, support.high).mean(1, keepdim=True)
        grid = query.keys[0].shape[-2:]
        prior = resize(prior, grid).to(query.values[0].dtype)
        coarser = answer = prior  # the scale before, which the coarsest does not look at
        found: list[Tensor] = []  # logits of each scale
        for i, scale in enumerate(self.scales):
            side = (max(1, round(grid[0] * scale)), max(1, round(grid[1] * scale)))
            own = [F.adaptive_avg_pool2d(values, side) for values in query.values]
            seen, margins = self._attend(query, support, side)
            margin = _weighted(margins, self.trust[i])
            maps = [*own, *seen, resize(prior, side)]
            if i > 0:
                seen, margins = self._attend(query, _as_support(query, answer), side)
                margin = margin + _weighted(margins, self.own_trust[i - 1])
                maps += seen
            x = self.merge[i](torch.cat(maps, 1))
            if i > 0:
                x = x + self.down[i - 1](torch.cat([x, resize(coarser, side)], 1))
            x = x + self.refine[i](x)
            logits = self.classify[i](x) + MARGIN_SCALE * torch.cat([-margin, margin], 1)
            found.append(logits)
            coarser, answer = x, logits.detach().softmax(1)[:, 1:]
        inner = tuple(resize(logits, size) for logits in found[:-1])
        return Prediction(self.upsampled(found[-1], query.picture, size), prior, inner)

    def losses(
        self,
        prediction: Prediction,
        mask: Tensor,
        class_weights: Tensor | None,
        base_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        losses = super().losses(prediction, mask, class_weights)
        inner = [cross_entropy(logits, mask, class_weights) for logits in prediction.inner]
        return {**losses, "inner": torch.stack(inner).mean()} if inner else losses

    def _encoded(self, *maps: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        keys, values = zip(*(level.encode(m) for level, m in zip(self.levels, maps, strict=True)), strict=True)  # type: ignore[operator]
        return keys, values

    def _attend(self, query: Query, support: Support, side: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
        """What a query finds in supports.

        Returns:
            Maps (B, D or 2 T, *side) for the convolutions, and the margins among them (B, 2 T, *side), those of
            low features first.
        """
        mask = _pooled(support.mask.transpose(1, 2), side)  # (B, 1, m)
        area = mask.sum(2, keepdim=True) + _LEAST
        maps, margins = [], []
        for level, q, keys, values in zip(self.levels, query.keys, *support[:2], strict=True):
            values = _pooled(values.transpose(1, 2), side)  # (B, D, m)
            keys = _pooled(keys.transpose(1, 2), side)
            margin, attended = level(F.adaptive_avg_pool2d(q, side).flatten(2), keys, values, mask[:, 0])
            attended = attended.unflatten(2, side).to(values.dtype)
            prototype = (values * mask).sum(2, keepdim=True) / area
            maps += [attended, prototype[..., None].expand_as(attended)]
            margins.append(margin.unflatten(2, side).to(values.dtype))
        return [*maps, *margins], torch.cat(margins, 1)


def _as_support(query: Query, answer: Tensor) -> Support:
    """A query as its own support; `answer` (B, 1, ...) at any size is how sure it is of the object, in 0..1."""
    keys, values = (tuple(maps[:, None] for maps in level) for level in query[:2])
    return Support(keys, values, resize(answer, keys[0].shape[-2:])[:, None], query.high[:, None])


def _weighted(margins: Tensor, trust: Tensor) -> Tensor:
    """Margins (B, 2 T, h, w) as one (B, 1, h, w)."""
    return (trust[:, None, None] * margins).sum(1, keepdim=True)


def _pooled(maps: Tensor, side: tuple[int, int]) -> Tensor:
    """Maps of the supports (B, C, K, h, w) on a coarser grid, as locations (B, C, m)."""
    return F.adaptive_avg_pool2d(maps.flatten(1, 2), side).unflatten(1, maps.shape[1:3]).flatten(2)
