"""Training-free matching: prototypes and nearest neighbours of the object against those of its surroundings.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width, n = h * w locations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.models.heads.cosine import COSINE_EPS
from fss.models.heads.guided import checked_radius, refined
from fss.models.heads.head import Features, Head, Prediction
from fss.resize import resize

SCALE = 20.0  # of margins of cosine similarities as logits, as in PANet
SURROUNDINGS = 0.05  # a location of a support with less of the object is outside of it
INSIDE = 0.5  # and one with more is inside


class MatchSupport(NamedTuple):
    """What supports say.

    Attributes:
        features: (B, K, C, h, w), each location of unit length.
        object: (B, K, 1, h, w), how much of each location the object covers, in 0..1.
    """

    features: Tensor
    object: Tensor


class MatchQuery(NamedTuple):
    """What a query offers.

    Attributes:
        features: (B, C, h, w), each location of unit length.
        picture: (B, 3, S, S), normalised; None without refinement.
    """

    features: Tensor
    picture: Tensor | None


class Match(Head):
    """Foreground where a location resembles the object more than its surroundings, in two ways.

    One is that of prototypes, means over the object and over the rest of all supports (Wang et al., PANet, ICCV
    2019); the other that of correspondences, the most similar single location of the object and of the rest, as
    PFENet's prior mask has it for the object alone. Each is a difference of cosine similarities; they are added.

    Args:
        channels: Unused; present because every head is built from the backbone's channels.
        maps: The features that are compared: "low", "mid", or both one upon the other.
        correspondences: Weight of the correspondences in 0..1; the prototypes have the rest.
        threshold: Margin above which a location is foreground, in -2..2; choose it on base classes.
        refine: Radius, in locations, of a guided filter's windows, by which margins are upsampled to the edges
            of the picture, and then averaged over windows as large as a location; 0 upsamples them bilinearly.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        maps: Sequence[Literal["low", "mid"]],
        correspondences: float,
        threshold: float,
        refine: int = 0,
    ) -> None:
        super().__init__()
        if not maps or set(maps) - {"low", "mid"}:
            raise ValueError(f"method.head.maps is {list(maps)}: give low, mid or both")
        if not 0 <= correspondences <= 1:
            raise ValueError(f"method.head.correspondences is {correspondences}, must be in 0..1")
        if not -2 <= threshold <= 2:
            raise ValueError(f"method.head.threshold is {threshold}, must be a difference of cosines, in -2..2")
        self.maps, self.correspondences, self.threshold = tuple(maps), correspondences, threshold
        self.radius = checked_radius(refine)

    def encode_support(self, features: Features, masks: Tensor) -> MatchSupport:
        compared = self._compared(features, 2)
        covered = resize(masks.flatten(0, 1)[:, None].to(compared.dtype), compared.shape[-2:])
        return MatchSupport(compared, covered.unflatten(0, masks.shape[:2]))

    def encode_query(self, features: Features) -> MatchQuery:
        return MatchQuery(self._compared(features, 1), features.picture)

    def decode(
        self, query: MatchQuery, support: MatchSupport, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        locations = support.features.transpose(1, 2).flatten(2)  # (B, C, K * n)
        with torch.autocast(query.features.device.type, enabled=False):  # maxima are ill-conditioned
            margin = self._margin(query.features.flatten(2), locations, support.object.flatten(1))  # (B, n)
            low, high = margin.amin(1, keepdim=True), margin.amax(1, keepdim=True)
            prior = (margin - low) / (high - low + COSINE_EPS)  # stretched over each query, as PFENet's
            margin, prior = (v.unflatten(1, query.features.shape[2:])[:, None] for v in (margin, prior))
            if query.picture is not None:
                margin = refined(margin, query.picture, self.radius)
        foreground = SCALE * (resize(margin, size) - self.threshold)
        return Prediction(torch.cat([-foreground, foreground], 1), prior)

    def _margin(self, query: Tensor, support: Tensor, covered: Tensor) -> Tensor:
        """How much more each location resembles the object than its surroundings: (B, n) in -2..2.

        Args:
            query: (B, C, n).
            support: (B, C, K * n), of all shots.
            covered: (B, K * n), how much of each location the object covers.
        """
        weights = torch.stack([covered, 1 - covered], 2)  # (B, K * n, 2)
        prototypes = F.normalize(support @ weights, dim=1)  # (B, C, 2)
        to_object, to_rest = (prototypes.mT @ query).unbind(1)  # (B, n) each
        # an object smaller than a location lies where most of it is; one that fills its picture leaves no rest
        inside = covered >= covered.amax(1, keepdim=True).clamp(max=INSIDE)
        outside = covered <= covered.amin(1, keepdim=True).clamp(min=SURROUNDINGS)
        similar = query.mT @ support  # (B, n, K * n)
        nearest, other = (similar.masked_fill(~chosen[:, None], -1).amax(2) for chosen in (inside, outside))
        return (1 - self.correspondences) * (to_object - to_rest) + self.correspondences * (nearest - other)

    def _compared(self, features: Features, channels: int) -> Tensor:
        """The compared maps with each location of unit length; `channels` is their dimension."""
        with torch.autocast(features.mid.device.type, enabled=False):
            maps = [F.normalize(getattr(features, name).float(), dim=channels) for name in self.maps]
            return F.normalize(torch.cat(maps, channels), dim=channels)
