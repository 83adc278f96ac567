"""Why an answer is as it is."""

from __future__ import annotations

from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone

from fss.models.heads import BAM
from fss.models.segmenter import FewShotSegmenter
from fss.predictor import FewShotPredictor
from fss.web.examples import Shown, coins, motorcycle
from fss.web.session import Session, alike
from fss.web.why import Explanation, cross, draw_resemblance, heat


def explained(training_free: FewShotPredictor, supports: list[Shown], image: np.ndarray) -> Explanation:
    predictor = alike(training_free)
    for shown in supports:
        predictor.fit(shown.image, shown.mask, name=shown.name)
    return Explanation(predictor, supports, image)


def test_the_prior_mask_is_what_the_method_of_its_name_decides_by() -> None:
    """Its margin is twice what the prior mask is above the method's threshold."""
    predictor = FewShotPredictor.load("prior", device="cpu")
    example, session = motorcycle(), Session()
    session.take(example, predictor)
    session.search()
    session.chosen = 1
    prior = session.explain("motorcycle").prior
    expected = session.found[1].margins[0] / 2 + predictor.segmenter.head.threshold
    assert np.allclose(prior, expected, atol=1e-5)
    assert prior.shape == example.queries["without one"].shape[:2]
    assert session.explain("motorcycle").base is None


@pytest.mark.parametrize("point", [(214, 50), (335, 42), (45, 124), (335, 123)])
def test_a_point_resembles_itself_most(training_free: FewShotPredictor, point: tuple[int, int]) -> None:
    """A query that is a support: these backbone's features do not depend on the mask."""
    [shown] = coins().supports
    found = explained(training_free, [shown], shown.image).resemblance(*point)
    assert found.similarity == pytest.approx(1, abs=1e-5)
    assert np.abs(np.subtract(found.at, point)).max() <= 10  # a location covers 9.6 pixels


def test_query_goes_through_the_network_once(
    training_free: FewShotPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    [shown] = coins().supports
    predictor = alike(training_free)
    predictor.fit(shown.image, shown.mask, name=shown.name)
    backbone = type(predictor.segmenter.backbone)
    with monkeypatch.context() as watched:
        stem = mock.Mock(side_effect=partial(backbone.stem, predictor.segmenter.backbone))
        watched.setattr(backbone, "stem", stem)
        Explanation(predictor, [shown], shown.image)
    assert stem.call_count == 2  # query, support


def test_the_support_that_is_resembled_is_told(training_free: FewShotPredictor) -> None:
    [coin] = coins().supports
    noise = np.random.default_rng(0).integers(0, 256, coin.image.shape, np.uint8)
    other = Shown("coin", noise, coin.mask)
    for supports, expected in (([coin, other], 0), ([other, coin], 1)):
        found = explained(training_free, supports, coin.image).resemblance(214, 50)
        assert (found.support, len(found.heat)) == (expected, 2)


def test_similarities_are_known_inside_the_object_alone(training_free: FewShotPredictor) -> None:
    [shown] = coins().supports
    [heat_map] = explained(training_free, [shown], coins().queries["more coins"]).resemblance(3, 3).heat
    assert not np.isfinite(heat_map[~shown.mask]).any()
    assert np.isfinite(heat_map[shown.mask]).mean() > 0.95
    known = heat_map[np.isfinite(heat_map)]
    assert -1 <= known.min() < known.max() <= 1


@pytest.mark.parametrize("point", [(-1, 0), (0, -1), (384, 0), (0, 145)])
def test_points_outside_the_picture(training_free: FewShotPredictor, point: tuple[int, int]) -> None:
    example = coins()
    explanation = explained(training_free, example.supports, example.queries["more coins"])
    with pytest.raises(ValueError, match="outside the picture of 384 x 145 pixels"):
        explanation.resemblance(*point)
    for corner in ((0, 0), (383, 0), (0, 144), (383, 144)):
        explanation.resemblance(*corner)


def test_the_base_map_is_the_base_learners_answer() -> None:
    torch.manual_seed(1)
    head = BAM(CHANNELS, base_classes=3, shot=1, width=8, base_width=8)
    segmenter = FewShotSegmenter(TinyBackbone(), head).eval()
    rng = np.random.default_rng(0)
    image, query = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    predictor = FewShotPredictor(segmenter, 64, device="cpu")
    base = explained(predictor, [Shown("thing", image, mask)], query).base
    images = segmenter.backbone.normalize(torch.from_numpy(query).permute(2, 0, 1)[None].float())
    with torch.inference_mode():
        logits = head.learner_base(segmenter.backbone.upper(segmenter.lower(images)))
        expected = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=True)
    assert base is not None
    assert torch.equal(base, expected[0].argmax(0))


def test_heat_is_dark_where_nothing_is_known() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = heat(np.array([[0.0, 1.0], [np.nan, 0.5]]), image)
    assert (drawn[1, 0] == 30).all()
    assert drawn[0, 1].sum() > drawn[1, 1].sum() > drawn[0, 0].sum() > drawn[1, 0].sum()


def test_resemblances_are_drawn_side_by_side_with_one_cross(training_free: FewShotPredictor) -> None:
    [coin] = coins().supports
    supports = [coin, Shown("coin", np.zeros((100, 50, 3), np.uint8), np.ones((100, 50), bool))]
    found = explained(training_free, supports, coin.image).resemblance(214, 50)
    drawn = draw_resemblance(found, supports, side=100)
    widths = (round(384 * 100 / 158), 50)
    assert drawn.shape == (100, sum(widths) + 6, 3)
    assert (drawn[:, widths[0] : widths[0] + 6] == 255).all()
    x, y = (round(value * 100 / 158) for value in found.at)
    assert (drawn[y, x] == 0).all()
    assert not (drawn[:, widths[0] + 6 :] == 255).all(axis=2).any()


def test_an_object_between_all_locations_is_told(training_free: FewShotPredictor) -> None:
    mask = np.zeros((321, 321), bool)
    mask[4, 4] = True  # locations are 8 pixels apart
    image = np.random.default_rng(0).integers(0, 256, (321, 321, 3), np.uint8)
    with pytest.raises(ValueError, match="so small"):
        explained(training_free, [Shown("dot", image, mask)], image).resemblance(4, 4)


@pytest.mark.parametrize("size", [(8, 8), (1, 50), (300, 4), (7, 3000)])
def test_odd_supports_and_queries(training_free: FewShotPredictor, size: tuple[int, int]) -> None:
    """Pictures of a few pixels, and strips."""
    rng = np.random.default_rng(0)
    mask = np.zeros(size, bool)
    mask[: max(1, size[0] // 2), : size[1] // 2] = True
    shown = Shown("thing", rng.integers(0, 256, (*size, 3), np.uint8), mask)
    for height, width in ((1, 1), (8, 8), (1, 2000), (2000, 3)):
        explanation = explained(training_free, [shown], rng.integers(0, 256, (height, width, 3), np.uint8))
        assert explanation.prior.shape == (height, width)
        found = explanation.resemblance(width - 1, height - 1)
        assert found.heat[0].shape == size
        assert 0 <= found.at[0] < size[1]
        assert 0 <= found.at[1] < size[0]
        drawn = draw_resemblance(found, [shown], side=100)
        assert drawn.shape[0] == 100
        assert drawn.shape[1] <= 300


def test_a_cross_leaves_the_picture_as_it_is() -> None:
    image = np.full((50, 60, 3), 128, np.uint8)
    marked = cross(image, (30, 20))
    assert (marked[20, 30] == 0).all()
    assert (image == 128).all()
