"""Whether what a head has found in a query is what its supports show, learnt from base classes.

Objects of one class differ from one another in some directions of the feature space more than in others. Those of
base classes tell in which, and novel classes share them: similarities are taken after such directions have been
shrunk, as for speakers (Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker
recognition", Interspeech 2006). What was found must also resemble the supports more than any class that is known.

Shapes: C channels, K supports, M objects, N known classes, r directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_DIRECTIONS = 64
# A threshold is to answer this share of absent base classes empty, and to lose no more than this of present ones'
# mean IoU; it is half way between the two that do just that.
EMPTY, LOST = 0.95, 0.01
_NOISE = 0.3  # variance that every direction is given besides its own, as a share of the mean one
_PENALTY = 1e-2  # of squared weights, so that perfectly told classes leave them finite
_MOST_FOLDS = 20


class Evidence(NamedTuple):
    """What an answer rests on.

    Attributes:
        found: Mean feature (C,) of what was found in the query.
        shown: Mean feature of the object in each of K supports, (K, C).
        certainty: Mean foreground probability of what was found, in 0..1.
    """

    found: Tensor
    shown: Tensor
    certainty: float


class Case(NamedTuple):
    """An answer of which it is known whether the query shows the class.

    Attributes:
        class_id: The class that the supports show.
        present: Whether the query shows it.
        iou: Of the answer, in 0..1; 0 where the query does not show the class.
        evidence: What the answer rests on.
    """

    class_id: int
    present: bool
    iou: float
    evidence: Evidence


@dataclass(frozen=True)
class Verifier:
    """Tells present from absent classes.

    Attributes:
        mean: (C,), of all objects.
        directions: (r, C), orthonormal, in which objects of one class differ most.
        kept: (r,) in 0..1, the share of each direction that is kept.
        classes: (N, C), mean features of the known classes.
        weights: Of the mean similarity of what was found to what each support shows, of that to the most similar
            known class, of the certainty, and a constant, in log-odds. (The similarity to the supports' mean would
            be the higher the more there are, and the threshold is chosen with one.)
        threshold: Presence in 0..1 below which a class is taken to be absent.
    """

    mean: Tensor
    directions: Tensor
    kept: Tensor
    classes: Tensor
    weights: tuple[float, float, float, float]
    threshold: float

    def presence(self, evidence: Evidence) -> float:
        """How sure it is that the query shows the class, in 0..1."""
        [statistics] = self.statistics([evidence])
        return float((statistics @ torch.tensor(self.weights, dtype=statistics.dtype)).sigmoid())

    def knowing(self, others: Tensor) -> Verifier:
        """One that also knows other things, given as mean features (n, C)."""
        return replace(self, classes=torch.cat([self.classes, others.to(self.classes)]))

    def statistics(self, evidence: Sequence[Evidence]) -> Tensor:
        """(M, 4), what `weights` weigh, of some answers."""
        found = self._seen(torch.stack([one.found for one in evidence]))
        counts = [len(one.shown) for one in evidence]
        shown = self._seen(torch.cat([one.shown for one in evidence]))
        each = (found.repeat_interleave(torch.tensor(counts), 0) * shown).sum(1)
        similar = torch.stack([of_one.mean() for of_one in each.split(counts)])
        other = (found @ self._seen(self.classes).T).amax(1)
        certainty = found.new_tensor([one.certainty for one in evidence])
        return torch.stack([similar, other, certainty, torch.ones_like(other)], 1)

    def _seen(self, features: Tensor) -> Tensor:
        """Features (M, C) less the mean, with directions shrunk, of unit length."""
        centred = features.cpu().double() - self.mean.double()
        directions = self.directions.double()
        return F.normalize(centred - (centred @ directions.T * (1 - self.kept.double())) @ directions, dim=1)


def fit_verifier(objects: Tensor, classes: Sequence[int], cases: Sequence[Case]) -> Verifier:
    """Learns from base classes.

    Weights and threshold are chosen with every class in turn left out of what is known, since a novel class will
    not be known either.

    Args:
        objects: (M, C), mean features of objects.
        classes: Their M class ids.
        cases: Answers for some of these classes, present and absent ones.

    Raises:
        ValueError: There are fewer than three classes, or no present or no absent case.
    """
    objects, ids = objects.cpu().double(), torch.tensor(list(classes))
    known = torch.unique(ids).tolist()
    present = torch.tensor([case.present for case in cases])
    if len(known) < 3 or not present.any() or present.all():
        raise ValueError(f"{len(known)} classes, {int(present.sum())} of {len(cases)} cases present: too few")
    statistics = torch.zeros(len(cases), 4, dtype=torch.float64)
    for fold in range(min(len(known), _MOST_FOLDS)):
        left_out = known[fold::_MOST_FOLDS]
        rows = [number for number, case in enumerate(cases) if case.class_id in left_out]
        if rows:
            others = ~torch.isin(ids, torch.tensor(left_out))
            verifier = _known(objects[others], ids[others])
            statistics[rows] = verifier.statistics([cases[row].evidence for row in rows])
    weights = _logistic(statistics, present.double())
    odds = statistics @ weights
    ious = torch.tensor([case.iou for case in cases if case.present])
    middle = (torch.quantile(odds[~present], EMPTY) + _affordable(odds[present], ious)) / 2
    whole = _known(objects, ids)
    first, second, third, constant = weights.tolist()
    return Verifier(
        whole.mean.float(),
        whole.directions.float(),
        whole.kept.float(),
        whole.classes.float(),
        (first, second, third, constant),
        float(middle.sigmoid()),
    )


def _known(objects: Tensor, ids: Tensor) -> Verifier:
    """What objects (M, C) of known classes say, without weights."""
    members = [objects[ids == class_id] for class_id in torch.unique(ids)]
    means = torch.stack([of_class.mean(0) for of_class in members])
    spread = torch.cat([of_class - of_class.mean(0) for of_class in members])
    values, vectors = torch.linalg.eigh(spread.T @ spread / len(spread))
    noise = _NOISE * values.clamp(min=0).mean() + torch.finfo(values.dtype).tiny
    top = slice(-MOST_DIRECTIONS, None)
    kept = (noise / (noise + values[top].clamp(min=0))).sqrt()
    return Verifier(objects.mean(0), vectors[:, top].T.contiguous(), kept, means, (0, 0, 0, 0), 0.5)


def _affordable(odds: Tensor, ious: Tensor) -> Tensor:
    """The highest threshold below which log-odds (M,) of present cases, with their IoUs, lose `LOST` at most."""
    order = odds.argsort()
    lost = ious[order].cumsum(0) / len(ious)
    first_kept = min(int((lost <= LOST).sum()), len(ious) - 1)
    return odds[order[first_kept]]


def _logistic(statistics: Tensor, present: Tensor) -> Tensor:
    """Weights (4,) of a logistic regression of 0 and 1 (M,) on statistics (M, 4), the last of which is 1."""
    mean, deviation = statistics.mean(0), statistics.std(0) + 1e-9
    mean[-1], deviation[-1] = 0, 1
    scaled = (statistics - mean) / deviation
    penalty = torch.diag(torch.tensor([_PENALTY] * 3 + [0], dtype=scaled.dtype))
    weights = scaled.new_zeros(4)
    for _ in range(50):  # Newton's method; the penalty keeps it stable
        chance = (scaled @ weights).sigmoid()
        gradient = scaled.T @ (chance - present) / len(present) + penalty @ weights
        curvature = (scaled.T * (chance * (1 - chance))) @ scaled / len(present) + penalty
        step = torch.linalg.solve(curvature + 1e-9 * torch.eye(4, dtype=scaled.dtype), gradient)
        weights = weights - step
        if step.abs().max() < 1e-10:
            break
    weights = weights / deviation
    return torch.cat([weights[:3], (weights[3] - (weights * mean).sum())[None]])
