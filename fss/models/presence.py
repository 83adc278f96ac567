"""Whether a query shows what the supports show: a score in 0..1 from features that have been computed anyway.

A head answers with the most similar place of a picture even where nothing is similar, and the prior mask is scaled
to 1 in every picture. The score therefore goes back to features as they are. Base classes teach what tells present
from absent (`fss.models.verification`); a model without any has a formula.

Shapes: B batch, C channels, h w feature height and width, n locations of an object, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.models.backbones import Lower
from fss.models.verification import Evidence, Verifier
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


def evidence(query: Tensor, objects: Sequence[Tensor], foreground: Tensor) -> Evidence:
    """What a `Verifier` goes by.

    Args:
        query: `locations` of the query, (C, h, w).
        objects: `of_object` of each support.
        foreground: Probabilities (S, S) of the foreground, 0 where there is no picture.
    """
    likely = resize(foreground[None, None], query.shape[-2:]).flatten() * _most(foreground, query, _FEWEST)
    shown = torch.stack([F.normalize(one.mean(0), dim=0) for one in objects])
    answered = foreground > 0.5
    certainty = foreground[answered].mean() if answered.any() else foreground.max()
    return Evidence(F.normalize(query.flatten(1) @ likely, dim=0), shown, float(certainty))


def presence(
    query: Tensor, objects: Sequence[Tensor], foreground: Tensor, verifier: Verifier | None = None
) -> float:
    """How sure it is that a query shows the object, in 0..1.

    Without a verifier, the mean over the found locations of their similarity to the most similar location of an
    object, times the fourth root of the share of the objects' locations whose most similar place in the query has
    been found.

    Args:
        query: See `evidence`.
        objects: See `evidence`.
        foreground: See `evidence`.
        verifier: What has been learnt from base classes, if anything.
    """
    if verifier is not None:
        return verifier.presence(evidence(query, objects, foreground))
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
