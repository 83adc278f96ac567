"""Present or absent, as base classes teach it: against plain formulas, and on classes that were not known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fss.models.presence import evidence
from fss.models.verification import Case, Evidence, _affordable, _logistic, fit_verifier

CHANNELS, NUISANCE = 24, 6


def world(classes: int, each: int, seed: int) -> tuple[torch.Tensor, list[int]]:
    """Objects that differ within classes in the first directions alone, and there by more than classes do."""
    chance = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, CHANNELS, generator=chance)
    centres[:, :NUISANCE] = 0
    ids = [number % classes for number in range(classes * each)]
    spread = 0.2 * torch.randn(len(ids), CHANNELS, generator=chance)
    spread[:, :NUISANCE] *= 20
    return centres[ids] + spread, ids


def cases(
    objects: torch.Tensor, ids: list[int], seed: int, count: int = 200, asked: int = 0, shots: int = 1
) -> list[Case]:
    """Half of them of one class, half of two; only classes from `asked` on are asked for."""
    chance = np.random.default_rng(seed)
    made: list[Case] = []
    while len(made) < count:
        found, shown = chance.choice(len(ids), 2, replace=False).tolist()
        present = ids[found] == ids[shown]
        if present == (len(made) % 2 == 0) and ids[shown] >= asked:
            others = [number for number, class_id in enumerate(ids) if class_id == ids[shown] and number != found]
            seen = Evidence(objects[found], objects[chance.permutation(others)[:shots]], chance.uniform(0.6, 0.9))
            made.append(Case(ids[shown], present, 0.6 * present, seen))
    return made


def ranked(scores: np.ndarray, present: np.ndarray) -> float:
    """Share of pairs of a present and an absent case in which the present one has the higher score."""
    return float((scores[present][:, None] > scores[~present]).mean())


def test_classes_that_were_not_known_are_told_apart_better_than_by_cosines() -> None:
    objects, ids = world(20, 20, seed=0)
    known = torch.tensor(ids) < 16
    base = [class_id for class_id in ids if class_id < 16]
    verifier = fit_verifier(objects[known], base, cases(objects[known], base, seed=1))
    asked = cases(objects, ids, seed=3, asked=16)
    present = np.array([case.present for case in asked])
    ours = np.array([verifier.presence(case.evidence) for case in asked])
    plain = np.array([torch.cosine_similarity(*case.evidence[:2]).item() for case in asked])
    assert ranked(plain, present) < 0.8
    assert ranked(ours, present) > 0.97
    assert (ours[~present] < verifier.threshold).mean() > 0.85
    assert (ours[present] > verifier.threshold).mean() > 0.9


def test_statistics_are_those_of_a_plain_loop() -> None:
    objects, ids = world(6, 20, seed=4)
    verifier = fit_verifier(objects, ids, cases(objects, ids, seed=5))
    seen = [case.evidence for shots in (1, 3) for case in cases(objects, ids, seed=6, count=10, shots=shots)]
    mean, kept = verifier.mean.numpy().astype(float), verifier.kept.numpy()
    assert ((kept > 0) & (kept < 1)).all()

    def shrunk(feature: torch.Tensor) -> np.ndarray:
        left = feature.numpy() - mean
        for direction, share in zip(verifier.directions.numpy(), kept, strict=True):
            left = left - (1 - share) * (left @ direction) * direction
        return left / np.linalg.norm(left)

    for one, (similarity, other, certainty, constant) in zip(seen, verifier.statistics(seen), strict=True):
        found = shrunk(one.found)
        assert similarity == pytest.approx(np.mean([found @ shrunk(shown) for shown in one.shown]), abs=1e-5)
        assert other == pytest.approx(max(found @ shrunk(known) for known in verifier.classes), abs=1e-5)
        assert (certainty, constant) == (pytest.approx(one.certainty), 1)
        odds = np.dot(verifier.weights, [similarity, other, certainty, constant])
        assert verifier.presence(one) == pytest.approx(1 / (1 + np.exp(-odds)))


def test_weights_are_those_of_a_general_optimiser() -> None:
    chance = np.random.default_rng(0)
    present = chance.random(300) < 0.5
    columns = chance.normal(size=(300, 3)) * [1, 5, 0.2] + present[:, None] * [0.8, 2, 0.1]
    ours = _logistic(torch.tensor(np.c_[columns, np.ones(300)]), torch.tensor(present).double()).numpy()
    scaled = (columns - columns.mean(0)) / columns.std(0, ddof=1)

    def loss(weights: np.ndarray) -> float:
        odds = scaled @ weights[:3] + weights[3]
        return np.logaddexp(0, np.where(present, -odds, odds)).mean() + 0.005 * (weights[:3] ** 2).sum()

    theirs = minimize(loss, np.zeros(4), tol=1e-10).x
    np.testing.assert_allclose(ours[:3] * columns.std(0, ddof=1), theirs[:3], atol=1e-4)
    assert ours[3] + ours[:3] @ columns.mean(0) == pytest.approx(theirs[3], abs=1e-4)


def test_affordable_threshold_loses_a_hundredth_at_most() -> None:
    chance = np.random.default_rng(1)
    odds, ious = torch.tensor(chance.normal(size=500)), torch.tensor(chance.random(500))
    cut = _affordable(odds, ious)
    lost = ious[odds < cut].sum() / 500
    assert 0.008 < lost <= 0.01
    assert lost + ious[odds == cut].sum() / 500 > 0.01


def test_too_little_to_learn_from() -> None:
    objects, ids = world(4, 10, seed=7)
    known = cases(objects, ids, seed=8, count=20)
    with pytest.raises(ValueError, match="2 classes"):
        fit_verifier(objects[:2], ids[:2], known)
    with pytest.raises(ValueError, match="10 of 10 cases present"):
        fit_verifier(objects, ids, [case for case in known if case.present])


def test_evidence_is_of_what_was_found() -> None:
    query = torch.nn.functional.normalize(torch.rand(5, 4, 4), dim=0)
    foreground = torch.zeros(32, 32)
    foreground[:16, :16] = 0.9
    objects = [torch.rand(3, 5), torch.rand(7, 5)]
    seen = evidence(query, objects, foreground)
    assert seen.certainty == pytest.approx(0.9)
    of_corner = query[:, :2, :2].flatten(1).mean(1)
    assert torch.cosine_similarity(seen.found, of_corner, dim=0) > 0.99
    shown = torch.stack([torch.nn.functional.normalize(one.mean(0), dim=0) for one in objects])
    torch.testing.assert_close(seen.shown, shown)
    nothing = evidence(query, objects, 0.1 * foreground)  # what comes nearest
    assert nothing.certainty == pytest.approx(0.09)
