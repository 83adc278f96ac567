"""Whether a query shows what the supports show: a score in 0..1 from features that have been computed anyway.

A head answers with the most similar place of a picture even where nothing is similar, and the prior mask is scaled
to 1 in every picture. The score therefore goes back to the similarities as they are.

Shapes: B batch, C channels, h w feature height and width, n locations of an object, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.models.backbones import Lower
from fss.resize import resize

_FEWEST = 3  # locations that count as found where the head finds nothing


def locations(lower: Lower) -> Tensor:
    """Features (B, C, h, w) of unit length: low and mid, each of unit length, side by side."""
    return F.normalize(torch.cat([F.normalize(maps.float(), dim=1) for maps in (lower.low, lower.mid)], 1), dim=1)


def of_object(features: Tensor, mask: Tensor) -> Tensor:
    """The features (n, C) of an object.

    Args:
        features: `locations` of a support, (C, h, w).
        mask: (S, S); 1 is the object.
    """
    return features.flatten(1).T[_most((mask == 1).float(), features, 1)]


def presence(query: Tensor, objects: Sequence[Tensor], foreground: Tensor) -> float:
    """How sure it is that a query shows the object, in 0..1.

    The mean over the found locations of their similarity to the most similar location of an object, times the
    fourth root of the share of the objects' locations whose most similar place in the query has been found. Of a
    dozen statistics, these told present from absent base classes of the embedded data best.

    Args:
        query: `locations` of the query, (C, h, w).
        objects: `of_object` of each support.
        foreground: Probabilities (S, S) of the foreground, 0 where there is no picture.
    """
    found = _most(foreground, query, _FEWEST)
    similar = torch.cat(list(objects)) @ query.flatten(1)  # (n of all supports, h * w)
    resemblance = similar[:, found].amax(0).mean().clamp(0, 1)
    returned = found[similar.argmax(1)].float().mean()
    return float(resemblance * returned.sqrt().sqrt())


def _most(probability: Tensor, features: Tensor, fewest: int) -> Tensor:
    """(h * w) bool: locations of features (C, h, w) with a probability (S, S) above 0.5, or the likeliest few."""
    likely = resize(probability[None, None], features.shape[-2:]).flatten()
    found = likely > 0.5
    if not found.any():
        found[likely.topk(min(fewest, len(likely))).indices] = True
    return found
