"""Tuning S on supports: kept only where it helps those that are held out, and then used for everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.predictors import predictor, shot

from fss.predictor.adaptation import adapt
from fss.predictor.predictor import FewShotPredictor

pytestmark = pytest.mark.usefixtures("one_thread")


HELPED = (1, 4, 7, 10), 2  # seeds of supports and of a model that tuning helps
NOT_HELPED = (0, 3, 6, 9), 0


def fitted(head: str, seeds: tuple[int, ...], model: int = 0, adapt: bool = False) -> FewShotPredictor:
    found = predictor(head, seed=model)
    return found.fit([shot(n)[0] for n in seeds], [shot(n)[1] for n in seeds], name="cup", adapt=adapt)


def held_out(found: FewShotPredictor) -> float:
    """Mean IoU of supports as queries of the others, at the network's size, by a predictor of the same model."""
    ious = []
    for n, support in enumerate(found.supports("cup")):
        others = [found.network.encode_support(s) for i, s in enumerate(found.supports("cup")) if i != n]
        [query] = found.network.encode_queries([support.image])
        joined = torch.utils._pytree.tree_map(lambda *parts: torch.cat(parts, 1), *[one.head for one in others])
        logits = found.network.decode(query, joined, found.size)
        answered, there, counted = logits.argmax(0) == 1, support.mask == 1, support.mask != 255
        ious.append(float((answered & there).sum() / ((answered | there) & counted).sum()))
    return float(np.mean(ious))


def test_what_is_measured_is_the_held_out_supports() -> None:
    found = fitted("prior", *HELPED)
    done = adapt(found.segmenter, found.supports("cup"))
    assert done.before == pytest.approx(held_out(found), abs=1e-6)
    assert done.after > done.before
    assert done.steps > 0


def test_a_model_that_helps_is_kept_and_only_s_has_moved() -> None:
    seeds, model = HELPED
    before, after = fitted("prior", seeds, model), fitted("prior", seeds, model, adapt=True)
    assert after.adapted is not None
    assert after.adapted.steps > 0
    query = shot(12)[0]
    assert not np.array_equal(before.predict(query).margins, after.predict(query).margins)
    plain, tuned = before.segmenter.state_dict(), after.segmenter.state_dict()
    assert plain.keys() == tuned.keys()  # merged
    moved = {name for name in plain if not torch.allclose(plain[name], tuned[name], atol=1e-6)}
    assert moved
    assert all(name.startswith("backbone.layer") and plain[name].ndim == 4 for name in moved)
    for name in moved:
        U, _, V = torch.linalg.svd(plain[name].flatten(1), full_matrices=False)
        core = U.T @ tuned[name].flatten(1) @ V.T  # diagonal if U and V have stayed
        assert (core - core.diag().diag()).abs().max() < 1e-4
    kept = predictor("prior", seed=model)
    kept.network = after.network
    kept.fit([shot(n)[0] for n in seeds], [shot(n)[1] for n in seeds], name="cup")
    np.testing.assert_array_equal(kept.predict(query).margins, after.predict(query).margins)  # encoded anew


def test_a_model_that_does_not_help_is_not_kept() -> None:
    seeds, model = NOT_HELPED
    before, after = fitted("prior", seeds, model), fitted("prior", seeds, model, adapt=True)
    assert after.adapted is not None
    assert (after.adapted.steps, after.adapted.segmenter) == (0, None)
    assert after.adapted.after == after.adapted.before
    np.testing.assert_array_equal(before.predict(shot(12)[0]).margins, after.predict(shot(12)[0]).margins)


def test_what_cannot_be_adapted() -> None:
    with pytest.raises(ValueError, match="needs 3 supports, not 2"):
        fitted("prior", (0, 3), adapt=True)
    with pytest.raises(ValueError, match="shot=1 got 2 supports"):
        fitted("bam", (0, 3, 6, 9), adapt=True)
    found = fitted("prior", (0, 3, 6))
    with pytest.raises(ValueError, match="one class"):
        found.fit([shot(1)[0]] * 3, [shot(1)[1]] * 3, name="ant", adapt=True)
    assert found.classes == ("cup",)
